//! What clumsy and hostile clients send: each gets one clear error, leaves nothing behind and
//! does not disturb the others.

use std::time::Instant;

use broth::{Error, Limits, RoomOptions, Server};
use serde_json::{Value, json};

use super::support::{Client, House, codecs, merge, opus, producer, settings, vp8};

/// A member that is taken out.
const ABSENT: &str = "\u{0}absent";

/// A room at work: alice sends, bob receives; mallory has a transport and a consumer.
async fn busy(test: u16) -> (House, Client, Client, Client) {
    let house = House::new(test).await;
    let (alice, bob, mallory) = (house.join("alice"), house.join("bob"), house.join("mallory"));
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    mallory.create_transport(3, "send").await;
    let source = alice.produce(10, 1, vp8(1000)).await;
    bob.consume(&source, 2).await;
    mallory.produce(11, 3, vp8(5000)).await;
    (house, alice, bob, mallory)
}

/// Sends each row, with the members changed as it says, and expects its error.
async fn refuse(house: &House, client: &Client, method: &str, good: &Value, rows: &[(&str, Value, &str)]) {
    let before = house.counts().await;
    for (pointer, value, expected) in rows {
        let members = changed(good, pointer, value);
        let answer = client.request(method, members).await;
        let error = answer.expect_err(&format!("{method} {pointer} {value}"));
        let text = error.to_string();
        assert!(text.contains(expected), "{method} {pointer} {value}: {text}");
        assert_eq!(house.counts().await, before, "{method} {pointer} {value}");
    }
}

/// A copy with one member replaced or taken out.
fn changed(good: &Value, pointer: &str, value: &Value) -> Value {
    let mut members = good.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = members.pointer_mut(parent).unwrap();
    match (parent, value.as_str()) {
        (Value::Object(parent), Some(ABSENT)) => drop(parent.remove(name)),
        (Value::Object(parent), _) => drop(parent.insert(name.into(), value.clone())),
        (Value::Array(parent), _) => parent[name.parse::<usize>().unwrap()] = value.clone(),
        (other, _) => panic!("{pointer} is in {other}"),
    }
    members
}

/// An object in an object, and so on.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!({}), |inner, _| json!({ "a": inner }))
}

#[tokio::test]
async fn bad_transports_are_refused_by_name() {
    let (house, _alice, _bob, mallory) = busy(40).await;
    let fingerprint = json!({ "algorithm": "sha-256", "value": "AB" });
    let good = json!({ "id": 77, "direction": "send",
        "dtlsParameters": { "role": "client", "fingerprints": [fingerprint] } });
    let rows = [
        ("/id", json!("5"), "id must be a number"),
        ("/id", json!(-1), "id must be a number"),
        ("/id", json!(1.5), "id must be a number"),
        ("/id", json!(4_294_967_296_u64), "id must be a number"),
        ("/id", json!(3), "a Transport with same transportId already exists"),
        ("/id", json!(1), "a Transport with same transportId already exists"),
        ("/direction", json!(7), "invalid direction"),
        ("/direction", json!("up"), "invalid direction"),
        ("/options", json!({ "udp": false, "tcp": false }), "could not open any IP:port"),
        ("/plainRtpParameters", json!({}), "plain RTP transports are not available"),
        ("/dtlsParameters", json!("x"), "missing data.fingerprints"),
        ("/dtlsParameters/fingerprints", json!(ABSENT), "missing data.fingerprints"),
        ("/dtlsParameters/fingerprints", json!([]), "fingerprint"),
        ("/dtlsParameters/fingerprints/0", json!(7), "wrong fingerprint"),
        (
            "/dtlsParameters/fingerprints/0/value",
            json!(ABSENT),
            "missing data.fingerprint.algorithm and/or data.fingerprint.value",
        ),
        ("/dtlsParameters/fingerprints/0/algorithm", json!("md5"), "unsupported"),
        ("/dtlsParameters/role", json!("boss"), "invalid remote role"),
    ];
    refuse(&house, &mallory, "createTransport", &good, &rows).await;
    let rows = [
        ("/id", json!(ABSENT), "id must be a number"),
        ("/id", json!("3"), "id must be a number"),
        ("/id", json!(77), "Transport not found"),
        ("/id", json!(1), "Transport not found"),
    ];
    refuse(&house, &mallory, "restartTransport", &json!({ "id": 3 }), &rows).await;
    house.server.close().await;
}

#[tokio::test]
async fn bad_producers_are_refused_by_name() {
    let (house, _alice, _bob, mallory) = busy(41).await;
    let good = producer(77, 3, vp8(6000));
    let p = |member: &'static str| -> String { format!("/rtpParameters/{member}") };
    let wrong = "wrong RTP parameters: ";
    let rows = [
        ("/id".into(), json!("5"), "id must be a number"),
        ("/id".into(), json!(11), "a Producer with same producerId already exists"),
        ("/id".into(), json!(10), "a Producer with same producerId already exists"),
        ("/kind".into(), json!(ABSENT), "unsupported kind: undefined"),
        ("/kind".into(), json!("depth"), "unsupported kind: depth"),
        ("/kind".into(), json!(7), "unsupported kind"),
        ("/kind".into(), json!("audio"), "codec does not match kind"),
        ("/transportId".into(), json!(ABSENT), "WebRtcTransport not found"),
        ("/transportId".into(), json!("3"), "WebRtcTransport not found"),
        ("/transportId".into(), json!(1), "WebRtcTransport not found"),
        ("/paused".into(), json!(7), "paused must be a boolean"),
        ("/rtpParameters".into(), json!(ABSENT), wrong),
        ("/rtpParameters".into(), json!([]), wrong),
        (p("codecs"), json!(ABSENT), "missing field `codecs`"),
        (p("codecs"), json!([]), "empty rtpParameters.codecs"),
        (p("codecs/0/name"), json!("VP10"), "unsupported codec [name:VP10, payloadType:101]"),
        (p("codecs/0/payloadType"), json!("96"), wrong),
        (p("codecs/0/payloadType"), json!(300), wrong),
        (p("codecs/0/payloadType"), json!(102), "media codec"),
        (p("codecs/0/clockRate"), json!(-1), wrong),
        (p("codecs/0/clockRate"), json!(8000), "unsupported codec"),
        (p("codecs/0/parameters"), json!(7), wrong),
        (p("codecs/0/rtcpFeedback"), json!([{}]), wrong),
        (p("codecs/1/parameters"), json!({}), "no media codec found for RTX PT 102"),
        (p("headerExtensions"), json!([{ "uri": "urn:x", "id": 1 }]), "unsupported header extensions"),
        (p("headerExtensions"), json!([{ "uri": 7, "id": 1 }]), wrong),
        (p("encodings"), json!(ABSENT), "missing field `encodings`"),
        (p("encodings"), json!([]), "empty rtpParameters.encodings"),
        (p("encodings/0/ssrc"), json!("x"), wrong),
        (p("encodings/0/ssrc"), json!(4_294_967_296_u64), wrong),
        (p("encodings/0/ssrc"), json!(5000), "ssrc already exists in RTP listener [ssrc:5000]"),
        (p("encodings/0/rtx/ssrc"), json!(5001), "ssrc already exists in RTP listener [ssrc:5001]"),
        (p("encodings/0/rtx/ssrc"), json!(6000), "ssrc already exists in RTP listener [ssrc:6000]"),
        (p("encodings/0/profile"), json!("low"), "invalid single encoding with non default profile"),
        (p("encodings/0/profile"), json!("none"), "invalid encoding profile"),
        (p("encodings/0/profile"), json!("ultra"), wrong),
        (p("encodings/0/codecPayloadType"), json!(99), "unknown encoding.codecPayloadType"),
        (p("encodings"), json!([{ "ssrc": 1 }, { "ssrc": 2, "profile": "low" }]), "mixed"),
        (p("encodings"), json!([{ "profile": "low" }, { "profile": "low" }]), "duplicated encoding profile"),
        (p("muxId"), json!("5000"), "muxId already exists in RTP listener [muxId:'5000']"),
        (p("muxId"), json!(7), wrong),
        (p("rtcp"), json!(7), wrong),
        (p("codecs/0/parameters"), nested(50), "nested too deep"),
        (p("codecs/0/parameters"), nested(120), "nested too deep"),
        (p("codecs/0/parameters"), nested(2000), "nested too deep"),
        (p("codecs/0/parameters"), json!({ "x": "y".repeat(17 << 20) }), "request too big"),
    ];
    let rows: Vec<_> = rows.iter().map(|(at, v, e)| (at.as_str(), v.clone(), *e)).collect();
    refuse(&house, &mallory, "createProducer", &good, &rows).await;
    // None of it has used up what the good one needs.
    mallory.request("createProducer", good).await.unwrap();
    house.server.close().await;
}

#[tokio::test]
async fn bad_enabling_is_refused_by_name() {
    let (house, alice, _bob, mallory) = busy(42).await;
    let source = alice.peer.get_producer_by_id(10).unwrap();
    let consumer = mallory.peer.get_consumer_for_source(&source).unwrap();
    let good = json!({ "id": consumer.id(), "transportId": 3 });
    let rows = [
        ("/id", json!(ABSENT), "id must be a number"),
        ("/id", json!("x"), "id must be a number"),
        ("/id", json!(5), "Consumer not found"),
        ("/transportId", json!(ABSENT), "Transport not found"),
        ("/transportId", json!("3"), "Transport not found"),
        ("/transportId", json!(1), "Transport not found"),
        ("/paused", json!("yes"), "paused must be a boolean"),
    ];
    refuse(&house, &mallory, "enableConsumer", &good, &rows).await;
    assert!(!consumer.enabled());
    // A wish that cannot be granted is no reason to refuse.
    let members = changed(&good, "/preferredProfile", &json!("ultra"));
    let answer = mallory.request("enableConsumer", members).await.unwrap();
    assert_eq!(answer["preferredProfile"], "default");
    house.server.close().await;
}

#[tokio::test]
async fn who_can_decode_nothing_gets_a_consumer_without_codecs_that_cannot_be_enabled() {
    let house = House::new(43).await;
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    let source = alice.produce(2, 1, vp8(1000)).await;
    let members = json!({ "peerName": "deaf",
        "rtpCapabilities": { "codecs": [], "headerExtensions": [] } });
    let (deaf, answer) = Client::join(&house.room, members);
    let consumer = &answer["peers"][0]["consumers"][0];
    assert_eq!(consumer["rtpParameters"]["codecs"], json!([]));
    deaf.create_transport(3, "recv").await;
    let members = json!({ "id": consumer["id"], "transportId": 3 });
    let error = deaf.request("enableConsumer", members).await.unwrap_err();
    assert_eq!(error.to_string(), "empty rtpParameters.codecs");
    let consumer = deaf.peer.get_consumer_for_source(&source).unwrap();
    assert!(!consumer.enabled() && !consumer.closed());
    assert_eq!(house.counts().await, [2, 1, 1]);
    house.server.close().await;
}

#[tokio::test]
async fn bad_joins_are_refused_by_name_and_leave_nobody() {
    let (house, alice, ..) = busy(44).await;
    let good = json!({ "method": "join", "peerName": "eve",
        "rtpCapabilities": house.room.rtp_capabilities() });
    let before = house.counts().await;
    let c = |member: &str| format!("/rtpCapabilities/{member}");
    let rows = [
        ("/method".into(), json!(7), "wrong/missing request method"),
        ("/method".into(), json!("leave"), "unknown request method \"leave\""),
        ("/notification".into(), json!(true), "not a request"),
        ("/peerName".into(), json!(ABSENT), "peerName must be a string"),
        ("/peerName".into(), json!(""), "peerName must be a string"),
        ("/peerName".into(), json!(7), "peerName must be a string"),
        ("/peerName".into(), json!("alice"), "duplicated Peer [peerName:\"alice\"]"),
        ("/spy".into(), json!(7), "spy must be a boolean"),
        ("/rtpCapabilities".into(), json!(ABSENT), "rtpCapabilities must be an object"),
        (c("codecs"), json!(ABSENT), "missing field `codecs`"),
        (c("codecs"), json!({}), "wrong rtpCapabilities"),
        (c("codecs/0/preferredPayloadType"), json!(99),
            "unsupported codec [name:opus, preferredPayloadType:99]"),
        (c("codecs/0/preferredPayloadType"), json!("x"), "wrong rtpCapabilities"),
        (c("codecs/0/kind"), json!("video"), "unsupported codec"),
        (c("codecs/0/parameters"), nested(100), "nested too deep"),
        (c("headerExtensions"), json!(ABSENT), "missing field `headerExtensions`"),
        (c("headerExtensions/0/uri"), json!("urn:x"),
            "unsupported header extension [kind:audio, uri:urn:x]"),
        (c("headerExtensions/0/preferredId"), json!(9), "unsupported header extension"),
    ];
    for (pointer, value, expected) in rows {
        let request = changed(&good, &pointer, &value);
        let error = house.room.receive_request(request).await.unwrap_err().to_string();
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
        ("updateTransport", "transport", json!({ "dtlsParameters": {} })),
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
        ("setConsumerPreferredProfile", "consumer", json!({ "profile": "low" })),
        ("enableConsumerStats", "consumer", json!({})),
        ("disableConsumerStats", "consumer", json!({})),
        ("updateProducer", "producer", json!({})),
        ("noSuchMethod", "producer", json!({})),
    ];
    bob.told().await;
    mallory.told().await;
    let before = house.counts().await;
    for (method, kind, members) in methods {
        let bad = [json!(null), json!("3"), json!(-1), json!(1.5), json!({}), json!(99)];
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
    let room = server.room(&codecs(), RoomOptions::default()).await.unwrap();
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
    let error = alice.request("createProducer", producer(4, 1, opus(40))).await;
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
