//! A valid request of every method but those that carry RTP parameters.

use serde_json::{Value, json};

use super::{Row, request};

/// Ids of the objects that are always there.
pub(super) const ROUTER: u32 = 1;
pub(super) const WEBRTC: u32 = 2;
pub(super) const PLAIN: u32 = 3;
pub(super) const VIDEO: u32 = 4;
pub(super) const AUDIO: u32 = 5;
/// A consumer of the video that is not enabled.
pub(super) const IDLE: u32 = 6;
/// A consumer of the audio that is enabled.
pub(super) const ENABLED: u32 = 7;
/// Id of what a case makes for itself.
pub(super) const OWN: u32 = 9;

/// Makes the objects that are always there.
pub(super) fn setup() -> Vec<Value> {
    let video = json!({
        "kind": "video",
        "rtpParameters": video_parameters(100),
        "rtpMapping": mapping(),
    });
    let audio = json!({
        "kind": "audio",
        "rtpParameters": audio_parameters(200),
        "rtpMapping": mapping(),
    });
    vec![
        request("worker.createRouter", router(), json!({})),
        webrtc(WEBRTC),
        plain(PLAIN),
        request("router.createProducer", producer_on(VIDEO, WEBRTC), video),
        request("router.createProducer", producer_on(AUDIO, WEBRTC), audio),
        create_consumer(IDLE, VIDEO, "video"),
        create_consumer(ENABLED, AUDIO, "audio"),
        request(
            "consumer.enable",
            consumer_on(ENABLED, WEBRTC),
            json!({ "rtpParameters": audio_parameters(300) }),
        ),
    ]
}

/// The table.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = worker_rows();
    rows.extend(router_rows());
    rows.extend(transport_rows());
    rows.extend(producer_rows());
    rows.extend(consumer_rows());
    rows
}

fn worker_rows() -> Vec<Row> {
    let own = json!({ "routerId": OWN });
    let create = request("worker.createRouter", own.clone(), json!({}));
    let dump = request("router.dump", own.clone(), json!({}));
    let close = request("router.close", own.clone(), json!({}));
    let settings = json!({ "logLevel": "none", "logTags": ["ice", "dtls"] });
    vec![
        row(request("worker.dump", json!({}), json!({}))),
        row(request("worker.updateSettings", json!({}), settings)),
        Row {
            before: vec![],
            request: create.clone(),
            after: vec![dump.clone(), close.clone()],
        },
        Row {
            before: vec![create],
            request: close.clone(),
            after: vec![dump.clone(), close],
        },
        row(request("router.dump", router(), json!({}))),
    ]
}

fn router_rows() -> Vec<Row> {
    let options = json!({
        "udp": true, "tcp": true, "preferIPv4": true, "preferIPv6": false,
        "preferUdp": true, "preferTcp": false,
    });
    let plain_options = json!({
        "remoteIP": "127.0.0.1", "remotePort": 40_404, "localIP": "127.0.0.1",
        "preferIPv4": true, "preferIPv6": false,
    });
    let levels = |is_on: bool| {
        let data = json!({ "enabled": is_on });
        request("router.setAudioLevelsEvent", router(), data)
    };
    let looks = [
        on(OWN, "transport.dump"),
        on(OWN, "transport.getStats"),
        on(OWN, "transport.close"),
    ];
    vec![
        Row {
            before: vec![],
            request: request("router.createWebRtcTransport", transport(OWN), options),
            after: looks.to_vec(),
        },
        Row {
            before: vec![],
            request: request(
                "router.createPlainRtpTransport",
                transport(OWN),
                plain_options,
            ),
            after: looks.to_vec(),
        },
        Row {
            before: vec![],
            request: create_consumer(OWN, VIDEO, "video"),
            after: vec![of_consumer(OWN, "dump"), of_consumer(OWN, "close")],
        },
        Row {
            before: vec![],
            request: levels(true),
            after: vec![levels(false)],
        },
    ]
}

fn transport_rows() -> Vec<Row> {
    let dtls = json!({
        "role": "client",
        "fingerprints": [
            { "algorithm": "sha-1", "value": "AA:BB" },
            { "algorithm": "sha-256", "value": "CC:DD" },
        ],
    });
    let mirroring = json!({
        "remoteIP": "127.0.0.1", "remotePort": 40_406, "localIP": "127.0.0.1",
        "sendRtp": true, "sendRtcp": true, "recvRtp": true, "recvRtcp": true,
    });
    let remote = json!({ "ip": "127.0.0.1", "port": 40_408 });
    let bitrate = json!({ "bitrate": 250_000 });
    let with_own = |request: Value, after: &[&str]| Row {
        before: vec![webrtc(OWN)],
        request,
        after: after.iter().map(|method| on(OWN, method)).collect(),
    };
    let dump_and_close = ["transport.dump", "transport.close"];
    vec![
        with_own(on(OWN, "transport.close"), &dump_and_close),
        row(on(WEBRTC, "transport.dump")),
        row(on(PLAIN, "transport.dump")),
        row(on(WEBRTC, "transport.getStats")),
        row(on(PLAIN, "transport.getStats")),
        with_own(
            request("transport.setRemoteDtlsParameters", transport(OWN), dtls),
            &dump_and_close,
        ),
        Row {
            before: vec![plain(OWN)],
            request: request("transport.setRemoteParameters", transport(OWN), remote),
            after: dump_and_close.map(|method| on(OWN, method)).to_vec(),
        },
        with_own(
            request("transport.setMaxBitrate", transport(OWN), bitrate),
            &["transport.getStats", "transport.close"],
        ),
        with_own(on(OWN, "transport.changeUfragPwd"), &dump_and_close),
        Row {
            before: vec![],
            request: request("transport.startMirroring", transport(WEBRTC), mirroring),
            after: vec![on(WEBRTC, "transport.stopMirroring")],
        },
        row(on(WEBRTC, "transport.stopMirroring")),
    ]
}

fn producer_rows() -> Vec<Row> {
    let profile = json!({ "profile": "medium" });
    let own = json!({
        "kind": "video",
        "rtpParameters": video_parameters(400),
        "rtpMapping": mapping(),
    });
    let looks = [of_producer(VIDEO, "dump"), of_consumer(IDLE, "dump")];
    vec![
        Row {
            before: vec![request(
                "router.createProducer",
                producer_on(OWN, PLAIN),
                own,
            )],
            request: of_producer(OWN, "close"),
            after: vec![of_producer(OWN, "close")],
        },
        row(of_producer(VIDEO, "dump")),
        row(of_producer(VIDEO, "getStats")),
        Row {
            before: vec![],
            request: of_producer(VIDEO, "pause"),
            after: looks.to_vec(),
        },
        Row {
            before: vec![],
            request: of_producer(VIDEO, "resume"),
            after: looks.to_vec(),
        },
        Row {
            before: vec![],
            request: with(of_producer(VIDEO, "setPreferredProfile"), profile),
            after: looks.to_vec(),
        },
    ]
}

fn consumer_rows() -> Vec<Row> {
    let profile = json!({ "profile": "low" });
    let layers = json!({ "qualityLayer": 1, "spatialLayer": 1, "temporalLayer": 1 });
    let look = vec![of_consumer(ENABLED, "dump")];
    let of_enabled = |method: &str| Row {
        before: vec![],
        request: of_consumer(ENABLED, method),
        after: look.clone(),
    };
    vec![
        Row {
            before: vec![create_consumer(OWN, VIDEO, "video")],
            request: of_consumer(OWN, "close"),
            after: vec![of_consumer(OWN, "close")],
        },
        row(of_consumer(IDLE, "dump")),
        row(of_consumer(IDLE, "getStats")),
        row(of_consumer(ENABLED, "getStats")),
        of_enabled("dump"),
        of_enabled("pause"),
        of_enabled("resume"),
        of_enabled("requestKeyFrame"),
        Row {
            before: vec![],
            request: with(of_consumer(ENABLED, "setPreferredProfile"), profile),
            after: look.clone(),
        },
        Row {
            before: vec![],
            request: with(of_consumer(ENABLED, "setEncodingPreferences"), layers),
            after: look,
        },
    ]
}

fn row(request: Value) -> Row {
    Row {
        before: vec![],
        request,
        after: vec![],
    }
}

pub(super) fn with(mut request: Value, data: Value) -> Value {
    request["data"] = data;
    request
}

pub(super) fn router() -> Value {
    json!({ "routerId": ROUTER })
}

pub(super) fn transport(id: u32) -> Value {
    json!({ "routerId": ROUTER, "transportId": id })
}

pub(super) fn producer_on(id: u32, transport: u32) -> Value {
    json!({ "routerId": ROUTER, "producerId": id, "transportId": transport })
}

pub(super) fn consumer_on(id: u32, transport: u32) -> Value {
    json!({ "routerId": ROUTER, "consumerId": id, "transportId": transport })
}

pub(super) fn on(id: u32, method: &str) -> Value {
    request(method, transport(id), json!({}))
}

pub(super) fn of_producer(id: u32, method: &str) -> Value {
    let ids = json!({ "routerId": ROUTER, "producerId": id });
    request(&format!("producer.{method}"), ids, json!({}))
}

pub(super) fn of_consumer(id: u32, method: &str) -> Value {
    let ids = json!({ "routerId": ROUTER, "consumerId": id });
    request(&format!("consumer.{method}"), ids, json!({}))
}

pub(super) fn webrtc(id: u32) -> Value {
    request("router.createWebRtcTransport", transport(id), json!({}))
}

pub(super) fn plain(id: u32) -> Value {
    // The original leaves what is absent here to chance.
    let data = json!({ "preferIPv4": true, "preferIPv6": false });
    request("router.createPlainRtpTransport", transport(id), data)
}

pub(super) fn create_consumer(id: u32, producer: u32, kind: &str) -> Value {
    let ids = json!({ "routerId": ROUTER, "consumerId": id, "producerId": producer });
    request("router.createConsumer", ids, json!({ "kind": kind }))
}

pub(super) fn mapping() -> Value {
    json!({
        "codecPayloadTypes": [[96, 101], [97, 102], [111, 100]],
        "headerExtensionIds": [[1, 1], [2, 3], [4, 5]],
    })
}

pub(super) fn video_parameters(ssrc: u32) -> Value {
    json!({
        "codecs": [
            { "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90_000, "rtcpFeedback": [
                { "type": "nack" }, { "type": "nack", "parameter": "pli" },
                { "type": "ccm", "parameter": "fir" }, { "type": "goog-remb" },
            ] },
            { "mimeType": "video/rtx", "payloadType": 97, "clockRate": 90_000,
                "parameters": { "apt": 96 } },
        ],
        "encodings": [{ "ssrc": ssrc, "rtx": { "ssrc": ssrc + 1 } }],
        "headerExtensions": [
            { "uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 2 },
        ],
        "rtcp": { "cname": "video" },
    })
}

pub(super) fn audio_parameters(ssrc: u32) -> Value {
    json!({
        "codecs": [
            { "mimeType": "audio/opus", "payloadType": 111, "clockRate": 48_000, "channels": 2,
                "parameters": { "useinbandfec": 1 } },
        ],
        "encodings": [{ "ssrc": ssrc }],
        "headerExtensions": [
            { "uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "id": 1 },
        ],
        "rtcp": { "cname": "audio", "reducedSize": true },
    })
}
