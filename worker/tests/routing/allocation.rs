//! No allocation per forwarded packet, once everything has grown to its size.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use allocation_counter::measure;
use broth_ipc::{ConsumerId, ProducerId, TransportId};
use broth_worker::recorder::Memory;
use broth_worker::srtp::{OpenKey, Profile, RecvIndex, SealKey};

use crate::stage::{Stage, vp8};

const CONSUMERS: u32 = 20;
/// Room for everybody.
const RECORDER_WORDS: usize = 8192;
/// Packets of a frame.
const BURST: u16 = 10;
/// Turns in which rings, logs and queues reach their sizes: over two seconds, the age at which
/// kept packets are given back, and more packets than a log of a consumer holds.
const WARM_UP: u16 = 400;
/// Turns that are measured. No report is due in them: the clock stands still.
const MEASURED: u16 = 50;

#[test]
fn routing_does_not_allocate() {
    let mut stage = Stage::new();
    stage.router().record(Rc::new(Memory::heap(RECORDER_WORDS)));
    let sender = stage.plain_transport(TransportId(1));
    stage.produce(TransportId(1), ProducerId(1), 10);
    for n in 0..CONSUMERS {
        let transport = TransportId(100 + n);
        stage.plain_transport(transport);
        stage.consume(transport, ProducerId(1), ConsumerId(100 + n), 1000 + 2 * n);
    }
    let mut packet = [0; 1500];
    let mut received = 0;
    let mut turn = |stage: &mut Stage, frame: u16, by: Duration| {
        for n in 0..BURST {
            let seq = frame * BURST + n;
            let numbers = (10, seq, u32::from(frame) * 3000);
            let is_keyframe = frame == 0 && n == 0;
            let len = vp8(&mut packet, numbers, frame, is_keyframe, &[7; 1100]);
            stage.receive(sender, &mut packet[..len]);
        }
        stage.advance(by);
        stage.take(|_, _, datagram| received += usize::from(datagram.len() > 1000));
        stage.commit();
    };
    for frame in 0..WARM_UP {
        turn(&mut stage, frame, Duration::from_millis(10));
    }
    let info = measure(|| {
        for frame in WARM_UP..WARM_UP + MEASURED {
            turn(&mut stage, frame, Duration::ZERO);
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");
    let turns = usize::from(WARM_UP + MEASURED);
    assert_eq!(received, turns * usize::from(BURST) * CONSUMERS as usize);
}

#[test]
fn sealing_and_opening_do_not_allocate() {
    for profile in Profile::ALL {
        let key = vec![1; profile.key_len()];
        let salt = vec![2; profile.salt_len()];
        let seal = SealKey::new(profile, &key, &salt).unwrap();
        let open = OpenKey::new(profile, &key, &salt).unwrap();
        let mut index = RecvIndex::new();
        let mut pass = |seqs: Range<u16>| {
            let mut packet = [0; 1300];
            for seq in seqs {
                let len = vp8(&mut packet, (1, seq, 0), seq, true, &[7; 1100]);
                let sealed = seal.protect_rtp(0, &mut packet, 12, len).unwrap();
                let opened = open.unprotect_rtp(&mut index, &mut packet[..sealed], 12);
                assert_eq!(opened, Ok(len));
            }
        };
        // The first packet of an SSRC is copied, as it is opened by trial.
        pass(0..1);
        let info = measure(|| pass(1..100));
        assert_eq!(info.count_total, 0, "{profile:?}: {info:?}");
    }
}
