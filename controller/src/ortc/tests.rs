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
    let rows: [(&[RoomMediaCodec], &str); 2] = [
        (&[], "mediaCodecs cannot be empty"),
        (
            &[RoomMediaCodec::video("theora")],
            "RoomMediaCodec not supported [name:theora]",
        ),
    ];
    for (codecs, expected) in rows {
        assert_eq!(room_capabilities(codecs).unwrap_err().to_string(), expected);
    }
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
}
