//! A key frame that comes late, behind packets of its stream that came in time.

use std::time::Duration;

use broth_ipc::body::Empty;
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, TransportId};
use broth_worker::net::sockets::Path;

use crate::stage::{ROUTER, Stage, vp8};

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
