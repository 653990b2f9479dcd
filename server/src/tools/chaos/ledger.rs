//! Which SRTP indices were on the wire with which bytes. An index that comes again with other
//! bytes gives the key away (RFC 7714 §8.1).
//!
//! Of each stream the last [`KEPT`] indices are known by a hash of their bytes. Whoever comes
//! with an older one is told apart, too: nobody has a reason to send so old a packet again. So
//! nothing is missed, with at most 32 KiB for a stream.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Indices kept of a stream.
const KEPT: usize = 4096;

/// What is counted by indices of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stream {
    /// The client, which has a key for each way.
    pub(super) client: usize,
    /// Whether the client sends it.
    pub(super) is_sent: bool,
    /// Whether it is SRTCP.
    pub(super) is_rtcp: bool,
    /// Who sends.
    pub(super) ssrc: u32,
}

/// What an index with its bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Not seen before.
    New,
    /// Seen before, with the same bytes.
    Again,
    /// Seen before with other bytes.
    Reused,
    /// So far behind the newest that nothing is known about it.
    Ancient,
}

/// Everything seen.
#[derive(Debug, Default)]
pub(super) struct Ledger(HashMap<Stream, Indices>);

/// The last indices of a stream.
#[derive(Debug, Default)]
struct Indices {
    first: u64,
    /// Of `first` and those that follow; 0 where nothing was seen.
    hashes: VecDeque<u64>,
    /// Whether older ones were forgotten.
    has_forgotten: bool,
}

impl Ledger {
    /// Takes a packet as it was on the wire.
    pub(super) fn take(&mut self, stream: Stream, index: u64, packet: &[u8]) -> Seen {
        let mut hasher = DefaultHasher::new();
        packet.hash(&mut hasher);
        let indices = self.0.entry(stream).or_default();
        // 0 is for nothing.
        indices.take(index, hasher.finish() | 1)
    }
}

impl Indices {
    fn take(&mut self, index: u64, hash: u64) -> Seen {
        if self.hashes.is_empty() {
            self.first = index;
        }
        let end = self.first + self.hashes.len() as u64;
        if index < self.first {
            let more = self.first - index;
            if self.has_forgotten || more > (KEPT - self.hashes.len()) as u64 {
                return Seen::Ancient;
            }
            (0..more).for_each(|_| self.hashes.push_front(0));
            self.first = index;
        } else if index >= end + KEPT as u64 {
            self.hashes.clear();
            self.hashes.push_back(0);
            self.first = index;
            self.has_forgotten = true;
        } else if index >= end {
            self.hashes
                .resize(self.hashes.len() + (index - end) as usize + 1, 0);
            let excess = self.hashes.len().saturating_sub(KEPT);
            self.hashes.drain(..excess);
            self.first += excess as u64;
            self.has_forgotten |= excess > 0;
        }
        let place = &mut self.hashes[(index - self.first) as usize];
        match std::mem::replace(place, hash) {
            0 => Seen::New,
            before if before == hash => Seen::Again,
            _ => Seen::Reused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream {
            client: 1,
            is_sent: false,
            is_rtcp: false,
            ssrc: 7,
        }
    }

    #[test]
    fn an_index_with_other_bytes_is_found() {
        use Seen::{Again, Ancient, New, Reused};
        let kept = KEPT as u64;
        type Row<'a> = (&'a [(u64, u8)], &'a [Seen]);
        let rows: [Row<'_>; 8] = [
            (&[(5, 1), (6, 2), (5, 1)], &[New, New, Again]),
            (&[(5, 1), (6, 2), (5, 2)], &[New, New, Reused]),
            (&[(5, 1), (9, 2), (7, 3), (7, 4)], &[New, New, New, Reused]),
            // Late from the start on.
            (&[(5, 1), (3, 2), (3, 2), (4, 1)], &[New, New, Again, New]),
            (&[(0, 1), (kept - 1, 2), (0, 3)], &[New, New, Reused]),
            (
                &[(0, 1), (kept, 2), (0, 3), (1, 3)],
                &[New, New, Ancient, New],
            ),
            (&[(0, 1), (9 * kept, 2), (0, 1)], &[New, New, Ancient]),
            (
                &[(1 << 40, 1), (2 << 40, 2), (2 << 40, 3)],
                &[New, New, Reused],
            ),
        ];
        for (packets, expected) in rows {
            let mut ledger = Ledger::default();
            let take = |&(index, byte)| ledger.take(stream(), index, &[byte]);
            let seen: Vec<_> = packets.iter().map(take).collect();
            assert_eq!(seen, expected, "{packets:?}");
        }
    }

    #[test]
    fn streams_count_for_themselves() {
        let mut ledger = Ledger::default();
        let others = [
            stream(),
            Stream {
                client: 2,
                ..stream()
            },
            Stream {
                is_sent: true,
                ..stream()
            },
            Stream {
                is_rtcp: true,
                ..stream()
            },
            Stream {
                ssrc: 8,
                ..stream()
            },
        ];
        for (byte, other) in (0..).zip(others) {
            assert_eq!(ledger.take(other, 1, &[byte]), Seen::New);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut ledger = Ledger::default();
        for index in (0..1_000_000).step_by(3) {
            assert_eq!(ledger.take(stream(), index, b"x"), Seen::New);
        }
        assert_eq!(ledger.0[&stream()].hashes.len(), KEPT);
    }
}
