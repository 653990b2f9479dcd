//! Forwards packets from one sender to fifty viewers, for `scripts/ratchet` to count the
//! instructions of: from a received datagram to grouped messages for the kernel, which gets none.
//!
//! `instructions SHAPE` prints how many packets were forwarded inside of [`measured`];
//! `instructions` prints the shapes.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../tests/routing/peer.rs"]
mod peer;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../tests/routing/stage.rs"]
mod stage;

use std::env;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::rc::Rc;
use std::time::Duration;

use broth_ipc::body::CreateProducer;
use broth_ipc::rtp::{MediaKind, RtpMapping, RtpParameters};
use broth_ipc::{ConsumerId, ProducerId, TransportId};
use broth_worker::net::sockets::Path;
use broth_worker::recorder::Memory;
use broth_worker::srtp::Profile;
use broth_worker::wire::rtp::RtpEmit;
use serde_json::json;

use peer::Peer;
use stage::{Stage, vp8};

const VIEWERS: u32 = 50;
const RECORDER_WORDS: usize = 64 << 10;
/// The sender's SSRC.
const SSRC: u32 = 10;
const OPUS_PT: u8 = 111;
/// Turns in which rings and logs grow to their sizes.
const WARM_UP: u16 = 110;
/// Turns that are measured.
const MEASURED: u16 = 20;

/// What is sent, and how.
struct Shape {
    name: &'static str,
    /// Plain RTP without one.
    profile: Option<Profile>,
    kind: MediaKind,
    /// Packets that arrive together.
    burst: u16,
    /// Bytes of one packet's body.
    body: usize,
    interval: Duration,
}

const VIDEO: Shape = Shape {
    name: "plain-video",
    profile: None,
    kind: MediaKind::Video,
    burst: 10,
    body: 1180,
    interval: Duration::from_millis(10),
};

const SHAPES: [Shape; 4] = [
    Shape {
        name: "gcm128-video",
        profile: Some(Profile::AeadAes128Gcm),
        ..VIDEO
    },
    Shape {
        name: "cm-sha1-video",
        profile: Some(Profile::Aes128CmSha1_80),
        ..VIDEO
    },
    VIDEO,
    Shape {
        name: "gcm128-audio",
        profile: Some(Profile::AeadAes128Gcm),
        kind: MediaKind::Audio,
        burst: 1,
        body: 108,
        interval: Duration::from_millis(20),
    },
];

/// A room of which nothing leaves.
struct Room {
    stage: Stage,
    /// The sender, on a plain transport.
    path: Path,
    /// The sender's keys.
    peer: Option<Peer>,
}

fn main() -> io::Result<()> {
    let wanted = env::args().nth(1);
    let mut out = io::stdout().lock();
    let Some(wanted) = wanted else {
        return SHAPES
            .iter()
            .try_for_each(|shape| writeln!(out, "{}", shape.name));
    };
    let shape = SHAPES.iter().find(|shape| shape.name == wanted);
    let shape = shape.ok_or_else(|| io::Error::other("no such shape"))?;
    let mut room = Room::new(shape);
    for frame in 0..WARM_UP {
        let mut datagrams = room.datagrams(shape, frame);
        // Reports are due now and then, at random: before what is measured, not within.
        room.stage.advance(shape.interval);
        turn(&mut room, &mut datagrams);
    }
    let before = room.forwarded();
    for frame in WARM_UP..WARM_UP + MEASURED {
        let mut datagrams = room.datagrams(shape, frame);
        measured(&mut room, &mut datagrams);
    }
    writeln!(out, "{}", room.forwarded() - before)
}

/// What is counted, by its name.
#[inline(never)]
fn measured(room: &mut Room, datagrams: &mut [Vec<u8>]) {
    turn(room, datagrams);
}

fn turn(room: &mut Room, datagrams: &mut [Vec<u8>]) {
    for datagram in datagrams {
        room.stage.receive(room.path, datagram);
    }
    room.stage.advance(Duration::ZERO);
    // The kernel would take it all.
    let queue = &mut room.stage.worker.io.sockets.queue;
    queue.flush(|_, _, _, messages| Ok(messages.len()));
    room.stage.commit();
}

impl Room {
    fn new(shape: &Shape) -> Self {
        let mut stage = Stage::without_router();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let memory = Rc::new(Memory::heap(RECORDER_WORDS));
        stage.create_recorded(&socket, &memory, false);
        let (path, peer) = connect(&mut stage, TransportId(1), shape.profile);
        let create = CreateProducer {
            kind: shape.kind,
            rtp_parameters: parameters(shape.kind, SSRC),
            rtp_mapping: RtpMapping {
                codec_payload_types: vec![(stage::PT, stage::PT), (OPUS_PT, OPUS_PT)],
                header_extension_ids: Vec::new(),
            },
            paused: false,
        };
        stage.produce_as(TransportId(1), ProducerId(1), create);
        for n in 0..VIEWERS {
            let transport = TransportId(100 + n);
            connect(&mut stage, transport, shape.profile);
            let parameters = parameters(shape.kind, 1000 + 2 * n);
            let consumer = ConsumerId(100 + n);
            stage.consume_as(transport, ProducerId(1), consumer, shape.kind, parameters);
        }
        Self { stage, path, peer }
    }

    /// The datagrams of a frame, as they arrive.
    fn datagrams(&self, shape: &Shape, frame: u16) -> Vec<Vec<u8>> {
        let packets = (0..shape.burst).map(|n| packet(shape, frame, n));
        match &self.peer {
            Some(peer) => packets.map(|packet| peer.seal(&packet)).collect(),
            None => packets.collect(),
        }
    }

    /// Packets that would have left.
    fn forwarded(&self) -> u64 {
        self.stage.worker.io.sockets.queue.counters.packets
    }
}

fn connect(stage: &mut Stage, id: TransportId, profile: Option<Profile>) -> (Path, Option<Peer>) {
    match profile {
        Some(profile) => {
            let peer = Peer::connect(stage, id, profile);
            (peer.path, Some(peer))
        }
        None => (stage.plain_transport(id), None),
    }
}

fn packet(shape: &Shape, frame: u16, n: u16) -> Vec<u8> {
    let seq = frame * shape.burst + n;
    let body = vec![7; shape.body];
    let mut packet = vec![0; 1500];
    let len = match shape.kind {
        MediaKind::Video => {
            let is_keyframe = frame == 0 && n == 0;
            let numbers = (SSRC, seq, u32::from(frame) * 900);
            vp8(&mut packet, numbers, frame, is_keyframe, &body)
        }
        MediaKind::Audio => {
            let emit = RtpEmit {
                marker: false,
                pt: OPUS_PT,
                seq,
                ts: u32::from(frame) * 960,
                ssrc: SSRC,
            };
            let at = emit.emit_header(std::iter::empty(), &mut packet).unwrap();
            packet[at..at + body.len()].copy_from_slice(&body);
            at + body.len()
        }
    };
    packet.truncate(len);
    packet
}

fn parameters(kind: MediaKind, ssrc: u32) -> RtpParameters {
    match kind {
        MediaKind::Video => stage::parameters(ssrc),
        MediaKind::Audio => serde_json::from_value(json!({
            "muxId": ssrc.to_string(),
            "codecs": [{ "name": "opus", "mimeType": "audio/opus", "clockRate": 48000,
                         "channels": 2, "payloadType": OPUS_PT }],
            "encodings": [{ "ssrc": ssrc }],
            "rtcp": { "cname": "test" },
        }))
        .unwrap(),
    }
}
