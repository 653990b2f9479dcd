//! The mediasoup protocol from join to leave, as two clients and a spy hear it.

use broth::{ConsumerEvent, Error, TransportEvent};
use serde_json::{Value, json};

use super::support::{Client, House, dtls, opus, pending, producer, simulcast, vp8};

#[tokio::test]
async fn alice_and_bob_meet_and_part() {
    let house = House::new(20).await;
    let room = &house.room;
    // 1, 2: both join; who was there hears of who comes.
    let request = json!({ "method": "queryRoom", "target": "room" });
    let answer = room.receive_request(request).await.unwrap();
    assert_eq!(answer["mandatoryCodecPayloadTypes"], json!([]));
    let capabilities = serde_json::to_value(room.rtp_capabilities()).unwrap();
    assert_eq!(answer["rtpCapabilities"], capabilities);
    let (mut alice, answer) = Client::join(room, json!({ "peerName": "alice" }));
    assert_eq!(answer, json!({ "peers": [] }));
    let members = json!({ "peerName": "bob", "appData": { "x": 1 } });
    let (mut bob, answer) = Client::join(room, members);
    assert_eq!(
        answer,
        json!({ "peers": [{ "consumers": [], "name": "alice" }] })
    );
    assert_eq!(
        alice.told().await,
        [json!({ "method": "newPeer", "consumers": [], "name": "bob", "appData": { "x": 1 } })]
    );

    // 3: alice is DTLS server, so broth is the client.
    let members = json!({ "id": 11, "direction": "send", "dtlsParameters": dtls("server") });
    let answer = alice.request("createTransport", members).await.unwrap();
    assert_eq!(answer["dtlsParameters"]["role"], "client");
    let algorithms: Vec<_> = answer["dtlsParameters"]["fingerprints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fingerprint| fingerprint["algorithm"].as_str().unwrap())
        .collect();
    let expected = ["sha-1", "sha-224", "sha-256", "sha-384", "sha-512"];
    assert_eq!(algorithms, expected);
    assert_eq!(answer["iceParameters"]["iceLite"], true);
    let protocols = |answer: &Value| -> Vec<String> {
        let candidates = answer["iceCandidates"].as_array().unwrap();
        let protocol = |c: &Value| c["protocol"].as_str().unwrap().to_owned();
        candidates.iter().map(protocol).collect()
    };
    assert_eq!(protocols(&answer), ["udp", "tcp"]);

    // 4: alice produces audio; bob hears of it before she gets the answer.
    let answer = alice
        .request("createProducer", producer(12, 11, opus(1000)))
        .await;
    assert_eq!(answer, Ok(Value::Null));
    let audio = bob.peer.consumers().remove(0);
    let [told] = &bob.told().await[..] else {
        panic!("one notification");
    };
    assert_eq!(
        (&told["method"], &told["id"]),
        (&json!("newConsumer"), &json!(audio.id()))
    );

    // 5: bob tells his DTLS parameters later; a TCP-only transport has no UDP candidate.
    let members = json!({ "id": 21, "direction": "recv", "options": { "udp": false } });
    let answer = bob.request("createTransport", members).await.unwrap();
    assert_eq!(answer["dtlsParameters"]["role"], "auto");
    assert_eq!(protocols(&answer), ["tcp"]);
    let members = json!({ "id": 21, "dtlsParameters": dtls("client") });
    bob.notify("updateTransport", members).await;
    let transport = bob.web_rtc(21);
    assert_eq!(
        transport.dtls_local_parameters().role,
        broth::DtlsRole::Server
    );
    assert_eq!(transport.direction(), "recv");

    // 6, 7: bob enables what he is offered.
    let mut events = audio.events();
    let members = json!({ "id": audio.id(), "transportId": 21 });
    let answer = bob.request("enableConsumer", members.clone()).await;
    let expected =
        json!({ "paused": false, "preferredProfile": "default", "effectiveProfile": null });
    assert_eq!(answer, Ok(expected));
    assert!(matches!(pending(&mut events)[..], [ConsumerEvent::Handled]));
    assert_eq!(audio.transport(), Some(transport.clone().into()));
    let again = bob.request("enableConsumer", members).await;
    let expected = Error::InvalidState("Consumer already enabled".into());
    assert_eq!(again, Err(expected));
    let video = alice.produce(13, 11, simulcast(2000)).await;
    let consumer = bob.peer.get_consumer_for_source(&video).unwrap();
    let members = json!({ "id": consumer.id(), "transportId": 21, "paused": true,
        "preferredProfile": "medium" });
    let answer = bob.request("enableConsumer", members).await;
    let expected =
        json!({ "paused": false, "preferredProfile": "medium", "effectiveProfile": null });
    assert_eq!(answer, Ok(expected));
    assert!(consumer.remotely_paused());
    bob.notify("resumeConsumer", json!({ "id": consumer.id() }))
        .await;
    bob.told().await;

    // 8: the client's wish has no echo, the application's has one.
    let members = json!({ "id": consumer.id(), "profile": "low" });
    bob.notify("setConsumerPreferredProfile", members).await;
    assert!(bob.told().await.is_empty());
    assert_eq!(consumer.preferred_profile(), broth::Profile::Low);
    consumer.set_preferred_profile(broth::Profile::Medium);
    let expected = json!({ "method": "consumerPreferredProfileSet", "id": consumer.id(),
        "peerName": "alice", "profile": "medium" });
    assert_eq!(bob.told().await, [expected]);

    // 9, 10: muting; `pausing` has all of it.
    let members = json!({ "id": 12, "appData": "quiet" });
    alice.notify("pauseProducer", members).await;
    let told = |method: &str| json!({ "method": method, "id": audio.id(), "peerName": "alice" });
    assert_eq!(bob.told().await, [told("consumerPaused")]);
    alice.notify("resumeProducer", json!({ "id": 12 })).await;
    assert_eq!(bob.told().await, [told("consumerResumed")]);

    // 11: an ICE restart.
    let before = transport.ice_local_parameters();
    let answer = bob.request("restartTransport", json!({ "id": 21 })).await;
    let after = transport.ice_local_parameters();
    assert_eq!(answer, Ok(json!({ "iceParameters": after })));
    assert_ne!(before.username_fragment, after.username_fragment);
    assert_ne!(before.password, after.password);
    assert!(bob.told().await.is_empty());

    // 12: the application closes bob's transport; the same id serves again at once.
    transport.close(Some(json!("new one")));
    let expected = json!({ "method": "transportClosed", "id": 21, "appData": "new one" });
    assert_eq!(bob.told().await, [expected]);
    assert!(!audio.enabled() && !audio.closed());
    bob.create_transport(21, "recv").await;
    bob.consume(audio.source(), 21).await;
    assert!(audio.enabled());

    // 13: the camera stops.
    alice.notify("closeProducer", json!({ "id": 13 })).await;
    let expected = json!({ "method": "consumerClosed", "id": consumer.id(), "peerName": "alice" });
    assert_eq!(bob.told().await, [expected]);

    // 14: alice's transport closes, with the late closing of a producer that went along.
    let members = json!({ "id": 11, "appData": 1 });
    alice.notify("closeTransport", members).await;
    alice.notify("closeProducer", json!({ "id": 12 })).await;
    assert_eq!(bob.told().await, [told("consumerClosed")]);
    assert!(alice.told().await.is_empty());

    // 15, 16: alice leaves, the application closes bob.
    alice.notify("leave", json!({ "appData": "bye" })).await;
    let expected = json!({ "method": "peerClosed", "name": "alice", "appData": "bye" });
    assert_eq!(bob.told().await, [expected]);
    assert!(alice.told().await.is_empty());
    bob.peer.close(Some(json!("closing time")));
    let expected = json!({ "method": "closed", "appData": "closing time" });
    assert_eq!(bob.told().await, [expected]);
    assert_eq!(house.counts().await, [0, 0, 0]);
    house.server.close().await;
}

#[tokio::test]
async fn a_spy_sees_everything_and_is_not_seen() {
    let house = House::new(21).await;
    let mut alice = house.join("alice");
    let (mut spy, answer) = Client::join(&house.room, json!({ "peerName": "spy", "spy": true }));
    assert_eq!(answer["peers"][0]["name"], "alice");
    let (mut bob, answer) = Client::join(&house.room, json!({ "peerName": "bob" }));
    let names = |answer: &Value| -> Vec<Value> {
        let peers = answer["peers"].as_array().unwrap();
        peers.iter().map(|peer| peer["name"].clone()).collect()
    };
    assert_eq!(names(&answer), ["alice"]);
    assert!(spy.peer.spy());
    assert_eq!(house.room.peers().len(), 3);
    assert_eq!(house.room.get_peer_by_name("spy"), Some(spy.peer.clone()));

    alice.create_transport(1, "send").await;
    let source = alice.produce(2, 1, vp8(1000)).await;
    spy.create_transport(3, "recv").await;
    spy.consume(&source, 3).await;
    let refused = spy
        .request("createProducer", producer(4, 3, vp8(2000)))
        .await;
    let refused = refused.unwrap_err().to_string();
    assert_eq!(refused, "spy peers cannot create producers");
    spy.notify("leave", json!({})).await;
    let methods = |told: Vec<Value>| -> Vec<Value> {
        told.into_iter().map(|m| m["method"].clone()).collect()
    };
    assert_eq!(methods(alice.told().await), ["newPeer"]);
    assert_eq!(methods(bob.told().await), ["newConsumer"]);
    assert_eq!(methods(spy.told().await), ["newPeer", "newConsumer"]);
    assert_eq!(house.counts().await, [1, 1, 1]);
    house.server.close().await;
}

#[tokio::test]
async fn a_second_or_wrong_update_closes_the_transport() {
    let house = House::new(22).await;
    let mut alice = house.join("alice");
    let wrong = json!({ "role": "boss", "fingerprints": dtls("client")["fingerprints"] });
    let rows = [
        vec![dtls("client"), dtls("client")],
        vec![wrong],
        vec![json!({})],
        vec![json!({ "fingerprints": [] })],
        vec![json!({ "fingerprints": [{ "algorithm": "md5", "value": "AB" }] })],
    ];
    for updates in rows {
        alice.create_transport(1, "recv").await;
        let transport = alice.peer.get_transport_by_id(1).unwrap();
        // Nothing to update is no reason to close.
        alice.notify("updateTransport", json!({ "id": 1 })).await;
        let (last, first) = updates.split_last().unwrap();
        for parameters in first {
            let members = json!({ "id": 1, "dtlsParameters": parameters });
            alice.notify("updateTransport", members).await;
        }
        assert!(!transport.closed(), "{updates:?}");
        let members = json!({ "id": 1, "dtlsParameters": last });
        alice.notify("updateTransport", members).await;
        assert!(transport.closed(), "{updates:?}");
        let expected = json!({ "method": "transportClosed", "id": 1 });
        assert_eq!(alice.told().await, [expected], "{updates:?}");
        assert!(matches!(
            pending(&mut transport.events())[..],
            [TransportEvent::Close { .. }]
        ));
        assert_eq!(house.counts().await, [0, 0, 0]);
    }
    house.server.close().await;
}

#[tokio::test]
async fn profiles_are_names_and_none_is_no_wish() {
    let house = House::new(23).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    let source = alice.produce(3, 1, simulcast(1000)).await;
    let consumer = bob.consume(&source, 2).await;
    bob.told().await;
    let id = consumer.id();
    for (profile, expected) in [
        (json!("high"), "high"),
        (json!("none"), "high"),
        (json!("ultra"), "high"),
        (json!(2), "high"),
        (json!(null), "high"),
        (json!("default"), "default"),
    ] {
        let members = json!({ "id": id, "profile": profile });
        bob.notify("setConsumerPreferredProfile", members).await;
        assert!(bob.told().await.is_empty(), "{profile}");
        assert_eq!(consumer.preferred_profile().as_str(), expected, "{profile}");
    }
    // Equal to what it is, and no layer at all: nothing happens.
    consumer.set_preferred_profile(broth::Profile::Default);
    consumer.set_preferred_profile(broth::Profile::None);
    assert!(bob.told().await.is_empty());
    source.set_preferred_profile(broth::Profile::Low);
    source.set_preferred_profile(broth::Profile::None);
    assert!(bob.told().await.is_empty());
    assert_eq!(source.preferred_profile(), broth::Profile::Low);
    let dump = consumer.dump().await.unwrap();
    assert_eq!(dump.preferred_profile, broth::Profile::Low);
    consumer.close();
    consumer.set_preferred_profile(broth::Profile::High);
    bob.told().await;
    assert_eq!(consumer.preferred_profile(), broth::Profile::Default);
    house.server.close().await;
}

#[tokio::test]
async fn a_wish_of_a_consumer_that_closes_meanwhile_is_not_told() {
    let house = House::new(24).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    let source = alice.produce(3, 1, simulcast(1000)).await;
    let consumer = bob.consume(&source, 2).await;
    bob.told().await;
    consumer.set_preferred_profile(broth::Profile::High);
    consumer.close();
    let methods: Vec<_> = bob.told().await;
    let expected = json!({ "method": "consumerClosed", "id": consumer.id(), "peerName": "alice" });
    assert_eq!(methods, [expected]);
    house.server.close().await;
}
