//! Packets on their way out: written once into an arena, grouped by destination, sent in as
//! few system calls as the kernel allows.
//!
//! A socket without room keeps what it did not take in a backlog, and what comes after it. That
//! is sent when the socket is writable again; what would take too much memory or too long is dropped
//! and counted.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::backlog::Backlog;
use super::batch::Batch;
use super::sys::Message;

/// Bytes of packets between two flushes.
const ARENA_BYTES: usize = 1 << 20;
/// Largest packet: an MTU and room for tags.
pub const PACKET_BYTES_MAX: usize = 2048;
/// Packets between two flushes.
const PACKETS_MAX: usize = 2048;
/// Bytes that may wait for all sockets without room.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// Packets queued one after the other for one destination. There are far fewer of these to sort
/// than packets, as fan-out goes viewer by viewer.
#[derive(Clone, Copy, Debug)]
struct Run {
    socket: u32,
    remote: SocketAddr,
    /// First of its packets; keeps the order towards one destination.
    first: u32,
    /// Behind its last packet.
    end: u32,
}

/// Counters of what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendCounters {
    /// Packets taken by the kernel.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// System calls.
    pub calls: u64,
    /// Packets that had to wait until their socket had room.
    pub delayed: u64,
    /// Packets dropped because too much waited already.
    pub overflowed: u64,
    /// Packets dropped because they had waited for too long, or their socket was closed.
    pub expired: u64,
    /// Packets refused for another reason, such as an unreachable network.
    pub refused: u64,
}

/// The queue.
pub struct SendQueue {
    arena: Box<[u8]>,
    used: usize,
    /// Start and length of each packet in the arena, in the order they were queued.
    packets: Vec<(u32, u32)>,
    runs: Vec<Run>,
    batch: Batch,
    /// Sockets without room, and what waits for them.
    blocked: Vec<(u32, Backlog)>,
    /// What was sent.
    pub counters: SendCounters,
}

impl Default for SendQueue {
    fn default() -> Self {
        Self {
            arena: vec![0; ARENA_BYTES].into(),
            used: 0,
            packets: Vec::with_capacity(PACKETS_MAX),
            runs: Vec::with_capacity(PACKETS_MAX),
            batch: Batch::default(),
            blocked: Vec::new(),
            counters: SendCounters::default(),
        }
    }
}

impl SendQueue {
    /// Whether the next packet might not fit: flush first.
    pub fn is_full(&self) -> bool {
        self.used + PACKET_BYTES_MAX > ARENA_BYTES || self.packets.len() == PACKETS_MAX
    }

    /// Whether nothing was queued since the last flush.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Room for one packet, to be written and then committed. Must not be full.
    pub fn slot(&mut self) -> &mut [u8] {
        &mut self.arena[self.used..self.used + PACKET_BYTES_MAX]
    }

    /// Queues the first `len` bytes of the slot.
    pub fn commit(&mut self, socket: u32, remote: SocketAddr, len: usize) {
        let first = self.packets.len() as u32;
        self.packets.push((self.used as u32, len as u32));
        self.used += len;
        match self.runs.last_mut() {
            Some(run) if run.socket == socket && run.remote == remote => run.end += 1,
            _ => self.runs.push(Run {
                socket,
                remote,
                first,
                end: first + 1,
            }),
        }
    }

    /// Sends everything that its socket has room for, by `send(socket, arena, slices, messages)`.
    pub fn flush(
        &mut self,
        mut send: impl FnMut(u32, &[u8], &[(u32, u32)], &[Message]) -> io::Result<usize>,
    ) {
        self.runs
            .sort_unstable_by_key(|run| (run.socket, run.remote, run.first));
        let mut at = 0;
        while at < self.runs.len() {
            let socket = self.runs[at].socket;
            at = self.gather(at);
            // What waits already goes first.
            let handled = if self.is_blocked(socket) {
                0
            } else {
                let arena = &self.arena;
                self.batch.send(&mut self.counters, |slices, messages| {
                    send(socket, arena, slices, messages)
                })
            };
            if handled < self.batch.len() {
                self.keep(socket, handled);
            }
        }
        self.packets.clear();
        self.runs.clear();
        self.used = 0;
    }

    /// The sockets without room.
    pub fn blocked(&self) -> impl Iterator<Item = u32> {
        self.blocked.iter().map(|(socket, _)| *socket)
    }

    /// Whether packets wait for a socket.
    pub fn is_blocked(&self, socket: u32) -> bool {
        self.blocked().any(|blocked| blocked == socket)
    }

    /// Sends what waits for a socket that has room again.
    pub fn resume(
        &mut self,
        socket: u32,
        now: Instant,
        mut send: impl FnMut(&[u8], &[(u32, u32)], &[Message]) -> io::Result<usize>,
    ) {
        let mut blocked = self.blocked.iter_mut();
        let Some((_, backlog)) = blocked.find(|(key, _)| *key == socket) else {
            return;
        };
        self.counters.expired += backlog.expire(now) as u64;
        while !backlog.is_empty() {
            self.batch.clear();
            for packet in backlog.packets() {
                if !self.batch.add(packet.remote, (packet.start, packet.len)) {
                    break;
                }
            }
            let handled = self.batch.send(&mut self.counters, |slices, messages| {
                send(backlog.bytes(), slices, messages)
            });
            backlog.take(handled);
            if handled < self.batch.len() {
                return;
            }
        }
        self.blocked.retain(|(_, backlog)| !backlog.is_empty());
    }

    /// Forgets what waits for a socket that is about to be closed.
    pub fn forget(&mut self, socket: u32) {
        for (_, backlog) in self.blocked.extract_if(.., |(key, _)| *key == socket) {
            self.counters.expired += backlog.packets().count() as u64;
        }
    }

    /// Hands everything over instead of sending it: for driving the cores without a network.
    pub fn take(&mut self, mut each: impl FnMut(u32, SocketAddr, &[u8])) {
        for run in self.runs.drain(..) {
            for &(start, len) in &self.packets[run.first as usize..run.end as usize] {
                let (start, end) = (start as usize, (start + len) as usize);
                each(run.socket, run.remote, &self.arena[start..end]);
            }
        }
        self.packets.clear();
        self.used = 0;
    }

    /// Gathers the packets of one call from the runs at `at` and returns where to go on. A run
    /// that does not fit as a whole is shortened to what is left of it.
    fn gather(&mut self, mut at: usize) -> usize {
        self.batch.clear();
        let socket = self.runs[at].socket;
        while at < self.runs.len() && self.runs[at].socket == socket {
            let run = self.runs[at];
            for index in run.first..run.end {
                if !self.batch.add(run.remote, self.packets[index as usize]) {
                    self.runs[at].first = index;
                    return at;
                }
            }
            at += 1;
        }
        at
    }

    /// Keeps what of a call found no room, from the packet `first` on.
    fn keep(&mut self, socket: u32, first: usize) {
        let now = Instant::now();
        let mut room = BACKLOG_BYTES_MAX;
        for (_, backlog) in &mut self.blocked {
            self.counters.expired += backlog.expire(now) as u64;
            room = room.saturating_sub(backlog.len());
        }
        if !self.is_blocked(socket) {
            self.blocked.push((socket, Backlog::default()));
        }
        let mut blocked = self.blocked.iter_mut();
        let Some((_, backlog)) = blocked.find(|(key, _)| *key == socket) else {
            return;
        };
        for (remote, (start, len)) in self.batch.packets_from(first) {
            if len as usize > room {
                self.counters.overflowed += 1;
                continue;
            }
            room -= len as usize;
            self.counters.delayed += 1;
            let (start, end) = (start as usize, (start + len) as usize);
            backlog.push(now, remote, &self.arena[start..end]);
        }
    }
}

#[cfg(test)]
mod tests;
