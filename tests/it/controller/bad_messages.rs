//! Joins and notifications that are wrong, and clients that want too much.

use std::time::Instant;

use broth::{Error, Limits, RoomOptions, Server};
use serde_json::json;

use super::bad_input::{ABSENT, busy, changed, nested};
use super::support::{Client, House, codecs, merge, opus, producer, settings, vp8};

#[tokio::test]
async fn bad_joins_are_refused_by_name_and_leave_nobody() {
    let (house, alice, ..) = busy(44).await;
    let good = json!({ "method": "join", "peerName": "eve",
        "rtpCapabilities": house.room.rtp_capabilities() });
    let before = house.counts().await;
    let c = |member: &str| format!("/rtpCapabilities/{member}");
    let rows = [
        ("/method".into(), json!(7), "wrong/missing request method"),
        (
            "/method".into(),
            json!("leave"),
            "unknown request method \"leave\"",
        ),
        ("/notification".into(), json!(true), "not a request"),
        (
            "/peerName".into(),
            json!(ABSENT),
            "peerName must be a string",
        ),
        ("/peerName".into(), json!(""), "peerName must be a string"),
        ("/peerName".into(), json!(7), "peerName must be a string"),
        (
            "/peerName".into(),
            json!("alice"),
            "duplicated Peer [peerName:\"alice\"]",
        ),
        ("/spy".into(), json!(7), "spy must be a boolean"),
        (
            "/rtpCapabilities".into(),
            json!(ABSENT),
            "rtpCapabilities must be an object",
        ),
        (c("codecs"), json!(ABSENT), "missing field `codecs`"),
        (c("codecs"), json!({}), "wrong rtpCapabilities"),
        (
            c("codecs/0/preferredPayloadType"),
            json!(99),
            "unsupported codec [name:opus, preferredPayloadType:99]",
        ),
        (
            c("codecs/0/preferredPayloadType"),
            json!("x"),
            "wrong rtpCapabilities",
        ),
        (c("codecs/0/kind"), json!("video"), "unsupported codec"),
        (c("codecs/0/parameters"), nested(100), "nested too deep"),
        (
            c("headerExtensions"),
            json!(ABSENT),
            "missing field `headerExtensions`",
        ),
        (
            c("headerExtensions/0/uri"),
            json!("urn:x"),
            "unsupported header extension [kind:audio, uri:urn:x]",
        ),
        (
            c("headerExtensions/0/preferredId"),
            json!(9),
            "unsupported header extension",
        ),
    ];
    for (pointer, value, expected) in rows {
        let request = changed(&good, &pointer, &value);
        let error = house
            .room
            .receive_request(request)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{pointer} {value}: {error}");
        assert_eq!(house.counts().await, before);
        assert_eq!(house.room.peers().len(), 3);
    }
    for request in [json!(null), json!("join"), json!([])] {
        let refused = house.room.receive_request(request).await;
        assert_eq!(refused, Err(Error::Type("wrong request Object".into())));
    }
    // The name is free again as soon as its owner is gone, and the room takes newcomers.
    alice.notify("leave", json!({})).await;
    let (again, answer) = Client::join(&house.room, json!({ "peerName": "alice" }));
    assert_eq!(answer["peers"].as_array().unwrap().len(), 2);
    again.create_transport(1, "send").await;
    again.produce(10, 1, vp8(1000)).await;
    house.server.close().await;
}

#[tokio::test]
async fn bad_notifications_change_nothing() {
    let (house, alice, mut bob, mut mallory) = busy(45).await;
    let foreign = json!({ "transport": 1, "producer": 10,
        "consumer": bob.peer.consumers()[0].id() });
    let methods = [
        (
            "updateTransport",
            "transport",
            json!({ "dtlsParameters": {} }),
        ),
        ("closeTransport", "transport", json!({})),
        ("enableTransportStats", "transport", json!({})),
        ("disableTransportStats", "transport", json!({})),
        ("pauseProducer", "producer", json!({})),
        ("resumeProducer", "producer", json!({})),
        ("closeProducer", "producer", json!({})),
        ("enableProducerStats", "producer", json!({})),
        ("disableProducerStats", "producer", json!({})),
        ("pauseConsumer", "consumer", json!({})),
        ("resumeConsumer", "consumer", json!({})),
        (
            "setConsumerPreferredProfile",
            "consumer",
            json!({ "profile": "low" }),
        ),
        ("enableConsumerStats", "consumer", json!({})),
        ("disableConsumerStats", "consumer", json!({})),
        ("updateProducer", "producer", json!({})),
        ("noSuchMethod", "producer", json!({})),
    ];
    bob.told().await;
    mallory.told().await;
    let before = house.counts().await;
    for (method, kind, members) in methods {
        let bad = [
            json!(null),
            json!("3"),
            json!(-1),
            json!(1.5),
            json!({}),
            json!(99),
        ];
        for id in bad.iter().chain([&foreign[kind]]) {
            let mut members = members.clone();
            merge(&mut members, json!({ "id": id }));
            mallory.notify(method, members).await;
        }
        mallory.notify(method, members).await;
        assert!(mallory.told().await.is_empty(), "{method}");
        assert!(bob.told().await.is_empty(), "{method}");
        assert_eq!(house.counts().await, before, "{method}");
    }
    for interval in [json!("1000"), json!({}), json!([1]), json!(true)] {
        let members = json!({ "id": 3, "interval": interval });
        mallory.notify("enableTransportStats", members).await;
    }
    assert!(mallory.told().await.is_empty());
    assert!(!alice.peer.producers()[0].paused() && !alice.peer.transports()[0].closed());
    house.server.close().await;
}

#[tokio::test]
async fn a_client_holds_no_more_than_the_limits() {
    let mut settings = settings(46, 1);
    settings.limits = Limits {
        transports_max: 2,
        producers_max: 3,
    };
    let server = Server::new(settings).await.unwrap();
    let room = server
        .room(&codecs(), RoomOptions::default())
        .await
        .unwrap();
    let (alice, _) = Client::join(&room, json!({ "peerName": "alice" }));
    for id in 1..=2 {
        alice.create_transport(id, "send").await;
    }
    let members = json!({ "id": 3, "direction": "send" });
    let error = alice.request("createTransport", members).await.unwrap_err();
    assert_eq!(error.to_string(), "too many transports");
    for id in 1..=3 {
        alice.produce(id, 1, opus(id * 10)).await;
    }
    let error = alice
        .request("createProducer", producer(4, 1, opus(40)))
        .await;
    assert_eq!(error.unwrap_err().to_string(), "too many producers");
    // Another client has its own, and what is closed counts no more.
    let (bob, _) = Client::join(&room, json!({ "peerName": "bob" }));
    bob.create_transport(9, "send").await;
    alice.notify("closeTransport", json!({ "id": 1 })).await;
    alice.create_transport(3, "send").await;
    alice.produce(4, 3, opus(40)).await;
    server.close().await;
}

#[tokio::test]
async fn requests_of_one_client_do_not_wait_for_a_timeout() {
    let house = House::new(47).await;
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    let start = Instant::now();
    for depth in [30, 60, 90, 110, 118, 120, 122, 124, 126] {
        let parameters = changed(&vp8(depth), "/codecs/0/parameters", &nested(depth as usize));
        let members = producer(depth, 1, parameters);
        let _ = alice.request("createProducer", members).await;
    }
    // `request` gives up before a worker's silence would end.
    assert!(start.elapsed() < super::support::PATIENCE);
    house.server.close().await;
}
