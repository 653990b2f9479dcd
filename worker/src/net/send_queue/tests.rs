use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use super::super::sys::{self, SEND_BATCH, SLICES_MAX};
use super::*;

const SOCKET: u32 = 0;

fn remote(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn push(queue: &mut SendQueue, socket: u32, port: u16, packet: &[u8]) {
    queue.slot()[..packet.len()].copy_from_slice(packet);
    queue.commit(socket, remote(port), packet.len());
}

/// A kernel with room for so many messages, and what it took: `(socket, port, packet)`.
#[derive(Default)]
struct Kernel {
    room: usize,
    taken: Vec<(u32, u16, Vec<u8>)>,
}

impl Kernel {
    fn send(
        &mut self,
        socket: u32,
        arena: &[u8],
        slices: &[(u32, u32)],
        messages: &[Message],
    ) -> io::Result<usize> {
        let count = messages.len().min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        let mut slices = slices.iter();
        for message in &messages[..count] {
            for &(start, len) in slices.by_ref().take(message.slices) {
                let packet = arena[start as usize..(start + len) as usize].to_vec();
                self.taken.push((socket, message.remote.port(), packet));
            }
        }
        Ok(count)
    }
}

fn flush(queue: &mut SendQueue, kernel: &mut Kernel) {
    queue.flush(|socket, arena, slices, messages| kernel.send(socket, arena, slices, messages));
}

fn resume(queue: &mut SendQueue, kernel: &mut Kernel, now: Instant) {
    queue.resume(SOCKET, now, |arena, slices, messages| {
        kernel.send(SOCKET, arena, slices, messages)
    });
}

#[test]
fn what_does_not_fit_one_call_goes_on_where_it_stopped() {
    let mut queue = SendQueue::default();
    for n in 0..PACKETS_MAX {
        push(&mut queue, SOCKET, 1 + n as u16 / 700, &n.to_be_bytes());
    }
    assert!(queue.is_full());
    let (mut next, mut calls) = (0_usize, 0);
    queue.flush(|_, arena, slices, messages| {
        calls += 1;
        assert!(slices.len() <= SLICES_MAX && messages.len() <= SEND_BATCH);
        for &(start, len) in slices {
            let packet = &arena[start as usize..(start + len) as usize];
            assert_eq!(packet, next.to_be_bytes());
            next += 1;
        }
        Ok(messages.len())
    });
    assert_eq!(next, PACKETS_MAX);
    assert!(calls >= PACKETS_MAX / SLICES_MAX);
    assert!(queue.is_empty());
}

#[test]
fn packets_of_one_destination_leave_together_whoever_sent_them() {
    let mut queue = SendQueue::default();
    // Three speakers, packets of one size to four listeners.
    for speaker in 0..3 {
        for port in 1..=4 {
            push(&mut queue, SOCKET, port, &[speaker; 120]);
        }
    }
    let mut groups = Vec::new();
    queue.flush(|_, _, _, messages| {
        groups.extend(messages.iter().map(|m| (m.remote.port(), m.slices)));
        Ok(messages.len())
    });
    assert_eq!(groups, [(1, 3), (2, 3), (3, 3), (4, 3)]);
}

#[test]
fn what_finds_no_room_is_sent_later_and_before_what_comes_after_it() {
    let mut queue = SendQueue::default();
    let mut kernel = Kernel::default();
    let now = Instant::now();
    let mut random = 7_u64;
    let mut below = |bound: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % bound
    };
    let mut sent: Vec<(u16, Vec<u8>)> = Vec::new();
    for n in 0..3000_u32 {
        let port = 1 + below(5) as u16;
        let mut packet = vec![0; 20 + below(3) as usize];
        packet[..4].copy_from_slice(&n.to_be_bytes());
        push(&mut queue, SOCKET, port, &packet);
        sent.push((port, packet));
        if below(6) == 0 {
            kernel.room = below(5) as usize;
            if below(2) == 0 {
                resume(&mut queue, &mut kernel, now);
            }
            flush(&mut queue, &mut kernel);
        }
    }
    assert!(queue.is_blocked(SOCKET));
    kernel.room = usize::MAX;
    flush(&mut queue, &mut kernel);
    resume(&mut queue, &mut kernel, now);
    assert!(!queue.is_blocked(SOCKET));
    for port in 1..=5 {
        let expected: Vec<_> = sent
            .iter()
            .filter(|(p, _)| *p == port)
            .map(|s| &s.1)
            .collect();
        let taken = kernel.taken.iter().filter(|(_, p, _)| *p == port);
        assert_eq!(taken.map(|t| &t.2).collect::<Vec<_>>(), expected, "{port}");
    }
    let counters = queue.counters;
    assert_eq!(counters.packets, 3000);
    assert_eq!(
        (counters.overflowed, counters.expired, counters.refused),
        (0, 0, 0)
    );
    assert!(counters.delayed > 1000, "{counters:?}");
}

#[test]
fn a_socket_without_room_does_not_hold_up_the_others() {
    let mut queue = SendQueue::default();
    for socket in [3, 4, 5] {
        push(&mut queue, socket, 1, &[socket as u8; 50]);
        push(&mut queue, socket, 2, &[socket as u8; 50]);
    }
    let mut kernel = Kernel {
        room: usize::MAX,
        ..Kernel::default()
    };
    queue.flush(|socket, arena, slices, messages| match socket {
        4 => Err(io::ErrorKind::WouldBlock.into()),
        _ => kernel.send(socket, arena, slices, messages),
    });
    assert_eq!(kernel.taken.len(), 4);
    assert_eq!(queue.blocked().collect::<Vec<_>>(), [4]);
}

#[test]
fn what_waits_is_bounded_and_what_is_dropped_counted() {
    let mut queue = SendQueue::default();
    let mut kernel = Kernel::default();
    let packet = [1; PACKET_BYTES_MAX];
    let fits = BACKLOG_BYTES_MAX / PACKET_BYTES_MAX;
    for _ in 0..fits + 100 {
        if queue.is_full() {
            flush(&mut queue, &mut kernel);
        }
        push(&mut queue, SOCKET, 1, &packet);
    }
    flush(&mut queue, &mut kernel);
    assert_eq!(queue.counters.delayed, fits as u64);
    assert_eq!(queue.counters.overflowed, 100);
    // Another socket has no room either.
    push(&mut queue, 1, 1, &packet);
    flush(&mut queue, &mut kernel);
    assert_eq!(queue.counters.overflowed, 101);
    queue.forget(SOCKET);
    assert_eq!(queue.counters.expired, fits as u64);
    push(&mut queue, 1, 1, &packet);
    flush(&mut queue, &mut kernel);
    assert_eq!(queue.counters.delayed, fits as u64 + 1);
}

#[test]
fn what_waited_too_long_is_not_sent() {
    let mut queue = SendQueue::default();
    let mut kernel = Kernel::default();
    push(&mut queue, SOCKET, 1, &[1; 50]);
    flush(&mut queue, &mut kernel);
    kernel.room = usize::MAX;
    resume(
        &mut queue,
        &mut kernel,
        Instant::now() + Duration::from_secs(1),
    );
    assert!(kernel.taken.is_empty() && !queue.is_blocked(SOCKET));
    assert_eq!(queue.counters.expired, 1);
}

#[test]
fn a_flush_sends_everything_once_and_in_order() {
    let a = UdpSocket::bind("127.0.0.1:0").unwrap();
    let b = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = b.local_addr().unwrap().port();
    let lens: Vec<usize> = (0..100).map(|i| 20 + i % 7).collect();
    let mut queue = SendQueue::default();
    for &len in &lens {
        push(&mut queue, SOCKET, port, &vec![len as u8; len]);
    }
    queue.flush(|_, arena, slices, messages| sys::send(a.as_fd(), arena, slices, messages));
    assert!(queue.is_empty());
    assert_eq!(queue.counters.packets, 100);
    let mut buffer = [0; 2048];
    b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for len in lens {
        assert_eq!(b.recv(&mut buffer).unwrap(), len);
        assert!(buffer[..len].iter().all(|&byte| byte == len as u8));
    }
}
