//! Records are whole or not there, whatever became of the memory.

use std::sync::atomic::Ordering;

use broth_ipc::body::{DtlsRole, IceState};
use proptest::prelude::*;

use super::*;
use crate::dtls::SrtpKeys;
use crate::srtp::Profile;

const PLACES: usize = 6;
const WORDS: usize = HEADER_WORDS + PLACES * RECORD_WORDS;

fn transport(profile: Profile, ice_state: IceState) -> TransportRecord {
    TransportRecord {
        ice_state,
        local: "192.0.2.7:40001".parse().unwrap(),
        remote: "[2001:db8::9]:65535".parse().unwrap(),
        is_tcp: false,
        role: DtlsRole::Client,
        keys: SrtpKeys {
            profile,
            local_key: (0..profile.key_len() as u8).collect(),
            local_salt: (100..100 + profile.salt_len() as u8).collect(),
            remote_key: vec![0xA5; profile.key_len()],
            remote_salt: vec![0x5A; profile.salt_len()],
        },
    }
}

fn consumer(seq_offset: i64) -> ConsumerRecord {
    ConsumerRecord {
        transport: TransportId(7),
        ssrc: 0xDEAD_BEEF,
        rtx_ssrc: Some(3),
        current: Some(2),
        seq_offset,
        reached: 1 << 40,
        ts_offset: u32::MAX,
        picture_offset: 0x7FFF,
        tl0_offset: 255,
    }
}

/// One record of each kind, with counters.
fn sample() -> Rc<Memory> {
    let memory = Rc::new(Memory::heap(WORDS));
    let mut recorder = Recorder::create(Rc::clone(&memory));
    let record = transport(Profile::AeadAes256Gcm, IceState::Completed);
    let entry = recorder.add(TransportId(7), &record).unwrap();
    entry.set(SRTCP_INDEX, 1234);
    let inbound = InboundRecord {
        ssrc: 11,
        is_rtcp: true,
    };
    let entry = recorder.add(TransportId(7), &inbound).unwrap();
    entry.set(HIGHEST, (1 << 48) - 1);
    let stream = StreamRecord {
        ssrc: 12,
        index: 1,
        encoding: 2,
        fir_seq: 3,
        base_seq: 1 << 40,
        expected_before_base: 1 << 47,
    };
    recorder.add(ProducerId(u32::MAX), &stream).unwrap();
    let mut entry = recorder.add(ConsumerId(0), &consumer(-5)).unwrap();
    consumer(-6).write(&mut entry);
    entry.set(HIGHEST, 70_000);
    entry.set(RTX_SEQ, 9);
    memory
}

/// What is read back, in a comparable form.
fn read(memory: &Memory) -> Vec<String> {
    let copy = Memory::heap(memory.len());
    for (at, word) in memory.words().iter().enumerate() {
        copy.store(at, word.load(Ordering::Relaxed));
    }
    let (_, all) = Recorder::restore(Rc::new(copy));
    let mut found = Vec::new();
    for (id, recorded) in &all.transports {
        found.push(format!(
            "{id} {:?} {:?}",
            recorded.record, recorded.counters
        ));
        assert!(recorded.record.keys.local_key.len() >= 16);
    }
    for (id, recorded) in all
        .inbound
        .iter()
        .flat_map(|(id, all)| all.iter().map(move |r| (id, r)))
    {
        found.push(format!(
            "{id} {:?} {:?}",
            recorded.record, recorded.counters
        ));
    }
    for (id, recorded) in all
        .streams
        .iter()
        .flat_map(|(id, all)| all.iter().map(move |r| (id, r)))
    {
        found.push(format!(
            "{id} {:?} {:?}",
            recorded.record, recorded.counters
        ));
    }
    for (id, recorded) in &all.consumers {
        found.push(format!(
            "{id} {:?} {:?}",
            recorded.record, recorded.counters
        ));
    }
    found
}

#[test]
fn what_was_recorded_is_read_back() {
    for profile in Profile::ALL {
        for state in [
            IceState::Connected,
            IceState::Completed,
            IceState::Disconnected,
        ] {
            let memory = Rc::new(Memory::heap(WORDS));
            let mut recorder = Recorder::create(Rc::clone(&memory));
            let record = transport(profile, state);
            recorder.add(TransportId(7), &record).unwrap();
            let (_, all) = Recorder::restore(memory);
            assert!(all.transports[&TransportId(7)].record == record);
        }
    }
    let (_, all) = Recorder::restore(sample());
    let recorded = &all.consumers[&ConsumerId(0)];
    assert_eq!(recorded.record, consumer(-6));
    let mut counters = [0; COUNTERS];
    counters[HIGHEST] = 70_000;
    counters[RTX_SEQ] = 9;
    assert_eq!(recorded.counters, counters);
    assert_eq!(
        all.inbound[&TransportId(7)][0].counters[HIGHEST],
        (1 << 48) - 1
    );
    assert_eq!(
        all.streams[&ProducerId(u32::MAX)][0].record.base_seq,
        1 << 40
    );
}

#[test]
fn a_write_that_breaks_off_changes_nothing() {
    let before = read(&sample());
    for writes in 0.. {
        let (recorder, mut all) = Recorder::restore(sample());
        recorder.memory.die_after(writes);
        let recorded = all.consumers.get_mut(&ConsumerId(0)).unwrap();
        consumer(99).write(&mut recorded.entry);
        let after = read(&recorder.memory);
        if !recorder.memory.is_dead() {
            assert_ne!(after, before, "it was written at last");
            return;
        }
        assert!(after.len() == before.len());
        let is_new = after.iter().any(|record| record.contains("seq_offset: 99"));
        let is_old = after.iter().any(|record| record.contains("seq_offset: -6"));
        assert!(is_old || is_new && recorder.memory.is_dead(), "{writes}");
    }
}

#[test]
fn a_record_that_is_not_whole_is_not_there() {
    for writes in 0..200 {
        let memory = Rc::new(Memory::heap(WORDS));
        let mut recorder = Recorder::create(Rc::clone(&memory));
        memory.die_after(writes);
        let record = transport(Profile::AeadAes128Gcm, IceState::Completed);
        recorder.add(TransportId(1), &record);
        let is_dead = memory.is_dead();
        memory.die_after(u64::MAX);
        let (mut again, all) = Recorder::restore(memory);
        let found = all.transports.get(&TransportId(1));
        match found {
            Some(recorded) => assert_eq!(recorded.record, record),
            None => assert!(is_dead, "{writes}"),
        }
        // A place that is not taken is taken again.
        again.add(TransportId(2), &record).unwrap();
        assert_eq!(again.used, 1 + usize::from(found.is_some()));
    }
}

#[test]
fn a_removed_record_is_gone_and_leaves_no_key_behind() {
    let memory = sample();
    let full = memory.len();
    for writes in 0..full as u64 {
        let (mut recorder, mut all) = Recorder::restore(sample());
        recorder.memory.die_after(writes);
        let recorded = all.transports.remove(&TransportId(7)).unwrap();
        let at = recorded.entry.word(COUNTERS);
        recorder.remove(recorded.entry);
        let is_dead = recorder.memory.is_dead();
        let (_, again) = Recorder::restore(Rc::clone(&recorder.memory));
        match again.transports.get(&TransportId(7)) {
            Some(left) => assert_eq!(left.record, recorded.record),
            None if is_dead => {}
            None => {
                let words = &recorder.memory.words()[at..at + RECORD_WORDS - COUNTERS];
                assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
                return;
            }
        }
    }
    panic!("it was never removed");
}

#[test]
fn no_flipped_bit_is_believed() {
    let before = read(&sample());
    for at in 0..WORDS {
        for bit in 0..64 {
            let memory = sample();
            let word = memory.load(at);
            memory.store(at, word ^ 1 << bit);
            // The older payload of the consumer may come back, with its newest counters.
            let is_known = |record: &String| {
                before.contains(record)
                    || record.contains("seq_offset: -5") && record.contains("[70000, 9, 0, 0,")
            };
            for record in read(&memory) {
                assert!(is_known(&record), "bit {bit} of word {at}: {record}");
            }
        }
    }
}

#[test]
fn memory_of_another_version_is_started_anew() {
    for (at, word) in [
        (0, 0),
        (1, LAYOUT + (1 << 32)),
        (1, u64::from(VERSION) << 32),
    ] {
        let memory = sample();
        memory.store(at, word);
        assert!(read(&memory).is_empty());
    }
}

#[test]
fn records_of_another_recorder_are_none() {
    let (memory, other) = (sample(), sample());
    for at in HEADER_WORDS..WORDS {
        memory.store(at, other.load(at));
    }
    assert!(read(&memory).is_empty());
    for (at, word) in other.words().iter().enumerate() {
        memory.store(at, word.load(Ordering::Relaxed));
    }
    assert_eq!(read(&memory).len(), 4);
}

#[test]
fn a_full_recorder_counts_what_it_cannot_take() {
    let memory = Rc::new(Memory::heap(WORDS));
    let mut recorder = Recorder::create(Rc::clone(&memory));
    let added: Vec<_> = (0..10)
        .map(|id| recorder.add(ConsumerId(id), &consumer(1)))
        .collect();
    assert_eq!(added.iter().flatten().count(), PLACES);
    assert_eq!(recorder.refused(), 10 - PLACES as u64);
    for entry in added.into_iter().flatten() {
        recorder.remove(entry);
    }
    assert!(recorder.add(ConsumerId(1), &consumer(1)).is_some());
    assert!(
        Recorder::absent()
            .add(ConsumerId(1), &consumer(1))
            .is_none()
    );
    for words in 0..2 * RECORD_WORDS {
        let (mut recorder, _) = Recorder::restore(Rc::new(Memory::heap(words)));
        recorder.add(ConsumerId(1), &consumer(1));
    }
}

#[test]
fn ssrcs_leave_room_for_other_records() {
    let mut recorder = Recorder::create(Rc::new(Memory::heap(WORDS)));
    let mut invent = |ssrc| {
        let is_rtcp = false;
        recorder.add(TransportId(7), &InboundRecord { ssrc, is_rtcp })
    };
    let mut added: Vec<_> = (0..10).map_while(&mut invent).collect();
    assert_eq!(added.len(), PLACES - PLACES / 4);
    assert!(recorder.add(ConsumerId(1), &consumer(1)).is_some());
    recorder.remove(added.remove(0));
    let record = InboundRecord {
        ssrc: 11,
        is_rtcp: true,
    };
    assert!(recorder.add(TransportId(7), &record).is_none());
    recorder.remove(added.remove(0));
    assert!(recorder.add(TransportId(7), &record).is_some());
}

#[test]
fn numbers_that_nobody_counts_to_were_not_written() {
    for (base_seq, expected_before_base) in [(1 << 48, 0), (0, 1 << 48), (u64::MAX, u64::MAX)] {
        let memory = Rc::new(Memory::heap(WORDS));
        let record = StreamRecord {
            ssrc: 12,
            index: 0,
            encoding: 0,
            fir_seq: 0,
            base_seq,
            expected_before_base,
        };
        let mut recorder = Recorder::create(Rc::clone(&memory));
        recorder.add(ProducerId(1), &record).unwrap();
        assert!(read(&memory).is_empty());
    }
}

#[test]
fn what_was_received_is_recorded_when_all_has_left() {
    let memory = sample();
    let (mut recorder, all) = Recorder::restore(Rc::clone(&memory));
    let entry = &all.streams[&ProducerId(u32::MAX)][0].entry;
    let counter = |memory: &Memory| unpack(memory.load(entry.word(HIGHEST)));
    recorder.set_later(entry, HIGHEST, 5);
    recorder.set_later(entry, HIGHEST, 6);
    assert_eq!(recorder.uncommitted.len(), 1);
    assert_eq!(counter(&memory), Some(0));
    recorder.commit();
    assert_eq!(counter(&memory), Some(6));
}

proptest! {
    #[test]
    fn garbage_is_nothing(words in prop::collection::vec(any::<u64>(), 0..WORDS), is_headed: bool) {
        let memory = Memory::heap(WORDS);
        for (at, word) in words.into_iter().enumerate() {
            memory.store(at, word);
        }
        if is_headed {
            Recorder::create(Rc::new(Memory::heap(WORDS)));
            memory.store(0, MAGIC);
            memory.store(1, LAYOUT);
            memory.store(USED, pack(PLACES as u64));
        }
        prop_assert!(read(&memory).is_empty());
    }

    /// Garbage between good records leaves those alone.
    #[test]
    fn damage_stays_where_it_is(at in HEADER_WORDS + 4 * RECORD_WORDS..WORDS, word: u64) {
        let memory = sample();
        let mut before = read(&memory);
        memory.store(USED, pack(PLACES as u64));
        memory.store(at, word);
        let mut after = read(&memory);
        before.sort();
        after.sort();
        prop_assert_eq!(before, after);
    }
}
