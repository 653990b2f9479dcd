//! Recorders that are damaged: whatever is read from them, no index is used twice, and the room
//! comes up.

use std::sync::atomic::Ordering::Relaxed;

use broth_worker::recorder::{COUNTERS, RECORD_WORDS};

use super::room::{MEMBERS, Room};

/// Words before the first record.
const HEADER: usize = 8;

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
