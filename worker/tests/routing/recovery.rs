//! Rooms whose worker dies at random instants, between any two writes and any two packets, and
//! whose peers must not notice. `BROTH_SEED` replays one run, `BROTH_SEEDS` makes so many.

mod changes;
mod client;
mod damage;
mod ledger;
mod room;
mod source;
mod wishes;

use std::ops::Range;

use room::{Room, Tally};

const SEEDS: u64 = 20;
const SEEDS_CHANGING: u64 = 6;
const KILLS: u32 = 50;
/// Turns until everything is repaired.
const CALM: u32 = 40;
/// Turns until everybody is fed from what they wish: a layer's silence is noticed, a key frame
/// asked for again.
const CALM_CHANGING: u32 = 350;

#[test]
fn no_peer_notices_that_its_worker_dies() {
    let mut sum = Tally::default();
    for seed in seeds(SEEDS) {
        // Shown when the test fails.
        println!("BROTH_SEED={seed}");
        let mut room = Room::new(seed);
        for _ in 0..KILLS {
            for _ in 0..room.below(6) {
                room.turn();
            }
            room.kill();
            if room.below(8) == 0 {
                room.calm_down(CALM);
                // Nothing is missing when the worker dies.
                room.loses = false;
                room.kill();
                room.loses = true;
            }
        }
        room.calm_down(CALM);
        sum = sum.sum(room.end());
    }
    println!("{sum:?}");
    if number("BROTH_SEED").is_none() {
        let has_happened = sum.got > 1000 && sum.nacked > 100 && sum.repairs > 10;
        let has_held = sum.deaths_holding > 100;
        let has_reported = sum.feedbacks > 100;
        assert!(
            has_happened && has_held && has_reported && sum.wholes > 0,
            "{sum:?}"
        );
    }
}

/// Simulcast, layers, pauses, peers and streams that come and go, also while the worker dies.
#[test]
fn no_peer_notices_whatever_changes_meanwhile() {
    let mut sum = Tally::default();
    for seed in seeds(SEEDS_CHANGING) {
        // Shown when the test fails.
        println!("BROTH_SEED={seed}");
        let mut room = Room::changing(seed);
        for _ in 0..KILLS {
            for _ in 0..room.below(12) {
                room.turn();
                if room.below(4) == 0 {
                    room.change();
                }
            }
            room.kill();
            if room.below(12) == 0 {
                room.calm_down(CALM_CHANGING);
                // Nobody changes anything: what they get goes on over more deaths.
                room.is_changing = false;
                for _ in 0..room.below(4) {
                    room.loses = false;
                    room.kill();
                    room.calm_down(CALM);
                }
                room.is_changing = true;
            }
        }
        room.calm_down(CALM_CHANGING);
        sum = sum.sum(room.end());
    }
    println!("{sum:?}");
    if number("BROTH_SEED").is_none() {
        let has_happened = sum.changes > 300 && sum.runs > 200 && sum.repairs > 10;
        assert!(
            has_happened && sum.arrived > 1000 && sum.reports > 100 && sum.deaths_holding > 30,
            "{sum:?}"
        );
    }
}

fn seeds(count: u64) -> Range<u64> {
    match number("BROTH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BROTH_SEEDS").unwrap_or(count),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
