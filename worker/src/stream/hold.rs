//! Whether it pays to wait for the rest of a video frame before it is fanned out, so that the
//! kernel gets its packets as one GSO message per viewer.
//!
//! A turn of the event loop that ends amid a frame *cuts* it. Had the next packet of the producer
//! come within the time that may be waited, waiting would have spared every viewer a message; the
//! last cuts tell whether it does. That is known without ever waiting: senders that pace their
//! packets, or send one packet per frame, are not waited for.

use std::time::{Duration, Instant};

/// What may be asked for: the sleep ends a little late, and no packet is to wait longer than a
/// millisecond.
const HOLD_MAX: Duration = Duration::from_micros(900);
/// More packets than that gain nothing from being sent together.
const HELD_PACKETS_MAX: usize = 32;
/// With fewer consumers there is little to gain.
const CONSUMERS_MIN: usize = 4;
/// Cuts that are remembered, and how many more of them must have been worth it than not.
const SCORE_MAX: u8 = 15;
const SCORE_MIN: u8 = 8;

/// How long packets of a frame may wait for the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    time: Duration,
    consumers_min: usize,
    score_min: u8,
}

/// Longer than a burst of packets takes to come in, and no latency that anybody sees.
impl Default for Hold {
    fn default() -> Self {
        Self::new(Duration::from_micros(400))
    }
}

impl Hold {
    /// Waits at most `time`, and less than a millisecond. A time of zero never waits.
    pub fn new(time: Duration) -> Self {
        Self {
            time: time.min(HOLD_MAX),
            consumers_min: CONSUMERS_MIN,
            score_min: SCORE_MIN,
        }
    }

    /// Waits at every cut, whether it pays or not: for tests.
    pub fn eager() -> Self {
        Self {
            consumers_min: 0,
            score_min: 0,
            ..Self::default()
        }
    }

    /// The longest time.
    pub fn time(self) -> Duration {
        self.time
    }
}

/// What is known of the cuts of a producer's frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cuts {
    /// When a turn ended amid a frame, if nothing came since.
    last: Option<Instant>,
    /// Counts up with every cut that was worth waiting at, and down with the others.
    score: u8,
    /// Packets looked at in earlier turns.
    seen: usize,
}

impl Cuts {
    /// Looks at the packets that wait at the end of a turn: whether they are to wait on.
    pub fn handle_turn(
        &mut self,
        now: Instant,
        hold: Hold,
        is_amid_frame: bool,
        consumers: usize,
        packets: usize,
    ) -> bool {
        if packets > self.seen {
            if let Some(last) = self.last.take() {
                self.score = if now.duration_since(last) <= hold.time {
                    (self.score + 1).min(SCORE_MAX)
                } else {
                    self.score.saturating_sub(1)
                };
            }
            self.last = is_amid_frame.then_some(now);
            self.seen = packets;
        }
        is_amid_frame
            && self.score >= hold.score_min
            && consumers >= hold.consumers_min
            && packets < HELD_PACKETS_MAX
    }

    /// The packets were fanned out.
    pub fn handle_release(&mut self) {
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSUMERS: usize = 10;

    /// A frame whose packets come with `gap` between them, each in a turn of its own, and the
    /// last one ends it. Returns whether the first one was to wait.
    fn frame(cuts: &mut Cuts, now: &mut Instant, gap: Duration, packets: usize) -> bool {
        let mut has_waited = false;
        let mut waiting = 0;
        for n in 1..=packets {
            waiting += 1;
            let is_amid = n < packets;
            let waits = cuts.handle_turn(*now, Hold::default(), is_amid, CONSUMERS, waiting);
            if n == 1 {
                has_waited = waits;
            }
            if !waits {
                cuts.handle_release();
                waiting = 0;
            }
            *now += gap;
        }
        *now += Duration::from_millis(30);
        has_waited
    }

    #[test]
    fn frames_wait_once_their_packets_follow_each_other_closely() {
        let us = Duration::from_micros;
        // The gap between packets, packets per frame, whether frames wait in the end.
        let rows = [
            (us(50), 2, true),
            (us(50), 10, true),
            (us(400), 3, true),
            (us(401), 3, false),
            (us(5000), 10, false),
            (us(50), 1, false),
        ];
        for (gap, packets, expected) in rows {
            let (mut cuts, mut now) = (Cuts::default(), Instant::now());
            assert!(
                !frame(&mut cuts, &mut now, gap, packets),
                "nothing is known"
            );
            for _ in 0..20 {
                frame(&mut cuts, &mut now, gap, packets);
            }
            let waits = frame(&mut cuts, &mut now, gap, packets);
            assert_eq!(waits, expected, "{gap:?} {packets}");
        }
    }

    #[test]
    fn a_sender_that_begins_to_pace_is_soon_not_waited_for() {
        let (mut cuts, mut now) = (Cuts::default(), Instant::now());
        for _ in 0..20 {
            frame(&mut cuts, &mut now, Duration::from_micros(100), 5);
        }
        let pace = Duration::from_millis(5);
        let waited = (0..20)
            .filter(|_| frame(&mut cuts, &mut now, pace, 5))
            .count();
        assert!(waited <= 2, "{waited}");
    }

    #[test]
    fn few_consumers_or_many_packets_do_not_wait() {
        let (mut cuts, mut now) = (Cuts::default(), Instant::now());
        for _ in 0..20 {
            frame(&mut cuts, &mut now, Duration::from_micros(100), 5);
        }
        let hold = Hold::default();
        let rows = [
            (4, 1, true),
            (3, 1, false),
            (4, HELD_PACKETS_MAX - 1, true),
            (4, HELD_PACKETS_MAX, false),
        ];
        for (consumers, packets, expected) in rows {
            let waits = { cuts }.handle_turn(now, hold, true, consumers, packets);
            assert_eq!(waits, expected, "{consumers} {packets}");
        }
    }

    #[test]
    fn no_more_can_be_asked_for_than_a_millisecond() {
        assert_eq!(Hold::new(Duration::from_secs(1)).time(), HOLD_MAX);
    }
}
