//! Requests whose answers depend on what came before.

use serde_json::{Value, json};

use super::methods::{
    AUDIO, ENABLED, IDLE, OWN, PLAIN, ROUTER, VIDEO, WEBRTC, audio_parameters, consumer_on,
    create_consumer, mapping, of_consumer, of_producer, on, plain, producer_on, router,
    video_parameters, webrtc, with,
};
use super::{Case, Payload, request};

/// A second router.
const OTHER: u32 = 8;
/// Number of a transport beside a consumer of number [`OWN`].
const ASIDE: u32 = 19;

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = ids();
    cases.extend(pauses());
    cases.extend(profiles());
    cases.extend(enabling());
    cases.extend(closing());
    cases.push(transport_wide());
    cases.extend(additions());
    cases
}

pub(super) fn case(name: &str, requests: Vec<Value>) -> Case {
    Case {
        name: name.into(),
        payloads: requests.into_iter().map(Payload::from).collect(),
    }
}

fn in_other(mut request: Value) -> Value {
    request["internal"]["routerId"] = OTHER.into();
    request
}

fn producer(id: u32, transport: u32, ssrc: u32) -> Value {
    let data = json!({
        "kind": "video", "rtpParameters": video_parameters(ssrc), "rtpMapping": mapping(),
    });
    request("router.createProducer", producer_on(id, transport), data)
}

fn enable(consumer: u32, transport: u32, parameters: Value) -> Value {
    let data = json!({ "rtpParameters": parameters });
    request("consumer.enable", consumer_on(consumer, transport), data)
}

fn ids() -> Vec<Case> {
    let create = |id: u32| request("worker.createRouter", json!({ "routerId": id }), json!({}));
    let close = |id: u32| request("router.close", json!({ "routerId": id }), json!({}));
    vec![
        case(
            "router twice",
            vec![create(ROUTER), create(OTHER), create(OTHER), close(OTHER)],
        ),
        case(
            "router reused after close",
            vec![
                create(OTHER),
                close(OTHER),
                close(OTHER),
                create(OTHER),
                close(OTHER),
            ],
        ),
        case(
            "transport twice",
            vec![webrtc(WEBRTC), plain(WEBRTC), webrtc(PLAIN), plain(PLAIN)],
        ),
        case(
            "transport reused after close",
            vec![
                webrtc(OWN),
                on(OWN, "transport.close"),
                on(OWN, "transport.close"),
                on(OWN, "transport.dump"),
                plain(OWN),
                on(OWN, "transport.getStats"),
                on(OWN, "transport.close"),
            ],
        ),
        case(
            "producer twice",
            vec![
                producer(VIDEO, WEBRTC, 30),
                producer(VIDEO, 77, 30),
                producer(AUDIO, PLAIN, 30),
            ],
        ),
        case(
            "producer reused after close",
            vec![
                producer(OWN, WEBRTC, 30),
                of_producer(OWN, "close"),
                of_producer(OWN, "dump"),
                producer(OWN, PLAIN, 30),
                of_producer(OWN, "dump"),
                of_producer(OWN, "close"),
            ],
        ),
        case(
            "consumer twice",
            vec![
                create_consumer(IDLE, VIDEO, "video"),
                create_consumer(IDLE, 77, "video"),
                create_consumer(OWN, 77, "video"),
                create_consumer(OWN, AUDIO, "video"),
            ],
        ),
        case(
            "same ids in another router",
            vec![
                create(OTHER),
                in_other(on(WEBRTC, "transport.dump")),
                in_other(webrtc(WEBRTC)),
                in_other(producer(VIDEO, WEBRTC, 100)),
                in_other(create_consumer(IDLE, VIDEO, "video")),
                in_other(of_consumer(IDLE, "dump")),
                in_other(of_producer(VIDEO, "close")),
                of_producer(VIDEO, "dump"),
                close(OTHER),
                of_consumer(IDLE, "dump"),
            ],
        ),
        case(
            "one number for every kind of object",
            vec![
                create(OWN),
                webrtc(OWN),
                producer(OWN, OWN, 30),
                create_consumer(OWN, OWN, "video"),
                on(OWN, "transport.close"),
                of_producer(OWN, "dump"),
                of_consumer(OWN, "dump"),
                close(OWN),
            ],
        ),
    ]
}

fn pauses() -> Vec<Case> {
    let looks = [of_producer(VIDEO, "dump"), of_consumer(IDLE, "dump")];
    let pause = of_producer(VIDEO, "pause");
    let resume = of_producer(VIDEO, "resume");
    let mut twice = vec![pause.clone(), pause.clone()];
    twice.extend(looks.clone());
    twice.extend([
        create_consumer(OWN, VIDEO, "video"),
        of_consumer(OWN, "dump"),
        resume.clone(),
        resume.clone(),
    ]);
    twice.extend(looks);
    twice.push(of_consumer(OWN, "close"));
    let mut paused = producer(OWN, PLAIN, 30);
    paused["data"]["paused"] = true.into();
    vec![
        case("producer paused and resumed twice", twice),
        case(
            "producer that starts paused",
            vec![
                paused,
                of_producer(OWN, "dump"),
                create_consumer(OWN, OWN, "video"),
                of_consumer(OWN, "dump"),
                of_producer(OWN, "resume"),
                of_consumer(OWN, "dump"),
                of_producer(OWN, "close"),
            ],
        ),
        case(
            "consumer paused and resumed twice",
            vec![
                of_consumer(IDLE, "pause"),
                of_consumer(IDLE, "pause"),
                of_consumer(IDLE, "dump"),
                of_consumer(IDLE, "resume"),
                of_consumer(IDLE, "resume"),
                of_consumer(IDLE, "dump"),
                of_consumer(ENABLED, "pause"),
                of_consumer(ENABLED, "requestKeyFrame"),
                of_consumer(ENABLED, "resume"),
            ],
        ),
    ]
}

fn profiles() -> Vec<Case> {
    let names = ["none", "default", "low", "medium", "high", "", "LOW", "x"];
    let mut requests = Vec::new();
    for name in names {
        let data = json!({ "profile": name });
        requests.extend([
            with(of_producer(VIDEO, "setPreferredProfile"), data.clone()),
            with(of_consumer(IDLE, "setPreferredProfile"), data),
            of_consumer(IDLE, "dump"),
        ]);
    }
    let default = json!({ "profile": "default" });
    let medium = json!({ "profile": "medium" });
    requests.extend([
        with(of_consumer(IDLE, "setPreferredProfile"), default.clone()),
        of_consumer(IDLE, "dump"),
        with(of_producer(VIDEO, "setPreferredProfile"), medium.clone()),
        create_consumer(OWN, VIDEO, "video"),
        of_consumer(OWN, "dump"),
        with(
            of_consumer(OWN, "setPreferredProfile"),
            json!({ "profile": "high" }),
        ),
        of_consumer(OWN, "dump"),
        with(
            of_producer(VIDEO, "setPreferredProfile"),
            json!({ "profile": "low" }),
        ),
        of_consumer(OWN, "dump"),
        with(of_producer(VIDEO, "setPreferredProfile"), default),
        of_consumer(OWN, "dump"),
        of_consumer(OWN, "close"),
    ]);
    vec![case("preferred profiles", requests)]
}

fn enabling() -> Vec<Case> {
    let layers = json!({ "temporalLayer": 1 });
    let mut no_ssrc = video_parameters(40);
    no_ssrc["encodings"][0] = json!({ "rtx": { "ssrc": 41 } });
    vec![
        case(
            "consumer without an SSRC",
            vec![
                create_consumer(OWN, VIDEO, "video"),
                enable(OWN, WEBRTC, no_ssrc),
                of_consumer(OWN, "dump"),
                of_consumer(OWN, "close"),
            ],
        ),
        case(
            "consumer on a transport that closes",
            vec![
                webrtc(ASIDE),
                create_consumer(OWN, VIDEO, "video"),
                with(of_consumer(OWN, "setEncodingPreferences"), layers.clone()),
                enable(OWN, ASIDE, video_parameters(40)),
                with(of_consumer(OWN, "setEncodingPreferences"), layers),
                of_consumer(OWN, "requestKeyFrame"),
                of_consumer(OWN, "dump"),
                of_consumer(OWN, "getStats"),
                on(ASIDE, "transport.dump"),
                on(ASIDE, "transport.close"),
                of_consumer(OWN, "dump"),
                of_consumer(OWN, "getStats"),
                enable(OWN, PLAIN, video_parameters(40)),
                of_consumer(OWN, "dump"),
                of_consumer(OWN, "getStats"),
                of_consumer(OWN, "close"),
            ],
        ),
        case(
            "consumer enabled twice",
            vec![
                create_consumer(OWN, VIDEO, "video"),
                enable(OWN, WEBRTC, video_parameters(40)),
                enable(OWN, WEBRTC, video_parameters(50)),
                of_consumer(OWN, "close"),
            ],
        ),
        case(
            "two consumers with one SSRC",
            vec![
                create_consumer(OWN, VIDEO, "video"),
                enable(OWN, WEBRTC, audio_parameters(300)),
                of_consumer(OWN, "close"),
            ],
        ),
        case(
            "consumer enabled with another kind of codec",
            vec![
                create_consumer(OWN, VIDEO, "video"),
                enable(OWN, WEBRTC, audio_parameters(40)),
                of_consumer(OWN, "dump"),
                of_consumer(OWN, "getStats"),
                of_consumer(OWN, "close"),
            ],
        ),
    ]
}

/// An extension that the original does not know.
fn transport_wide() -> Case {
    let mut create = producer(OWN, OWN, 30);
    create["data"]["rtpParameters"]["headerExtensions"] = json!([{
        "uri": "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        "id": 7,
    }]);
    case(
        "transport-wide sequence numbers",
        vec![
            webrtc(OWN),
            create,
            on(OWN, "transport.dump"),
            of_producer(OWN, "dump"),
            on(OWN, "transport.close"),
        ],
    )
}

/// What broth's own controller says; the original does not know it.
fn additions() -> Vec<Case> {
    let other = || json!({ "routerId": OTHER });
    let close = || request("router.close", other(), json!({}));
    let mut with_descriptors = request("worker.createRouter", other(), json!({}));
    with_descriptors["fds"] = 5.into();
    vec![
        case("descriptors", vec![with_descriptors, close()]),
        case(
            "sockets of a router",
            vec![
                request("worker.createRouter", other(), json!({ "sockets": 3 })),
                close(),
            ],
        ),
        case(
            "socket of a plain transport",
            vec![
                with(
                    plain(OWN),
                    json!({ "socket": 3, "preferIPv4": true, "preferIPv6": false }),
                ),
                on(OWN, "transport.close"),
            ],
        ),
        case(
            "load",
            vec![request("worker.getLoad", json!({}), json!({}))],
        ),
        case(
            "hello without a protocol",
            vec![request("worker.hello", json!({}), json!({}))],
        ),
    ]
}

fn closing() -> Vec<Case> {
    let other = || json!({ "routerId": OTHER });
    vec![
        case(
            "producer with consumers closes",
            vec![
                producer(OWN, PLAIN, 30),
                create_consumer(OWN, OWN, "video"),
                enable(OWN, WEBRTC, video_parameters(40)),
                of_producer(OWN, "close"),
                of_consumer(OWN, "dump"),
                request("router.dump", router(), json!({})),
            ],
        ),
        case(
            "transport with producers and consumers closes",
            vec![
                webrtc(ASIDE),
                producer(OWN, ASIDE, 30),
                create_consumer(OWN, OWN, "video"),
                create_consumer(OWN + 1, VIDEO, "video"),
                enable(OWN + 1, ASIDE, video_parameters(40)),
                on(ASIDE, "transport.close"),
                of_producer(OWN, "dump"),
                of_consumer(OWN, "dump"),
                of_consumer(OWN + 1, "dump"),
                of_consumer(OWN + 1, "close"),
            ],
        ),
        case(
            "router with everything closes",
            vec![
                request("worker.createRouter", other(), json!({})),
                in_other(webrtc(ASIDE)),
                in_other(producer(VIDEO, ASIDE, 30)),
                in_other(create_consumer(OWN, VIDEO, "video")),
                in_other(enable(OWN, ASIDE, video_parameters(40))),
                request("router.dump", other(), json!({})),
                request(
                    "router.setAudioLevelsEvent",
                    other(),
                    json!({ "enabled": true }),
                ),
                request("router.close", other(), json!({})),
                request("router.dump", other(), json!({})),
                in_other(of_consumer(OWN, "dump")),
            ],
        ),
    ]
}
