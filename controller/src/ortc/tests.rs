use serde_json::json;

use super::*;

fn room() -> RtpCapabilities {
    room_capabilities(&[
        RoomMediaCodec::audio("OPUS", 48_000, 2),
        RoomMediaCodec::video("vp8"),
    ])
    .unwrap()
}

/// What a browser sends, as recorded of the original.
fn sent(encodings: &Value) -> RtpParameters {
    serde_json::from_value(json!({
        "muxId": "1",
        "codecs": [
            { "name": "VP8", "mimeType": "video/VP8", "clockRate": 90000, "payloadType": 96,
              "rtcpFeedback": [{ "type": "nack" }], "parameters": {} },
            { "name": "rtx", "mimeType": "video/rtx", "clockRate": 90000, "payloadType": 97,
              "parameters": { "apt": 96 } },
        ],
        "headerExtensions": [
            { "uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 2 },
            { "uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "id": 4 },
        ],
        "encodings": encodings,
        "rtcp": { "cname": "abcd" },
    }))
    .unwrap()
}

#[test]
fn a_room_names_its_codecs_and_adds_rtx() {
    let codecs: Vec<_> = room()
        .codecs
        .iter()
        .map(|codec| {
            let apt = codec.parameters.get("apt").and_then(Value::as_u64);
            (codec.name.clone(), codec.preferred_payload_type, apt)
        })
        .collect();
    let expected = [
        ("opus".to_owned(), 100, None),
        ("VP8".to_owned(), 101, None),
        ("rtx".to_owned(), 102, Some(101)),
    ];
    assert_eq!(codecs, expected);
    let fixed = room_capabilities(&[RoomMediaCodec::audio("PCMU", 8000, 1)]).unwrap();
    assert_eq!(fixed.codecs[0].preferred_payload_type, 0);
}

#[test]
fn what_no_room_can_have_is_refused() {
    let nameless = RoomMediaCodec::audio("", 48_000, 2);
    let timeless = RoomMediaCodec::audio("opus", 0, 2);
    let mono = RoomMediaCodec::audio("opus", 48_000, 1);
    let rows: [(&[RoomMediaCodec], &str); 5] = [
        (&[], "mediaCodecs cannot be empty"),
        (&[nameless], "invalid RTCCodecCapability"),
        (&[timeless], "invalid RTCCodecCapability"),
        (&[mono], "RoomMediaCodec not supported [name:opus]"),
        (
            &[RoomMediaCodec::video("theora")],
            "RoomMediaCodec not supported [name:theora]",
        ),
    ];
    for (codecs, expected) in rows {
        assert_eq!(room_capabilities(codecs).unwrap_err().to_string(), expected);
    }
}

/// The room of mediasoup v2's own tests (`spec: api.md` §18).
#[test]
fn names_are_canonical_and_parameters_are_kept() {
    let codecs = [
        RoomMediaCodec::audio("OPUS", 48_000, 2),
        RoomMediaCodec {
            channels: None,
            ..RoomMediaCodec::audio("pcmu", 8000, 1)
        },
        // As applications of v2 write it.
        serde_json::from_value(
            json!({ "kind": "video", "name": "vp8", "mimetype": "video/VP8",
            "clockRate": 90000, "parameters": { "foo": 123 } }),
        )
        .unwrap(),
    ];
    let room = room_capabilities(&codecs).unwrap();
    let seen = serde_json::to_value(&room.codecs).unwrap();
    let feedback = json!([
        { "type": "nack" }, { "type": "nack", "parameter": "pli" },
        { "type": "ccm", "parameter": "fir" }, { "type": "goog-remb" }, { "type": "transport-cc" },
    ]);
    let expected = json!([
        { "kind": "audio", "name": "opus", "mimeType": "audio/opus", "clockRate": 48000,
          "channels": 2, "preferredPayloadType": 100, "parameters": {}, "rtcpFeedback": [] },
        { "kind": "audio", "name": "PCMU", "mimeType": "audio/PCMU", "clockRate": 8000,
          "channels": 1, "preferredPayloadType": 0, "parameters": {}, "rtcpFeedback": [] },
        { "kind": "video", "name": "VP8", "mimeType": "video/VP8", "clockRate": 90000,
          "preferredPayloadType": 101, "parameters": { "foo": 123 }, "rtcpFeedback": feedback },
        { "kind": "video", "name": "rtx", "mimeType": "video/rtx", "clockRate": 90000,
          "preferredPayloadType": 102, "parameters": { "apt": 101 } },
    ]);
    assert_eq!(seen, expected);
    assert!(room.fec_mechanisms.is_empty());
}

#[test]
fn all_extensions_are_offered_under_the_ids_of_v2() {
    let extensions = room().header_extensions;
    let seen: Vec<_> = extensions
        .iter()
        .map(|e| {
            (
                e.kind.map_or("", MediaKind::as_str),
                e.preferred_id,
                &*e.uri,
            )
        })
        .collect();
    let expected = [
        ("audio", 1, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
        ("video", 2, "urn:ietf:params:rtp-hdrext:toffset"),
        ("audio", 3, ABS_SEND_TIME_URI),
        ("video", 3, ABS_SEND_TIME_URI),
        ("video", 4, "urn:3gpp:video-orientation"),
        ("audio", 5, MID_URI),
        ("video", 5, MID_URI),
        ("video", 6, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
        // Not v2's.
        ("video", 7, TRANSPORT_CC_URI),
    ];
    assert_eq!(seen, expected);
    assert!(
        extensions
            .iter()
            .all(|extension| !extension.preferred_encrypt)
    );
}

#[test]
fn a_producers_numbers_map_to_the_rooms() {
    let parameters = sent(&json!([{ "ssrc": 1111, "rtx": { "ssrc": 1112 } }]));
    let mapping = producer_mapping(MediaKind::Video, &parameters, &room()).unwrap();
    assert_eq!(mapping.codec_payload_types, [(96, 101), (97, 102)]);
    assert_eq!(mapping.header_extension_ids, [(2, 3), (4, 5)]);
}

#[test]
fn profiles_cannot_be_mixed_with_none_and_kinds_must_agree() {
    let mixed = sent(&json!([{ "ssrc": 1, "profile": "low" }, { "ssrc": 2 }]));
    assert!(producer_mapping(MediaKind::Video, &mixed, &room()).is_err());
    let video = sent(&json!([{ "ssrc": 1 }]));
    assert!(producer_mapping(MediaKind::Audio, &video, &room()).is_err());
}

#[test]
fn a_codec_the_room_does_not_have_is_named() {
    let mut parameters = sent(&json!([{ "ssrc": 1 }]));
    parameters.codecs[0].name = "H264".into();
    parameters.codecs[0].mime_type = "video/H264".into();
    let error = producer_mapping(MediaKind::Video, &parameters, &room()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unsupported codec [name:H264, payloadType:96]"
    );
}

#[test]
fn capabilities_must_be_a_subset_of_the_rooms() {
    assert!(assert_capabilities_subset(&room(), &room()).is_ok());
    let mut moved = room();
    moved.codecs[0].preferred_payload_type = 111;
    let error = assert_capabilities_subset(&moved, &room()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unsupported codec [name:opus, preferredPayloadType:111]"
    );
    type Row<'a> = (&'a dyn Fn(&mut RtpCapabilities), Option<&'a str>);
    let rows: [Row<'_>; 8] = [
        (&|c| c.codecs[0].name = "OPUS".into(), None),
        (&|c| c.codecs[0].kind = None, None),
        (&|c| c.header_extensions[0].kind = None, None),
        (&|c| c.codecs.clear(), None),
        (
            &|c| c.codecs[0].channels = None,
            Some("unsupported codec [name:opus, preferredPayloadType:100]"),
        ),
        (
            &|c| c.codecs[1].clock_rate = 8000,
            Some("unsupported codec [name:VP8, preferredPayloadType:101]"),
        ),
        (
            &|c| c.header_extensions[0].kind = Some(MediaKind::Video),
            Some(
                "unsupported header extension [kind:video, \
                 uri:urn:ietf:params:rtp-hdrext:ssrc-audio-level]",
            ),
        ),
        (
            &|c| {
                c.header_extensions[0].kind = None;
                c.header_extensions[0].uri = "urn:x".into();
            },
            Some("unsupported header extension [kind:undefined, uri:urn:x]"),
        ),
    ];
    for (change, expected) in rows {
        let mut changed = room();
        change(&mut changed);
        let refused = assert_capabilities_subset(&changed, &room()).err();
        assert_eq!(refused.map(|error| error.to_string()).as_deref(), expected);
    }
}

#[test]
fn what_is_consumed_is_in_the_rooms_numbers_without_mid_and_feedback_of_ours() {
    let mut parameters = sent(&json!([{ "ssrc": 1111, "rtx": { "ssrc": 1112 } }]));
    parameters
        .header_extensions
        .push(RtpHeaderExtensionParameters {
            uri: TRANSPORT_CC_URI.into(),
            id: 9,
            encrypt: false,
            parameters: Parameters::new(),
        });
    let mapping = producer_mapping(MediaKind::Video, &parameters, &room()).unwrap();
    let consumable = consumable_parameters(&parameters, &room(), &mapping).unwrap();
    let codecs: Vec<_> = consumable.codecs.iter().map(|c| c.payload_type).collect();
    assert_eq!(codecs, [101, 102]);
    let extensions = consumable.header_extensions.iter();
    let extensions: Vec<_> = extensions.map(|e| (e.uri.as_str(), e.id)).collect();
    assert_eq!(extensions, [(ABS_SEND_TIME_URI, 3)]);
    assert_eq!(consumable.rtcp.cname.as_deref(), Some("abcd"));
}

/// What a peer with `capabilities` gets of a VP8 producer: payload types, feedback, RTX SSRC.
fn consumed(capabilities: &RtpCapabilities) -> (Vec<u8>, Vec<String>, Option<u32>) {
    let parameters = sent(&json!([{ "ssrc": 1111, "rtx": { "ssrc": 1112 } }]));
    let mapping = producer_mapping(MediaKind::Video, &parameters, &room()).unwrap();
    let consumable = consumable_parameters(&parameters, &room(), &mapping).unwrap();
    let consumer = consumer_parameters(&consumable, capabilities, 7, 8);
    assert_eq!(consumer.mux_id, None);
    assert_eq!(consumer.encodings.len(), 1);
    assert_eq!(consumer.encodings[0].ssrc, Some(7));
    (
        consumer.codecs.iter().map(|c| c.payload_type).collect(),
        consumer.codecs[..]
            .first()
            .map(|codec| {
                let kinds = codec.rtcp_feedback.iter();
                kinds.map(|feedback| feedback.kind.clone()).collect()
            })
            .unwrap_or_default(),
        consumer.encodings[0].rtx.and_then(|rtx| rtx.ssrc),
    )
}

#[test]
fn a_consumer_gets_what_its_peer_can_receive() {
    let without = |unwanted: &[&str]| {
        let mut capabilities = room();
        capabilities
            .codecs
            .retain(|codec| !unwanted.contains(&codec.name.as_str()));
        capabilities
    };
    let feedback = ["nack", "nack", "ccm", "goog-remb"].map(String::from);
    let rows = [
        (without(&[]), (vec![101, 102], feedback.to_vec(), Some(8))),
        (without(&["rtx"]), (vec![101], feedback.to_vec(), None)),
        (without(&["VP8", "rtx"]), (vec![], vec![], None)),
    ];
    for (capabilities, expected) in rows {
        assert_eq!(consumed(&capabilities), expected);
    }
}

#[test]
fn feedback_and_extensions_are_those_the_peer_knows() {
    let mut capabilities = room();
    capabilities.codecs[1].rtcp_feedback = Some(vec![RtcpFeedback {
        kind: "ccm".into(),
        parameter: Some("fir".into()),
    }]);
    let parameters = sent(&json!([{ "ssrc": 1111 }]));
    let mapping = producer_mapping(MediaKind::Video, &parameters, &room()).unwrap();
    let consumable = consumable_parameters(&parameters, &room(), &mapping).unwrap();
    // RTX is the room's, whether or not the producer sends it.
    let consumer = consumer_parameters(&consumable, &capabilities, 7, 8);
    let feedback = &consumer.codecs[0].rtcp_feedback;
    assert_eq!((feedback.len(), &*feedback[0].kind), (1, "ccm"));
    let ids: Vec<_> = consumer.header_extensions.iter().map(|e| e.id).collect();
    assert_eq!(ids, [3]);
    assert_eq!(consumer.rtcp, parameters.rtcp);
    capabilities.header_extensions.clear();
    let consumer = consumer_parameters(&consumable, &capabilities, 7, 8);
    assert!(consumer.header_extensions.is_empty());
}

#[test]
fn h264_is_matched_by_its_packetization_mode() {
    let modes = |mode: Option<u8>| {
        let codec = RoomMediaCodec::video("h264");
        let codec = match mode {
            Some(mode) => codec.with("packetization-mode", mode),
            None => codec,
        };
        let codecs = room_capabilities(&[codec]).unwrap().codecs;
        codecs[0].parameters["packetization-mode"].as_u64()
    };
    assert_eq!(modes(None), Some(0));
    assert_eq!(modes(Some(0)), Some(0));
    assert_eq!(modes(Some(1)), Some(1));
    let refused = RoomMediaCodec::video("H264").with("packetization-mode", 2);
    assert!(room_capabilities(&[refused]).is_err());
}

#[test]
fn payload_types_run_out_with_an_error() {
    let codecs = |count| vec![RoomMediaCodec::video("VP8"); count];
    // 28 + 4 + 19 + 37 dynamic ones, two per codec.
    assert_eq!(room_capabilities(&codecs(44)).unwrap().codecs.len(), 88);
    let error = room_capabilities(&codecs(45)).unwrap_err().to_string();
    assert_eq!(error, "cannot allocate more dynamic codec payload types");
}

#[test]
fn what_a_producer_cannot_be_is_named() {
    type Change<'a> = (&'a dyn Fn(&mut RtpParameters), &'a str);
    let rows: [Change<'_>; 7] = [
        (
            &|p| p.codecs[1].parameters["apt"] = 50.into(),
            "no media codec found for RTX PT 97",
        ),
        (
            &|p| p.header_extensions[0].uri = "urn:x".into(),
            "unsupported header extensions [uri:\"urn:x\", id:2]",
        ),
        (
            &|p| p.codecs[0].clock_rate = 8000,
            "unsupported codec [name:VP8, payloadType:96]",
        ),
        (
            &|p| p.codecs[0].payload_type = 128,
            "invalid payloadType [payloadType:128]",
        ),
        (
            &|p| p.codecs[0].payload_type = 97,
            "duplicated payloadType [payloadType:97]",
        ),
        (
            &|p| p.encodings[0].profile = Some(Profile::None),
            "invalid encoding profile [profile:none]",
        ),
        (
            &|p| {
                p.encodings[0].profile = Some(Profile::Low);
                p.encodings.push(p.encodings[0].clone());
            },
            "duplicated encoding profile [profile:low]",
        ),
    ];
    for (change, expected) in rows {
        let mut parameters = sent(&json!([{ "ssrc": 1111 }]));
        change(&mut parameters);
        let error = producer_mapping(MediaKind::Video, &parameters, &room()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn two_codecs_that_are_one_of_the_rooms_are_consumed_as_one() {
    let mut parameters = sent(&json!([{ "ssrc": 1111 }]));
    let mut twin = parameters.codecs[0].clone();
    twin.payload_type = 98;
    parameters.codecs.push(twin);
    let mapping = producer_mapping(MediaKind::Video, &parameters, &room()).unwrap();
    let consumable = consumable_parameters(&parameters, &room(), &mapping).unwrap();
    let codecs: Vec<_> = consumable.codecs.iter().map(|c| c.payload_type).collect();
    assert_eq!(codecs, [101, 102]);
}
