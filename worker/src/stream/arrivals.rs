//! Arrival times of a transport's packets by their transport-wide sequence number, and the
//! feedback that tells the sender (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
//!
//! ```text
//!  base seq:16 | status count:16 | reference time:24 (64 ms) | feedback count:8
//!  status chunks:16 each …       | receive deltas:8 or 16 each (250 µs) …
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Unwrapper;

/// Between two feedback packets.
const INTERVAL: Duration = Duration::from_millis(50);
/// Most sequence numbers one feedback packet covers: it fits a datagram whatever they say.
const STATUSES_MAX: usize = 400;
/// Most sequence numbers that wait; a larger jump starts anew.
const WAITING_MAX: u64 = 4 * STATUSES_MAX as u64;

const DELTA: Duration = Duration::from_micros(250);
/// The reference time counts 64 ms.
const DELTAS_PER_REFERENCE: i64 = 256;
/// Longest run a chunk can tell.
const RUN_MAX: usize = 0x1FFF;
/// From so many equal statuses on a run is shorter than a vector.
const RUN_MIN: usize = 14;

/// What a status chunk says of a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Missing = 0,
    /// Received, with an 8-bit delta.
    Small = 1,
    /// Received, with a 16-bit delta.
    Large = 2,
}

/// Arrivals not reported yet.
#[derive(Debug, Default)]
pub struct Arrivals {
    unwrapper: Unwrapper,
    /// Sequence number of the first entry of `waiting`.
    base: Option<u64>,
    /// Arrival in units of [`DELTA`] since the machine's start; `None` while missing.
    waiting: VecDeque<Option<i64>>,
    feedback_count: u8,
    report_at: Option<Instant>,
    /// SSRC of the last packet, which the feedback names.
    media: u32,
}

impl Arrivals {
    /// Takes note of a packet that arrived `since_start`.
    pub fn record(&mut self, now: Instant, since_start: Duration, seq: u16, media: u32) {
        let Some(seq) = self.unwrapper.unwrap(seq) else {
            return;
        };
        let base = *self.base.get_or_insert(seq);
        // What is older was reported as missing: the sender has drawn its conclusions.
        let Some(mut offset) = seq.checked_sub(base) else {
            return;
        };
        if offset >= WAITING_MAX {
            self.waiting.clear();
            self.base = Some(seq);
            offset = 0;
        }
        let offset = offset as usize;
        if self.waiting.len() <= offset {
            self.waiting.resize(offset + 1, None);
        }
        let units = since_start.as_micros() / DELTA.as_micros();
        // The 128 bits are those of the type, not of any uptime.
        self.waiting[offset].get_or_insert(units as i64);
        self.media = media;
        self.report_at.get_or_insert(now + INTERVAL);
    }

    /// Goes on counting feedback packets where an earlier transport stopped.
    pub fn resume(&mut self, feedback_count: u8) {
        self.feedback_count = feedback_count;
    }

    /// How many feedback packets there were.
    pub fn feedback_count(&self) -> u8 {
        self.feedback_count
    }

    /// When the next feedback is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.report_at
    }

    /// SSRC to name as the feedback's media source.
    pub fn media(&self) -> u32 {
        self.media
    }

    /// Writes the next feedback's control information; returns whether there was any.
    ///
    /// To be called until there is none.
    pub fn emit(&mut self, fci: &mut Vec<u8>) -> bool {
        self.report_at = None;
        let (Some(base), Some(first)) = (self.base, self.waiting.iter().flatten().next()) else {
            return false;
        };
        let reference = first.div_euclid(DELTAS_PER_REFERENCE);
        let mut previous = reference * DELTAS_PER_REFERENCE;
        let mut statuses = [Status::Missing; STATUSES_MAX];
        let mut deltas = [0; 2 * STATUSES_MAX];
        let (mut count, mut deltas_len) = (0, 0);
        for arrival in self.waiting.iter().take(STATUSES_MAX) {
            if let Some(at) = arrival {
                let delta = at - previous;
                if let Ok(small) = u8::try_from(delta) {
                    statuses[count] = Status::Small;
                    deltas[deltas_len] = small;
                    deltas_len += 1;
                } else if let Ok(large) = i16::try_from(delta) {
                    statuses[count] = Status::Large;
                    deltas[deltas_len..deltas_len + 2].copy_from_slice(&large.to_be_bytes());
                    deltas_len += 2;
                } else {
                    // Too far from the one before: the next feedback has a reference of its own.
                    break;
                }
                previous = *at;
            }
            count += 1;
        }
        let [.., r2, r1, r0] = reference.to_be_bytes();
        fci.extend_from_slice(&(base as u16).to_be_bytes());
        fci.extend_from_slice(&(count as u16).to_be_bytes());
        fci.extend_from_slice(&[r2, r1, r0, self.feedback_count]);
        emit_chunks(fci, &statuses[..count]);
        fci.extend_from_slice(&deltas[..deltas_len]);
        self.feedback_count = self.feedback_count.wrapping_add(1);
        self.waiting.drain(..count);
        self.base = Some(base + count as u64);
        true
    }
}

fn emit_chunks(out: &mut Vec<u8>, mut statuses: &[Status]) {
    while let Some(&first) = statuses.first() {
        let run = statuses
            .iter()
            .take(RUN_MAX)
            .take_while(|&&s| s == first)
            .count();
        let fits_one_bit = |status: &&Status| **status != Status::Large;
        let one_bit = statuses.iter().take(14).take_while(fits_one_bit).count();
        let (taken, chunk) = if run >= RUN_MIN || run == statuses.len() {
            (run, (first as u16) << 13 | run as u16)
        } else if one_bit == statuses.len().min(14) {
            (one_bit, 0x8000 | vector(&statuses[..one_bit], 1))
        } else {
            let taken = statuses.len().min(7);
            (taken, 0xC000 | vector(&statuses[..taken], 2))
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        statuses = &statuses[taken..];
    }
}

/// Packs statuses into 14 bits, the first one highest.
fn vector(statuses: &[Status], bits: usize) -> u16 {
    let packed = statuses.iter().enumerate();
    packed.fold(0, |chunk, (at, &status)| {
        chunk | (status as u16) << (14 - bits * (at + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Reads control information back: `(seq, arrival in units)` of what was received.
    fn read(fci: &[u8]) -> Vec<(u16, i64)> {
        let word = |at: usize| u16::from_be_bytes([fci[at], fci[at + 1]]);
        let (base, count) = (word(0), usize::from(word(2)));
        let reference = i64::from(u32::from_be_bytes([0, fci[4], fci[5], fci[6]]));
        let (mut at, mut statuses) = (8, Vec::new());
        while statuses.len() < count {
            let chunk = word(at);
            at += 2;
            match chunk >> 14 {
                0 | 1 => {
                    let run = usize::from(chunk & 0x1FFF);
                    statuses.extend(std::iter::repeat_n(chunk >> 13, run));
                }
                2 => statuses.extend((0..14).rev().map(|bit| chunk >> bit & 1)),
                _ => statuses.extend((0..7).rev().map(|pair| chunk >> (2 * pair) & 3)),
            }
        }
        let (mut time, mut received) = (reference * DELTAS_PER_REFERENCE, Vec::new());
        for (offset, status) in statuses.into_iter().take(count).enumerate() {
            match status {
                0 => continue,
                1 => {
                    time += i64::from(fci[at]);
                    at += 1;
                }
                2 => {
                    time += i64::from(word(at).cast_signed());
                    at += 2;
                }
                _ => panic!("reserved status"),
            }
            received.push((base.wrapping_add(offset as u16), time));
        }
        assert_eq!(at, fci.len());
        received
    }

    /// Records `(seq, arrival in ms)` and returns all feedback in units of milliseconds.
    fn feedback(arrivals: &mut Arrivals, packets: &[(u16, u32)]) -> Vec<Vec<(u16, i64)>> {
        let now = Instant::now();
        for &(seq, ms) in packets {
            arrivals.record(now, ms * MS, seq, 7);
        }
        let mut all = Vec::new();
        let mut fci = Vec::new();
        while arrivals.emit(&mut fci) {
            let units = read(&fci).into_iter().map(|(seq, units)| (seq, units / 4));
            all.push(units.collect());
            fci.clear();
        }
        all
    }

    #[test]
    fn what_arrived_is_told_with_its_time() {
        type Row<'a> = (&'a str, &'a [(u16, u32)], &'a [&'a [(u16, i64)]]);
        let rows: [Row<'_>; 6] = [
            (
                "in order",
                &[(5, 100), (6, 101), (7, 130)],
                &[&[(5, 100), (6, 101), (7, 130)]],
            ),
            ("a gap", &[(5, 100), (9, 101)], &[&[(5, 100), (9, 101)]]),
            (
                "reordered",
                &[(5, 100), (7, 101), (6, 103)],
                &[&[(5, 100), (6, 103), (7, 101)]],
            ),
            (
                "wrapped",
                &[(65_535, 100), (0, 101)],
                &[&[(65_535, 100), (0, 101)]],
            ),
            ("twice", &[(5, 100), (5, 120)], &[&[(5, 100)]]),
            (
                "a pause that no delta can tell",
                &[(5, 100), (6, 20_000), (7, 20_001)],
                &[&[(5, 100)], &[(6, 20_000), (7, 20_001)]],
            ),
        ];
        for (name, packets, expected) in rows {
            assert_eq!(
                feedback(&mut Arrivals::default(), packets),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn what_was_reported_is_not_reported_again() {
        let mut arrivals = Arrivals::default();
        feedback(&mut arrivals, &[(5, 100), (8, 101)]);
        assert_eq!(feedback(&mut arrivals, &[(6, 102)]), Vec::<Vec<_>>::new());
        assert_eq!(feedback(&mut arrivals, &[(10, 103)]), [[(10, 103)]]);
    }

    #[test]
    fn a_jump_starts_anew() {
        let mut arrivals = Arrivals::default();
        feedback(&mut arrivals, &[(5, 100)]);
        assert_eq!(
            feedback(&mut arrivals, &[(20_000, 101)]),
            Vec::<Vec<_>>::new()
        );
        assert_eq!(feedback(&mut arrivals, &[(20_001, 102)]), [[(20_001, 102)]]);
    }

    #[test]
    fn long_and_mixed_patterns_survive_the_chunks() {
        let mut arrivals = Arrivals::default();
        let mut ms = 0;
        let packets: Vec<_> = (0..1500u16)
            .filter(|seq| !matches!(seq % 97, 3 | 11..=40) && !matches!(seq, 600..=900))
            .map(|seq| {
                ms += if seq % 13 == 0 { 90 } else { 1 };
                (seq, ms)
            })
            .collect();
        let expected: Vec<_> = packets
            .iter()
            .map(|&(seq, ms)| (seq, i64::from(ms)))
            .collect();
        let all = feedback(&mut arrivals, &packets);
        assert!(all.len() >= 4);
        assert_eq!(all.concat(), expected);
    }

    #[test]
    fn feedback_waits_for_the_interval_and_fits_a_datagram() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        for seq in 0..STATUSES_MAX as u16 {
            arrivals.record(now, u32::from(seq) * 100 * MS, seq, 7);
        }
        assert_eq!(arrivals.poll_timeout(), Some(now + INTERVAL));
        let mut fci = Vec::new();
        assert!(arrivals.emit(&mut fci));
        assert_eq!(arrivals.poll_timeout(), None);
        assert!(fci.len() < 1000, "{}", fci.len());
    }
}
