//! RTP parameters and packets for load and tests: VP8 with RTX, opus.

use broth_ipc::rtp::{RtpMapping, RtpParameters};
use broth_worker::wire::rtcp::{emit_nack, emit_receiver_report};
use broth_worker::wire::rtp::RtpEmit;
use serde_json::json;

/// VP8's payload type, on both sides.
pub const VP8_PT: u8 = 101;
/// Payload type of RTX, on both sides.
pub const RTX_PT: u8 = 102;
/// Opus' payload type, as its sender has it.
pub const OPUS_PT: u8 = 111;
/// What an RTX packet has before the payload it repeats: that packet's number (RFC 4588 §4).
pub const OSN_LEN: usize = 2;
/// Bytes of the VP8 descriptor and frame header written by [`vp8_packet`].
const VP8_HEADER: usize = 14;

/// What a VP8 sender with `ssrc`, and RTX on the next SSRC, sends.
pub fn vp8_parameters(ssrc: u32) -> RtpParameters {
    serde_json::from_value(json!({
        "muxId": ssrc.to_string(),
        "codecs": [
            { "name": "VP8", "mimeType": "video/VP8", "clockRate": 90000, "payloadType": VP8_PT,
              "rtcpFeedback": [{ "type": "nack" }, { "type": "nack", "parameter": "pli" }] },
            { "name": "rtx", "mimeType": "video/rtx", "clockRate": 90000, "payloadType": RTX_PT,
              "parameters": { "apt": VP8_PT } },
        ],
        "encodings": [{ "ssrc": ssrc, "rtx": { "ssrc": ssrc + 1 } }],
        "rtcp": { "cname": "bench" },
    }))
    .expect("the literal above has the shape of RTP parameters")
}

/// What an opus sender with `ssrc` sends.
pub fn opus_parameters(ssrc: u32) -> RtpParameters {
    serde_json::from_value(json!({
        "muxId": ssrc.to_string(),
        "codecs": [{ "name": "opus", "mimeType": "audio/opus", "clockRate": 48000, "channels": 2,
                     "payloadType": OPUS_PT }],
        "encodings": [{ "ssrc": ssrc }],
        "rtcp": { "cname": "bench" },
    }))
    .expect("the literal above has the shape of RTP parameters")
}

/// A compound RTCP packet of the receiver `sender` that asks for packets of `ssrc` again.
pub fn nack(sender: u32, ssrc: u32, seqs: &[u16]) -> Vec<u8> {
    let mut packet = Vec::new();
    emit_receiver_report(&mut packet, sender, &[]);
    emit_nack(&mut packet, sender, ssrc, seqs);
    packet
}

/// The mapping that changes nothing.
pub fn identity_mapping() -> RtpMapping {
    RtpMapping {
        codec_payload_types: vec![(VP8_PT, VP8_PT), (RTX_PT, RTX_PT)],
        header_extension_ids: Vec::new(),
    }
}

/// One VP8 packet of `payload_len` payload bytes; returns its length.
///
/// # Panics
/// `out` is shorter than the packet and a tag.
pub fn vp8_packet(
    out: &mut [u8],
    ssrc: u32,
    seq: u16,
    ts: u32,
    is_keyframe: bool,
    is_start: bool,
    payload_len: usize,
) -> usize {
    let emit = RtpEmit {
        marker: false,
        pt: VP8_PT,
        seq,
        ts,
        ssrc,
    };
    let header_len = emit
        .emit_header(std::iter::empty(), out)
        .expect("the buffer holds a header");
    let payload = &mut out[header_len..header_len + payload_len.max(VP8_HEADER)];
    // X and S; I, L, T: a 15-bit picture id, TL0PICIDX, temporal layer 0.
    let picture = ((ts / 3000) as u16) & 0x7FFF | 0x8000;
    payload[0] = 0x80 | u8::from(is_start) << 4;
    payload[1] = 0xE0;
    payload[2..4].copy_from_slice(&picture.to_be_bytes());
    payload[4] = (ts / 3000) as u8;
    payload[5] = 0;
    // The first bit of the frame header is 0 in a key frame.
    payload[6] = u8::from(!is_keyframe);
    header_len + payload.len()
}

/// One packet of opus with `payload_len` payload bytes; returns its length.
///
/// # Panics
/// `out` is shorter than the packet and a tag.
pub fn opus_packet(out: &mut [u8], ssrc: u32, seq: u16, ts: u32, payload_len: usize) -> usize {
    let emit = RtpEmit {
        marker: false,
        pt: OPUS_PT,
        seq,
        ts,
        ssrc,
    };
    let header_len = emit
        .emit_header(std::iter::empty(), out)
        .expect("the buffer holds a header");
    // A configuration of 20 ms, then whatever.
    let payload = &mut out[header_len..header_len + payload_len.max(1)];
    payload.fill(0x55);
    payload[0] = 0x78;
    header_len + payload.len()
}
