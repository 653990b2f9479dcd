//! What a peer sends: streams of several codecs, each packet with a body that tells the receiver
//! what was sent, and RTX.

use std::collections::VecDeque;

use broth_ipc::rtp::{MediaKind, Profile, RtpParameters};
use broth_worker::wire::rtp::{RtpEmit, RtpHeader};
use broth_worker::wire::vp8::Vp8Descriptor;
use broth_worker::wire::vp9::Vp9Descriptor;
use serde_json::{Value, json};

use crate::stage::twcc_extension;

pub(super) const RTX_PT: u8 = 102;
/// Packets kept for retransmission.
const HISTORY: usize = 600;
const BODY: usize = 20;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Opus,
    /// Two temporal layers.
    Vp8,
    /// Two temporal layers, and a spatial one in each packet of a picture.
    Vp9,
    H264,
}

/// A stream that a peer sends.
pub(super) struct Source {
    pub(super) format: Format,
    pub(super) ssrc: u32,
    pub(super) profile: Profile,
    /// Extended number of the last packet.
    pub(super) seq: u64,
    /// The number before the first.
    first: u64,
    ts: u32,
    picture: u16,
    tl0: u8,
    /// The temporal layer of each packet.
    layers: Vec<u8>,
    rtx_seq: u64,
    history: VecDeque<(u64, Vec<u8>)>,
    pub(super) wants_keyframe: bool,
    /// Sends nothing for the time being.
    pub(super) is_silent: bool,
}

/// What the body of a packet says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) ssrc: u32,
    pub(super) seq: u64,
    pub(super) ts: u32,
    pub(super) picture: u16,
    pub(super) tl0: u8,
    pub(super) is_keyframe: bool,
}

/// What the descriptor before the body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) picture: u16,
    pub(super) tl0: u8,
}

impl Format {
    pub(super) fn pt(self) -> u8 {
        match self {
            Self::Opus => 100,
            Self::Vp8 => 101,
            Self::Vp9 => 103,
            Self::H264 => 105,
        }
    }

    pub(super) fn kind(self) -> MediaKind {
        match self {
            Self::Opus => MediaKind::Audio,
            Self::Vp8 | Self::Vp9 | Self::H264 => MediaKind::Video,
        }
    }

    /// Whether lost packets are asked for, and key frames.
    pub(super) fn is_repaired(self) -> bool {
        self.kind() == MediaKind::Video
    }

    /// Parameters of streams of this format.
    pub(super) fn parameters(self, streams: &[(u32, Profile)]) -> RtpParameters {
        let (name, rate, channels) = match self {
            Self::Opus => ("opus", 48_000, Some(2)),
            Self::Vp8 => ("VP8", 90_000, None),
            Self::Vp9 => ("VP9", 90_000, None),
            Self::H264 => ("H264", 90_000, None),
        };
        let media = match self.kind() {
            MediaKind::Audio => "audio",
            _ => "video",
        };
        let mut codec = json!({
            "name": name, "mimeType": format!("{media}/{name}"), "clockRate": rate,
            "payloadType": self.pt(),
        });
        if let Some(channels) = channels {
            codec["channels"] = json!(channels);
        }
        let mut codecs = vec![codec];
        if self.is_repaired() {
            codecs[0]["rtcpFeedback"] =
                json!([{ "type": "nack" }, { "type": "nack", "parameter": "pli" }]);
            codecs.push(json!({
                "name": "rtx", "mimeType": "video/rtx", "clockRate": rate, "payloadType": RTX_PT,
                "parameters": { "apt": self.pt() },
            }));
        }
        let encoding = |&(ssrc, profile): &(u32, Profile)| {
            let mut encoding = json!({ "ssrc": ssrc, "profile": profile });
            if self.is_repaired() {
                encoding["rtx"] = json!({ "ssrc": ssrc + 1 });
            }
            encoding
        };
        let encodings: Vec<Value> = streams.iter().map(encoding).collect();
        serde_json::from_value(json!({
            "muxId": streams[0].0.to_string(),
            "codecs": codecs, "encodings": encodings, "rtcp": { "cname": "test" },
            "headerExtensions": [twcc_extension()],
        }))
        .unwrap()
    }

    /// What a payload says; `None` where the format has no descriptor.
    pub(super) fn read(self, payload: &[u8]) -> (Option<Descriptor>, Body) {
        let (descriptor, len) = match self {
            Self::Opus => (None, 0),
            Self::H264 => (None, 1),
            Self::Vp8 => {
                let read = Vp8Descriptor::parse(payload).unwrap();
                let picture = read.picture_id.unwrap();
                let tl0 = read.tl0picidx.unwrap();
                (Some(Descriptor { picture, tl0 }), 7)
            }
            Self::Vp9 => {
                let read = Vp9Descriptor::parse(payload).unwrap();
                let picture = read.picture_id.unwrap();
                let tl0 = read.tl0picidx.unwrap();
                (Some(Descriptor { picture, tl0 }), 5)
            }
        };
        let body: [u8; BODY] = payload[len..].try_into().unwrap();
        (descriptor, Body::read(&body))
    }
}

impl Source {
    /// A stream whose numbers begin after `first`.
    pub(super) fn new(format: Format, ssrc: u32, profile: Profile, first: u64) -> Self {
        Self {
            format,
            ssrc,
            profile,
            seq: first,
            first,
            ts: 0x7000_0000,
            picture: 0x7FF0,
            tl0: 250,
            layers: Vec::new(),
            // The worker may see the stream after its rollover first.
            rtx_seq: 65_530,
            history: VecDeque::new(),
            wants_keyframe: true,
            is_silent: false,
        }
    }

    /// A frame of `count` packets, each with its extended number.
    pub(super) fn frame(&mut self, count: u64) -> Vec<(u64, Vec<u8>)> {
        let is_keyframe = std::mem::take(&mut self.wants_keyframe);
        self.ts = self.ts.wrapping_add(match self.format {
            Format::Opus => 960,
            Format::Vp8 | Format::Vp9 | Format::H264 => 1800,
        });
        self.picture = (self.picture + 1) & 0x7FFF;
        let has_layers = matches!(self.format, Format::Vp8 | Format::Vp9);
        let layer = u8::from(has_layers && !is_keyframe && self.picture % 2 == 1);
        if layer == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        let packets: Vec<_> = (0..count)
            .map(|n| {
                self.seq += 1;
                self.layers.push(layer);
                let body = Body {
                    ssrc: self.ssrc,
                    seq: self.seq,
                    ts: self.ts,
                    picture: self.picture,
                    tl0: self.tl0,
                    is_keyframe: is_keyframe && n == 0,
                };
                let mut payload = self.descriptor(is_keyframe, layer, n);
                payload.extend_from_slice(&body.write());
                let pt = self.format.pt();
                let numbers = (pt, self.ssrc, self.seq, self.ts);
                (self.seq, emit(numbers, n + 1 == count, &payload))
            })
            .collect();
        if self.format.is_repaired() {
            self.history.extend(packets.iter().cloned());
        }
        while self.history.len() > HISTORY {
            self.history.pop_front();
        }
        packets
    }

    fn descriptor(&self, is_keyframe: bool, layer: u8, n: u64) -> Vec<u8> {
        let [high, low] = (self.picture | 0x8000).to_be_bytes();
        let tl0 = self.tl0;
        match self.format {
            Format::Opus => Vec::new(),
            // Parameter sets, then the pictures.
            Format::H264 => vec![match (is_keyframe, n) {
                (true, 0) => 0x67,
                (true, _) => 0x65,
                (false, _) => 0x41,
            }],
            Format::Vp8 => {
                let frame = u8::from(!is_keyframe || n > 0);
                vec![0x90, 0xE0, high, low, tl0, layer << 6, frame]
            }
            Format::Vp9 => {
                let inter = if is_keyframe && n == 0 { 0 } else { 0x40 };
                let layers = layer << 5 | (n.min(3) as u8) << 1;
                vec![0xA8 | inter, high, low, layers, tl0]
            }
        }
    }

    /// A packet again, as RTX, with the number of the RTX packet.
    pub(super) fn repeat(&mut self, seq: u16) -> Option<(u64, Vec<u8>)> {
        let (_, packet) = self.history.iter().find(|(kept, _)| *kept as u16 == seq)?;
        let header = RtpHeader::parse(packet).unwrap();
        let mut payload = seq.to_be_bytes().to_vec();
        payload.extend_from_slice(header.payload(packet));
        self.rtx_seq += 1;
        let numbers = (RTX_PT, self.ssrc + 1, self.rtx_seq, header.ts);
        Some((self.rtx_seq, emit(numbers, header.marker, &payload)))
    }

    /// The temporal layer of a packet.
    pub(super) fn layer(&self, seq: u64) -> u8 {
        self.layers[(seq - self.first - 1) as usize]
    }
}

impl Body {
    fn write(self) -> [u8; BODY] {
        let mut bytes = [0; BODY];
        bytes[..4].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.seq.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.ts.to_be_bytes());
        bytes[16..18].copy_from_slice(&self.picture.to_be_bytes());
        bytes[18] = self.tl0;
        bytes[19] = u8::from(self.is_keyframe);
        bytes
    }

    fn read(bytes: &[u8; BODY]) -> Self {
        let number = |at: usize, len: usize| {
            let bytes = bytes[at..at + len].iter();
            bytes.fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Self {
            ssrc: number(0, 4) as u32,
            seq: number(4, 8),
            ts: number(12, 4) as u32,
            picture: number(16, 2) as u16,
            tl0: bytes[18],
            is_keyframe: bytes[19] != 0,
        }
    }
}

fn emit((pt, ssrc, seq, ts): (u8, u32, u64, u32), marker: bool, payload: &[u8]) -> Vec<u8> {
    let emit = RtpEmit {
        marker,
        pt,
        seq: seq as u16,
        ts,
        ssrc,
    };
    let mut packet = vec![0; 300];
    let at = emit.emit_header(std::iter::empty(), &mut packet).unwrap();
    packet[at..at + payload.len()].copy_from_slice(payload);
    packet.truncate(at + payload.len());
    packet
}
