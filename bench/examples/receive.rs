//! What it costs to be told when a datagram came in (`SO_TIMESTAMPNS`): nanoseconds from the sender's
//! call to the receiver's for one datagram, as loopback has both in one thread.
//!
//! `cargo run --release -p broth-bench --example receive`

use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use broth_worker::net::sys::{Message, RecvBatch, send};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{ReceiveTimestampns, UdpGroSegment};

const LEN: u16 = 1200;
/// Datagrams that wait together, and how many of them the sender puts into one message.
const BURST: usize = 30;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(100);
/// Until the kernel has switched its clock on or off.
const SETTLE: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let [a, b] = [0; 2].map(|port| UdpSocket::bind(("127.0.0.1", port)));
    let (a, b) = (a?, b?);
    let mut batch = RecvBatch::default();
    let mut out = std::io::stdout();
    for (what, group) in [("one by one", 1), ("ten coalesced", 10)] {
        setsockopt(&b, UdpGroSegment, &(group > 1))?;
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (is_stamped, took) in [false, true].into_iter().zip(&mut took) {
                setsockopt(&b, ReceiveTimestampns, &is_stamped)?;
                thread::sleep(SETTLE);
                took.push(round(&a, &b, &mut batch, group)?);
            }
        }
        for (name, took) in ["without", "with"].iter().zip(&mut took) {
            took.sort_by(f64::total_cmp);
            let (least, median) = (took[0], took[ROUNDS / 2]);
            writeln!(out, "{what}, {name}: {median:.0} ns (least {least:.0})")?;
        }
    }
    Ok(())
}

/// Nanoseconds per datagram.
fn round(a: &UdpSocket, b: &UdpSocket, batch: &mut RecvBatch, group: usize) -> Result<f64> {
    let arena = vec![7; usize::from(LEN) * BURST];
    let slices: Vec<_> = (0..BURST as u32)
        .map(|n| (n * u32::from(LEN), u32::from(LEN)))
        .collect();
    let message = Message {
        remote: b.local_addr()?,
        slices: group,
        segment_len: LEN,
    };
    let messages = vec![message; BURST / group];
    let (begin, mut datagrams) = (Instant::now(), 0);
    while begin.elapsed() < ROUND {
        send(a.as_fd(), &arena, &slices, &messages)?;
        let mut received = 0;
        while received < BURST {
            for index in 0..batch.recv(b.as_fd())? {
                batch.datagrams(index, |_, _| received += 1);
            }
        }
        datagrams += BURST;
    }
    Ok(begin.elapsed().as_nanos() as f64 / datagrams as f64)
}
