//! A stream of RTP that a client receives: which packets are missing, which of them to ask for
//! once more (RFC 4585), and which never came.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use broth_worker::stream::{NackAction, NackGenerator, Unwrapper};

/// Between two requests for the same packet, at least.
const RTT: Duration = Duration::from_millis(20);
/// So far behind the newest a missing packet is lost.
const AGE_MAX: u64 = 5000;

/// A stream that is received. `T` says when somebody noticed that a packet is missing.
#[derive(Debug)]
pub struct RecvTrack<T> {
    unwrapper: Unwrapper,
    nack: NackGenerator,
    missing: BTreeMap<u64, T>,
    /// Those of them too old to come.
    lost: Vec<T>,
}

impl<T> Default for RecvTrack<T> {
    fn default() -> Self {
        Self {
            unwrapper: Unwrapper::default(),
            nack: NackGenerator::default(),
            missing: BTreeMap::new(),
            lost: Vec::new(),
        }
    }
}

impl<T: Copy> RecvTrack<T> {
    /// Takes the number of a packet that arrived; packets missing before it are noticed at `when`.
    pub fn take(&mut self, now: Instant, seq: u16, when: T) {
        let highest = self.unwrapper.highest();
        let Some(seq) = self.unwrapper.unwrap(seq) else {
            return;
        };
        self.missing.remove(&seq);
        self.nack.handle_seq(now, seq, false);
        if let Some(highest) = highest {
            self.missing
                .extend((highest + 1..seq).map(|seq| (seq, when)));
        }
        let old = seq.saturating_sub(AGE_MAX);
        while let Some(entry) = self.missing.first_entry()
            && *entry.key() < old
        {
            self.lost.push(entry.remove());
        }
    }

    /// Takes the number of a packet that came once more; whether it was missing.
    pub fn take_repeated(&mut self, now: Instant, seq: u16) -> bool {
        let Some(highest) = self.unwrapper.highest() else {
            return false;
        };
        let behind = (highest as u16).wrapping_sub(seq);
        let seq = highest.checked_sub(u64::from(behind));
        let Some(seq) = seq.filter(|seq| self.missing.remove(seq).is_some()) else {
            return false;
        };
        self.nack.handle_seq(now, seq, false);
        true
    }

    /// Appends the numbers to ask for now.
    pub fn poll_nack(&mut self, now: Instant, out: &mut Vec<u16>) {
        if self.nack.poll_timeout().is_some_and(|at| at <= now) {
            let action = self.nack.poll(now, RTT, out);
            if action == NackAction::None {
                out.clear();
            }
        }
    }

    /// What was missing and never came: when each packet was noticed.
    pub fn into_lost(mut self) -> Vec<T> {
        self.lost.extend(self.missing.into_values());
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_came_is_told_with_when_it_was_noticed() {
        let now = Instant::now();
        type Row<'a> = (&'a [(u16, char)], &'a [u16], &'a str);
        let rows: [Row<'_>; 6] = [
            (&[(1, 'a'), (2, 'a')], &[], ""),
            (&[(1, 'a'), (4, 'b'), (6, 'c')], &[], "bbc"),
            (&[(1, 'a'), (4, 'b'), (6, 'c')], &[3, 3, 9], "bc"),
            (&[(1, 'a'), (4, 'b'), (2, 'c')], &[], "b"),
            (&[(65_534, 'a'), (1, 'b')], &[65_535], "b"),
            (&[(2, 'a'), (1, 'b'), (3, 'c')], &[], ""),
        ];
        for (seqs, repeated, expected) in rows {
            let mut track = RecvTrack::default();
            for &(seq, when) in seqs {
                track.take(now, seq, when);
            }
            for &seq in repeated {
                track.take_repeated(now, seq);
            }
            let lost = String::from_iter(track.into_lost());
            assert_eq!(lost, expected, "{seqs:?}");
        }
    }

    #[test]
    fn what_is_too_old_is_lost_even_if_it_comes() {
        let now = Instant::now();
        let mut track = RecvTrack::default();
        for seq in (1..6000).filter(|&seq| seq != 2) {
            track.take(now, seq, ());
        }
        assert!(!track.take_repeated(now, 2));
        assert_eq!(track.into_lost().len(), 1);
    }

    #[test]
    fn gaps_are_asked_for_until_they_are_filled() {
        let now = Instant::now();
        let mut track = RecvTrack::default();
        let ask = |track: &mut RecvTrack<()>, ms| {
            let mut out = Vec::new();
            track.poll_nack(now + Duration::from_millis(ms), &mut out);
            out
        };
        track.take(now, 1, ());
        assert!(ask(&mut track, 0).is_empty());
        track.take(now, 4, ());
        assert_eq!(ask(&mut track, 0), [2, 3]);
        assert!(ask(&mut track, 1).is_empty());
        assert!(track.take_repeated(now, 2));
        assert!(!track.take_repeated(now, 2));
        assert_eq!(ask(&mut track, 20), [3]);
        assert!(track.take_repeated(now, 3));
        assert!(ask(&mut track, 40).is_empty());
    }
}
