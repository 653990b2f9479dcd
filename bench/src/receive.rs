//! The viewers: count every packet, open one in a hundred for its latency.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::Result;
use broth_client::client::Client;
use broth_worker::net::sys::RecvBatch;
use broth_worker::wire::rtp::{self, FIXED_HEADER_LEN};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, UdpGroSegment};

use crate::source::STAMP_AT;

/// Packets between two that are opened.
const SAMPLE: u64 = 100;
/// Between two connectivity checks.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What the viewers and the measuring thread share.
#[derive(Default)]
pub(crate) struct Tally {
    /// Packets received since it was last set to 0.
    pub(crate) received: AtomicU64,
    /// Sampled packets that did not open: not what was sent.
    pub(crate) forged: AtomicU64,
    /// Whether to take latencies.
    pub(crate) is_counting: AtomicBool,
    /// Whether to end.
    pub(crate) is_over: AtomicBool,
}

/// Lets the kernel hand over the packets of a GSO message as one (`UDP_GRO`), or not.
pub(crate) fn set_coalescing(viewers: &[Client], is_coalescing: bool) -> Result<()> {
    for viewer in viewers {
        setsockopt(viewer.socket(), UdpGroSegment, &is_coalescing)?;
    }
    Ok(())
}

/// Makes room for what waits while another viewer is served.
pub(crate) fn widen(viewer: &Client) -> Result<()> {
    setsockopt(viewer.socket(), RcvBuf, &(1 << 20))?;
    Ok(())
}

/// Receives until told that it is over; latencies in microseconds go to `latencies`.
pub(crate) fn receive(
    viewers: &[Client],
    clock: Instant,
    tally: &Tally,
    latencies: &Sender<u32>,
) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (key, viewer) in viewers.iter().enumerate() {
        viewer.socket().set_nonblocking(true)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, key as u64);
        epoll.add(viewer.socket(), event)?;
    }
    let mut batch = RecvBatch::default();
    let mut events = [EpollEvent::empty(); 256];
    let mut checked_at = Instant::now();
    while !tally.is_over.load(Ordering::Relaxed) {
        if checked_at.elapsed() > CHECK_INTERVAL {
            checked_at = Instant::now();
            viewers.iter().try_for_each(Client::keep_alive)?;
        }
        let ready = epoll.wait(&mut events, EpollTimeout::from(50u16))?;
        for event in &events[..ready] {
            let viewer = &viewers[event.data() as usize];
            let Ok(count) = batch.recv(viewer.socket().as_fd()) else {
                continue;
            };
            let now_us = clock.elapsed().as_micros() as u32;
            for index in 0..count {
                batch.datagrams(index, |datagram, _| {
                    if !rtp::is_rtp(datagram) {
                        return;
                    }
                    let total = tally.received.fetch_add(1, Ordering::Relaxed);
                    if !tally.is_counting.load(Ordering::Relaxed) || !total.is_multiple_of(SAMPLE) {
                        return;
                    }
                    match open_stamp(viewer, datagram) {
                        Some(stamp) => drop(latencies.send(now_us.wrapping_sub(stamp))),
                        None => drop(tally.forged.fetch_add(1, Ordering::Relaxed)),
                    }
                });
            }
        }
    }
    Ok(())
}

/// Opens a packet and reads when it was sent.
fn open_stamp(viewer: &Client, datagram: &mut [u8]) -> Option<u32> {
    let header_len = rtp::header_len(datagram).ok()?;
    let stamp_at = header_len + STAMP_AT - FIXED_HEADER_LEN;
    viewer.open_any(datagram, header_len)?;
    let stamp = datagram.get(stamp_at..stamp_at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(stamp))
}
