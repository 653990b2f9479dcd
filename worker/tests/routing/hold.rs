//! Beginnings of frames that wait for the rest, never for long.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use broth_ipc::body::{CreateConsumer, CreateProducer, Empty, EnableConsumer};
use broth_ipc::rtp::{MediaKind, RtpMapping, RtpParameters};
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, TransportId};
use broth_worker::net::sockets::Path;
use broth_worker::recorder::{HIGHEST, Memory, Recorder};
use broth_worker::stream::Hold;
use broth_worker::wire::rtp::{RtpEmit, RtpHeader, is_rtcp};
use serde_json::json;

use crate::stage::{ROUTER, Stage, vp8};

const VIDEO: u32 = 10;
const AUDIO: u32 = 20;
const AUDIO_PT: u8 = 100;
const CONSUMERS: u32 = 4;
/// Between two packets of a frame.
const GAP: Duration = Duration::from_micros(100);
/// Between two frames.
const PAUSE: Duration = Duration::from_millis(30);
const SENDER: TransportId = TransportId(1);
const PRODUCER: ProducerId = ProducerId(VIDEO);

/// A sender and its viewers.
struct Room {
    stage: Stage,
    sender: Path,
    seq: u16,
    ts: u32,
}

impl Room {
    fn new() -> Self {
        Self::on(Stage::new(), CONSUMERS)
    }

    fn on(mut stage: Stage, consumers: u32) -> Self {
        let sender = stage.plain_transport(SENDER);
        stage.produce(SENDER, PRODUCER, VIDEO);
        for n in 0..consumers {
            let transport = TransportId(100 + n);
            stage.plain_transport(transport);
            stage.consume(transport, PRODUCER, ConsumerId(100 + n), 1000 + 2 * n);
        }
        Self {
            stage,
            sender,
            seq: 0,
            ts: 0,
        }
    }

    /// One whose frames were seen to come packet by packet.
    fn used() -> Self {
        let mut room = Self::new();
        room.get_used();
        room
    }

    fn get_used(&mut self) {
        for _ in 0..10 {
            self.packet(false);
            self.turn(GAP);
            self.packet(true);
            self.turn(PAUSE);
        }
        assert!(self.stage.router().held_until().is_none());
    }

    /// A packet comes in, the last of its frame or not.
    fn packet(&mut self, is_last: bool) {
        let mut packet = [0; 1500];
        let numbers = (VIDEO, self.seq, self.ts);
        let len = vp8(
            &mut packet,
            numbers,
            self.ts as u16,
            self.seq == 0,
            &[7; 1000],
        );
        if !is_last {
            packet[1] &= 0x7F;
        }
        self.seq += 1;
        self.ts += u32::from(is_last);
        self.stage.receive(self.sender, &mut packet[..len]);
    }

    /// The end of a turn, and the time until the next one.
    fn turn(&mut self, sleep: Duration) {
        self.left();
        self.stage.advance(sleep);
        self.taken();
    }

    /// What leaves at the end of a turn: SSRCs and sequence numbers of media.
    fn left(&mut self) -> Vec<(u32, u16)> {
        self.stage.advance(Duration::ZERO);
        let left = self.taken();
        self.stage.commit();
        left
    }

    fn taken(&mut self) -> Vec<(u32, u16)> {
        let mut left = Vec::new();
        self.stage.take(|_, _, packet| {
            if !is_rtcp(packet) {
                let header = RtpHeader::parse(packet).unwrap();
                left.push((header.ssrc, header.seq));
            }
        });
        left
    }
}

#[test]
fn the_beginning_of_a_frame_leaves_with_its_end() {
    let mut room = Room::used();
    room.packet(false);
    assert_eq!(room.left(), []);
    room.stage.advance(GAP);
    room.packet(false);
    assert_eq!(room.left(), []);
    room.stage.advance(GAP);
    room.packet(true);
    let left = room.left();
    assert_eq!(left.len(), 3 * CONSUMERS as usize);
    // Viewer by viewer, in order.
    for packets in left.chunks(3) {
        let (ssrc, seq) = packets[0];
        let following = [0, 1, 2].map(|n| (ssrc, seq.wrapping_add(n)));
        assert_eq!(packets, following);
    }
    assert_eq!(room.stage.router().held_until(), None);
}

#[test]
fn a_frame_that_stops_coming_leaves_when_its_time_is_over() {
    let mut room = Room::used();
    let hold = Hold::default().time();
    room.packet(false);
    assert_eq!(room.left(), []);
    assert_eq!(
        room.stage.router().held_until(),
        Some(room.stage.now() + hold)
    );
    room.stage.advance(hold / 2);
    room.packet(false);
    assert_eq!(room.left(), [], "the second packet does not begin anew");
    room.stage.advance(hold / 2 - Duration::from_nanos(1));
    assert_eq!(room.taken(), []);
    room.stage.advance(Duration::from_nanos(1));
    assert_eq!(room.taken().len(), 2 * CONSUMERS as usize);
}

#[test]
fn nothing_waits_before_it_is_known_to_pay() {
    let mut room = Room::new();
    room.packet(false);
    assert_eq!(room.left().len(), CONSUMERS as usize);
}

#[test]
fn paced_packets_do_not_wait() {
    let mut room = Room::used();
    let pace = Duration::from_millis(5);
    let waited = |room: &mut Room| {
        room.packet(false);
        let has_waited = room.left().is_empty();
        room.stage.advance(pace);
        room.taken();
        has_waited
    };
    // Until that is noticed.
    (0..10).filter(|_| waited(&mut room)).count();
    assert_eq!((0..100).filter(|_| waited(&mut room)).count(), 0);
}

#[test]
fn few_viewers_wait_for_nothing() {
    let mut room = Room::on(Stage::new(), CONSUMERS - 1);
    room.get_used();
    room.packet(false);
    assert_eq!(room.left().len(), CONSUMERS as usize - 1);
}

#[test]
fn nothing_waits_where_that_is_switched_off_or_gains_nothing() {
    let mut room = Room::used();
    room.stage.worker.io.may_hold = false;
    room.packet(false);
    assert_eq!(room.left().len(), CONSUMERS as usize);
    room.stage.worker.io.may_hold = true;
    room.stage.set_hold(Hold::new(Duration::ZERO));
    room.packet(false);
    assert_eq!(room.left().len(), CONSUMERS as usize);
}

/// At random instants packets come in, and frames end.
#[test]
fn no_packet_waits_longer_than_it_may_and_order_is_kept() {
    let mut room = Room::on(Stage::new(), CONSUMERS);
    room.stage.set_hold(Hold::eager());
    let hold = Hold::eager().time();
    let mut random = 1_u64;
    let mut below = |bound: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % bound
    };
    let mut arrived = Vec::new();
    let mut count: HashMap<u32, usize> = HashMap::new();
    let (mut at_once, mut later) = (0, 0);
    let mut now = Duration::ZERO;
    for _ in 0..5000 {
        for _ in 0..below(3) {
            room.packet(below(4) == 0);
            arrived.push(now);
        }
        room.stage.advance(Duration::ZERO);
        // As the event loop sleeps: until something comes in, or is due.
        let mut sleep = Duration::from_micros(below(700));
        loop {
            for (ssrc, _) in room.taken() {
                let nth = count.entry(ssrc).or_default();
                let waited = now - arrived[*nth];
                assert!(waited <= hold, "packet {nth} waited for {waited:?}");
                at_once += u32::from(waited.is_zero());
                later += u32::from(!waited.is_zero());
                *nth += 1;
            }
            let until = room.stage.router().held_until();
            let due = until.map(|until| until - room.stage.now());
            let Some(due) = due.filter(|due| *due <= sleep) else {
                break;
            };
            room.stage.advance(due);
            (now, sleep) = (now + due, sleep - due);
        }
        room.stage.advance(sleep);
        now += sleep;
    }
    room.stage.advance(hold);
    let left = room.taken().len() / CONSUMERS as usize;
    assert!(count.values().all(|nth| nth + left == arrived.len()));
    assert!(at_once > 1000 && later > 1000, "{at_once} {later}");
}

#[test]
fn audio_leaves_in_its_turn_while_video_waits() {
    let mut room = Room::used();
    let audio = room.stage.plain_transport(TransportId(2));
    add_audio(&mut room.stage);
    let speak = |room: &mut Room, seq: u16| {
        let emit = RtpEmit {
            marker: false,
            pt: AUDIO_PT,
            seq,
            ts: u32::from(seq) * 960,
            ssrc: AUDIO,
        };
        let mut packet = [0; 200];
        let at = emit.emit_header(std::iter::empty(), &mut packet).unwrap();
        room.stage.receive(audio, &mut packet[..at + 100]);
    };
    // Close together, as video that is waited for.
    for seq in 0..20 {
        speak(&mut room, seq);
        assert_eq!(room.left().len(), CONSUMERS as usize);
        room.stage.advance(GAP);
    }
    room.packet(false);
    assert_eq!(room.left(), []);
    speak(&mut room, 20);
    let left = room.left();
    assert_eq!(left.len(), CONSUMERS as usize);
    assert!(left.iter().all(|(ssrc, _)| *ssrc >= 2000), "{left:?}");
    assert!(room.stage.router().held_until().is_some());
}

fn add_audio(stage: &mut Stage) {
    let parameters = |ssrc: u32| -> RtpParameters {
        serde_json::from_value(json!({
            "muxId": ssrc.to_string(),
            "codecs": [{ "name": "opus", "mimeType": "audio/opus", "clockRate": 48000,
                         "channels": 2, "payloadType": AUDIO_PT }],
            "encodings": [{ "ssrc": ssrc }],
            "rtcp": { "cname": "test" },
        }))
        .unwrap()
    };
    let ids = Ids::router(ROUTER).producer(ProducerId(AUDIO));
    let create = Call::CreateProducer(CreateProducer {
        kind: MediaKind::Audio,
        rtp_parameters: parameters(AUDIO),
        rtp_mapping: RtpMapping {
            codec_payload_types: vec![(AUDIO_PT, AUDIO_PT)],
            header_extension_ids: Vec::new(),
        },
        paused: false,
    });
    stage.call(ids.transport(TransportId(2)), create).unwrap();
    for n in 0..CONSUMERS {
        let consumer = ids.consumer(ConsumerId(200 + n));
        let kind = MediaKind::Audio;
        let create = Call::CreateConsumer(CreateConsumer { kind });
        stage.call(consumer, create).unwrap();
        let rtp_parameters = parameters(2000 + n);
        let enable = Call::EnableConsumer(EnableConsumer { rtp_parameters });
        let transport = TransportId(100 + n);
        stage.call(consumer.transport(transport), enable).unwrap();
    }
}

#[test]
fn a_router_that_moves_away_leaves_nothing_behind() {
    let mut room = Room::used();
    room.packet(false);
    assert_eq!(room.left(), []);
    let (_, router) = room.stage.worker.routers.iter_mut().next().unwrap();
    router.finish(&mut room.stage.worker.io);
    assert_eq!(room.taken().len(), CONSUMERS as usize);
    assert_eq!(room.stage.router().held_until(), None);
}

#[test]
fn what_waits_counts_as_received_once_it_has_left() {
    let memory = Rc::new(Memory::heap(8192));
    let mut stage = Stage::new();
    stage.router().record(Rc::clone(&memory));
    let mut room = Room::on(stage, CONSUMERS);
    room.get_used();
    let recorded = || {
        let (_, recordings) = Recorder::restore(Rc::clone(&memory));
        recordings.streams[&PRODUCER][0].counters[HIGHEST]
    };
    let before = recorded();
    room.packet(false);
    assert_eq!(room.left(), []);
    assert_eq!(recorded(), before);
    room.stage.advance(GAP);
    room.packet(true);
    assert_eq!(room.left().len(), 2 * CONSUMERS as usize);
    assert_eq!(recorded(), before + 2);
}

#[test]
fn whoever_closes_or_pauses_meanwhile_gets_nothing() {
    let ids = Ids::router(ROUTER);
    let rows = [
        (
            ids.consumer(ConsumerId(100)),
            Call::CloseConsumer(Empty {}),
            3,
        ),
        (
            ids.consumer(ConsumerId(100)),
            Call::PauseConsumer(Empty {}),
            3,
        ),
        (
            ids.transport(TransportId(100)),
            Call::CloseTransport(Empty {}),
            3,
        ),
        (ids.producer(PRODUCER), Call::PauseProducer(Empty {}), 0),
        (ids.producer(PRODUCER), Call::CloseProducer(Empty {}), 0),
        (ids.transport(SENDER), Call::CloseTransport(Empty {}), 0),
    ];
    for (ids, call, expected) in rows {
        let name = call.method();
        let mut room = Room::used();
        room.packet(false);
        assert_eq!(room.left(), []);
        room.stage.call(ids, call).unwrap();
        room.stage.advance(Hold::default().time());
        assert_eq!(room.taken().len(), expected, "{name}");
        assert_eq!(room.stage.router().held_until(), None, "{name}");
        let close = Call::CloseRouter(Empty {});
        room.stage.call(Ids::router(ROUTER), close).unwrap();
        assert_eq!(room.stage.worker.io.pool.in_use(), 0, "{name}");
    }
}
