//! Packets on their way out: written once into an arena, grouped by destination, sent in as
//! few system calls as the kernel allows.
//!
//! Packets of equal length to one destination leave as one GSO message; the messages of all
//! destinations leave by `sendmmsg`. When the kernel refuses GSO it is switched off for the
//! rest of the process and the packets go out one by one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use super::sys::{self, Message, SEGMENTS_MAX, SEND_BATCH, SLICES_MAX};

/// Bytes of packets between two flushes.
const ARENA_BYTES: usize = 1 << 20;
/// Largest packet: an MTU and room for tags.
pub const PACKET_BYTES_MAX: usize = 2048;
/// Packets between two flushes.
const PACKETS_MAX: usize = 2048;
/// Bytes one GSO message may have.
const GSO_BYTES_MAX: usize = 65_000;

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

/// The message being built.
#[derive(Default)]
struct Group {
    bytes: usize,
    is_open: bool,
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
    /// Packets the kernel did not take because the socket's buffer was full.
    pub blocked: u64,
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
    slices: Vec<(u32, u32)>,
    messages: Vec<Message>,
    has_gso: bool,
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
            slices: Vec::with_capacity(SLICES_MAX),
            messages: Vec::with_capacity(SEND_BATCH),
            has_gso: true,
            counters: SendCounters::default(),
        }
    }
}

impl SendQueue {
    /// Whether the next packet might not fit: flush first.
    pub fn is_full(&self) -> bool {
        self.used + PACKET_BYTES_MAX > ARENA_BYTES || self.packets.len() == PACKETS_MAX
    }

    /// Whether nothing waits.
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

    /// Sends everything; `socket_of` finds the descriptor of a socket key.
    pub fn flush<'s>(&mut self, socket_of: impl Fn(u32) -> Option<BorrowedFd<'s>>) {
        self.runs
            .sort_unstable_by_key(|run| (run.socket, run.remote, run.first));
        let mut at = 0;
        while at < self.runs.len() {
            let socket = self.runs[at].socket;
            at = self.gather(at);
            match socket_of(socket) {
                Some(socket) => self.send(socket),
                None => self.counters.refused += self.slices.len() as u64,
            }
        }
        self.packets.clear();
        self.runs.clear();
        self.used = 0;
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

    /// Builds the messages of one call from the runs at `at` and returns where to go on. A run
    /// that does not fit as a whole is shortened to what is left of it.
    fn gather(&mut self, mut at: usize) -> usize {
        self.slices.clear();
        self.messages.clear();
        let socket = self.runs[at].socket;
        let mut group = Group::default();
        while at < self.runs.len() && self.runs[at].socket == socket {
            let run = self.runs[at];
            for index in run.first..run.end {
                let packet = self.packets[index as usize];
                if self.slices.len() == SLICES_MAX || !self.add(&mut group, run.remote, packet) {
                    self.runs[at].first = index;
                    return at;
                }
            }
            at += 1;
        }
        at
    }

    /// Adds a packet to the last message or to a new one; `false` if there is no room for one.
    fn add(&mut self, group: &mut Group, remote: SocketAddr, (start, len): (u32, u32)) -> bool {
        let bytes = len as usize;
        if let Some(message) = self.messages.last_mut()
            && group.is_open
            && message.remote == remote
            && len <= u32::from(message.segment_len)
            && message.slices < SEGMENTS_MAX
            && group.bytes + bytes <= GSO_BYTES_MAX
        {
            message.slices += 1;
            group.bytes += bytes;
            // A shorter segment can only be the last one.
            group.is_open = len == u32::from(message.segment_len);
        } else {
            if self.messages.len() == SEND_BATCH {
                return false;
            }
            self.messages.push(Message {
                remote,
                slices: 1,
                segment_len: len as u16,
            });
            group.bytes = bytes;
            group.is_open = self.has_gso;
        }
        self.slices.push((start, len));
        true
    }

    /// Sends the gathered messages.
    fn send(&mut self, socket: BorrowedFd<'_>) {
        let (mut message, mut slice) = (0, 0);
        while message < self.messages.len() {
            let slices = &self.slices[slice..];
            let messages = &self.messages[message..];
            self.counters.calls += 1;
            match sys::send(socket, &self.arena, slices, messages) {
                Ok(sent) => {
                    for sent in &messages[..sent] {
                        let own = &self.slices[slice..slice + sent.slices];
                        self.counters.packets += own.len() as u64;
                        self.counters.bytes += own.iter().map(|s| u64::from(s.1)).sum::<u64>();
                        slice += sent.slices;
                    }
                    message += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.counters.blocked += slices.len() as u64;
                    return;
                }
                Err(_) if messages[0].slices > 1 && self.has_gso => {
                    self.has_gso = false;
                    self.split(message);
                }
                Err(_) => {
                    self.counters.refused += messages[0].slices as u64;
                    slice += messages[0].slices;
                    message += 1;
                }
            }
        }
    }

    /// Replaces the messages from `first` on by one for each slice.
    fn split(&mut self, first: usize) {
        let grouped: Vec<Message> = self.messages.drain(first..).collect();
        for group in grouped {
            let single = Message { slices: 1, ..group };
            self.messages
                .extend(std::iter::repeat_n(single, group.slices));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn queue(lens: &[(usize, u16)]) -> SendQueue {
        let mut queue = SendQueue::default();
        for &(len, port) in lens {
            queue.slot()[..len].fill(len as u8);
            queue.commit(0, SocketAddr::from(([127, 0, 0, 1], port)), len);
        }
        queue
    }

    fn groups(lens: &[(usize, u16)], has_gso: bool) -> Vec<usize> {
        let mut queue = queue(lens);
        queue.has_gso = has_gso;
        queue
            .runs
            .sort_unstable_by_key(|run| (run.socket, run.remote, run.first));
        assert_eq!(queue.gather(0), queue.runs.len());
        assert_eq!(queue.slices.len(), lens.len());
        queue.messages.iter().map(|m| m.slices).collect()
    }

    #[test]
    fn packets_group_by_destination_and_equal_length() {
        type Row<'a> = (&'a [(usize, u16)], &'a [usize]);
        let rows: &[Row<'_>] = &[
            (&[(100, 1)], &[1]),
            (&[(100, 1), (100, 1), (100, 1)], &[3]),
            (&[(100, 1), (100, 2), (100, 1)], &[2, 1]),
            (&[(100, 1), (100, 1), (60, 1)], &[3]),
            (&[(100, 1), (60, 1), (60, 1)], &[2, 1]),
            (&[(60, 1), (100, 1)], &[1, 1]),
        ];
        for (lens, expected) in rows {
            assert_eq!(&groups(lens, true), expected, "{lens:?}");
            assert_eq!(groups(lens, false), vec![1; lens.len()], "{lens:?}");
        }
        let many = vec![(50, 1); SEGMENTS_MAX + 1];
        assert_eq!(groups(&many, true), [SEGMENTS_MAX, 1]);
    }

    #[test]
    fn what_does_not_fit_one_call_goes_on_where_it_stopped() {
        let many: Vec<(usize, u16)> = (0..PACKETS_MAX).map(|n| (20, 1 + n as u16 / 700)).collect();
        let mut queue = queue(&many);
        let (mut at, mut starts) = (0, Vec::new());
        while at < queue.runs.len() {
            at = queue.gather(at);
            assert!(queue.slices.len() <= SLICES_MAX && queue.messages.len() <= SEND_BATCH);
            starts.extend(queue.slices.iter().map(|slice| slice.0 as usize));
        }
        let expected: Vec<usize> = (0..PACKETS_MAX).map(|n| n * 20).collect();
        assert_eq!(starts, expected);
        assert!(queue.is_full());
    }

    #[test]
    fn a_flush_sends_everything_once_and_in_order() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = b.local_addr().unwrap().port();
        let lens: Vec<usize> = (0..100).map(|i| 20 + i % 7).collect();
        let rows: Vec<(usize, u16)> = lens.iter().map(|&len| (len, port)).collect();
        let mut queue = queue(&rows);
        queue.flush(|_| Some(a.as_fd()));
        assert!(queue.is_empty());
        assert_eq!(queue.counters.packets, 100);
        let mut buffer = [0; 2048];
        b.set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        for len in lens {
            assert_eq!(b.recv(&mut buffer).unwrap(), len);
            assert!(buffer[..len].iter().all(|&byte| byte == len as u8));
        }
    }
}
