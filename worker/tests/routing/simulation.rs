//! A room at random: senders and receivers come, go, pause and lose packets, and what leaves
//! the worker must stay one well-formed stream per receiver. `BROTH_SEED` replays one run.

use std::collections::HashMap;
use std::time::Duration;

use broth_ipc::body::Empty;
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, TransportId};
use broth_worker::net::sockets::Path;
use broth_worker::wire::rtcp::{self, emit_nack};
use broth_worker::wire::rtp::{RtpHeader, is_rtcp};
use broth_worker::wire::vp8::Vp8Descriptor;

use crate::stage::{PT, ROUTER, Stage, VP8_HEADER, vp8};

const SEEDS: u64 = 40;
const STEPS: u32 = 600;
const SENDERS_MAX: usize = 3;
const RECEIVERS_MAX: usize = 8;
const STEP: Duration = Duration::from_millis(20);

#[test]
fn every_receiver_sees_one_stream() {
    let seeds = match std::env::var("BROTH_SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).unwrap(),
        Err(_) => 0..SEEDS,
    };
    let mut forwarded = 0;
    for seed in seeds {
        // Shown when the test fails.
        println!("BROTH_SEED={seed}");
        let mut room = Simulation::new(seed);
        for _ in 0..STEPS {
            room.step();
        }
        forwarded += room.forwarded;
        room.end();
    }
    assert!(forwarded > 1000, "{forwarded}");
}

struct Sender {
    id: u32,
    path: Path,
    ssrc: u32,
    seq: u16,
    picture: u16,
    ts: u32,
    is_paused: bool,
    wants_keyframe: bool,
}

struct Receiver {
    id: u32,
    path: Path,
    ssrc: u32,
    sender: u32,
    is_paused: bool,
    /// The stream must begin with a key frame: after joining and after a pause.
    is_beginning: bool,
    /// Sequence number and source number of what was sent last.
    last: Option<(u64, u16)>,
    /// What was sent under a number.
    sent: HashMap<u64, Vec<u8>>,
}

struct Simulation {
    stage: Stage,
    random: u64,
    id_last: u32,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    forwarded: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            stage: Stage::new(),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            id_last: 0,
            senders: Vec::new(),
            receivers: Vec::new(),
            forwarded: 0,
        }
    }

    /// A number below `bound` (xorshift64).
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % bound
    }

    fn pick(&mut self, len: usize) -> Option<usize> {
        (len > 0).then(|| self.below(len as u64) as usize)
    }

    fn step(&mut self) {
        match self.below(30) {
            0 if self.senders.len() < SENDERS_MAX => self.add_sender(),
            1 | 2 if self.receivers.len() < RECEIVERS_MAX => self.add_receiver(),
            3 => self.remove_receiver(),
            4 if self.below(8) == 0 => self.remove_sender(),
            5 | 6 => self.turn_receiver(),
            7 if self.below(3) == 0 => self.turn_sender(),
            8..12 => self.nack(),
            _ => {}
        }
        self.check(false);
        self.send_media();
        self.stage.advance(STEP);
        self.check(true);
    }

    fn next_id(&mut self) -> u32 {
        self.id_last += 1;
        self.id_last
    }

    fn add_sender(&mut self) {
        let id = self.next_id();
        let path = self.stage.plain_transport(TransportId(id));
        let ssrc = 1_000_000 + id * 2;
        self.stage.produce(TransportId(id), ProducerId(id), ssrc);
        let seq = self.below(65_536) as u16;
        let (picture, ts) = (self.below(32_768) as u16, self.below(1 << 32) as u32);
        self.senders.push(Sender {
            id,
            path,
            ssrc,
            seq,
            picture,
            ts,
            is_paused: false,
            wants_keyframe: true,
        });
    }

    fn add_receiver(&mut self) {
        let Some(at) = self.pick(self.senders.len()) else {
            return;
        };
        let id = self.next_id();
        let sender = self.senders[at].id;
        let path = self.stage.plain_transport(TransportId(id));
        let ssrc = 2_000_000 + id * 2;
        let transport = TransportId(id);
        self.stage
            .consume(transport, ProducerId(sender), ConsumerId(id), ssrc);
        self.receivers.push(Receiver {
            id,
            path,
            ssrc,
            sender,
            is_paused: false,
            is_beginning: true,
            last: None,
            sent: HashMap::new(),
        });
    }

    /// By its consumer, or by its whole transport.
    fn remove_receiver(&mut self) {
        let Some(at) = self.pick(self.receivers.len()) else {
            return;
        };
        let receiver = self.receivers.swap_remove(at);
        let ids = Ids::router(ROUTER);
        if self.below(2) == 0 {
            let consumer = ids.consumer(ConsumerId(receiver.id));
            self.stage
                .call(consumer, Call::CloseConsumer(Empty {}))
                .unwrap();
        } else {
            let transport = ids.transport(TransportId(receiver.id));
            self.stage
                .call(transport, Call::CloseTransport(Empty {}))
                .unwrap();
            let consumer = ids.consumer(ConsumerId(receiver.id));
            self.stage
                .call(consumer, Call::CloseConsumer(Empty {}))
                .unwrap();
        }
    }

    fn remove_sender(&mut self) {
        let Some(at) = self.pick(self.senders.len()) else {
            return;
        };
        let sender = self.senders.swap_remove(at);
        let ids = Ids::router(ROUTER).transport(TransportId(sender.id));
        self.stage
            .call(ids, Call::CloseTransport(Empty {}))
            .unwrap();
        self.receivers
            .retain(|receiver| receiver.sender != sender.id);
    }

    fn turn_receiver(&mut self) {
        let Some(at) = self.pick(self.receivers.len()) else {
            return;
        };
        let receiver = &mut self.receivers[at];
        receiver.is_paused = !receiver.is_paused;
        receiver.is_beginning = true;
        let call = if receiver.is_paused {
            Call::PauseConsumer(Empty {})
        } else {
            Call::ResumeConsumer(Empty {})
        };
        let ids = Ids::router(ROUTER).consumer(ConsumerId(receiver.id));
        self.stage.call(ids, call).unwrap();
    }

    fn turn_sender(&mut self) {
        let Some(at) = self.pick(self.senders.len()) else {
            return;
        };
        let sender = &mut self.senders[at];
        sender.is_paused = !sender.is_paused;
        let call = if sender.is_paused {
            Call::PauseProducer(Empty {})
        } else {
            Call::ResumeProducer(Empty {})
        };
        let id = sender.id;
        for receiver in &mut self.receivers {
            receiver.is_beginning |= receiver.sender == id;
        }
        let ids = Ids::router(ROUTER).producer(ProducerId(id));
        self.stage.call(ids, call).unwrap();
    }

    /// A receiver asks again for some of the last numbers.
    fn nack(&mut self) {
        let Some(at) = self.pick(self.receivers.len()) else {
            return;
        };
        let behind = self.below(20);
        let receiver = &self.receivers[at];
        let Some((last, _)) = receiver.last else {
            return;
        };
        let seq = last.wrapping_sub(behind) as u16;
        let mut packet = Vec::new();
        emit_nack(&mut packet, 1, receiver.ssrc, &[seq, seq.wrapping_add(1)]);
        let path = receiver.path;
        self.stage.receive(path, &mut packet);
    }

    /// A frame of every sender; some packets are lost, some come late.
    fn send_media(&mut self) {
        for at in 0..self.senders.len() {
            let count = 1 + self.below(4);
            let sender = &mut self.senders[at];
            let is_keyframe = std::mem::take(&mut sender.wants_keyframe);
            sender.picture = (sender.picture + 1) & 0x7FFF;
            sender.ts = sender.ts.wrapping_add(1800);
            let mut late = None;
            for n in 0..count {
                let sender = &mut self.senders[at];
                sender.seq = sender.seq.wrapping_add(1);
                let mut packet = [0; 200];
                let mut body = [0; 50];
                body[..4].copy_from_slice(&sender.id.to_be_bytes());
                body[4..6].copy_from_slice(&sender.seq.to_be_bytes());
                let numbers = (sender.ssrc, sender.seq, sender.ts);
                let is_key = is_keyframe && n == 0;
                let len = vp8(&mut packet, numbers, sender.picture, is_key, &body);
                let (path, mut packet) = (sender.path, packet[..len].to_vec());
                match self.below(20) {
                    // A key frame that is lost is asked for again; that is not tested here.
                    0 if !is_key => {}
                    1 if !is_key => late = Some((path, packet)),
                    _ => self.stage.receive(path, &mut packet),
                }
            }
            if let Some((path, mut packet)) = late {
                self.stage.receive(path, &mut packet);
            }
        }
    }

    /// Looks at everything that would have left; media only if `may_forward`.
    fn check(&mut self, may_forward: bool) {
        let mut left = Vec::new();
        self.stage
            .take(|socket, _, packet| left.push((socket, packet.to_vec())));
        for (socket, packet) in left {
            if let Some(sender) = self.senders.iter_mut().find(|s| s.path.socket == socket) {
                assert!(is_rtcp(&packet), "only feedback goes to a sender");
                let is_pli =
                    |p| matches!(p, rtcp::Packet::Pli { media, .. } if media == sender.ssrc);
                sender.wants_keyframe |= rtcp::packets(&packet).flatten().any(is_pli);
                continue;
            }
            if is_rtcp(&packet) {
                continue;
            }
            let receiver = self.receivers.iter_mut().find(|r| r.path.socket == socket);
            let receiver = receiver.expect("nothing leaves for who is gone");
            let header = RtpHeader::parse(&packet).unwrap();
            if header.ssrc == receiver.ssrc + 1 {
                receiver.check_repair(header.payload(&packet));
            } else {
                assert!(may_forward, "media leaves when it is fanned out");
                receiver.check_media(&header, &packet);
                self.forwarded += 1;
            }
        }
        let (transports, producers, consumers) = self.counts();
        assert!(transports >= self.senders.len() + self.receivers.len());
        assert_eq!(producers, self.senders.len());
        assert_eq!(consumers, self.receivers.len());
    }

    fn counts(&self) -> (usize, usize, usize) {
        let (_, router) = self.stage.worker.routers.iter().next().unwrap();
        router.counts()
    }

    /// Closes the router: nothing is left.
    fn end(mut self) {
        let ids = Ids::router(ROUTER);
        self.stage.call(ids, Call::CloseRouter(Empty {})).unwrap();
        let io = &self.stage.worker.io;
        assert_eq!(io.pool.in_use(), 0);
        assert!((0..1000).all(|key| io.sockets.local(key).is_none()));
        // Late packets from before a sync point and probes are the only ones without a place.
        let drops = io.drops.to_map();
        let unexpected = drops.keys().find(|reason| *reason != "duplicate");
        assert_eq!(unexpected, None, "{drops:?}");
    }
}

impl Receiver {
    fn check_media(&mut self, header: &RtpHeader, packet: &[u8]) {
        assert!(!self.is_paused, "a paused receiver gets nothing");
        assert_eq!((header.ssrc, header.pt), (self.ssrc, PT));
        let payload = header.payload(packet);
        let (sender, source) = source_of(payload);
        assert_eq!(sender, self.sender);
        let is_keyframe = Vp8Descriptor::parse(payload).unwrap().is_keyframe;
        let seq = match self.last {
            None => u64::from(header.seq) + 65_536,
            Some((last, last_source)) => {
                let moved = header.seq.wrapping_sub(last as u16).cast_signed();
                let seq = last.wrapping_add_signed(i64::from(moved));
                if self.is_beginning {
                    assert_eq!(seq, last + 1, "a new beginning follows on directly");
                } else {
                    let expected = source.wrapping_sub(last_source).cast_signed();
                    assert_eq!(moved, expected, "gaps and order are the sender's");
                }
                seq
            }
        };
        assert!(
            is_keyframe || !self.is_beginning,
            "it begins with a key frame"
        );
        self.is_beginning = false;
        assert_eq!(self.sent.insert(seq, payload.to_vec()), None, "{seq}");
        if self.last.is_none_or(|(last, _)| seq > last) {
            self.last = Some((seq, source));
        }
    }

    /// A retransmission repeats what was sent under its original number.
    fn check_repair(&self, payload: &[u8]) {
        let osn = u16::from_be_bytes([payload[0], payload[1]]);
        let repeated = &payload[2..];
        let is_known = |(seq, sent): (&u64, &Vec<u8>)| *seq as u16 == osn && sent == repeated;
        assert!(self.sent.iter().any(is_known), "{osn} was sent like this");
    }
}

/// Who sent a payload, and under which number.
fn source_of(payload: &[u8]) -> (u32, u16) {
    let body = &payload[VP8_HEADER..];
    (
        u32::from_be_bytes(body[..4].try_into().unwrap()),
        u16::from_be_bytes(body[4..6].try_into().unwrap()),
    )
}
