//! Who hears of what first, and who started it.

use broth::{
    CloseReason, ConsumerEvent, DtlsRole, Error, Originator, PeerEvent, RoomEvent, RoomOptions,
    ServerEvent, TransportEvent,
};
use serde_json::{Value, json};

use super::support::{Client, House, Recorder, codecs, dtls, opus, pending, producer, vp8};

/// Logs what a peer's events say.
fn watch(log: &Recorder, client: &Client) {
    let name = client.peer.name().to_owned();
    log.watch(client.peer.events(), move |event| {
        Some(match event {
            PeerEvent::Notify(message) => format!("{name} {}", message["method"].as_str()?),
            PeerEvent::NewTransport(_) => format!("{name} newtransport"),
            PeerEvent::NewProducer(_) => format!("{name} newproducer"),
            PeerEvent::NewConsumer(_) => format!("{name} newconsumer"),
            PeerEvent::WorkerDied(_) => format!("{name} workerdied"),
            PeerEvent::Recovered(_) => format!("{name} recovered"),
            PeerEvent::Moved(_) => format!("{name} moved"),
            PeerEvent::Close { originator, .. } => format!("{name} close {originator:?}"),
        })
    });
}

#[tokio::test]
async fn a_server_closes_before_its_rooms_and_they_before_their_peers() {
    let house = House::new(103).await;
    let alice = house.join("alice");
    let mut events = house.server.events();
    let seen = pending(&mut events);
    let is_room =
        |event: &ServerEvent| matches!(event, ServerEvent::NewRoom(room) if *room == house.room);
    assert_eq!(seen.iter().filter(|event| is_room(event)).count(), 1);
    let codecs = codecs();
    let other = house.server.room(&codecs, RoomOptions::default());
    let other = other.await.unwrap();
    // Told before the room is handed out.
    let seen = pending(&mut events);
    assert!(matches!(&seen[..], [ServerEvent::NewRoom(room)] if *room == other));
    other.close(None);

    let log = Recorder::default();
    log.watch(events, |event| match event {
        ServerEvent::Close => Some("server".into()),
        other => Some(format!("{other:?}")),
    });
    log.watch(house.room.events(), |event| match event {
        RoomEvent::Close { reason, app_data } => {
            assert_eq!((reason, app_data), (CloseReason::Server, None));
            Some("room".into())
        }
        _ => None,
    });
    watch(&log, &alice);
    log.take().await;
    house.server.close().await;
    let expected = ["server", "room", "alice closed", "alice close Local"];
    assert_eq!(log.take().await, expected);
}

#[tokio::test]
async fn a_newcomer_is_told_to_clients_then_to_the_application() {
    let house = House::new(104).await;
    let (alice, _) = Client::join(&house.room, json!({ "peerName": "alice" }));
    let (spy, _) = Client::join(&house.room, json!({ "peerName": "spy", "spy": true }));
    let log = Recorder::default();
    log.watch(house.room.events(), |event| match event {
        RoomEvent::NewPeer(peer) => Some(format!("new {}", peer.name())),
        other => Some(format!("{other:?}")),
    });
    watch(&log, &alice);
    watch(&log, &spy);
    assert_eq!(log.take().await, ["new alice", "new spy"]);
    house.join("bob");
    assert_eq!(
        log.take().await,
        ["alice newPeer", "spy newPeer", "new bob"]
    );
    // A spy comes and goes without a word to the clients.
    let request = json!({ "method": "join", "peerName": "other", "spy": true,
        "rtpCapabilities": house.room.rtp_capabilities() });
    let (other, _) = house.room.join(request).unwrap();
    other.close(None);
    assert_eq!(log.take().await, ["new other"]);
    house.server.close().await;
}

#[tokio::test]
async fn a_new_producer_is_told_to_the_others_then_to_its_owner_then_answered() {
    let house = House::new(105).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    let log = Recorder::default();
    watch(&log, &alice);
    log.take().await;
    alice.create_transport(1, "recv").await;
    assert_eq!(log.take().await, ["alice newtransport"]);
    bob.told().await;
    // On a transport for receiving: gateways do so.
    let members = producer(2, 1, opus(1000));
    let request = alice.request("createProducer", members);
    let answer = request.await.unwrap();
    // Nothing was waited for in between.
    let seen = pending(&mut bob.events);
    assert!(
        matches!(
            &seen[..],
            [PeerEvent::NewConsumer(_), PeerEvent::Notify(message)]
                if message["method"] == "newConsumer"
        ),
        "{seen:?}"
    );
    assert_eq!(answer, Value::Null);
    watch(&log, &bob);
    log.take().await;
    alice.produce(3, 1, opus(2000)).await;
    let expected = ["bob newconsumer", "bob newConsumer", "alice newproducer"];
    let seen = log.take().await;
    // Streams of two peers are read by turns; each keeps its order.
    for name in ["alice", "bob"] {
        let of = |lines: &[String]| -> Vec<String> {
            let own = lines.iter().filter(|line| line.starts_with(name));
            own.cloned().collect()
        };
        assert_eq!(of(&seen), of(&expected.map(String::from)));
    }
    house.server.close().await;
}

#[tokio::test]
async fn a_consumer_is_paused_before_it_is_handled_and_handled_before_the_answer() {
    let house = House::new(106).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    let consumer = bob.peer.get_consumer_for_source(&source).unwrap();
    let mut events = consumer.events();
    let members = json!({ "id": consumer.id(), "transportId": 2, "paused": true });
    let answer = bob.request("enableConsumer", members).await.unwrap();
    let seen = pending(&mut events);
    assert!(
        matches!(
            seen[..],
            [
                ConsumerEvent::Pause {
                    originator: Originator::Remote,
                    app_data: None
                },
                ConsumerEvent::Handled
            ]
        ),
        "{seen:?}"
    );
    // The client knows of its own pause.
    assert_eq!(answer["paused"], false);
    assert!(consumer.paused() && consumer.remotely_paused() && !consumer.locally_paused());
    // Unhandled with its transport, handled again on another.
    bob.create_transport(4, "recv").await;
    bob.peer.get_transport_by_id(2).unwrap().close(None);
    assert!(!consumer.enabled() && consumer.transport().is_none());
    let members = json!({ "id": consumer.id(), "transportId": 4 });
    bob.request("enableConsumer", members).await.unwrap();
    let seen = pending(&mut events);
    assert!(
        matches!(seen[..], [ConsumerEvent::Unhandled, ConsumerEvent::Handled]),
        "{seen:?}"
    );
    assert!(consumer.enabled());
    house.server.close().await;
}

#[tokio::test]
async fn a_transport_whose_dtls_is_refused_closes_without_a_word_to_its_client() {
    let house = House::new(107).await;
    let mut alice = house.join("alice");
    let value = ["AB"; 20].join(":");
    let members = json!({ "id": 1, "direction": "send", "dtlsParameters":
        { "role": "client", "fingerprints": [{ "algorithm": "md5", "value": value }] } });
    let refused = alice.request("createTransport", members).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "unsupported remote fingerprint algorithm"
    );
    let events = alice.settle().await;
    let [PeerEvent::NewTransport(transport)] = &events[..] else {
        panic!("{events:?}");
    };
    let seen = pending(&mut transport.events());
    assert!(
        matches!(
            &seen[..],
            [TransportEvent::Close {
                originator: Originator::Remote,
                app_data: None
            }]
        ),
        "{seen:?}"
    );
    assert_eq!(house.counts().await, [0, 0, 0]);
    // The id is free.
    alice.create_transport(1, "send").await;
    house.server.close().await;
}

#[tokio::test]
async fn the_local_dtls_role_follows_the_remote_one_and_refused_parameters_can_be_corrected() {
    let house = House::new(108).await;
    let alice = house.join("alice");
    for (id, role, expected) in [
        (1, json!("client"), DtlsRole::Server),
        (2, json!("server"), DtlsRole::Client),
        (3, json!("auto"), DtlsRole::Client),
        (4, json!(null), DtlsRole::Client),
    ] {
        alice.create_transport(id, "recv").await;
        let transport = alice.web_rtc(id);
        assert_eq!(transport.dtls_local_parameters().role, DtlsRole::Auto);
        let mut parameters = dtls("client");
        parameters["role"] = role;
        let members = json!({ "id": id, "dtlsParameters": parameters });
        alice.notify("updateTransport", members).await;
        assert_eq!(transport.dtls_local_parameters().role, expected, "{id}");
        let known = transport.dtls_remote_parameters().unwrap();
        assert_eq!(known.fingerprints.len(), 1);
    }
    alice.create_transport(5, "recv").await;
    let transport = alice.web_rtc(5);
    let good: broth::DtlsParameters = serde_json::from_value(dtls("client")).unwrap();
    let mut bad = good.clone();
    bad.fingerprints[0].algorithm = "SHA-256".into();
    let refused = transport.set_remote_dtls_parameters(bad).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "unsupported remote fingerprint algorithm"
    );
    assert_eq!(transport.dtls_local_parameters().role, DtlsRole::Auto);
    transport
        .set_remote_dtls_parameters(good.clone())
        .await
        .unwrap();
    assert_eq!(transport.dtls_local_parameters().role, DtlsRole::Server);
    let refused = transport
        .set_remote_dtls_parameters(good)
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Transport already has remote DTLS parameters"
    );
    assert!(!transport.closed());
    house.server.close().await;
}

#[tokio::test]
async fn messages_of_one_client_are_handled_in_the_order_they_were_given() {
    let house = House::new(125).await;
    let alice = house.join("alice");
    for round in 0..10 {
        let transport = json!({ "id": 1, "direction": "send" });
        // Each is of use only after the one before it.
        let (created, produced, (), restarted, ()) = tokio::join!(
            alice.request("createTransport", transport),
            alice.request("createProducer", producer(2, 1, opus(1000))),
            alice.notify("pauseProducer", json!({ "id": 2 })),
            alice.request("restartTransport", json!({ "id": 1 })),
            alice.notify("closeTransport", json!({ "id": 1 })),
        );
        assert!(
            created.is_ok() && produced.is_ok() && restarted.is_ok(),
            "{round}"
        );
        assert_eq!(house.counts().await, [0, 0, 0]);
    }
    house.server.close().await;
}

#[tokio::test]
async fn errors_of_a_join_and_of_a_producer_come_in_v2s_order() {
    let house = House::new(126).await;
    let spy = json!({ "peerName": "spy", "spy": true });
    let (spy, _) = Client::join(&house.room, spy);
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    spy.create_transport(2, "send").await;
    let foreign = json!({ "codecs": [{ "name": "x", "clockRate": 1, "preferredPayloadType": 1 }],
        "headerExtensions": [{ "uri": "urn:x", "preferredId": 1 }] });
    // Each row takes away the reason of the one before it.
    let mut request = json!({ "method": "join", "notification": true });
    let rows = [
        ("notification", json!(false), "peerName must be a string"),
        (
            "peerName",
            json!("alice"),
            "duplicated Peer [peerName:\"alice\"]",
        ),
        (
            "peerName",
            json!("bob"),
            "rtpCapabilities must be an object",
        ),
        ("rtpCapabilities", foreign, "unsupported codec"),
        (
            "rtpCapabilities",
            json!({ "codecs": [], "headerExtensions": [{ "uri": "urn:x", "preferredId": 1 }] }),
            "unsupported header extension [kind:undefined, uri:urn:x]",
        ),
    ];
    for (member, value, expected) in rows {
        request[member] = value;
        let refused = house.room.receive_request(request.clone()).await;
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        let is_type = matches!(refused, Error::Type(_));
        assert_eq!(is_type, expected.contains("must be"), "{refused}");
    }
    let mut members = json!({ "id": 3 });
    let text = async |client: &Client, members: &Value| {
        let refused = client.request("createProducer", members.clone()).await;
        refused.unwrap_err().to_string()
    };
    assert_eq!(text(&spy, &members).await, "unsupported kind: undefined");
    members["kind"] = json!("audio");
    assert_eq!(
        text(&spy, &members).await,
        "spy peers cannot create producers"
    );
    assert!(
        text(&alice, &members)
            .await
            .starts_with("wrong RTP parameters: ")
    );
    members["rtpParameters"] = opus(1000);
    assert_eq!(text(&alice, &members).await, "WebRtcTransport not found");
    members["transportId"] = json!(1);
    alice.request("createProducer", members).await.unwrap();
    house.server.close().await;
}
