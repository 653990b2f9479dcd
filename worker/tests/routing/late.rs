//! A key frame that comes late, behind packets of its stream that came in time.

use std::time::Duration;

use broth_ipc::body::Empty;
use broth_ipc::rtp::MediaKind;
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, TransportId};
use broth_worker::net::sockets::Path;
use broth_worker::wire::rtp::RtpEmit;

use crate::stage::{PT, ROUTER, Stage, parameters, vp8};

const SENDER: TransportId = TransportId(1);
const RECEIVER: TransportId = TransportId(2);
const PRODUCER: ProducerId = ProducerId(1);
const CONSUMER: ConsumerId = ConsumerId(2);
const TURN: Duration = Duration::from_millis(10);

/// One sender and one receiver, over plain transports.
struct Scene {
    stage: Stage,
    sender: Path,
}

impl Scene {
    fn new() -> Self {
        let mut stage = Stage::new();
        let sender = stage.plain_transport(SENDER);
        stage.plain_transport(RECEIVER);
        stage.produce(SENDER, PRODUCER, 10);
        stage.consume(RECEIVER, PRODUCER, CONSUMER, 1000);
        Self { stage, sender }
    }

    /// A turn of the loop in which these packets arrive; number 10 is the key frame. Returns the
    /// picture and the number of each that leaves.
    fn turn(&mut self, seqs: &[u16]) -> Vec<(u8, u16)> {
        self.stage.advance(TURN);
        for &seq in seqs {
            let mut packet = [0; 100];
            let numbers = (10, seq, u32::from(seq) * 3000);
            let len = vp8(&mut packet, numbers, seq, seq == 10, &[seq as u8; 20]);
            self.stage.receive(self.sender, &mut packet[..len]);
        }
        self.stage.advance(Duration::ZERO);
        let mut left = Vec::new();
        self.stage.take(|_, _, packet| {
            if packet.len() > 30 && packet[1] & 0x7F == 101 {
                let number = u16::from_be_bytes([packet[2], packet[3]]);
                left.push((packet[packet.len() - 1], number));
            }
        });
        left
    }

    fn call(&mut self, call: Call) {
        let ids = Ids::router(ROUTER).producer(PRODUCER).consumer(CONSUMER);
        self.stage.call(ids, call).unwrap();
    }
}

/// The pictures, if their numbers are as far apart as they are.
fn pictures(left: &[(u8, u16)]) -> Vec<u8> {
    let offset = |&(picture, number): &(u8, u16)| number.wrapping_sub(u16::from(picture));
    assert!(
        left.iter().all(|one| offset(one) == offset(&left[0])),
        "{left:?}"
    );
    left.iter().map(|(picture, _)| *picture).collect()
}

#[test]
fn what_came_ahead_of_the_key_frame_follows_it_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.turn(&[9, 11, 12]), []);
    assert_eq!(scene.turn(&[14]), []);
    let mut left = scene.turn(&[15, 10, 13, 16]);
    assert_eq!(pictures(&left), [10, 11, 12, 14, 15, 13, 16]);
    left.extend(scene.turn(&[17, 10, 12, 9]));
    assert_eq!(pictures(&left), [10, 11, 12, 14, 15, 13, 16, 17]);
}

#[test]
fn what_came_while_nothing_was_wanted_does_not_follow() {
    let mut scene = Scene::new();
    assert_eq!(scene.turn(&[9, 11]), []);
    scene.call(Call::PauseConsumer(Empty {}));
    assert_eq!(scene.turn(&[12, 13]), []);
    assert_eq!(scene.turn(&[]), []);
    scene.call(Call::ResumeConsumer(Empty {}));
    assert_eq!(scene.turn(&[14]), []);
    assert_eq!(pictures(&scene.turn(&[10])), [10, 14]);
}

/// Numbers of the packets of an H.264 stream, each with the type of its NAL unit and the picture it
/// belongs to.
type Units<'a> = &'a [(u16, u8, u16)];
const SLICE: u8 = 0x41;
const IDR: u8 = 0x65;
const SPS: u8 = 0x67;
const PPS: u8 = 0x68;

impl Scene {
    fn h264() -> Self {
        let mut stage = Stage::new();
        let sender = stage.plain_transport(SENDER);
        stage.plain_transport(RECEIVER);
        let parameters = |ssrc| {
            let mut parameters = parameters(ssrc);
            parameters.codecs[0].name = "H264".into();
            parameters.codecs[0].mime_type = "video/H264".into();
            parameters
        };
        stage.produce_video(SENDER, PRODUCER, parameters(10));
        stage.consume_as(
            RECEIVER,
            PRODUCER,
            CONSUMER,
            MediaKind::Video,
            parameters(1000),
        );
        Self { stage, sender }
    }

    /// A turn in which these packets arrive; returns the numbers of those that leave, as the
    /// sender counts.
    fn turn_of(&mut self, units: Units<'_>) -> Vec<u8> {
        self.stage.advance(TURN);
        for &(seq, unit, picture) in units {
            let emit = RtpEmit {
                marker: false,
                pt: PT,
                seq,
                ts: u32::from(picture) * 3000,
                ssrc: 10,
            };
            let mut packet = [0x80 | seq as u8; 60];
            let at = emit.emit_header(std::iter::empty(), &mut packet).unwrap();
            packet[at] = unit;
            self.stage.receive(self.sender, &mut packet);
        }
        self.stage.advance(Duration::ZERO);
        let mut left = Vec::new();
        self.stage.take(|_, _, packet| {
            if packet.len() == 60 && packet[1] & 0x7F == PT {
                let number = u16::from_be_bytes([packet[2], packet[3]]);
                left.push((packet[packet.len() - 1] & 0x7F, number));
            }
        });
        match left.is_empty() {
            true => Vec::new(),
            false => pictures(&left),
        }
    }
}

#[test]
fn a_picture_waits_for_its_parameter_sets_where_they_are_asked_for() {
    type Turns<'a> = &'a [(Units<'a>, &'a [u8])];
    let rows: &[(&str, Turns<'_>)] = &[
        (
            "parameter sets come late",
            &[
                (&[(9, SLICE, 1), (11, IDR, 2), (12, IDR, 2)], &[]),
                (&[(13, SLICE, 3)], &[]),
                (&[(10, SPS, 2)], &[10, 11, 12, 13]),
            ],
        ),
        (
            "only some of them come late",
            &[
                (&[(9, SLICE, 1), (11, PPS, 2), (12, IDR, 2)], &[]),
                (&[(10, SPS, 2), (13, SLICE, 3)], &[10, 11, 12, 13]),
            ],
        ),
        (
            "they are there",
            &[(
                &[(9, SLICE, 1), (11, SPS, 2), (12, PPS, 2), (13, IDR, 2)],
                &[11, 12, 13],
            )],
        ),
        (
            "they would have been first of all",
            &[
                (&[(11, IDR, 2), (12, IDR, 2), (13, SLICE, 3)], &[]),
                (&[(14, IDR, 4)], &[14]),
            ],
        ),
        (
            "its sender never sends any",
            &[(&[(10, SLICE, 1), (11, IDR, 2), (12, IDR, 2)], &[11, 12])],
        ),
        (
            "they are lost for good, and come with the next picture",
            &[
                (&[(9, SLICE, 1), (11, IDR, 2)], &[]),
                (&[(12, SLICE, 3), (13, SPS, 4), (14, IDR, 4)], &[13, 14]),
            ],
        ),
    ];
    for (name, turns) in rows {
        let mut scene = Scene::h264();
        for (units, expected) in *turns {
            assert_eq!(&scene.turn_of(units), expected, "{name}: {units:?}");
        }
    }
}

#[test]
fn a_sender_known_to_send_no_parameter_sets_is_not_waited_for() {
    let mut scene = Scene::h264();
    assert_eq!(scene.turn_of(&[(10, SLICE, 1), (11, IDR, 2)]), [11]);
    scene.call(Call::PauseConsumer(Empty {}));
    assert!(scene.turn_of(&[(12, SLICE, 3)]).is_empty());
    scene.call(Call::ResumeConsumer(Empty {}));
    assert_eq!(scene.turn_of(&[(14, IDR, 4), (15, SLICE, 5)]), [14, 15]);
}
