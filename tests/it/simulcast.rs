//! VP8 in three sizes: the receiver sees one continuous stream whatever layer feeds it.

use broth_client::rtp::{VP8_PT, identity_mapping, vp8_parameters};
use broth_ipc::body::SetPreferredProfile;
use broth_ipc::rtp::{MediaKind, Profile as Layer, RtpParameters};
use broth_ipc::{Call, Ids};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtp::{RtpEmit, RtpHeader};
use broth_worker::wire::vp8::Vp8Descriptor;
use serde_json::{Value, json};

use crate::support::{CONSUMER, Media, RECV_SSRC, ROUTER, Room, receive_rtp};

const LOW: u32 = 1001;
const HIGH: u32 = 1003;
/// Extension id of the RID.
const RID_EXT: u8 = 10;

fn room(encodings: &Value, extensions: &Value) -> Room {
    let codecs = json!([{ "name": "VP8", "mimeType": "video/VP8", "clockRate": 90000,
        "payloadType": VP8_PT,
        "rtcpFeedback": [{ "type": "nack" }, { "type": "nack", "parameter": "pli" }] }]);
    let sent: RtpParameters = serde_json::from_value(json!({
        "muxId": "0",
        "codecs": codecs,
        "encodings": encodings,
        "headerExtensions": extensions,
        "rtcp": { "cname": "test" },
    }))
    .unwrap();
    let media = Media {
        kind: MediaKind::Video,
        sent,
        received: vp8_parameters(RECV_SSRC),
        mapping: identity_mapping(),
    };
    Room::with(Profile::AeadAes128Gcm, media)
}

/// A packet of its own picture, 0 to 127: the ids wrap like its 7 bits.
fn send(room: &mut Room, ssrc: u32, rid: Option<&str>, seq: u16, picture: u8, is_keyframe: bool) {
    let emit = RtpEmit {
        marker: true,
        pt: VP8_PT,
        seq,
        ts: u32::from(seq) * 3000,
        ssrc,
    };
    let exts = rid.map(|rid| (RID_EXT, rid.as_bytes()));
    let payload = [0x90, 0x80, picture & 0x7F, u8::from(!is_keyframe), 1, 2, 3];
    room.send_packet(&emit, exts.as_slice(), &payload);
}

/// The next packet, its picture id, and that it follows on `before`.
fn next(room: &mut Room, before: Option<(RtpHeader, u16)>) -> (RtpHeader, u16) {
    let (header, packet) = receive_rtp(&mut room.receiver).expect("a packet");
    let descriptor = Vp8Descriptor::parse(header.payload(&packet)).unwrap();
    let picture = descriptor.picture_id.unwrap();
    assert_eq!((header.ssrc, header.pt), (RECV_SSRC, VP8_PT));
    if let Some((last, last_picture)) = before {
        assert_eq!(header.seq, last.seq.wrapping_add(1));
        assert_eq!(picture, (last_picture + 1) & 0x7F);
        assert!(header.ts.wrapping_sub(last.ts) < 90_000 * 10, "{header:?}");
    }
    (header, picture)
}

fn wish(room: &mut Room, profile: Layer) {
    let ids = Ids::router(ROUTER).consumer(CONSUMER);
    let call = Call::SetConsumerProfile(SetPreferredProfile { profile });
    room.worker.call(ids, call).unwrap();
}

/// From low to high and back, with the SSRCs and RIDs as signalled.
fn switches_are_seamless(room: &mut Room, low_rid: Option<&str>, high_rid: Option<&str>) {
    send(room, LOW, low_rid, 100, 120, true);
    let mut last = next(room, None);
    // Picture ids of seven bits wrap before the switch.
    for n in 1..20u8 {
        send(room, LOW, low_rid, 100 + u16::from(n), 120 + n, false);
        last = next(room, Some(last));
    }

    send(room, HIGH, high_rid, 40_000, 50, false);
    room.await_pli(HIGH).expect("a request to the better layer");
    send(room, LOW, low_rid, 120, 12, false);
    last = next(room, Some(last));
    send(room, HIGH, high_rid, 40_001, 51, true);
    last = next(room, Some(last));
    send(room, LOW, low_rid, 121, 13, false);
    send(room, HIGH, high_rid, 40_002, 52, false);
    last = next(room, Some(last));

    wish(room, Layer::Low);
    room.await_pli(LOW).expect("a request to the wanted layer");
    send(room, HIGH, high_rid, 40_003, 53, false);
    last = next(room, Some(last));
    send(room, LOW, low_rid, 122, 14, true);
    last = next(room, Some(last));
    send(room, HIGH, high_rid, 40_004, 54, false);
    send(room, LOW, low_rid, 123, 15, false);
    next(room, Some(last));
    assert_eq!(room.layers(), [Layer::Low, Layer::High, Layer::Low]);
}

#[test]
fn switching_between_ssrcs_is_seamless() {
    let encodings = json!([
        { "ssrc": LOW, "profile": "low" },
        { "ssrc": 1002, "profile": "medium" },
        { "ssrc": HIGH, "profile": "high" },
    ]);
    let mut room = room(&encodings, &json!([]));
    switches_are_seamless(&mut room, None, None);
}

#[test]
fn switching_between_rids_is_seamless() {
    let encodings = json!([
        { "encodingId": "l", "profile": "low" },
        { "encodingId": "h", "profile": "high" },
    ]);
    let uri = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
    let mut room = room(&encodings, &json!([{ "uri": uri, "id": RID_EXT }]));
    switches_are_seamless(&mut room, Some("l"), Some("h"));
}
