//! The `Peer` page of mediasoup v2's API: every property, method and event.

use broth::{Error, PeerEvent};
use serde_json::{Value, json};

use super::support::{Client, House, opus, pending, producer, vp8};

#[tokio::test]
async fn name_closed_and_capabilities_are_what_the_client_joined_with() {
    let house = House::new(0).await;
    let mut capabilities = serde_json::to_value(house.room.rtp_capabilities()).unwrap();
    capabilities["codecs"].as_array_mut().unwrap().truncate(1);
    capabilities["headerExtensions"] = json!([]);
    let members = json!({ "peerName": "alice", "rtpCapabilities": capabilities });
    let (alice, answer) = Client::join(&house.room, members);
    assert_eq!(answer, json!({ "peers": [] }));
    assert_eq!(alice.peer.name(), "alice");
    assert!(!alice.peer.closed());
    assert!(!alice.peer.spy());
    assert_eq!(*alice.peer.room(), house.room);
    let own = serde_json::to_value(alice.peer.rtp_capabilities()).unwrap();
    assert_eq!(own, capabilities);
    alice.peer.close(None);
    assert!(alice.peer.closed());
    assert_eq!(alice.peer.name(), "alice");
    house.server.close().await;
}

#[tokio::test]
async fn app_data_comes_from_join_is_shown_to_others_and_can_be_replaced() {
    let house = House::new(1).await;
    let data = json!({ "displayName": "Alice", "list": [1, null] });
    let (alice, _) = Client::join(&house.room, json!({ "peerName": "alice", "appData": data }));
    let plain = house.join("plain");
    assert_eq!(alice.peer.app_data(), data);
    assert_eq!(plain.peer.app_data(), Value::Null);
    alice.peer.set_app_data(json!(7));
    assert_eq!(alice.peer.app_data(), json!(7));
    let (_, answer) = Client::join(&house.room, json!({ "peerName": "late" }));
    assert_eq!(
        answer["peers"],
        json!([
            { "name": "alice", "consumers": [], "appData": 7 },
            { "name": "plain", "consumers": [] },
        ])
    );
    house.server.close().await;
}

#[tokio::test]
async fn lists_keep_the_order_of_creation_when_one_in_the_middle_closes() {
    let house = House::new(2).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    for (id, direction) in [(30, "send"), (10, "recv"), (20, "send")] {
        alice.create_transport(id, direction).await;
    }
    for (id, ssrc) in [(300, 1000), (100, 2000), (200, 3000)] {
        alice.produce(id, 30, opus(ssrc)).await;
    }
    let consumers = bob.peer.consumers();
    let sources = |consumers: &[broth::Consumer]| ids(consumers, |c| c.source().id());
    assert_eq!(ids(&alice.peer.transports(), |t| t.id()), [30, 10, 20]);
    assert_eq!(ids(&alice.peer.producers(), |p| p.id()), [300, 100, 200]);
    assert_eq!(sources(&consumers), [300, 100, 200]);
    assert!(alice.peer.consumers().is_empty());

    alice.peer.get_transport_by_id(10).unwrap().close(None);
    alice.notify("closeProducer", json!({ "id": 100 })).await;
    alice.create_transport(10, "recv").await;
    alice.produce(100, 20, opus(4000)).await;
    assert_eq!(ids(&alice.peer.transports(), |t| t.id()), [30, 20, 10]);
    assert_eq!(ids(&alice.peer.producers(), |p| p.id()), [300, 200, 100]);
    assert_eq!(sources(&bob.peer.consumers()), [300, 200, 100]);
    consumers[0].close();
    assert_eq!(sources(&bob.peer.consumers()), [200, 100]);
    house.server.close().await;
}

#[tokio::test]
async fn objects_are_found_by_id_and_only_with_their_own_peer() {
    let house = House::new(3).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    let producer = alice.produce(2, 1, opus(1000)).await;
    let consumer = bob.peer.consumers().remove(0);
    let peer = &alice.peer;
    assert_eq!(peer.get_transport_by_id(1).map(|t| t.id()), Some(1));
    assert_eq!(peer.get_producer_by_id(2), Some(producer.clone()));
    let found = bob.peer.get_consumer_by_id(consumer.id());
    assert_eq!(found, Some(consumer.clone()));
    let found = bob.peer.get_consumer_for_source(&producer);
    assert_eq!(found, Some(consumer.clone()));

    assert_eq!(peer.get_transport_by_id(2), None);
    assert_eq!(peer.get_producer_by_id(1), None);
    assert_eq!(peer.get_consumer_by_id(consumer.id()), None);
    assert_eq!(bob.peer.get_transport_by_id(1), None);
    assert_eq!(bob.peer.get_producer_by_id(2), None);
    assert_eq!(peer.get_consumer_for_source(&producer), None);

    producer.close(None);
    assert_eq!(peer.get_producer_by_id(2), None);
    assert_eq!(bob.peer.get_consumer_by_id(consumer.id()), None);
    house.server.close().await;
}

#[tokio::test]
async fn events_come_with_their_payload_and_in_order() {
    let house = House::new(4).await;
    let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
    let members = json!({ "id": 5, "direction": "send", "appData": { "t": 1 } });
    alice.request("createTransport", members).await.unwrap();
    let mut members = producer(6, 5, vp8(1000));
    members["appData"] = json!({ "p": 2 });
    alice.request("createProducer", members).await.unwrap();

    let events = alice.settle().await;
    let [
        PeerEvent::Notify(_),
        PeerEvent::NewTransport(transport),
        PeerEvent::NewProducer(producer),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    let web_rtc = transport.as_web_rtc().unwrap();
    assert_eq!((transport.id(), web_rtc.direction()), (5, "send"));
    assert_eq!(transport.app_data(), json!({ "t": 1 }));
    assert_eq!(transport.peer(), Some(&alice.peer));
    assert_eq!(web_rtc.ice_role(), "controlled");
    assert_eq!((producer.id(), producer.kind().as_str()), (6, "video"));
    assert_eq!(producer.app_data(), json!({ "p": 2 }));
    assert_eq!(producer.transport(), transport);

    let events = bob.settle().await;
    let [PeerEvent::NewConsumer(consumer), PeerEvent::Notify(told)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(consumer.source(), producer);
    assert_eq!(
        (consumer.peer(), consumer.owner()),
        (&alice.peer, Some(&bob.peer))
    );
    assert_eq!(consumer.app_data(), json!({ "p": 2 }));
    assert!(!consumer.enabled() && !consumer.paused() && !consumer.closed());
    let parameters = serde_json::to_value(consumer.rtp_parameters()).unwrap();
    assert_eq!(
        *told,
        json!({
            "method": "newConsumer", "target": "peer", "notification": true,
            "id": consumer.id(), "kind": "video", "peerName": "alice",
            "rtpParameters": parameters, "paused": false, "appData": { "p": 2 },
            "preferredProfile": "default", "effectiveProfile": null,
        })
    );
    assert_eq!(parameters["codecs"][0]["payloadType"], 101);
    assert_eq!(parameters["encodings"].as_array().unwrap().len(), 1);
    assert_eq!(parameters.get("muxId"), None);
    house.server.close().await;
}

#[tokio::test]
async fn who_joins_later_finds_what_is_there_in_the_answer_and_in_its_events() {
    let house = House::new(5).await;
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    let audio = alice.produce(2, 1, opus(1000)).await;
    let video = alice.produce(3, 1, vp8(2000)).await;
    audio.pause(None);
    let (mut bob, answer) = Client::join(&house.room, json!({ "peerName": "bob" }));
    let consumers = bob.peer.consumers();
    let sources: Vec<_> = consumers.iter().map(|c| c.source().clone()).collect();
    assert_eq!(sources, [audio, video]);
    let told = &answer["peers"][0]["consumers"];
    for (at, is_paused) in [(0, true), (1, false)] {
        assert_eq!(told[at]["id"], consumers[at].id());
        assert_eq!(told[at]["paused"], is_paused);
        assert_eq!(consumers[at].source_paused(), is_paused);
    }
    let seen = bob.settle().await.into_iter().map(|event| match event {
        PeerEvent::NewConsumer(consumer) => consumer,
        other => panic!("{other:?}"),
    });
    assert_eq!(seen.collect::<Vec<_>>(), consumers);
    assert!(pending(&mut consumers[0].events()).is_empty());
    house.server.close().await;
}

#[tokio::test]
async fn requests_and_notifications_are_checked_before_they_are_handled() {
    let house = House::new(6).await;
    let alice = house.join("alice");
    let rows = [
        (json!(null), "wrong request Object"),
        (json!(["createTransport"]), "wrong request Object"),
        (
            json!({ "method": "createTransport", "notification": true }),
            "not a request",
        ),
        (json!({ "target": "peer" }), "wrong/missing request method"),
        (json!({ "method": 1 }), "wrong/missing request method"),
    ];
    for (request, expected) in rows {
        let error = alice.peer.receive_request(request).await.unwrap_err();
        assert_eq!(error, Error::Type(expected.into()));
    }
    let error = alice.request("join", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown request method \"join\"");
    let rows = [
        (json!(null), "wrong notification Object"),
        (json!({ "method": "leave" }), "not a notification"),
        (
            json!({ "method": "leave", "notification": 1 }),
            "not a notification",
        ),
        (
            json!({ "notification": true }),
            "wrong/missing notification method",
        ),
    ];
    for (message, expected) in rows {
        let received = alice.peer.receive_notification(message).await;
        assert_eq!(received, Err(Error::Type(expected.into())));
    }
    // What goes wrong inside a notification is only logged.
    alice.notify("updateProducer", json!({ "id": 1 })).await;
    alice.notify("pauseProducer", json!({ "id": 1 })).await;

    alice.peer.close(None);
    let closed = Error::InvalidState("Room closed".into());
    let request = json!({ "method": "createTransport" });
    let refused = alice.peer.receive_request(request).await;
    assert_eq!(refused, Err(closed.clone()));
    let message = json!({ "method": "leave", "notification": true });
    let refused = alice.peer.receive_notification(message).await;
    assert_eq!(refused, Err(closed));
    house.server.close().await;
}

fn ids<T>(objects: &[T], id: impl Fn(&T) -> u32) -> Vec<u32> {
    objects.iter().map(id).collect()
}
