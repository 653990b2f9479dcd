//! What comes, goes and comes again: objects under the same id, peers under the same name, audio
//! levels, statistics.

use std::time::{Duration, Instant};

use broth::{ConsumerEvent, Originator, ProducerEvent, TransportEvent};
use serde_json::{Value, json};

use super::support::{Client, House, Recorder, opus, pending, soon, vp8, wait_for};

#[tokio::test]
async fn a_transport_made_anew_is_not_hit_by_the_end_of_the_old_one() {
    let house = House::new(60).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    let source = alice.produce(2, 1, vp8(1000)).await;
    bob.create_transport(9, "recv").await;
    let consumer = bob.consume(&source, 9).await;
    for round in 0..30 {
        let old = bob.peer.get_transport_by_id(9).unwrap();
        match round % 3 {
            0 => old.close(None),
            1 => bob.notify("closeTransport", json!({ "id": 9 })).await,
            // A second update, refused, closes it too.
            _ => {
                let members = json!({ "id": 9, "dtlsParameters": {} });
                bob.notify("updateTransport", members).await;
            }
        }
        assert!(old.closed() && !consumer.enabled());
        bob.create_transport(9, "recv").await;
        bob.consume(&source, 9).await;
        bob.settle().await;
        let new = bob.peer.get_transport_by_id(9).unwrap();
        assert!(new != old && !new.closed() && consumer.enabled());
        assert!(pending(&mut new.events()).is_empty());
    }
    assert_eq!(house.counts().await, [2, 1, 1]);
    house.server.close().await;
}

#[tokio::test]
async fn a_producer_made_anew_has_consumers_of_its_own() {
    let house = House::new(61).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    for _ in 0..20 {
        let producer = alice.produce(2, 1, vp8(1000)).await;
        let consumer = bob.peer.get_consumer_for_source(&producer).unwrap();
        alice.notify("closeProducer", json!({ "id": 2 })).await;
        assert!(producer.closed() && consumer.closed());
    }
    let last = alice.produce(2, 1, vp8(1000)).await;
    let told = bob.told().await;
    assert_eq!(told.len(), 41);
    let mut open = Vec::new();
    for message in told {
        let id = message["id"].clone();
        match message["method"].as_str() {
            Some("newConsumer") => open.push(id),
            Some("consumerClosed") => open.retain(|other| *other != id),
            other => panic!("{other:?}"),
        }
    }
    let consumer = bob.peer.get_consumer_for_source(&last).unwrap();
    assert_eq!(open, [json!(consumer.id())]);
    assert!(!consumer.closed());
    house.server.close().await;
}

#[tokio::test]
async fn a_transport_takes_its_producers_along_and_leaves_its_consumers_waiting() {
    for is_local in [true, false] {
        let house = House::new(62).await;
        let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
        alice.create_transport(1, "send").await;
        bob.create_transport(2, "send").await;
        let own = alice.produce(3, 1, vp8(1000)).await;
        let other = bob.produce(4, 2, vp8(1000)).await;
        let consumer = alice.consume(&other, 1).await;
        let transport = alice.web_rtc(1);
        let of_bob = bob.peer.get_consumer_for_source(&own).unwrap();
        let log = Recorder::default();
        log.watch(own.events(), |event| match event {
            ProducerEvent::Close { originator, .. } => Some(format!("producer {originator:?}")),
            other => Some(format!("{other:?}")),
        });
        log.watch(of_bob.events(), |event| Some(format!("bob's {event:?}")));
        log.watch(consumer.events(), |event| match event {
            ConsumerEvent::Handled => None,
            other => Some(format!("{other:?}")),
        });
        log.watch(transport.events(), |event| match event {
            TransportEvent::Close {
                originator,
                app_data,
            } => Some(format!("transport {originator:?} {app_data:?}")),
            other => Some(format!("{other:?}")),
        });
        alice.told().await;
        bob.told().await;
        log.take().await;
        let end = match is_local {
            true => {
                transport.close(Some(json!(1)));
                "transport Local Some(Number(1))"
            }
            false => {
                let members = json!({ "id": 1, "appData": 1 });
                alice.notify("closeTransport", members).await;
                "transport Remote Some(Number(1))"
            }
        };
        let expected = ["producer Local", "bob's Close", "Unhandled", end];
        assert_eq!(log.take().await, expected);
        let told = json!({ "method": "transportClosed", "id": 1, "appData": 1 });
        let told = is_local.then_some(told);
        assert_eq!(alice.told().await, Vec::from_iter(told));
        let told = json!({ "method": "consumerClosed", "id": of_bob.id(), "peerName": "alice" });
        assert_eq!(bob.told().await, [told]);
        assert_eq!(transport.ice_state(), broth::IceState::Closed);
        assert_eq!(transport.dtls_state(), broth::DtlsState::Closed);
        assert_eq!(transport.ice_selected_tuple(), None);
        assert!(!consumer.closed() && consumer.transport().is_none());
        assert_eq!(consumer.get_stats().await.unwrap().len(), 0);
        assert_eq!(house.counts().await, [1, 1, 1]);
        let text = transport.get_stats().await.unwrap_err().to_string();
        assert_eq!(text, "WebRtcTransport closed");
        let text = own.get_stats().await.unwrap_err().to_string();
        assert_eq!(text, "Producer closed");
        let text = of_bob.get_stats().await.unwrap_err().to_string();
        assert_eq!(text, "Consumer closed");
        house.server.close().await;
    }
}

#[tokio::test]
async fn the_client_closes_its_producer_without_an_echo() {
    let house = House::new(123).await;
    let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    let source = alice.produce(2, 1, vp8(1000)).await;
    let consumer = bob.peer.get_consumer_for_source(&source).unwrap();
    let mut events = source.events();
    alice.told().await;
    bob.told().await;
    let members = json!({ "id": 2, "appData": { "why": 1 } });
    alice.notify("closeProducer", members.clone()).await;
    alice.notify("closeProducer", members).await;
    let seen = pending(&mut events);
    let [
        ProducerEvent::Close {
            originator,
            app_data,
        },
    ] = &seen[..]
    else {
        panic!("{seen:?}");
    };
    let expected = (Originator::Remote, Some(json!({ "why": 1 })));
    assert_eq!((*originator, app_data.clone()), expected);
    assert!(alice.told().await.is_empty());
    let told = json!({ "method": "consumerClosed", "id": consumer.id(), "peerName": "alice" });
    assert_eq!(bob.told().await, [told]);
    assert_eq!(house.counts().await, [1, 0, 0]);
    house.server.close().await;
}

#[tokio::test]
async fn a_consumer_that_closes_while_it_is_being_enabled_stays_closed() {
    let house = House::new(124).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    for turns in 0..8 {
        let source = alice.produce(3, 1, vp8(1000)).await;
        let consumer = bob.peer.get_consumer_for_source(&source).unwrap();
        let members = json!({ "id": consumer.id(), "transportId": 2 });
        let close = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            consumer.close();
        };
        let (answer, ()) = tokio::join!(bob.request("enableConsumer", members), close);
        if let Err(error) = answer {
            let text = error.to_string();
            assert!(
                ["Consumer closed", "Consumer not found"].contains(&text.as_str()),
                "{text}"
            );
        }
        bob.settle().await;
        assert!(consumer.closed() && bob.peer.consumers().is_empty());
        source.close(None);
        assert_eq!(house.counts().await, [2, 0, 0]);
    }
    house.server.close().await;
}

#[tokio::test]
async fn a_closed_consumer_leaves_its_producer_alone() {
    let house = House::new(63).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    let source = alice.produce(2, 1, vp8(1000)).await;
    bob.create_transport(3, "recv").await;
    let consumer = bob.consume(&source, 3).await;
    let mut events = consumer.events();
    bob.told().await;
    consumer.close();
    consumer.close();
    let expected = json!({ "method": "consumerClosed", "id": consumer.id(), "peerName": "alice" });
    assert_eq!(bob.told().await, [expected]);
    assert!(!source.closed());
    let seen = pending(&mut events);
    assert!(matches!(
        seen[..],
        [ConsumerEvent::Handled, ConsumerEvent::Close]
    ));
    assert!(!consumer.pause(None) && !consumer.resume(None));
    assert_eq!(house.counts().await, [2, 1, 0]);
    house.server.close().await;
}

#[tokio::test]
async fn who_left_can_join_again_under_the_same_name_with_the_same_ids() {
    let house = House::new(64).await;
    let mut bob = house.join("bob");
    for round in 0..10 {
        let alice = house.join("alice");
        alice.create_transport(1, "send").await;
        alice.produce(2, 1, vp8(1000)).await;
        match round % 2 {
            0 => alice.notify("leave", json!({})).await,
            _ => alice.peer.close(None),
        }
        // What it still sends is refused, and hits nobody who has its name now.
        let again = house.join("alice");
        let members = json!({ "id": 1, "direction": "send" });
        let late = alice.request("createTransport", members).await;
        assert_eq!(late.unwrap_err().to_string(), "Room closed");
        assert!(again.peer.transports().is_empty());
        again.notify("leave", json!({})).await;
        let methods: Vec<_> = bob.told().await;
        let methods: Vec<_> = methods.iter().map(|m| m["method"].as_str()).collect();
        let expected = [
            "newPeer",
            "newConsumer",
            "peerClosed",
            "newPeer",
            "peerClosed",
        ];
        assert_eq!(methods, expected.map(Some));
    }
    assert_eq!(house.counts().await, [0, 0, 0]);
    house.server.close().await;
}

#[tokio::test]
async fn a_request_under_way_when_its_client_leaves_leaves_nothing() {
    let house = House::new(65).await;
    let bob = house.join("bob");
    for n in 0..40 {
        let alice = house.join("alice");
        alice.create_transport(1, "send").await;
        let members = match n % 2 {
            0 => ("createTransport", json!({ "id": 2, "direction": "send" })),
            _ => ("createProducer", super::support::producer(2, 1, opus(1000))),
        };
        let (request, leave) = (
            alice.request(members.0, members.1),
            alice.notify("leave", json!({})),
        );
        let (answer, ()) = tokio::join!(request, leave);
        assert!(answer.is_err());
        assert_eq!(house.counts().await, [0, 0, 0]);
        assert!(bob.peer.consumers().is_empty());
    }
    house.server.close().await;
}

#[tokio::test]
async fn audio_levels_are_measured_while_somebody_listens() {
    let house = House::new(66).await;
    let is_measured = async || house.room.dump().await.unwrap().audio_levels_event_enabled;
    assert!(!is_measured().await);
    let mut levels = house.room.audio_levels();
    let other = house.room.audio_levels();
    assert!(is_measured().await);
    drop(other);
    let heard = soon("levels", levels.recv()).await;
    assert_eq!(heard, Some(vec![]));
    let first = Instant::now();
    assert!(is_measured().await);
    drop(levels);
    // The next report finds nobody.
    let silent = async {
        while is_measured().await {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the reports", silent).await;
    // Half a second, less what the first was late.
    assert!(first.elapsed() > Duration::from_millis(250));
    let mut levels = house.room.audio_levels();
    assert!(is_measured().await);
    house.room.close(None);
    let end = async { while levels.recv().await.is_some() {} };
    soon("the end of the stream", end).await;
    let mut levels = house.room.audio_levels();
    assert_eq!(soon("the end", levels.recv()).await, None);
    house.server.close().await;
}

#[tokio::test]
async fn statistics_are_sent_at_once_then_again_until_disabled() {
    let house = House::new(67).await;
    let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    let source = alice.produce(2, 1, vp8(1000)).await;
    bob.create_transport(3, "recv").await;
    let consumer = bob.peer.get_consumer_for_source(&source).unwrap();
    alice
        .notify("enableTransportStats", json!({ "id": 1 }))
        .await;
    let told = alice.hear("transportStats").await;
    assert_eq!(
        (&told["id"], &told["stats"][0]["id"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(told["stats"][0]["type"], "transport");
    // A shorter interval counts as the shortest one; a second wish counts for nothing.
    let members = json!({ "id": 1, "interval": 10 });
    alice.notify("enableTransportStats", members).await;
    alice.hear("transportStats").await;
    alice
        .notify("disableTransportStats", json!({ "id": 1 }))
        .await;

    let members = json!({ "id": 2, "interval": 1 });
    alice.notify("enableProducerStats", members).await;
    assert_eq!(alice.hear("producerStats").await["id"], 2);
    alice
        .notify("disableProducerStats", json!({ "id": 2 }))
        .await;
    alice.told().await;

    // Not enabled, then paused: no stats.
    let members = json!({ "id": consumer.id(), "interval": 1 });
    bob.notify("enableConsumerStats", members).await;
    bob.consume(&source, 3).await;
    let told = bob.hear("consumerStats").await;
    let expected = json!({ "method": "consumerStats", "id": consumer.id(), "peerName": "alice",
        "stats": told["stats"] });
    assert_eq!(told, expected);
    // Its end is the end of its statistics.
    consumer.close();
    bob.hear("consumerClosed").await;
    let members = json!({ "id": consumer.id(), "interval": 1 });
    bob.notify("enableConsumerStats", members).await;
    assert!(bob.told().await.is_empty());
    assert!(alice.told().await.is_empty());
    house.server.close().await;
}

#[tokio::test]
async fn limits_of_bitrate_are_for_sending_transports() {
    let house = House::new(68).await;
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    alice.create_transport(2, "recv").await;
    let (send, recv) = (alice.web_rtc(1), alice.web_rtc(2));
    let limit = async || {
        let stats = send.get_stats().await.unwrap();
        stats[0].local_available_send_bw.max_bitrate
    };
    for (bitrate, expected) in [(300_000, 300_000), (1, 10_000), (0, 0)] {
        send.set_max_bitrate(bitrate).await.unwrap();
        assert_eq!(limit().await, Some(expected));
    }
    let error = recv.set_max_bitrate(1).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid WebRtcTransport direction");
    send.close(None);
    let error = send.set_max_bitrate(1).await.unwrap_err();
    assert_eq!(error.to_string(), "WebRtcTransport closed");
    house.server.close().await;
}

#[tokio::test]
async fn an_application_closes_by_itself_what_its_clients_made() {
    let house = House::new(69).await;
    let (alice, _) = Client::join(&house.room, json!({ "peerName": "alice" }));
    alice.create_transport(1, "send").await;
    let transport = alice.peer.get_transport_by_id(1).unwrap();
    let mut events = transport.events();
    let closing = transport.clone();
    tokio::spawn(async move { closing.close(Some(json!("why"))) });
    let end = wait_for(&mut events, "the close event", |event| match event {
        TransportEvent::Close {
            originator,
            app_data,
        } => Some((*originator, app_data.clone())),
        _ => None,
    });
    let expected: (Originator, Option<Value>) = (Originator::Local, Some(json!("why")));
    assert_eq!(end.await, expected);
    assert!(alice.peer.transports().is_empty());
    house.server.close().await;
}
