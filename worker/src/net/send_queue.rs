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

/// A packet in the arena.
#[derive(Clone, Copy, Debug)]
struct Packet {
    socket: u32,
    remote: SocketAddr,
    start: u32,
    len: u32,
    /// Place in the queue: keeps the order towards one destination.
    order: u32,
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
    packets: Vec<Packet>,
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
        self.packets.push(Packet {
            socket,
            remote,
            start: self.used as u32,
            len: len as u32,
            order: self.packets.len() as u32,
        });
        self.used += len;
    }

    /// Sends everything; `socket_of` finds the descriptor of a socket key.
    pub fn flush<'s>(&mut self, socket_of: impl Fn(u32) -> Option<BorrowedFd<'s>>) {
        self.packets
            .sort_unstable_by_key(|packet| (packet.socket, packet.remote, packet.order));
        let mut at = 0;
        while at < self.packets.len() {
            let socket = self.packets[at].socket;
            let taken = self.gather(at);
            match socket_of(socket) {
                Some(socket) => self.send(socket),
                None => self.counters.refused += taken as u64,
            }
            at += taken;
        }
        self.packets.clear();
        self.used = 0;
    }

    /// Builds the messages of one call from the packets at `at`, returns how many it took.
    fn gather(&mut self, at: usize) -> usize {
        self.slices.clear();
        self.messages.clear();
        let socket = self.packets[at].socket;
        let mut group_bytes = 0;
        let mut is_group_open = false;
        for packet in &self.packets[at..] {
            if packet.socket != socket || self.slices.len() == SLICES_MAX {
                break;
            }
            let len = packet.len as usize;
            if let Some(group) = self.messages.last_mut()
                && is_group_open
                && group.remote == packet.remote
                && packet.len <= u32::from(group.segment_len)
                && group.slices < SEGMENTS_MAX
                && group_bytes + len <= GSO_BYTES_MAX
            {
                group.slices += 1;
                group_bytes += len;
                // A shorter segment can only be the last one.
                is_group_open = packet.len == u32::from(group.segment_len);
            } else {
                if self.messages.len() == SEND_BATCH {
                    break;
                }
                self.messages.push(Message {
                    remote: packet.remote,
                    slices: 1,
                    segment_len: packet.len as u16,
                });
                group_bytes = len;
                is_group_open = self.has_gso;
            }
            self.slices.push((packet.start, packet.len));
        }
        self.slices.len()
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
            .packets
            .sort_unstable_by_key(|p| (p.socket, p.remote, p.order));
        assert_eq!(queue.gather(0), lens.len());
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
