//! Which packet was sent under which number: what a retransmission needs to repeat it.

/// Most entries of one consumer.
const CAPACITY_MAX: usize = 1024;
/// Where the log starts to grow from.
const CAPACITY_FIRST: usize = 64;
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
    /// Index of the stream it arrived on.
    pub stream: u8,
    /// Timestamp it left with.
    pub ts: u32,
    /// VP8 picture id it left with.
    pub picture_id: u16,
    /// VP8 TL0PICIDX it left with.
    pub tl0picidx: u8,
    /// Send time it left with.
    pub abs_send_time: [u8; 3],
    /// How often it was sent again.
    pub resent: u8,
    /// When it was sent last, in the caller's milliseconds.
    pub at_ms: u32,
}

/// The last packets sent by one consumer. Takes no memory before the first, and no more than for
/// what is sent while it can be repeated.
#[derive(Debug, Default)]
pub struct SentLog {
    slots: Vec<Option<Sent>>,
    highest: u64,
}

impl SentLog {
    /// Adds a packet, unless it is so late that a newer one has its place.
    pub fn insert(&mut self, sent: Sent) {
        if self.highest.saturating_sub(sent.out_seq) >= CAPACITY_MAX as u64 {
            return;
        }
        while self.slots.len() < CAPACITY_MAX && self.is_slot_taken(&sent) {
            self.grow();
        }
        self.highest = self.highest.max(sent.out_seq);
        let at = self.at(sent.out_seq);
        self.slots[at] = Some(sent);
    }

    /// Finds the packet a receiver names by 16 bits: the one nearest to the newest.
    pub fn lookup(&mut self, seq: u16) -> Option<&mut Sent> {
        let behind = (self.highest as u16).wrapping_sub(seq);
        let out_seq = self.highest.checked_sub(u64::from(behind))?;
        if self.slots.is_empty() {
            return None;
        }
        let at = self.at(out_seq);
        self.slots[at]
            .as_mut()
            .filter(|sent| sent.out_seq == out_seq)
    }

    /// Finds a packet to be sent again and marks it, unless that was done within a round trip
    /// or too often.
    pub fn may_resend(&mut self, seq: u16, now_ms: u32, rtt_ms: u32) -> Option<Sent> {
        let sent = self.lookup(seq)?;
        let rtt_ms = if rtt_ms == 0 { RTT_MS_DEFAULT } else { rtt_ms };
        let is_recent = sent.resent > 0 && now_ms.wrapping_sub(sent.at_ms) < rtt_ms;
        if is_recent || sent.resent == RESENT_MAX {
            return None;
        }
        sent.resent += 1;
        sent.at_ms = now_ms;
        Some(*sent)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.fill(None);
    }

    /// Whether the slot of `sent` holds another packet that is still of use.
    fn is_slot_taken(&self, sent: &Sent) -> bool {
        self.slots.is_empty()
            || self.slots[self.at(sent.out_seq)].is_some_and(|old| {
                old.out_seq != sent.out_seq && sent.at_ms.wrapping_sub(old.at_ms) <= AGE_MS_MAX
            })
    }

    fn grow(&mut self) {
        let capacity = (self.slots.len() * 2).max(CAPACITY_FIRST);
        let old = std::mem::replace(&mut self.slots, vec![None; capacity]);
        for sent in old.into_iter().flatten() {
            let at = self.at(sent.out_seq);
            self.slots[at] = Some(sent);
        }
    }

    fn at(&self, out_seq: u64) -> usize {
        out_seq as usize & (self.slots.len() - 1)
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
        let mut log = log(0..5000);
        assert!(log.lookup(4999).is_some());
        assert!(log.lookup(4999 - 1023).is_some());
        assert!(log.lookup(4999 - 1024).is_none());
        assert!(SentLog::default().lookup(0).is_none());
    }

    #[test]
    fn the_log_holds_what_is_sent_in_two_seconds() {
        for (interval_ms, capacity) in [(20, 128), (5, 512), (1, CAPACITY_MAX)] {
            let mut log = SentLog::default();
            for n in 0..5000 {
                log.insert(Sent {
                    out_seq: n,
                    at_ms: (n as u32 * interval_ms).wrapping_sub(1000),
                    ..Sent::default()
                });
            }
            assert_eq!(log.slots.len(), capacity, "{interval_ms}");
        }
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
        let mut log = log((0..5000).chain([4999 - 1024]));
        assert_eq!(log.lookup(4999).map(|sent| sent.out_seq), Some(4999));
        assert!(log.lookup(4999 - 1024).is_none());
    }
}
