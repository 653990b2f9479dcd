//! Requests that carry RTP parameters, and everything that can be wrong with those.

use serde_json::{Value, json};

use super::methods::{
    AUDIO, OWN, PLAIN, VIDEO, WEBRTC, audio_parameters, consumer_on, create_consumer, mapping,
    of_consumer, of_producer, on, producer_on, video_parameters,
};
use super::{Case, Payload, Row, request};

/// The table.
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            before: vec![],
            request: create(everything(), mapping()),
            after: looks(),
        },
        Row {
            before: vec![create_consumer(OWN, VIDEO, "video")],
            request: enable(everything()),
            after: vec![
                of_consumer(OWN, "dump"),
                of_consumer(OWN, "getStats"),
                of_consumer(OWN, "close"),
            ],
        },
    ]
}

/// What contradicts itself, or is good in an unusual way.
pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("codecs", codecs()),
        ("encodings", encodings()),
        ("parameters", kept_parameters()),
        ("headerExtensions", extensions()),
    ]
    .into_iter()
    .flat_map(|(member, values)| {
        values.into_iter().map(move |value| {
            let mut parameters = video_parameters(500);
            if member == "parameters" {
                parameters["codecs"][0][member] = value.clone();
            } else {
                parameters[member] = value.clone();
            }
            case(format!("{member} {value}"), parameters, mapping(), "video")
        })
    })
    .collect();
    cases.extend(mappings());
    cases.extend(kinds());
    cases.extend(taken());
    cases
}

fn case(name: String, parameters: Value, mapping: Value, kind: &str) -> Case {
    let mut create = create(parameters, mapping);
    create["data"]["kind"] = kind.into();
    let payloads = [create].into_iter().chain(looks());
    Case {
        name,
        payloads: payloads.map(Payload::from).collect(),
    }
}

fn looks() -> Vec<Value> {
    vec![
        of_producer(OWN, "dump"),
        on(WEBRTC, "transport.dump"),
        of_producer(OWN, "getStats"),
        of_producer(OWN, "close"),
    ]
}

fn create(parameters: Value, mapping: Value) -> Value {
    let data = json!({
        "kind": "video", "rtpParameters": parameters, "rtpMapping": mapping, "paused": true,
    });
    request("router.createProducer", producer_on(OWN, WEBRTC), data)
}

fn enable(parameters: Value) -> Value {
    let data = json!({ "rtpParameters": parameters });
    request("consumer.enable", consumer_on(OWN, WEBRTC), data)
}

/// Every member that the original knows.
fn everything() -> Value {
    json!({
        "muxId": "mid",
        "codecs": [
            { "mimeType": "video/vp8", "name": "VP8", "payloadType": 96, "clockRate": 90_000,
                "channels": 2, "maxptime": 60, "ptime": 20,
                "parameters": { "text": "a", "list": [1, 2], "real": 1.5, "flag": true },
                "rtcpFeedback": [
                    { "type": "nack" }, { "type": "nack", "parameter": "pli" },
                    { "type": "ccm", "parameter": "fir" },
                ] },
            { "mimeType": "video/rtx", "name": "rtx", "payloadType": 97, "clockRate": 90_000,
                "parameters": { "apt": 96 }, "rtcpFeedback": [] },
        ],
        "encodings": [{
            "ssrc": 600, "codecPayloadType": 96, "rtx": { "ssrc": 601 },
            "fec": { "mechanism": "flexfec", "ssrc": 602 },
            "resolutionScale": 2.0, "framerateScale": 1.5, "maxFramerate": 30, "active": true,
            "encodingId": "rid", "dependencyEncodingIds": ["a"],
        }],
        "headerExtensions": [
            { "uri": "URN:ietf:params:rtp-hdrext:sdes:mid", "id": 4, "encrypt": true,
                "parameters": { "one": 1 } },
            { "uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 2 },
        ],
        "rtcp": { "cname": "cname", "ssrc": 5, "reducedSize": false },
    })
}

fn codec(mime_type: &str, pt: u32) -> Value {
    json!({ "mimeType": mime_type, "payloadType": pt, "clockRate": 90_000 })
}

fn rtx(pt: u32, apt: Value) -> Value {
    let mut codec = codec("video/rtx", pt);
    codec["parameters"] = json!({ "apt": apt });
    codec
}

fn codecs() -> Vec<Value> {
    let vp8 = || codec("video/VP8", 96);
    let mut lists = vec![
        json!([vp8(), vp8()]),
        json!([vp8(), codec("video/H264", 96)]),
        json!([vp8(), rtx(97, json!(96)), rtx(98, json!(97))]),
        json!([vp8(), rtx(97, json!(97))]),
        json!([vp8(), codec("video/ulpfec", 98), rtx(97, json!(98))]),
        json!([vp8(), codec("video/flexfec", 98), rtx(97, json!(98))]),
        json!([vp8(), codec("video/red", 98), rtx(97, json!(98))]),
        json!([vp8(), rtx(97, json!(77))]),
        json!([vp8(), rtx(97, json!("96"))]),
        json!([vp8(), rtx(97, json!(96.0))]),
        json!([vp8(), rtx(97, json!(96.5))]),
        json!([vp8(), rtx(97, json!(-1))]),
        json!([vp8(), rtx(97, json!([96]))]),
        json!([rtx(97, json!(96))]),
        json!([codec("audio/CN", 13)]),
        json!([codec("audio/telephone-event", 126), vp8()]),
        json!([codec("video/red", 98), codec("video/ulpfec", 99)]),
        json!([codec("video/VP8", 352)]),
        json!([codec("video/VP8", 96), codec("video/VP9", 352)]),
        json!([codec("audio/opus", 96)]),
        json!([codec("AUDIO/OPUS", 96)]),
    ];
    let names = [
        "video",
        "/VP8",
        "video/",
        "video/VP8/x",
        "text/VP8",
        "video/AV1",
        "Video/VP8",
        "video/x-H264UC",
        "video/h265",
        "video/vp9",
        "audio/pcmA",
        "audio/PCMU",
        "audio/iSAC",
        "audio/G722",
        "audio/ilbc",
        "audio/silk",
        "video/X-ULPFECUC",
        "video/opus",
        "x/y",
        "VIDEO/AV1",
        " video/VP8",
        "/",
        "video//VP8",
    ];
    lists.extend(names.map(|name| json!([codec(name, 96)])));
    lists
}

fn encodings() -> Vec<Value> {
    let layer = |ssrc: u32, profile: &str| json!({ "ssrc": ssrc, "profile": profile });
    vec![
        json!([layer(1, "low"), layer(2, "medium"), layer(3, "high")]),
        json!([layer(1, "high"), layer(2, "low")]),
        json!([layer(1, "low"), layer(2, "low")]),
        json!([layer(1, "low")]),
        json!([layer(1, "none")]),
        json!([layer(1, "default")]),
        json!([layer(1, "Low")]),
        json!([layer(1, "")]),
        json!([layer(1, "low"), { "ssrc": 2 }]),
        json!([{ "ssrc": 1 }, layer(2, "high")]),
        json!([{ "ssrc": 1 }, { "ssrc": 2 }]),
        json!([{ "ssrc": 1 }, { "ssrc": 1 }]),
        json!([layer(1, "low"), layer(1, "high")]),
        json!([{ "ssrc": 1, "rtx": { "ssrc": 1 } }]),
        json!([{ "ssrc": 100 }]),
        json!([{ "ssrc": 1, "rtx": { "ssrc": 101 } }]),
        json!([{ "ssrc": 1, "fec": { "mechanism": "x", "ssrc": 101 } }]),
        json!([{ "ssrc": 0 }]),
        json!([{}]),
        json!([{}, {}]),
        json!([{ "codecPayloadType": 97 }]),
        json!([{ "codecPayloadType": 99 }]),
        json!([{ "codecPayloadType": 352 }]),
        json!([{ "encodingId": "a", "profile": "low" }, { "encodingId": "b", "profile": "high" }]),
        json!([{ "encodingId": "a", "profile": "low" }, { "encodingId": "a", "profile": "high" }]),
        json!([{ "encodingId": "" }]),
        json!([{ "fec": {} }]),
        json!([{ "rtx": {} }]),
        json!([{ "resolutionScale": 1, "framerateScale": 1.0, "maxFramerate": 0 }]),
        json!([{ "active": false }]),
        json!([{ "dependencyEncodingIds": ["a", 1, null, "b"] }]),
    ]
}

fn kept_parameters() -> Vec<Value> {
    vec![
        json!({ "a": true, "b": false }),
        json!({ "a": 0, "b": -5, "c": 2_147_483_647, "d": -2_147_483_648 }),
        json!({ "a": 2_147_483_648_u32 }),
        json!({ "a": 9_007_199_254_740_993_u64 }),
        json!({ "a": 18_446_744_073_709_551_615_u64 }),
        json!({ "a": -2_147_483_649_i64 }),
        json!({ "a": 1.0, "b": 1e300, "c": -0.5 }),
        json!({ "a": "", "b": "text" }),
        json!({ "a": [], "b": [1], "c": [1, -2, 2_147_483_647] }),
        json!({ "a": [1, "x"], "b": [1.5], "c": [null], "d": [2_147_483_648_u32] }),
        json!({ "a": [1.0] }),
        json!({ "a": null, "b": {}, "c": { "d": 1 } }),
        json!({ "": 1 }),
    ]
}

fn extensions() -> Vec<Value> {
    let extension = |uri: &str, id: u32| json!({ "uri": uri, "id": id });
    vec![
        json!([extension("urn:unknown", 1)]),
        json!([extension("urn:ietf:params:rtp-hdrext:toffset", 1)]),
        json!([extension("urn:3gpp:video-orientation", 1)]),
        json!([extension("URN:3GPP:video-orientation", 1)]),
        json!([extension(
            "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            10
        )]),
        json!([extension("urn:ietf:params:rtp-hdrext:sdes:mid", 4)]),
        json!([extension("urn:ietf:params:rtp-hdrext:ssrc-audio-level", 1)]),
        json!([extension("urn:3gpp:video-orientation", 0)]),
        json!([extension("urn:3gpp:video-orientation", 256)]),
        json!([extension("urn:3gpp:video-orientation", 300)]),
        json!([
            extension("urn:3gpp:video-orientation", 1),
            extension("urn:unknown", 2)
        ]),
        json!([
            extension("urn:3gpp:video-orientation", 1),
            extension("urn:3gpp:video-orientation", 1)
        ]),
    ]
}

fn mappings() -> Vec<Case> {
    let lists = [
        json!([[96, 101], [96, 102]]),
        json!([[352, 357], [97, 102]]),
        json!([[96, 101, 1], [97, 102]]),
        json!([[96]]),
        json!([[96, "x"]]),
        json!([{ "a": 1 }]),
        json!([[96.0, 101.0]]),
        json!([[-1, 1]]),
        json!([[4_294_967_295_u32, 4_294_967_295_u32]]),
        json!([[4_294_967_296_u64, 1]]),
    ];
    let mut cases = Vec::new();
    for list in lists {
        for member in ["codecPayloadTypes", "headerExtensionIds"] {
            let mut mapping = mapping();
            mapping[member] = list.clone();
            let name = format!("{member} {list}");
            cases.push(case(name, video_parameters(700), mapping, "video"));
        }
    }
    cases
}

fn kinds() -> Vec<Case> {
    let kinds = ["audio", "AUDIO", "Video", "", "text", "audio "];
    let producers = kinds.map(|kind| {
        let parameters = audio_parameters(800);
        case(
            format!("producer kind {kind:?}"),
            parameters,
            mapping(),
            kind,
        )
    });
    let consumers = kinds.map(|kind| Case {
        name: format!("consumer kind {kind:?}"),
        payloads: [
            create_consumer(OWN, AUDIO, kind),
            of_consumer(OWN, "dump"),
            of_consumer(OWN, "close"),
        ]
        .map(Payload::from)
        .into(),
    });
    producers.into_iter().chain(consumers).collect()
}

/// What belongs to another producer of the transport, and is free on another transport.
fn taken() -> Vec<Case> {
    let with = |member: &str, value: Value| {
        let mut parameters = video_parameters(900);
        if member == "muxId" {
            parameters[member] = value;
        } else {
            parameters["encodings"][0][member] = value;
        }
        parameters
    };
    let first = |parameters: &Value, transport: u32| {
        let data = json!({
            "kind": "video", "rtpParameters": parameters, "rtpMapping": mapping(),
        });
        request("router.createProducer", producer_on(OWN, transport), data)
    };
    let second = |parameters: &Value, transport: u32| {
        let mut create = first(parameters, transport);
        create["internal"]["producerId"] = (OWN + 1).into();
        create
    };
    let rows = [
        ("ssrc", json!(900)),
        ("muxId", json!("m")),
        ("encodingId", json!("r")),
    ];
    let case = |name: String, one: &Value, other: &Value, transport: u32| Case {
        name,
        payloads: [
            first(one, WEBRTC),
            second(other, transport),
            on(WEBRTC, "transport.dump"),
            on(PLAIN, "transport.dump"),
            of_producer(OWN, "close"),
            on(WEBRTC, "transport.dump"),
            second(other, transport),
            on(WEBRTC, "transport.dump"),
            of_producer(OWN + 1, "close"),
        ]
        .map(Payload::from)
        .into(),
    };
    let mut cases = Vec::new();
    for (member, value) in rows {
        for transport in [WEBRTC, PLAIN] {
            let one = with(member, value.clone());
            let mut other = one.clone();
            if member != "ssrc" {
                other["encodings"][0]["ssrc"] = 910.into();
                other["encodings"][0]["rtx"]["ssrc"] = 911.into();
            }
            let name = format!("taken {member} on transport {transport}");
            cases.push(case(name, &one, &other, transport));
        }
    }
    let mut one = with("encodingId", json!("r"));
    one["muxId"] = "a".into();
    let mut other = one.clone();
    other["muxId"] = "b".into();
    other["encodings"][0] = json!({ "encodingId": "r" });
    let name = "taken encodingId of another muxId";
    cases.push(case(name.into(), &one, &other, WEBRTC));
    cases
}
