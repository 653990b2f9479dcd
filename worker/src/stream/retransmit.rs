//! The last packets of a received stream, for fan-out and retransmission.

use std::time::{Duration, Instant};

use super::{PacketId, PacketPool};
use crate::wire::codec::PayloadInfo;
use crate::wire::rtp::RtpHeader;

/// Most packets kept of one stream.
const CAPACITY_MAX: usize = 1024;
/// Where the ring starts to grow from.
const CAPACITY_FIRST: usize = 64;
/// Nobody can use a packet older than this.
const AGE_MAX: Duration = Duration::from_secs(2);

/// A kept packet.
#[derive(Clone, Copy, Debug)]
pub struct StoredPacket {
    /// Extended sequence number.
    pub seq: u64,
    /// Its bytes.
    pub id: PacketId,
    /// Its parsed header.
    pub header: RtpHeader,
    /// What its payload says.
    pub info: PayloadInfo,
    /// When it arrived.
    pub arrived: Instant,
}

/// Packets by sequence number.
///
/// Owns its buffers in the pool: [`clear`](Self::clear) must be called before it is dropped.
#[derive(Debug, Default)]
pub struct RetransmitRing {
    slots: Vec<Option<StoredPacket>>,
    /// Where the sweep for old packets goes on.
    sweep: usize,
    highest: u64,
    /// When the last packet was kept.
    newest: Option<Instant>,
}

impl RetransmitRing {
    /// Keeps a packet, in place of the one a whole ring behind it.
    pub fn insert(&mut self, pool: &mut PacketPool, packet: StoredPacket) {
        if self.highest.saturating_sub(packet.seq) >= CAPACITY_MAX as u64 {
            pool.free(packet.id);
            return;
        }
        self.highest = self.highest.max(packet.seq);
        self.newest = Some(packet.arrived);
        self.sweep(pool, packet.arrived);
        while self.is_slot_taken(&packet) && self.slots.len() < CAPACITY_MAX {
            self.grow();
        }
        let at = self.at(packet.seq);
        if let Some(old) = self.slots[at].replace(packet) {
            pool.free(old.id);
        }
    }

    /// Finds a packet.
    pub fn get(&self, seq: u64) -> Option<&StoredPacket> {
        if self.slots.is_empty() {
            return None;
        }
        self.slots[self.at(seq)]
            .as_ref()
            .filter(|packet| packet.seq == seq)
    }

    /// Gives all buffers back.
    pub fn clear(&mut self, pool: &mut PacketPool) {
        for packet in std::mem::take(self).slots.into_iter().flatten() {
            pool.free(packet.id);
        }
    }

    /// Gives all buffers back if the stream fell silent: nobody can use them any more, and no
    /// packet comes that would sweep them.
    pub fn clear_if_silent(&mut self, pool: &mut PacketPool, now: Instant) {
        if self
            .newest
            .is_some_and(|at| now.duration_since(at) > AGE_MAX)
        {
            self.clear(pool);
        }
    }

    /// Looks at two slots and frees what is too old: amortised, a whole ring is swept while
    /// half of it is filled.
    fn sweep(&mut self, pool: &mut PacketPool, now: Instant) {
        for _ in 0..2.min(self.slots.len()) {
            self.sweep = (self.sweep + 1) % self.slots.len();
            let slot = &mut self.slots[self.sweep];
            if let Some(old) = slot.take_if(|packet| is_old(packet, now)) {
                pool.free(old.id);
            }
        }
    }

    /// Whether the slot of `packet` holds another one that is still of use.
    fn is_slot_taken(&self, packet: &StoredPacket) -> bool {
        self.slots.is_empty()
            || self.slots[self.at(packet.seq)]
                .is_some_and(|old| old.seq != packet.seq && !is_old(&old, packet.arrived))
    }

    fn grow(&mut self) {
        let capacity = (self.slots.len() * 2).max(CAPACITY_FIRST);
        let old = std::mem::replace(&mut self.slots, vec![None; capacity]);
        for packet in old.into_iter().flatten() {
            let at = self.at(packet.seq);
            self.slots[at] = Some(packet);
        }
    }

    /// Capacities are powers of two.
    fn at(&self, seq: u64) -> usize {
        seq as usize & (self.slots.len() - 1)
    }
}

fn is_old(packet: &StoredPacket, now: Instant) -> bool {
    now.duration_since(packet.arrived) > AGE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(pool: &mut PacketPool, seq: u64, arrived: Instant) -> StoredPacket {
        let bytes = [0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, seq as u8];
        StoredPacket {
            seq,
            id: pool.alloc(&bytes).unwrap(),
            header: RtpHeader::parse(&bytes).unwrap(),
            info: PayloadInfo::default(),
            arrived,
        }
    }

    #[test]
    fn packets_are_found_until_overwritten_and_nothing_leaks() {
        let mut pool = PacketPool::new(4 << 20);
        let mut ring = RetransmitRing::default();
        let now = Instant::now();
        assert!(ring.get(1).is_none());
        let last = 100_000 + 3 * CAPACITY_MAX as u64;
        for seq in 100_000..=last {
            let packet = packet(&mut pool, seq, now);
            ring.insert(&mut pool, packet);
            assert!(pool.in_use() <= CAPACITY_MAX);
        }
        assert_eq!(ring.get(last).unwrap().seq, last);
        assert!(ring.get(last - CAPACITY_MAX as u64 + 1).is_some());
        assert!(ring.get(last - CAPACITY_MAX as u64).is_none());
        let late = packet(&mut pool, 100_000, now);
        ring.insert(&mut pool, late);
        assert!(ring.get(100_000).is_none());
        let again = packet(&mut pool, last, now);
        ring.insert(&mut pool, again);
        ring.clear(&mut pool);
        assert_eq!(pool.in_use(), 0);
        assert!(ring.get(last).is_none());
    }

    #[test]
    fn old_packets_are_given_back_while_new_ones_arrive() {
        let mut pool = PacketPool::new(4 << 20);
        let mut ring = RetransmitRing::default();
        let now = Instant::now();
        for seq in 0..1000 {
            let packet = packet(&mut pool, seq, now + Duration::from_millis(10 * seq));
            ring.insert(&mut pool, packet);
        }
        assert!(pool.in_use() < 300, "{}", pool.in_use());
        ring.clear(&mut pool);
    }

    #[test]
    fn a_silent_stream_keeps_nothing() {
        let mut pool = PacketPool::new(4 << 20);
        let mut ring = RetransmitRing::default();
        let now = Instant::now();
        for seq in 1..20 {
            let packet = packet(&mut pool, seq, now);
            ring.insert(&mut pool, packet);
        }
        ring.clear_if_silent(&mut pool, now + AGE_MAX);
        assert!(ring.get(19).is_some());
        ring.clear_if_silent(&mut pool, now + AGE_MAX + Duration::from_millis(1));
        assert_eq!((pool.in_use(), ring.slots.capacity()), (0, 0));
    }

    #[test]
    fn a_cleared_ring_takes_lower_numbers() {
        let mut pool = PacketPool::new(4 << 20);
        let mut ring = RetransmitRing::default();
        let now = Instant::now();
        for seq in [100_000, 5] {
            let packet = packet(&mut pool, seq, now);
            ring.insert(&mut pool, packet);
            assert!(ring.get(seq).is_some(), "{seq}");
            ring.clear(&mut pool);
        }
        assert_eq!(pool.in_use(), 0);
    }
}
