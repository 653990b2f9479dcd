//! Packets that a socket had no room for: they wait until it has, but neither for long nor without
//! end.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Older packets help nobody: their receivers have asked for them again.
const AGE_MAX: Duration = Duration::from_millis(100);

/// A packet that waits; its bytes lie behind those of the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// Where to.
    pub(super) remote: SocketAddr,
    /// Where its bytes lie.
    pub(super) start: u32,
    /// How many they are.
    pub(super) len: u32,
    since: Instant,
}

/// What waits for one socket, in order.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    packets: VecDeque<Waiting>,
}

impl Backlog {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes that are kept.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What the packets are slices of.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What waits, in order.
    pub(super) fn packets(&self) -> impl Iterator<Item = Waiting> {
        self.packets.iter().copied()
    }

    /// Puts a packet behind the others.
    pub(super) fn push(&mut self, now: Instant, remote: SocketAddr, packet: &[u8]) {
        self.packets.push_back(Waiting {
            remote,
            start: self.bytes.len() as u32,
            len: packet.len() as u32,
            since: now,
        });
        self.bytes.extend_from_slice(packet);
    }

    /// Removes the first `count` packets.
    pub(super) fn take(&mut self, count: usize) {
        self.packets.drain(..count);
        let first = self.packets.front();
        let taken = first.map_or(self.bytes.len() as u32, |first| first.start);
        // Moving what is left is spared until that is less than what is gone.
        if taken as usize * 2 >= self.bytes.len() {
            self.bytes.drain(..taken as usize);
            for packet in &mut self.packets {
                packet.start -= taken;
            }
        }
    }

    /// Removes what is too old; returns how many packets that were.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let is_old = |packet: &&Waiting| now.duration_since(packet.since) > AGE_MAX;
        let count = self.packets.iter().take_while(is_old).count();
        self.take(count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn contents(backlog: &Backlog) -> Vec<(u16, Vec<u8>)> {
        let packets = backlog.packets().map(|packet| {
            let (start, len) = (packet.start as usize, packet.len as usize);
            let bytes = backlog.bytes()[start..start + len].to_vec();
            (packet.remote.port(), bytes)
        });
        packets.collect()
    }

    #[test]
    fn packets_leave_in_the_order_they_came() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let all: Vec<_> = (0..200)
            .map(|n| (n % 7, vec![n as u8; 10 + n as usize]))
            .collect();
        let mut pushed = 0;
        let mut taken = 0;
        while taken < all.len() {
            for (port, packet) in all[pushed..].iter().take(13) {
                backlog.push(now, remote(*port), packet);
                pushed += 1;
            }
            assert_eq!(contents(&backlog), all[taken..pushed]);
            let count = 5.min(pushed - taken);
            backlog.take(count);
            taken += count;
        }
        assert!(backlog.is_empty());
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn what_is_gone_takes_no_room_for_long() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        for _ in 0..1000 {
            backlog.push(now, remote(1), &[1; 100]);
            backlog.push(now, remote(1), &[2; 100]);
            backlog.take(2);
            assert_eq!(backlog.len(), 0);
        }
        (0..10).for_each(|_| backlog.push(now, remote(1), &[1; 100]));
        backlog.take(5);
        assert_eq!(backlog.len(), 500);
    }

    #[test]
    fn only_what_is_too_old_expires() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        for n in 0..4 {
            backlog.push(now + AGE_MAX / 2 * n, remote(1), &[n as u8]);
        }
        assert_eq!(backlog.expire(now + AGE_MAX), 0);
        assert_eq!(backlog.expire(now + AGE_MAX * 2), 2);
        assert_eq!(contents(&backlog), [(1, vec![2]), (1, vec![3])]);
        assert_eq!(backlog.expire(now + AGE_MAX * 10), 2);
        assert!(backlog.is_empty());
    }
}
