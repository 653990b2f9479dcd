//! Which packet was sent under which number: what a retransmission needs to repeat it.
//!
//! The packets of a frame that leave in one turn differ in nothing but their numbers, so it is runs
//! that are kept: a tenth of the memory to touch, where ten packets make a frame.

use std::collections::VecDeque;

/// Most packets of one consumer.
const CAPACITY_MAX: u64 = 1024;
/// What was sent longer ago need not be remembered: its source is no longer kept.
const AGE_MS_MAX: u32 = 2000;
/// A packet is sent again so many times at most.
const RESENT_MAX: u8 = 10;
/// Between two retransmissions of a packet while the round-trip time is unknown.
const RTT_MS_DEFAULT: u32 = 100;

/// How a packet was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Extended number it left under.
    pub out_seq: u64,
    /// Extended number it arrived under.
    pub src_seq: u64,
    /// Timestamp it left with.
    pub ts: u32,
    /// When it left, in the caller's milliseconds.
    pub at_ms: u32,
    /// VP8 picture id it left with.
    pub picture_id: u16,
    /// VP8 TL0PICIDX it left with.
    pub tl0picidx: u8,
    /// Index of the stream it arrived on.
    pub stream: u8,
    /// Send time it left with.
    pub abs_send_time: [u8; 3],
}

/// Packets that were sent one after the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: Sent,
    len: u32,
}

/// A packet that was sent again.
#[derive(Clone, Copy, Debug)]
struct Repeated {
    out_seq: u64,
    times: u8,
    at_ms: u32,
}

/// The last packets sent by one consumer. Takes no memory before the first, and no more than for
/// what is sent while it can be repeated.
#[derive(Debug, Default)]
pub struct SentLog {
    /// By number.
    runs: VecDeque<Run>,
    /// By number.
    repeated: Vec<Repeated>,
}

impl SentLog {
    /// Adds a packet, unless it is so late that it need not be remembered.
    pub fn insert(&mut self, sent: Sent) {
        let end = self.end();
        if sent.out_seq >= end {
            match self.runs.back_mut() {
                Some(last) if last.is_followed_by(&sent) => last.len += 1,
                _ => {
                    self.runs.push_back(Run::new(sent));
                    self.forget_old(sent.at_ms);
                }
            }
        } else if end - sent.out_seq <= CAPACITY_MAX {
            let at = self
                .runs
                .partition_point(|run| run.first.out_seq <= sent.out_seq);
            let before = at.checked_sub(1).map(|before| &self.runs[before]);
            if before.is_none_or(|before| before.end() <= sent.out_seq) {
                self.runs.insert(at, Run::new(sent));
            }
        }
    }

    /// Finds the packet a receiver names by 16 bits: the one nearest to the newest.
    pub fn lookup(&self, seq: u16) -> Option<Sent> {
        let highest = self.end().checked_sub(1)?;
        let behind = u64::from((highest as u16).wrapping_sub(seq));
        let out_seq = highest.checked_sub(behind)?;
        let at = self
            .runs
            .partition_point(|run| run.first.out_seq <= out_seq);
        let run = self.runs.get(at.checked_sub(1)?)?;
        (out_seq < run.end() && behind < CAPACITY_MAX).then(|| run.packet(out_seq))
    }

    /// Finds a packet to be sent again and marks it, unless that was done within a round trip
    /// or too often.
    pub fn may_resend(&mut self, seq: u16, now_ms: u32, rtt_ms: u32) -> Option<Sent> {
        let sent = self.lookup(seq)?;
        let rtt_ms = if rtt_ms == 0 { RTT_MS_DEFAULT } else { rtt_ms };
        let by_number = |repeated: &Repeated| repeated.out_seq;
        match self.repeated.binary_search_by_key(&sent.out_seq, by_number) {
            Ok(at) => {
                let repeated = &mut self.repeated[at];
                let is_recent = now_ms.wrapping_sub(repeated.at_ms) < rtt_ms;
                if is_recent || repeated.times == RESENT_MAX {
                    return None;
                }
                repeated.times += 1;
                repeated.at_ms = now_ms;
            }
            Err(at) => {
                let repeated = Repeated {
                    out_seq: sent.out_seq,
                    times: 1,
                    at_ms: now_ms,
                };
                self.repeated.insert(at, repeated);
            }
        }
        Some(sent)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.repeated.clear();
    }

    /// The number behind the highest.
    fn end(&self) -> u64 {
        self.runs.back().map_or(0, Run::end)
    }

    fn forget_old(&mut self, now_ms: u32) {
        let first = self.end().saturating_sub(CAPACITY_MAX);
        let is_old =
            |run: &Run| run.end() <= first || now_ms.wrapping_sub(run.first.at_ms) > AGE_MS_MAX;
        while self.runs.front().is_some_and(is_old) {
            self.runs.pop_front();
        }
        if self
            .repeated
            .first()
            .is_some_and(|oldest| oldest.out_seq < first)
        {
            self.repeated.retain(|repeated| repeated.out_seq >= first);
        }
    }
}

impl Run {
    fn new(first: Sent) -> Self {
        Self { first, len: 1 }
    }

    /// The number behind its last.
    fn end(&self) -> u64 {
        self.first.out_seq + u64::from(self.len)
    }

    fn is_followed_by(&self, sent: &Sent) -> bool {
        self.packet(sent.out_seq) == *sent && sent.out_seq == self.end()
    }

    /// The packet of this number, as if it were of the run.
    fn packet(&self, out_seq: u64) -> Sent {
        Sent {
            out_seq,
            src_seq: self.first.src_seq + (out_seq - self.first.out_seq),
            ..self.first
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(seqs: impl Iterator<Item = u64>) -> SentLog {
        let mut log = SentLog::default();
        for out_seq in seqs {
            log.insert(Sent {
                out_seq,
                src_seq: out_seq * 2,
                ..Sent::default()
            });
        }
        log
    }

    #[test]
    fn the_last_packets_are_found_across_a_wrap() {
        let mut log = log(65_000..66_000);
        for (seq, expected) in [
            (65_999u64, Some(131_998)),
            (65_535, Some(131_070)),
            (65_000, Some(130_000)),
            (64_999, None),
            (66_000, None),
        ] {
            let found = log.lookup(seq as u16).map(|sent| sent.src_seq);
            assert_eq!(found, expected, "{seq}");
        }
        log.clear();
        assert!(log.lookup(65_999u64 as u16).is_none());
    }

    #[test]
    fn old_packets_make_room() {
        let log = log(0..5000);
        assert!(log.lookup(4999).is_some());
        assert!(log.lookup(4999 - 1023).is_some());
        assert!(log.lookup(4999 - 1024).is_none());
        assert!(SentLog::default().lookup(0).is_none());
    }

    #[test]
    fn the_log_holds_what_is_sent_in_two_seconds() {
        for (interval_ms, packets) in [(20, 101), (5, 401), (1, 1024)] {
            let mut log = SentLog::default();
            for n in 0..5000 {
                log.insert(Sent {
                    out_seq: n,
                    at_ms: (n as u32 * interval_ms).wrapping_sub(1000),
                    ..Sent::default()
                });
            }
            assert_eq!(log.runs.len(), packets, "{interval_ms}");
        }
    }

    #[test]
    fn packets_of_a_frame_take_one_place_and_late_ones_their_own() {
        let sent = |out_seq: u64| Sent {
            out_seq,
            src_seq: out_seq + 7,
            ts: (out_seq / 10) as u32,
            ..Sent::default()
        };
        let mut log = SentLog::default();
        let late = [13, 25, 26];
        for out_seq in (0..40).filter(|out_seq| !late.contains(out_seq)) {
            log.insert(sent(out_seq));
        }
        assert_eq!(log.runs.len(), 6);
        assert_eq!([13, 26].map(|seq| log.lookup(seq)), [None, None]);
        for out_seq in late.into_iter().chain([7]) {
            log.insert(sent(out_seq));
        }
        for out_seq in 0..40 {
            assert_eq!(log.lookup(out_seq as u16), Some(sent(out_seq)));
        }
        assert_eq!(log.lookup(40), None);
    }

    #[test]
    fn repeated_packets_are_forgotten_with_the_rest() {
        let mut log = log(0..1024);
        assert!(
            (0..1024)
                .rev()
                .all(|seq| log.may_resend(seq, 0, 1).is_some())
        );
        assert_eq!(log.repeated.len(), 1024);
        log.insert(Sent {
            out_seq: 1500,
            ..Sent::default()
        });
        assert_eq!(log.repeated.len(), 1024 - 477);
        assert!(log.may_resend(1000, 0, 1).is_none());
    }

    #[test]
    fn a_packet_is_repeated_once_a_round_trip() {
        let mut log = log(0..10);
        for (now_ms, rtt_ms, expected) in [
            (1000, 0, true),
            (1099, 0, false),
            (1100, 0, true),
            (1110, 10, true),
            (1115, 10, false),
        ] {
            let sent = log.may_resend(5, now_ms, rtt_ms);
            assert_eq!(sent.is_some(), expected, "{now_ms}");
        }
        let again = (0..100).filter(|n| log.may_resend(6, n * 1000, 1).is_some());
        assert_eq!(again.count(), usize::from(RESENT_MAX));
    }

    #[test]
    fn a_packet_too_late_for_the_log_overwrites_nothing() {
        let log = log((0..5000).chain([4999 - 1024]));
        assert_eq!(log.lookup(4999).map(|sent| sent.out_seq), Some(4999));
        assert!(log.lookup(4999 - 1024).is_none());
    }
}
