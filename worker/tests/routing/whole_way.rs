//! No allocation on the whole way of WebRTC media: SRTP in, the recorder on, repairs of what a
//! sender lost, SRTP out, retransmissions by RTX, reports and transport-wide feedback.

use std::net::UdpSocket;
use std::rc::Rc;
use std::time::Duration;

use allocation_counter::measure;
use broth_ipc::body::CreateProducer;
use broth_ipc::rtp::{MediaKind, RtpMapping};
use broth_ipc::{ConsumerId, ProducerId, TransportId};
use broth_worker::net::sockets::Path;
use broth_worker::recorder::Memory;
use broth_worker::srtp::Profile;
use broth_worker::wire::rtcp::{ReportBlock, emit_nack, emit_receiver_report};
use broth_worker::wire::rtp::{RtpHeader, is_rtcp, is_rtp};

use crate::peer::Peer;
use crate::stage::{PT, Stage, TWCC_ID, numbered, parameters, twcc_extension, vp8};

const VIEWERS: u32 = 5;
const RECORDER_WORDS: usize = 16 << 10;
/// Packets of a frame.
const BURST: u16 = 10;
/// The packet of a frame that is lost on its way to the worker, if one is.
const LOST: u16 = 3;
const TURN: Duration = Duration::from_millis(10);
/// Turns in which everything grows to its size.
const WARM_UP: u16 = 400;
/// Turns that are measured: three seconds, so that everything is reported several times.
const MEASURED: u16 = 300;
/// The sender's media SSRC; its RTX has the next one, as everybody's.
const SSRC: u32 = 10;
const RTX_PT: u8 = 102;

#[test]
fn the_whole_way_does_not_allocate() {
    for profile in [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80] {
        let mut room = Room::new(profile);
        for frame in 0..WARM_UP {
            let mut datagrams = room.datagrams(frame);
            // Once everything that can be due is due in one turn.
            let by = if frame == 0 { 200 * TURN } else { TURN };
            room.turn(&mut datagrams, by);
        }
        let frames = WARM_UP..WARM_UP + MEASURED;
        let mut turns: Vec<_> = frames.map(|frame| room.datagrams(frame)).collect();
        room.seen = Seen::default();
        let info = measure(|| {
            for datagrams in &mut turns {
                room.turn(datagrams, TURN);
            }
        });
        assert_eq!(info.count_total, 0, "{profile:?}: {info:?}");

        let Seen {
            media,
            repeated,
            to_viewers,
            to_sender,
        } = room.seen;
        let viewers = u64::from(VIEWERS);
        assert_eq!(media, u64::from(MEASURED) * u64::from(BURST) * viewers);
        let nacks = (WARM_UP..WARM_UP + MEASURED).filter(|frame| is_nacked(*frame));
        assert_eq!(repeated, nacks.count() as u64 * viewers);
        // Reports and answers to checks; then requests for what was lost, and arrivals.
        assert!(to_viewers > 2 * viewers, "{to_viewers}");
        let losses = (WARM_UP..WARM_UP + MEASURED).filter(|frame| has_loss(*frame));
        let arrivals = u64::from(MEASURED) / 10;
        let expected = losses.count() as u64 + arrivals;
        assert!(to_sender > expected, "{to_sender}");
    }
}

/// Whether the sender loses a packet of a frame; it comes by RTX with the next one.
fn has_loss(frame: u16) -> bool {
    frame % 4 == 1
}

/// Whether the viewers ask for a packet of the frame before.
fn is_nacked(frame: u16) -> bool {
    frame > 0 && frame.is_multiple_of(5)
}

/// What left the worker.
#[derive(Debug, Default)]
struct Seen {
    media: u64,
    repeated: u64,
    to_viewers: u64,
    to_sender: u64,
}

struct Viewer {
    peer: Peer,
    ssrc: u32,
    /// Number that the first packet of the sender left under.
    first: Option<u16>,
}

struct Room {
    stage: Stage,
    sender: Peer,
    viewers: Vec<Viewer>,
    rtx_seq: u16,
    seen: Seen,
}

impl Room {
    fn new(profile: Profile) -> Self {
        let mut stage = Stage::without_router();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let memory = Rc::new(Memory::heap(RECORDER_WORDS));
        stage.create_recorded(&socket, &memory, false);
        let sender = Peer::connect(&mut stage, TransportId(1), profile);
        let mut rtp_parameters = parameters(SSRC);
        rtp_parameters.header_extensions.push(twcc_extension());
        let create = CreateProducer {
            kind: MediaKind::Video,
            rtp_parameters,
            rtp_mapping: RtpMapping {
                codec_payload_types: vec![(PT, PT), (RTX_PT, RTX_PT)],
                header_extension_ids: vec![(TWCC_ID, TWCC_ID)],
            },
            paused: false,
        };
        stage.produce_as(TransportId(1), ProducerId(1), create);
        let viewers = (0..VIEWERS).map(|n| {
            let transport = TransportId(100 + n);
            let peer = Peer::connect(&mut stage, transport, profile);
            let ssrc = 1000 + 2 * n;
            stage.consume(transport, ProducerId(1), ConsumerId(100 + n), ssrc);
            Viewer {
                peer,
                ssrc,
                first: None,
            }
        });
        Self {
            viewers: viewers.collect(),
            stage,
            sender,
            rtx_seq: 0,
            seen: Seen::default(),
        }
    }

    /// Everything that arrives at the worker in one turn.
    fn datagrams(&mut self, frame: u16) -> Vec<(Path, Vec<u8>)> {
        let mut all = Vec::new();
        let mut from_sender = |packet: &[u8]| {
            all.push((self.sender.path, self.sender.seal(packet)));
        };
        if frame > 0 && has_loss(frame - 1) {
            from_sender(&rtx(&media(frame - 1, LOST), self.rtx_seq));
            self.rtx_seq += 1;
        }
        for n in (0..BURST).filter(|n| *n != LOST || !has_loss(frame)) {
            from_sender(&media(frame, n));
        }
        for Viewer { peer, ssrc, first } in &mut self.viewers {
            if let Some(first) = first.filter(|_| is_nacked(frame)) {
                let seq = first.wrapping_add((frame - 1) * BURST + 5);
                let mut packet = Vec::new();
                emit_nack(&mut packet, 1, *ssrc, &[seq]);
                all.push((peer.path, peer.seal_rtcp(packet)));
            }
            if frame % 50 == 7 {
                let mut packet = Vec::new();
                emit_receiver_report(&mut packet, 1, &[report(*ssrc)]);
                all.push((peer.path, peer.seal_rtcp(packet)));
            }
            if frame % 100 == 9 {
                all.push((peer.path, peer.check.clone()));
            }
        }
        all
    }

    fn turn(&mut self, datagrams: &mut [(Path, Vec<u8>)], by: Duration) {
        for (path, datagram) in datagrams {
            self.stage.receive(*path, datagram);
        }
        self.stage.advance(by);
        let (sender, viewers, seen) = (&self.sender, &mut self.viewers, &mut self.seen);
        self.stage.take(|_, to, datagram| {
            if to == sender.path.remote {
                seen.to_sender += 1;
            } else if !is_rtp(datagram) || is_rtcp(datagram) {
                seen.to_viewers += 1;
            } else {
                let header = RtpHeader::parse(datagram).unwrap();
                let viewer = viewers.iter_mut().find(|one| one.peer.path.remote == to);
                let viewer = viewer.unwrap();
                if header.ssrc == viewer.ssrc {
                    viewer.first.get_or_insert(header.seq);
                    seen.media += 1;
                } else {
                    seen.repeated += 1;
                }
            }
        });
        self.stage.commit();
    }
}

/// A packet of the sender, with its number in the whole transport.
fn media(frame: u16, n: u16) -> Vec<u8> {
    let seq = frame * BURST + n;
    let mut packet = [0; 1500];
    let is_keyframe = frame == 0 && n == 0;
    let numbers = (SSRC, seq, u32::from(frame) * 900);
    let len = vp8(&mut packet, numbers, frame, is_keyframe, &[7; 1100]);
    let header = RtpHeader::parse(&packet[..len]).unwrap();
    numbered(&header, seq, header.payload(&packet[..len]))
}

/// The same packet once more, as its sender repeats it (RFC 4588 §4).
fn rtx(packet: &[u8], seq: u16) -> Vec<u8> {
    let mut header = RtpHeader::parse(packet).unwrap();
    let payload = [&packet[2..4], header.payload(packet)].concat();
    let twcc_seq = header.seq;
    (header.ssrc, header.pt, header.seq) = (SSRC + 1, RTX_PT, seq);
    numbered(&header, twcc_seq, &payload)
}

fn report(ssrc: u32) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: 0,
        lost: 0,
        highest_seq: 0,
        jitter: 0,
        lsr: 0,
        dlsr: 0,
    }
}
