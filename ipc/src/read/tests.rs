use serde_json::{Value, json};

use super::*;
use crate::body::{CreateProducer, DtlsParameters, DtlsRole, PlainRtpTransportOptions};
use crate::rtp::RtpParameters;

fn producer(parameters: Value) -> Result<CreateProducer, Rejection> {
    let data = json!({
        "kind": "video",
        "rtpParameters": parameters,
        "rtpMapping": { "codecPayloadTypes": [], "headerExtensionIds": [] },
    });
    CreateProducer::read(Members::of(&data))
}

fn reason<T>(read: Result<T, Rejection>) -> Option<String> {
    read.err().map(|rejection| rejection.reason)
}

fn dump(parameters: &RtpParameters) -> Value {
    crate::rtp::dump::serialize(parameters, serde_json::value::Serializer).unwrap()
}

#[test]
fn contradictions_are_refused_by_name() {
    let vp8 = json!({ "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90_000 });
    let rtx = |apt: Value| {
        json!({ "mimeType": "video/rtx", "payloadType": 97, "clockRate": 90_000,
            "parameters": { "apt": apt } })
    };
    let rows = [
        (json!(7), json!([{}]), Some("missing rtpParameters.codecs")),
        (json!([]), json!([{}]), Some("empty rtpParameters.codecs")),
        (
            json!([7]),
            json!([{}]),
            Some("RtpCodecParameters is not an object"),
        ),
        (
            json!([vp8]),
            json!(null),
            Some("missing rtpParameters.encodings"),
        ),
        (
            json!([vp8]),
            json!([]),
            Some("empty rtpParameters.encodings"),
        ),
        (json!([vp8]), json!([{ "ssrc": "wrong" }]), None),
        (json!([vp8, rtx(json!(96))]), json!([{ "ssrc": 1 }]), None),
        (json!([vp8, rtx(json!(77))]), json!([{}]), None),
        (
            json!([vp8, rtx(json!(97))]),
            json!([{}]),
            Some("apt in RTX codec points to a RTX codec"),
        ),
        (
            json!([vp8, vp8]),
            json!([{}]),
            Some("duplicated codec.payloadType"),
        ),
        (
            json!([vp8, rtx(json!("x"))]),
            json!([{}]),
            Some("missing apt parameter in RTX RtpCodecParameters"),
        ),
        (
            json!([rtx(json!(96))]),
            json!([{}]),
            Some("no media codecs found"),
        ),
        (
            json!([vp8]),
            json!([{ "codecPayloadType": 99 }]),
            Some("unknown encoding.codecPayloadType"),
        ),
        (
            json!([vp8]),
            json!([{ "profile": "low" }]),
            Some("invalid single encoding with non default profile"),
        ),
        (
            json!([vp8]),
            json!([{ "profile": "low" }, {}]),
            Some("invalid encoding.profile"),
        ),
        (
            json!([vp8]),
            json!([{ "profile": "low" }, { "profile": "low" }]),
            Some("duplicated encoding.profile"),
        ),
        (
            json!([vp8]),
            json!([{ "profile": "low" }, { "profile": "high" }]),
            None,
        ),
    ];
    for (codecs, encodings, expected) in rows {
        let parameters = json!({ "codecs": codecs, "encodings": encodings });
        let reason = reason(producer(parameters.clone()));
        assert_eq!(reason.as_deref(), expected, "{parameters}");
    }
}

#[test]
fn dumps_show_what_was_understood_with_all_defaults() {
    let read = producer(json!({
        "codecs": [{
            "mimeType": "VIDEO/vp8", "payloadType": 352, "clockRate": 90_000, "channels": 1,
            "parameters": {
                "flag": true, "list": [1, 2], "mixed": [1, "x"], "none": null, "big": 2147483648u32,
                "small": -2147483649i64, "real": 1.5, "text": "x",
            },
            "rtcpFeedback": [{ "type": "nack" }],
        }],
        "encodings": [{ "ssrc": 7, "resolutionScale": 1, "maxFramerate": 30, "unknown": 1 }],
        "headerExtensions": [
            { "uri": "URN:3GPP:video-orientation", "id": 4 }, { "uri": "urn:unknown", "id": 5 },
        ],
        "rtcp": {},
    }));
    assert_eq!(
        dump(&read.unwrap().rtp_parameters),
        json!({
            "codecs": [{
                "mimeType": "video/VP8", "name": "vp8", "payloadType": 96, "clockRate": 90_000,
                "parameters": { "flag": true, "list": [1, 2], "real": 1.5, "text": "x" },
                "rtcpFeedback": [{ "type": "nack", "parameter": null }],
            }],
            "encodings": [{
                "ssrc": 7, "codecPayloadType": 96, "maxFramerate": 30, "active": true,
                "profile": "default",
            }],
            "headerExtensions": [{
                "uri": "urn:3gpp:video-orientation", "id": 4, "encrypt": false, "parameters": {},
            }],
            "rtcp": { "reducedSize": true },
        })
    );
}

#[test]
fn the_last_known_fingerprint_counts_and_its_lack_is_told_before_a_wrong_role() {
    let sha = |value: &str| json!({ "algorithm": "sha-256", "value": value });
    let md5 = json!({ "algorithm": "md5", "value": "x" });
    let read = |role: &str, fingerprints: Value| {
        let data = json!({ "role": role, "fingerprints": fingerprints });
        DtlsParameters::read(Members::of(&data))
    };
    let chosen = read("client", json!([7, sha("a"), sha("b"), md5])).unwrap();
    assert_eq!(chosen.role, DtlsRole::Client);
    assert_eq!(chosen.fingerprints.len(), 1);
    assert_eq!(chosen.fingerprints[0].value, "b");
    assert_eq!(read("chicken", json!([md5])).unwrap().fingerprints, []);
    let wrong = read("chicken", json!([sha("a")]));
    assert_eq!(reason(wrong).as_deref(), Some("invalid remote role"));
    let wrong = read("client", json!([7]));
    assert_eq!(reason(wrong).as_deref(), Some("wrong fingerprint"));
}

#[test]
fn ports_are_needed_beside_addresses_and_are_never_wrapped() {
    let rows = [
        (json!({}), None),
        (json!({ "remotePort": 70_000 }), None),
        (json!({ "remoteIP": 7 }), None),
        (
            json!({ "remoteIP": "127.0.0.1" }),
            Some("missing data.remotePort"),
        ),
        (
            json!({ "remoteIP": "127.0.0.1", "remotePort": 70_000 }),
            Some("invalid destination port 70000"),
        ),
    ];
    for (data, expected) in rows {
        let read = PlainRtpTransportOptions::read(Members::of(&data));
        assert_eq!(reason(read).as_deref(), expected, "{data}");
    }
}
