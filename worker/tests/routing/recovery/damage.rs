//! Recorders that are damaged: whatever is read from them, no index is used twice, and the room
//! comes up.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use broth_worker::recorder::{COUNTERS, Memory, RECORD_WORDS};

use super::room::{MEMBERS, Room};
use super::{number, seeds};

/// Words before the first record.
const HEADER: usize = 8;
/// Records of a room with all it has, and a few free ones.
const RECORDS: usize = 70;
const SEEDS: u64 = 60;

#[test]
fn what_is_damaged_is_not_gone_on_with() {
    let lost = transports_lost(Room::new);
    // Neither transports without keys nor keys without the numbers used under them.
    let consumers = 2 * MEMBERS * (MEMBERS - 1);
    assert_eq!(lost, MEMBERS + consumers);
}

/// A worker died before it had forgotten a consumer that it closed. What is left of that does not
/// stand for a living one.
#[test]
fn what_is_left_of_the_dead_stands_for_nobody() {
    let lost = transports_lost(|seed| {
        let mut room = Room::new(seed);
        room.memory.die_after(0);
        room.close_consumer(0);
        room.stage.replace_worker();
        room.memory.die_after(u64::MAX);
        room.restore();
        room.resume();
        room.turn();
        room
    });
    let consumers = 2 * MEMBERS * (MEMBERS - 1);
    assert_eq!(lost, MEMBERS + consumers, "what is left counts, too");
}

/// Damages each record of such a room in turn; returns how many transports that costs in all, one
/// at a time.
fn transports_lost(make: impl Fn(u64) -> Room) -> usize {
    let mut lost = 0;
    for place in 0.. {
        let mut room = make(place);
        let words = room.memory.words();
        let first = HEADER + place as usize * RECORD_WORDS;
        if words[first + COUNTERS..first + RECORD_WORDS]
            .iter()
            .all(|word| word.load(Relaxed) == 0)
        {
            assert!(place > 20, "{place}");
            break;
        }
        for word in &words[first..first + RECORD_WORDS] {
            word.fetch_xor(1 << 20, Relaxed);
        }
        let resumed = room.survive_damage();
        assert!(resumed + 1 >= MEMBERS, "{resumed} at {place}");
        lost += MEMBERS - resumed;
    }
    lost
}

#[test]
fn who_finds_no_room_in_the_recorder_is_not_gone_on_with() {
    for places in 0..40 {
        let mut room = Room::with_memory(1, HEADER + places * RECORD_WORDS);
        let resumed = room.survive_damage();
        assert!(places >= 15 || resumed < MEMBERS, "{places}");
    }
}

/// Any damage at any instant: the room comes up, with what is whole, and takes newcomers.
#[test]
fn a_room_comes_up_whatever_is_in_its_recorder() {
    let mut resumed = [0; MEMBERS + 1];
    for seed in seeds(SEEDS) {
        // Shown when the test fails.
        println!("BROTH_SEED={seed}");
        let mut room = Room::changing(seed);
        for _ in 0..room.below(8) {
            room.turn();
            if room.below(3) == 0 {
                room.change();
            }
        }
        for _ in 0..=room.below(2) {
            damage(&mut room, seed);
            resumed[room.survive_damage()] += 1;
        }
        room.rejoin();
        room.turn();
        room.check_counts();
    }
    println!("transports that went on: {resumed:?}");
    if number("BROTH_SEED").is_none() {
        assert!(resumed.iter().all(|count| *count > 0), "{resumed:?}");
    }
}

fn damage(room: &mut Room, seed: u64) {
    // What is left after it was cut off.
    let records = (room.memory.len().saturating_sub(HEADER) / RECORD_WORDS).min(RECORDS);
    let words = (HEADER + records * RECORD_WORDS) as u64;
    if records == 0 {
        return;
    }
    match room.below(7) {
        // Bits flip, few or many.
        kind @ (0 | 1) => {
            let most = [4, 2000][kind as usize];
            for _ in 0..=room.below(most) {
                let (at, bit) = (room.below(words) as usize, room.below(64));
                room.memory.words()[at].fetch_xor(1 << bit, Relaxed);
            }
        }
        // It is cut off.
        2 => {
            let len = room.below(words) as usize;
            let cut = Memory::heap(len);
            for at in 0..len {
                cut.store(at, room.memory.load(at));
            }
            room.memory = Rc::new(cut);
        }
        // Another version wrote it.
        3 => {
            let version = room.memory.load(1);
            let other = version.wrapping_add((1 + room.below(5)) << 32);
            room.memory.words()[1].store(other, Relaxed);
        }
        // Some records are another room's, at the same places and of the same objects.
        4 => {
            let other = Room::changing(seed + 4);
            for place in 0..records {
                if room.below(4) == 0 {
                    let first = HEADER + place * RECORD_WORDS;
                    for at in first..first + RECORD_WORDS {
                        room.memory.words()[at].store(other.memory.load(at), Relaxed);
                    }
                }
            }
        }
        // A stretch of it is nothing but zeroes or ones, or all is.
        kind => {
            let from = room.below(words);
            let (from, to) = match room.below(3) {
                0 => (0, words),
                _ => (from, from + room.below(words - from)),
            };
            let filling = if kind == 5 { 0 } else { u64::MAX };
            for word in &room.memory.words()[from as usize..to as usize] {
                word.store(filling, Relaxed);
            }
        }
    }
}
