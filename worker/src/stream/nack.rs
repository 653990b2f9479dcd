//! Which packets are missing and when to ask for them again (RFC 4585 §6.2.1).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A missing packet is asked for so many times.
const TRIES_MAX: u8 = 10;
/// Missing packets this far behind the newest are forgotten.
const AGE_MAX: u64 = 5000;
/// With more missing packets than this a key frame is cheaper.
const MISSING_MAX: usize = 1000;
/// Numbers that fit one NACK datagram even when each needs its own item.
const BATCH_MAX: usize = 250;
/// Never ask faster than this, whatever the round-trip time.
const INTERVAL_MIN: Duration = Duration::from_millis(20);

/// What a sequence number is to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Ahead of all others.
    New,
    /// It was missing.
    Recovered,
    /// Neither: seen before, or given up long ago.
    Duplicate,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NackAction {
    /// Nothing.
    None,
    /// Ask for the numbers given.
    Nack,
    /// Too much is missing: ask for a key frame.
    KeyFrameNeeded,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    seq: u64,
    asked_at: Option<Instant>,
    tries: u8,
}

/// The missing packets of one stream, oldest first.
#[derive(Debug, Default)]
pub struct NackGenerator {
    highest: Option<u64>,
    missing: VecDeque<Missing>,
    last_keyframe: u64,
    overflowed: bool,
    poll_at: Option<Instant>,
}

impl NackGenerator {
    /// Goes on after a recorded number: what is missing from there on is asked for.
    pub fn resumed(highest: u64) -> Self {
        Self {
            highest: Some(highest),
            ..Self::default()
        }
    }

    /// Takes the number of a received packet.
    pub fn handle_seq(&mut self, now: Instant, seq: u64, is_keyframe: bool) -> Seen {
        let Some(highest) = self.highest else {
            self.highest = Some(seq);
            return Seen::New;
        };
        if seq <= highest {
            return match self.missing.binary_search_by_key(&seq, |m| m.seq) {
                Ok(at) => {
                    self.missing.remove(at);
                    Seen::Recovered
                }
                Err(_) => Seen::Duplicate,
            };
        }
        self.highest = Some(seq);
        if is_keyframe {
            // What came before the previous key frame helps nobody any more.
            let previous = std::mem::replace(&mut self.last_keyframe, seq);
            self.forget_before(previous);
        }
        if seq > highest + 1 {
            self.add_gap(now, highest + 1, seq);
        }
        self.forget_before(seq.saturating_sub(AGE_MAX));
        Seen::New
    }

    fn add_gap(&mut self, now: Instant, from: u64, to: u64) {
        if self.missing.len() + (to - from) as usize > MISSING_MAX {
            self.missing.clear();
            self.overflowed = true;
        } else {
            self.missing.extend((from..to).map(|seq| Missing {
                seq,
                asked_at: None,
                tries: 0,
            }));
        }
        self.poll_at = Some(now);
    }

    fn forget_before(&mut self, seq: u64) {
        while self
            .missing
            .front()
            .is_some_and(|missing| missing.seq < seq)
        {
            self.missing.pop_front();
        }
    }

    /// Says what to do now; with [`NackAction::Nack`] the numbers are appended to `out`.
    pub fn poll(&mut self, now: Instant, rtt: Duration, out: &mut Vec<u16>) -> NackAction {
        self.poll_at = None;
        if std::mem::take(&mut self.overflowed) {
            self.poll_at = (!self.missing.is_empty()).then_some(now);
            return NackAction::KeyFrameNeeded;
        }
        let interval = rtt.max(INTERVAL_MIN);
        self.missing.retain(|missing| {
            let is_due = missing.asked_at.is_none_or(|at| at + interval <= now);
            !(is_due && missing.tries >= TRIES_MAX)
        });
        for missing in &mut self.missing {
            if missing.asked_at.is_none_or(|at| at + interval <= now) && out.len() < BATCH_MAX {
                out.push(missing.seq as u16);
                missing.asked_at = Some(now);
                missing.tries += 1;
            }
            let next = missing.asked_at.map_or(now, |at| at + interval);
            self.poll_at = Some(self.poll_at.map_or(next, |at| at.min(next)));
        }
        if out.is_empty() {
            NackAction::None
        } else {
            NackAction::Nack
        }
    }

    /// How many packets are missing.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// When to poll.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.poll_at
    }

    /// Forgets everything that is missing.
    pub fn reset(&mut self) {
        self.missing.clear();
        self.mute();
    }

    /// Asks for nothing, but still tells late packets from duplicates.
    pub fn mute(&mut self) {
        self.overflowed = false;
        self.poll_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn feed(seqs: &[u64]) -> (NackGenerator, Vec<Seen>, Instant) {
        let now = Instant::now();
        let mut nack = NackGenerator::default();
        let seen = seqs
            .iter()
            .map(|&seq| nack.handle_seq(now, seq, false))
            .collect();
        (nack, seen, now)
    }

    #[test]
    fn gaps_are_asked_for_at_once() {
        use Seen::{Duplicate, New, Recovered};
        let rows: &[(&[u64], &[Seen], &[u16])] = &[
            (&[10, 11], &[New, New], &[]),
            (&[10, 13], &[New, New], &[11, 12]),
            (&[10, 13, 12], &[New, New, Recovered], &[11]),
            (&[10, 13, 12, 12], &[New, New, Recovered, Duplicate], &[11]),
            (&[10, 9], &[New, Duplicate], &[]),
            (&[65535, 65538], &[New, New], &[0, 1]),
        ];
        for (seqs, expected, asked) in rows {
            let (mut nack, seen, now) = feed(seqs);
            assert_eq!(&seen, expected, "{seqs:?}");
            let mut out = Vec::new();
            nack.poll(now, RTT, &mut out);
            assert_eq!(&out, asked, "{seqs:?}");
        }
    }

    #[test]
    fn a_successor_asks_for_the_gap() {
        let now = Instant::now();
        let mut nack = NackGenerator::resumed(100);
        assert_eq!(nack.handle_seq(now, 100, false), Seen::Duplicate);
        assert_eq!(nack.handle_seq(now, 99, false), Seen::Duplicate);
        assert_eq!(nack.handle_seq(now, 104, false), Seen::New);
        let mut out = Vec::new();
        assert_eq!(nack.poll(now, RTT, &mut out), NackAction::Nack);
        assert_eq!(out, [101, 102, 103]);
    }

    #[test]
    fn a_missing_packet_is_asked_for_each_rtt_and_given_up() {
        let (mut nack, _, now) = feed(&[1, 3]);
        let mut times = Vec::new();
        while let Some(at) = nack.poll_timeout() {
            let mut out = Vec::new();
            if nack.poll(at, RTT, &mut out) == NackAction::Nack {
                times.push(at.duration_since(now).as_millis());
            }
        }
        let expected: Vec<u128> = (0..u128::from(TRIES_MAX)).map(|n| n * 50).collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn a_flood_of_loss_asks_for_a_key_frame_instead() {
        let (mut nack, _, now) = feed(&[1, 2000]);
        let mut out = Vec::new();
        assert_eq!(nack.poll(now, RTT, &mut out), NackAction::KeyFrameNeeded);
        assert_eq!(nack.poll(now, RTT, &mut out), NackAction::None);
        assert!(out.is_empty());
    }

    #[test]
    fn what_precedes_the_previous_key_frame_is_forgotten() {
        let now = Instant::now();
        let mut nack = NackGenerator::default();
        for (seq, is_keyframe) in [(1, true), (3, false), (4, true), (6, false), (7, true)] {
            nack.handle_seq(now, seq, is_keyframe);
        }
        let mut out = Vec::new();
        nack.poll(now, RTT, &mut out);
        assert_eq!(out, [5]);
    }

    #[test]
    fn a_gap_behind_a_flood_of_loss_is_still_asked_for() {
        let (mut nack, _, now) = feed(&[1, 2000, 2002]);
        let mut out = Vec::new();
        assert_eq!(nack.poll(now, RTT, &mut out), NackAction::KeyFrameNeeded);
        assert_eq!(nack.poll_timeout(), Some(now));
        assert_eq!(nack.poll(now, RTT, &mut out), NackAction::Nack);
        assert_eq!(out, [2001]);
    }

    #[test]
    fn a_reset_forgets_a_flood_of_loss() {
        let (mut nack, _, now) = feed(&[1, 2000]);
        nack.reset();
        assert_eq!(nack.poll_timeout(), None);
        assert_eq!(nack.poll(now, RTT, &mut Vec::new()), NackAction::None);
    }
}
