//! A router that another worker goes on with leaves nothing behind in this one.

use std::rc::Rc;
use std::time::Duration;

use broth_ipc::body::Empty;
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, TransportId};
use broth_worker::recorder::Memory;

use crate::stage::{ROUTER, Stage, vp8};

const RECORDER_WORDS: usize = 8192;

#[test]
fn its_packets_are_given_back() {
    let mut stage = Stage::new();
    stage.router().record(Rc::new(Memory::heap(RECORDER_WORDS)));
    let sender = stage.plain_transport(TransportId(1));
    stage.produce(TransportId(1), ProducerId(1), 10);
    stage.plain_transport(TransportId(2));
    stage.consume(TransportId(2), ProducerId(1), ConsumerId(2), 1000);
    for seq in 0..100 {
        let mut packet = [0; 200];
        let len = vp8(&mut packet, (10, seq, 0), 0, seq == 0, &[7; 100]);
        stage.receive(sender, &mut packet[..len]);
    }
    stage.advance(Duration::ZERO);
    assert_eq!(stage.worker.io.pool.in_use(), 100);
    let suspend = Call::SuspendRouter(Empty {});
    stage.call(Ids::router(ROUTER), suspend).unwrap();
    assert_eq!(stage.worker.io.pool.in_use(), 0);
}
