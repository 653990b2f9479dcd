//! The clients' side of the traffic: one thread receives for all viewers, counts every packet,
//! opens one in a hundred for its latency, and keeps all clients' paths alive.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use broth_client::client::Client;
use broth_worker::net::sys::RecvBatch;
use broth_worker::wire::rtp::{self, FIXED_HEADER_LEN};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, UdpGroSegment};

use crate::loss::{Losses, is_repeated};
use crate::process::dropped_at;
use crate::source::STAMP_AT;

/// Packets between two that are opened: a prime, so that bursts of equal length do not hide
/// most of their packets.
const SAMPLE: u64 = 101;
/// Longest pause between two looks at who is to make one.
const CHECK_TURN: Duration = Duration::from_millis(20);
/// Room for what waits while another viewer is served.
const WAITING_BYTES: usize = 1 << 20;
/// Nothing is under way any more if nothing arrives for so long.
const QUIET: Duration = Duration::from_millis(200);
/// So long a server may work on what it has.
const QUIET_WITHIN: Duration = Duration::from_secs(5);

/// What a client is here for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Only sends.
    Sender,
    /// Receives, and must get everything.
    Viewer,
    /// Receives for a while only.
    Guest,
}

/// Where a client is in the hall.
pub(crate) type Seat = usize;

struct Seated {
    client: Arc<Client>,
    role: Role,
}

/// What is counted in a window.
#[derive(Default)]
struct Tally {
    viewers: AtomicU64,
    guests: AtomicU64,
    forged: AtomicU64,
    is_timing: AtomicBool,
}

/// What was counted in a window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Packets that arrived at those who must get everything.
    pub(crate) viewers: u64,
    /// Packets that arrived at others.
    pub(crate) guests: u64,
    /// Sampled packets that did not open: not what was sent.
    pub(crate) forged: u64,
}

/// All clients of all servers.
pub(crate) struct Hall {
    epoll: Epoll,
    seats: RwLock<Vec<Option<Seated>>>,
    tally: Tally,
    is_over: AtomicBool,
    /// What send times count from.
    pub(crate) clock: Instant,
}

impl Hall {
    /// An empty one.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            seats: RwLock::default(),
            tally: Tally::default(),
            is_over: AtomicBool::new(false),
            clock: Instant::now(),
        })
    }

    /// Takes a client in.
    pub(crate) fn admit(&self, client: Arc<Client>, role: Role) -> Result<Seat> {
        let mut seats = self.seats.write().expect("no panic holds the lock");
        let free = seats.iter().position(Option::is_none);
        let seat = free.unwrap_or(seats.len());
        if role != Role::Sender {
            client.socket().set_nonblocking(true)?;
            setsockopt(client.socket(), RcvBuf, &WAITING_BYTES)?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, seat as u64);
            self.epoll.add(client.socket(), event)?;
        }
        if seat == seats.len() {
            seats.push(None);
        }
        seats[seat] = Some(Seated { client, role });
        Ok(seat)
    }

    /// Lets a client go.
    pub(crate) fn dismiss(&self, seat: Seat) -> Result<()> {
        let mut seats = self.seats.write().expect("no panic holds the lock");
        if let Some(Seated { client, role }) = seats[seat].take()
            && role != Role::Sender
        {
            self.epoll.delete(client.socket())?;
        }
        Ok(())
    }

    /// Lets the kernel hand over the packets of a GSO message as one (`UDP_GRO`), or not.
    pub(crate) fn set_coalescing(&self, seats: &[Seat], is_coalescing: bool) -> Result<()> {
        let all = self.seats.read().expect("no panic holds the lock");
        for seated in seats.iter().filter_map(|seat| all[*seat].as_ref()) {
            setsockopt(seated.client.socket(), UdpGroSegment, &is_coalescing)?;
        }
        Ok(())
    }

    /// Packets that found no room in the sockets of these clients: lost by the load itself.
    pub(crate) fn dropped(&self, seats: &[Seat]) -> Result<u64> {
        let all = self.seats.read().expect("no panic holds the lock");
        let mut ports = HashSet::new();
        for seated in seats.iter().filter_map(|seat| all[*seat].as_ref()) {
            ports.insert(seated.client.socket().local_addr()?.port());
        }
        dropped_at(&ports)
    }

    /// Counts from 0 and takes latencies.
    pub(crate) fn start_counting(&self) {
        for count in [&self.tally.viewers, &self.tally.guests, &self.tally.forged] {
            count.store(0, Ordering::Relaxed);
        }
        self.tally.is_timing.store(true, Ordering::Relaxed);
    }

    /// What was counted.
    pub(crate) fn stop_counting(&self) -> Counts {
        self.tally.is_timing.store(false, Ordering::Relaxed);
        Counts {
            viewers: self.tally.viewers.load(Ordering::Relaxed),
            guests: self.tally.guests.load(Ordering::Relaxed),
            forged: self.tally.forged.load(Ordering::Relaxed),
        }
    }

    /// Waits until nothing is under way any more.
    pub(crate) fn settle(&self) {
        let begin = Instant::now();
        let arrived = || {
            self.tally.viewers.load(Ordering::Relaxed) + self.tally.guests.load(Ordering::Relaxed)
        };
        let mut before = arrived();
        while begin.elapsed() < QUIET_WITHIN {
            thread::sleep(QUIET);
            let now = arrived();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Ends [`receive`](Self::receive).
    pub(crate) fn close(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Receives until the hall closes; latencies in microseconds go to `latencies`. Viewers
    /// take `loss` percent of what they could get again for lost; each client's path is checked
    /// once in `check_interval`.
    pub(crate) fn receive(
        &self,
        loss: u32,
        check_interval: Duration,
        latencies: &Sender<u32>,
    ) -> Result<()> {
        let mut batch = RecvBatch::default();
        let mut events = [EpollEvent::empty(); 256];
        let mut losses = Losses::new(loss);
        let mut checks = Checks::new(check_interval);
        while !self.is_over.load(Ordering::Relaxed) {
            let timeout = EpollTimeout::try_from(CHECK_TURN)?;
            let ready = match self.epoll.wait(&mut events, timeout) {
                Err(nix::errno::Errno::EINTR) => continue,
                ready => ready?,
            };
            let seats = self.seats.read().expect("no panic holds the lock");
            checks.make(&seats);
            for event in &events[..ready] {
                let seated = seats.get(event.data() as usize).and_then(Option::as_ref);
                let Some(Seated { client, role }) = seated else {
                    continue;
                };
                let Ok(count) = batch.recv(client.socket().as_fd()) else {
                    continue;
                };
                let now_us = self.clock.elapsed().as_micros() as u32;
                for index in 0..count {
                    batch.datagrams(index, |datagram, _| {
                        if rtp::is_rtp(datagram) && !losses.take(datagram) {
                            self.take(client, *role, datagram, now_us, latencies);
                        }
                    });
                }
                losses.complain(client);
            }
        }
        Ok(())
    }

    fn take(
        &self,
        client: &Client,
        role: Role,
        datagram: &mut [u8],
        now_us: u32,
        latencies: &Sender<u32>,
    ) {
        let tally = &self.tally;
        if role == Role::Guest {
            tally.guests.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let total = tally.viewers.fetch_add(1, Ordering::Relaxed);
        let is_timing = tally.is_timing.load(Ordering::Relaxed) && !is_repeated(datagram);
        if !is_timing || !total.is_multiple_of(SAMPLE) {
            return;
        }
        match open_stamp(client, datagram) {
            Some(stamp) => drop(latencies.send(now_us.wrapping_sub(stamp))),
            None => drop(tally.forged.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Opens a packet and reads when it was sent.
fn open_stamp(viewer: &Client, datagram: &mut [u8]) -> Option<u32> {
    let header_len = rtp::header_len(datagram).ok()?;
    let stamp_at = header_len + STAMP_AT - FIXED_HEADER_LEN;
    viewer.open_any(datagram, header_len)?;
    let stamp = datagram.get(stamp_at..stamp_at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(stamp))
}

/// The connectivity checks of all clients, a few at a time: all at once would be a pause in what
/// is measured.
struct Checks {
    interval: Duration,
    next: usize,
    /// How many are due.
    due: f64,
    looked_at: Instant,
}

impl Checks {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: 0,
            due: 0.0,
            looked_at: Instant::now(),
        }
    }

    fn make(&mut self, seats: &[Option<Seated>]) {
        let elapsed = self.looked_at.elapsed();
        if elapsed < CHECK_TURN {
            return;
        }
        self.looked_at = Instant::now();
        self.due += seats.len() as f64 * elapsed.div_duration_f64(self.interval);
        while self.due >= 1.0 {
            self.due -= 1.0;
            self.next = (self.next + 1) % seats.len();
            if let Some(seated) = &seats[self.next] {
                // Should it not get through, packets will be missing.
                let _ = seated.client.keep_alive();
            }
        }
    }
}
