//! Every member of every message replaced by every kind of value: whatever happens, it ends with
//! an answer, and nothing is left once the client is gone.

use serde_json::{Value, json};

use super::support::{Client, House, PATIENCE, dtls, opus, producer, simulcast, soon, vp8};

/// Stands for the id of a client's consumer, which is known once the client is there.
const CONSUMER: u32 = 1_234_567;

#[tokio::test]
async fn every_request_is_answered_whatever_is_in_it() {
    let house = House::new(50).await;
    let alice = alice(&house).await;
    let before = house.counts().await;
    // What the two kinds of video have in common is tried once.
    let is_new = |request: &Value| {
        let is_simulcast = |request: &Value| {
            let encodings = &request["rtpParameters"]["encodings"];
            encodings
                .as_array()
                .is_some_and(|encodings| encodings.len() > 1)
        };
        !is_simulcast(request) || request["rtpParameters"]["codecs"] == vp8(7000)["codecs"]
    };
    for request in requests().iter().flat_map(mutations).filter(is_new) {
        let mallory = mallory(&house).await;
        let answer = mallory.peer.receive_request(aimed(&request, &mallory));
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        assert!(answer.is_ok(), "no answer to {request}");
        mallory.peer.close(None);
        assert_eq!(house.counts().await, before, "{request}");
    }
    assert!(!alice.peer.closed());
    house.server.close().await;
}

#[tokio::test]
async fn every_notification_is_survived_whatever_is_in_it() {
    let house = House::new(51).await;
    let alice = alice(&house).await;
    let before = house.counts().await;
    for message in notifications().iter().flat_map(mutations) {
        let mallory = mallory(&house).await;
        let message = aimed(&message, &mallory);
        let _ = soon("a notification", mallory.peer.receive_notification(message)).await;
        mallory.peer.close(None);
        assert_eq!(house.counts().await, before);
    }
    assert!(!alice.peer.closed());
    house.server.close().await;
}

#[tokio::test]
async fn every_join_is_answered_whatever_is_in_it() {
    let house = House::new(52).await;
    let alice = alice(&house).await;
    let before = house.counts().await;
    let good = json!({ "method": "join", "peerName": "eve", "spy": false, "appData": 1,
        "rtpCapabilities": house.room.rtp_capabilities() });
    for request in mutations(&good) {
        if let Ok((peer, _)) = house.room.join(request.clone()) {
            peer.close(None);
        }
        assert_eq!(house.room.peers().len(), 1, "{request}");
    }
    assert!(!alice.peer.closed());
    assert_eq!(house.counts().await, before);
    house.server.close().await;
}

/// Values of every JSON type and of awkward size.
fn values() -> [Value; 12] {
    [
        json!(null),
        json!(true),
        json!(0),
        json!(-2_147_483_649_i64),
        json!(1e300),
        json!(0.5),
        json!(9_007_199_254_740_993_u64),
        json!(""),
        json!("x".repeat(70_000)),
        json!([]),
        json!({}),
        json!([[[[{ "a": [null] }]]]]),
    ]
}

/// Pointers to all members and elements, from the outside in.
fn pointers(value: &Value, prefix: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .map(|(at, v)| (at.to_string(), v))
            .collect(),
        _ => return,
    };
    for (name, child) in children {
        let pointer = format!("{prefix}/{name}");
        found.push(pointer.clone());
        pointers(child, &pointer, found);
    }
}

/// All messages that differ from `good` in one value.
fn mutations(good: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    pointers(good, "", &mut found);
    let mut mutated = Vec::new();
    for pointer in found {
        for value in values() {
            let mut message = good.clone();
            *message.pointer_mut(&pointer).unwrap() = value;
            mutated.push(message);
        }
    }
    mutated
}

/// A good request of each method, for a client with transport 3 and consumers of alice's.
fn requests() -> [Value; 6] {
    let with = |method: &str, mut members: Value| {
        members["method"] = json!(method);
        members
    };
    let transport = json!({ "id": 77, "direction": "send", "appData": 1,
        "options": { "udp": true, "tcp": true, "preferIPv4": true, "preferUdp": true },
        "dtlsParameters": dtls("client") });
    let enable = json!({ "id": CONSUMER, "transportId": 3, "paused": true,
        "preferredProfile": "low" });
    [
        with("createTransport", transport),
        with("restartTransport", json!({ "id": 3 })),
        with("createProducer", producer(78, 3, opus(7000))),
        with("createProducer", producer(78, 3, vp8(7000))),
        with("createProducer", producer(78, 3, simulcast(7000))),
        with("enableConsumer", enable),
    ]
}

/// A good notification of each method.
fn notifications() -> Vec<Value> {
    let rows = [
        (
            "updateTransport",
            json!({ "id": 3, "dtlsParameters": dtls("client") }),
        ),
        ("closeTransport", json!({ "id": 3, "appData": 1 })),
        ("enableTransportStats", json!({ "id": 3, "interval": 1000 })),
        ("pauseProducer", json!({ "id": 4, "appData": 1 })),
        ("resumeProducer", json!({ "id": 4, "appData": 1 })),
        ("closeProducer", json!({ "id": 4, "appData": 1 })),
        ("enableProducerStats", json!({ "id": 4, "interval": 1000 })),
        ("pauseConsumer", json!({ "id": CONSUMER, "appData": 1 })),
        (
            "setConsumerPreferredProfile",
            json!({ "id": CONSUMER, "profile": "low" }),
        ),
        (
            "enableConsumerStats",
            json!({ "id": CONSUMER, "interval": 1000 }),
        ),
        ("leave", json!({ "appData": 1 })),
    ];
    let notification = |(method, mut members): (&str, Value)| {
        members["method"] = json!(method);
        members["notification"] = json!(true);
        members
    };
    rows.into_iter().map(notification).collect()
}

/// Alice with something to consume.
async fn alice(house: &House) -> Client {
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    alice.produce(2, 1, vp8(1000)).await;
    alice
}

/// A client with a transport 3, a producer 4 on it, and a consumer.
async fn mallory(house: &House) -> Client {
    let mallory = house.join("mallory");
    mallory.create_transport(3, "send").await;
    mallory.produce(4, 3, opus(5000)).await;
    mallory
}

/// The message with the client's consumer in place of the stand-in.
fn aimed(message: &Value, client: &Client) -> Value {
    let mut message = message.clone();
    if message["id"] == CONSUMER {
        message["id"] = client.peer.consumers()[0].id().into();
    }
    message
}
