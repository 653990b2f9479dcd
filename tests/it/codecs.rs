//! Every codec from one peer to another: what is forwarded, when it begins, how it is numbered.

use broth_ipc::rtp::{MediaKind, RtpMapping, RtpParameters};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtp::RtpEmit;
use serde_json::{Value, json};

use crate::support::{Media, RECV_SSRC, Room, SEND_SSRC, receive_rtp};

/// Payload type at the sender, and in the room.
const SEND_PT: u8 = 96;
const ROOM_PT: u8 = 110;

fn parameters(ssrc: u32, pt: u8, mime_type: &str, codec: &Value) -> RtpParameters {
    let mut codec = codec.clone();
    codec["mimeType"] = mime_type.into();
    codec["name"] = mime_type.split('/').next_back().into();
    codec["payloadType"] = pt.into();
    serde_json::from_value(json!({
        "muxId": ssrc.to_string(),
        "codecs": [codec],
        "encodings": [{ "ssrc": ssrc }],
        "rtcp": { "cname": "test" },
    }))
    .unwrap()
}

fn room(kind: MediaKind, mime_type: &str, codec: &Value) -> Room {
    let media = Media {
        kind,
        sent: parameters(SEND_SSRC, SEND_PT, mime_type, codec),
        received: parameters(RECV_SSRC, ROOM_PT, mime_type, codec),
        mapping: RtpMapping {
            codec_payload_types: vec![(SEND_PT, ROOM_PT)],
            header_extension_ids: Vec::new(),
        },
    };
    Room::with(Profile::AeadAes128Gcm, media)
}

fn emit(seq: u16) -> RtpEmit {
    RtpEmit {
        marker: seq.is_multiple_of(2),
        pt: SEND_PT,
        seq,
        ts: u32::from(seq) * 960,
        ssrc: SEND_SSRC,
    }
}

#[test]
fn opus_crosses_from_the_first_packet_on() {
    let codec = json!({ "clockRate": 48000, "channels": 2 });
    let mut room = room(MediaKind::Audio, "audio/opus", &codec);
    for seq in 0..5 {
        room.send_packet(&emit(seq), &[], &[seq as u8; 60]);
    }
    let mut first = None;
    for n in 0..5u16 {
        let (header, packet) = receive_rtp(&mut room.receiver).expect("five packets");
        let (seq, ts) = *first.get_or_insert((header.seq, header.ts));
        assert_eq!((header.ssrc, header.pt), (RECV_SSRC, ROOM_PT));
        assert_eq!(header.seq, seq.wrapping_add(n));
        assert_eq!(header.ts, ts.wrapping_add(u32::from(n) * 960));
        assert_eq!(header.marker, n.is_multiple_of(2));
        assert_eq!(header.payload(&packet), [n as u8; 60]);
    }
}

/// Delta frames wait for a key frame, then everything crosses with its payload untouched.
fn video_begins_with_a_key_frame(mime_type: &str, key: &[u8], delta: &[u8]) {
    let codec = json!({ "clockRate": 90000, "rtcpFeedback": [
        { "type": "nack" }, { "type": "nack", "parameter": "pli" }] });
    let mut room = room(MediaKind::Video, mime_type, &codec);
    room.send_packet(&emit(0), &[], delta);
    room.await_pli(SEND_SSRC).expect("a request");
    room.send_packet(&emit(1), &[], key);
    room.send_packet(&emit(2), &[], delta);
    let (first, packet) = receive_rtp(&mut room.receiver).expect("the key frame");
    assert_eq!((first.ssrc, first.pt), (RECV_SSRC, ROOM_PT));
    assert_eq!(first.payload(&packet), key, "{mime_type}");
    let (second, packet) = receive_rtp(&mut room.receiver).expect("the frame after it");
    assert_eq!(second.seq, first.seq.wrapping_add(1));
    assert_eq!(second.payload(&packet), delta, "{mime_type}");
}

#[test]
fn h264_begins_with_an_idr() {
    video_begins_with_a_key_frame("video/H264", &[0x65, 0x88, 1, 2, 3], &[0x41, 0x9A, 4, 5]);
}

#[test]
fn vp9_begins_with_a_key_picture() {
    video_begins_with_a_key_frame("video/VP9", &[0x88, 0x81, 0x02, 9], &[0xC8, 0x81, 0x03, 8]);
}
