//! What clumsy and hostile clients send: each gets one clear error, leaves nothing behind and
//! does not disturb the others.

use serde_json::{Value, json};

use super::support::{Client, House, producer, vp8};

/// A member that is taken out.
pub(crate) const ABSENT: &str = "\u{0}absent";

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
        (
            "/id",
            json!(3),
            "a Transport with same transportId already exists",
        ),
        (
            "/id",
            json!(1),
            "a Transport with same transportId already exists",
        ),
        ("/direction", json!(7), "invalid direction"),
        ("/direction", json!("up"), "invalid direction"),
        (
            "/options",
            json!({ "udp": false, "tcp": false }),
            "could not open any IP:port",
        ),
        (
            "/plainRtpParameters",
            json!(true),
            "plainRtpParameters must be an object",
        ),
        ("/dtlsParameters", json!("x"), "missing data.fingerprints"),
        (
            "/dtlsParameters/fingerprints",
            json!(ABSENT),
            "missing data.fingerprints",
        ),
        ("/dtlsParameters/fingerprints", json!([]), "fingerprint"),
        (
            "/dtlsParameters/fingerprints/0",
            json!(7),
            "wrong fingerprint",
        ),
        (
            "/dtlsParameters/fingerprints/0/value",
            json!(ABSENT),
            "missing data.fingerprint.algorithm and/or data.fingerprint.value",
        ),
        (
            "/dtlsParameters/fingerprints/0/algorithm",
            json!("md5"),
            "unsupported",
        ),
        ("/dtlsParameters/role", json!("boss"), "invalid remote role"),
    ];
    refuse(&house, &mallory, "createTransport", &good, &rows).await;
    let rows = [
        ("/id", json!(ABSENT), "id must be a number"),
        ("/id", json!("3"), "id must be a number"),
        ("/id", json!(77), "Transport not found"),
        ("/id", json!(1), "Transport not found"),
    ];
    refuse(
        &house,
        &mallory,
        "restartTransport",
        &json!({ "id": 3 }),
        &rows,
    )
    .await;
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
        (
            "/id".into(),
            json!(11),
            "a Producer with same producerId already exists",
        ),
        (
            "/id".into(),
            json!(10),
            "a Producer with same producerId already exists",
        ),
        ("/kind".into(), json!(ABSENT), "unsupported kind: undefined"),
        ("/kind".into(), json!("depth"), "unsupported kind: depth"),
        ("/kind".into(), json!(7), "unsupported kind"),
        ("/kind".into(), json!("audio"), "codec does not match kind"),
        (
            "/transportId".into(),
            json!(ABSENT),
            "WebRtcTransport not found",
        ),
        (
            "/transportId".into(),
            json!("3"),
            "WebRtcTransport not found",
        ),
        ("/transportId".into(), json!(1), "WebRtcTransport not found"),
        ("/paused".into(), json!(7), "paused must be a boolean"),
        ("/rtpParameters".into(), json!(ABSENT), wrong),
        ("/rtpParameters".into(), json!([]), wrong),
        (p("codecs"), json!(ABSENT), "missing field `codecs`"),
        (p("codecs"), json!([]), "empty rtpParameters.codecs"),
        (
            p("codecs/0/name"),
            json!("VP10"),
            "unsupported codec [name:VP10, payloadType:101]",
        ),
        (p("codecs/0/payloadType"), json!("96"), wrong),
        (p("codecs/0/payloadType"), json!(300), wrong),
        (
            p("codecs/0/payloadType"),
            json!(102),
            "duplicated payloadType",
        ),
        (p("codecs/0/clockRate"), json!(-1), wrong),
        (p("codecs/0/clockRate"), json!(8000), "unsupported codec"),
        (p("codecs/0/parameters"), json!(7), wrong),
        (p("codecs/0/rtcpFeedback"), json!([{}]), wrong),
        (
            p("codecs/1/parameters"),
            json!({}),
            "no media codec found for RTX PT 102",
        ),
        (
            p("headerExtensions"),
            json!([{ "uri": "urn:x", "id": 1 }]),
            "unsupported header extensions",
        ),
        (p("headerExtensions"), json!([{ "uri": 7, "id": 1 }]), wrong),
        (p("encodings"), json!(ABSENT), "missing field `encodings`"),
        (p("encodings"), json!([]), "empty rtpParameters.encodings"),
        (p("encodings/0/ssrc"), json!("x"), wrong),
        (p("encodings/0/ssrc"), json!(4_294_967_296_u64), wrong),
        (
            p("encodings/0/ssrc"),
            json!(5000),
            "ssrc already exists in RTP listener [ssrc:5000]",
        ),
        (
            p("encodings/0/rtx/ssrc"),
            json!(5001),
            "ssrc already exists in RTP listener [ssrc:5001]",
        ),
        (
            p("encodings/0/rtx/ssrc"),
            json!(6000),
            "ssrc already exists in RTP listener [ssrc:6000]",
        ),
        (
            p("encodings/0/profile"),
            json!("low"),
            "invalid single encoding with non default profile",
        ),
        (
            p("encodings/0/profile"),
            json!("none"),
            "invalid encoding profile",
        ),
        (p("encodings/0/profile"), json!("ultra"), wrong),
        (
            p("encodings/0/codecPayloadType"),
            json!(99),
            "unknown encoding.codecPayloadType",
        ),
        (
            p("encodings"),
            json!([{ "ssrc": 1 }, { "ssrc": 2, "profile": "low" }]),
            "mixed",
        ),
        (
            p("encodings"),
            json!([{ "profile": "low" }, { "profile": "low" }]),
            "duplicated encoding profile",
        ),
        (
            p("muxId"),
            json!("5000"),
            "muxId already exists in RTP listener [muxId:'5000']",
        ),
        (p("muxId"), json!(7), wrong),
        (p("rtcp"), json!(7), wrong),
        (p("codecs/0/parameters"), nested(50), "nested too deep"),
        (p("codecs/0/parameters"), nested(120), "nested too deep"),
        (p("codecs/0/parameters"), nested(1000), "nested too deep"),
        (
            p("codecs/0/parameters"),
            json!({ "x": "y".repeat(17 << 20) }),
            "request too big",
        ),
    ];
    let rows: Vec<_> = rows
        .iter()
        .map(|(at, v, e)| (at.as_str(), v.clone(), *e))
        .collect();
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

/// A room at work: alice sends, bob receives; mallory has a transport and a consumer.
pub(crate) async fn busy(test: u16) -> (House, Client, Client, Client) {
    let house = House::new(test).await;
    let (alice, bob, mallory) = (
        house.join("alice"),
        house.join("bob"),
        house.join("mallory"),
    );
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    mallory.create_transport(3, "send").await;
    let source = alice.produce(10, 1, vp8(1000)).await;
    bob.consume(&source, 2).await;
    mallory.produce(11, 3, vp8(5000)).await;
    (house, alice, bob, mallory)
}

/// Sends each row, with the members changed as it says, and expects its error.
async fn refuse(
    house: &House,
    client: &Client,
    method: &str,
    good: &Value,
    rows: &[(&str, Value, &str)],
) {
    let before = house.counts().await;
    for (pointer, value, expected) in rows {
        let members = changed(good, pointer, value);
        let answer = client.request(method, members).await;
        let Err(error) = answer else {
            panic!("accepted: {method} {pointer} {value}");
        };
        let text = error.to_string();
        assert!(
            text.contains(expected),
            "{method} {pointer} {value}: {text}"
        );
        assert_eq!(house.counts().await, before, "{method} {pointer} {value}");
    }
}

/// A copy with one member replaced or taken out.
pub(crate) fn changed(good: &Value, pointer: &str, value: &Value) -> Value {
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
pub(crate) fn nested(depth: usize) -> Value {
    let outer = |inner: Value| Value::Object([("a".to_owned(), inner)].into_iter().collect());
    (0..depth).fold(json!({}), |inner, _| outer(inner))
}
