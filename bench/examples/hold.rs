//! What it saves to hold the beginning of a frame until its end is there, and what it adds to the
//! way of a packet: the same frames through the same worker, held and not, in alternating windows.
//!
//! `cargo run --release -p broth-bench --example hold -- GAP_US [VIEWERS]`
//!
//! Frames of ten packets of 1,200 bytes, 30 a second, whose packets leave the sender one by one with
//! `GAP_US` between them. The worker is pinned to CPU 0, everything else runs beside it.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use broth_client::client::Client;
use broth_client::rtp::vp8_packet;
use broth_client::worker::DrivenWorker;
use broth_ipc::body::{Hello, Load};
use broth_ipc::{Call, ConsumerId, Ids, PROTOCOL, ProducerId, RouterId, TransportId};
use broth_worker::net::sys::RecvBatch;
use broth_worker::srtp::Profile;
use broth_worker::wire::rtp::{self, FIXED_HEADER_LEN};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, UdpGroSegment};
use nix::unistd::Pid;

const ROUTER: RouterId = RouterId(1);
const PRODUCER: ProducerId = ProducerId(1);
const SSRC: u32 = 10;
const SIZE: usize = 1200;
const FRAME: u64 = 10;
const FRAME_INTERVAL: Duration = Duration::from_millis(33);
const WINDOW: Duration = Duration::from_secs(4);
const ROUNDS: usize = 5;
/// Times that packets may wait, compared.
const HOLDS_US: [u32; 2] = [0, 400];
/// Where the send time lies: behind the VP8 descriptor.
const STAMP_AT: usize = FIXED_HEADER_LEN + 8;

fn main() -> Result<()> {
    broth_worker::run_if_asked();
    let mut args = std::env::args().skip(1);
    let gap_us: u64 = args.next().context("GAP_US")?.parse()?;
    let viewers: u32 = args.next().map_or(Ok(50), |viewers| viewers.parse())?;
    let mut worker = DrivenWorker::in_process(0)?;
    let mut beside = CpuSet::new();
    beside.set(1)?;
    sched_setaffinity(Pid::from_raw(0), &beside)?;
    worker.create_recorded_router(ROUTER)?;
    let sender = connect_sender(&mut worker)?;
    let viewers: Vec<Client> = (0..viewers)
        .map(|n| connect_viewer(&mut worker, n))
        .collect::<Result<_>>()?;

    let (clock, is_over) = (Instant::now(), AtomicBool::new(false));
    let (latencies, got) = mpsc::channel();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&viewers, clock, &is_over, &latencies));
        let mut source = Source {
            sender: &sender,
            clock,
            gap: Duration::from_micros(gap_us),
            seq: 0,
        };
        let mut results = HOLDS_US.map(|_| Vec::new());
        for round in 0..=ROUNDS {
            for (hold_us, results) in HOLDS_US.into_iter().zip(&mut results) {
                worker.call(Ids::NONE, Call::Hello(hello(hold_us)))?;
                let window = if round == 0 { WINDOW / 4 } else { WINDOW };
                let begin = worker.load()?;
                let sent = source.send(window)?;
                thread::sleep(Duration::from_millis(100));
                let end = worker.load()?;
                let mut latencies: Vec<u32> = got.try_iter().collect();
                // The first round warms up.
                if round > 0 {
                    results.push(Outcome::new(&begin, &end, sent, &mut latencies));
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        receiver
            .join()
            .map_err(|_| anyhow::anyhow!("the receiving thread panicked"))??;
        print(&results)
    })
}

/// One window: CPU ns and send calls per forwarded packet, share of what was sent that arrived,
/// latencies in µs.
#[derive(Clone, Copy)]
struct Outcome {
    ns: f64,
    calls: f64,
    p50: u32,
    p99: u32,
    arrived: usize,
}

impl Outcome {
    fn new(begin: &Load, end: &Load, sent: u64, latencies: &mut [u32]) -> Self {
        let cpu_ms = end.cpu_user_ms + end.cpu_system_ms - begin.cpu_user_ms - begin.cpu_system_ms;
        let packets = (end.datagrams_sent - begin.datagrams_sent).max(1) as f64;
        latencies.sort_unstable();
        let at = |share: usize| latencies.get(latencies.len() * share / 100).copied();
        Self {
            ns: cpu_ms as f64 * 1e6 / packets,
            calls: (end.send_calls - begin.send_calls) as f64 / sent as f64,
            p50: at(50).unwrap_or(0),
            p99: at(99).unwrap_or(0),
            arrived: latencies.len(),
        }
    }
}

/// The median of each.
fn print(results: &[Vec<Outcome>; 2]) -> Result<()> {
    let mut out = std::io::stdout();
    for (hold_us, results) in HOLDS_US.iter().zip(results) {
        let median = |of: &dyn Fn(&Outcome) -> f64| {
            let mut all: Vec<f64> = results.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        writeln!(
            out,
            "held {hold_us:>3} µs: {:5.0} CPU ns per packet, {:.2} send calls per packet received, \
             p50 {:.0} µs, p99 {:.0} µs, {} arrived",
            median(&|o| o.ns),
            median(&|o| o.calls),
            median(&|o| f64::from(o.p50)),
            median(&|o| f64::from(o.p99)),
            results.iter().map(|o| o.arrived).sum::<usize>(),
        )?;
    }
    Ok(())
}

fn hello(hold_us: u32) -> Hello {
    Hello {
        protocol: PROTOCOL,
        dtls: None,
        chaos: false,
        black_box: false,
        hold_us: Some(hold_us),
    }
}

struct Source<'c> {
    sender: &'c Client,
    clock: Instant,
    gap: Duration,
    seq: u64,
}

impl Source<'_> {
    /// Sends frames for `window`; returns how many packets that were.
    fn send(&mut self, window: Duration) -> Result<u64> {
        let (begin, first) = (Instant::now(), self.seq);
        self.sender.keep_alive()?;
        let mut due = begin;
        while due < begin + window {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let begun = Instant::now();
            for n in 0..FRAME {
                while begun.elapsed() < self.gap * n as u32 {
                    std::hint::spin_loop();
                }
                self.send_packet(n)?;
            }
            due += FRAME_INTERVAL;
        }
        Ok(self.seq - first)
    }

    fn send_packet(&mut self, n: u64) -> Result<()> {
        let mut packet = [0; 2048];
        let frame = self.seq / FRAME;
        let is_keyframe = n == 0 && frame.is_multiple_of(50);
        let payload_len = SIZE - FIXED_HEADER_LEN;
        let (seq, ts) = (self.seq as u16, (frame * 3000) as u32);
        let len = vp8_packet(&mut packet, SSRC, seq, ts, is_keyframe, n == 0, payload_len);
        packet[1] |= u8::from(n + 1 == FRAME) << 7;
        let stamp = self.clock.elapsed().as_micros() as u32;
        packet[STAMP_AT..STAMP_AT + 4].copy_from_slice(&stamp.to_be_bytes());
        let roc = (self.seq >> 16) as u32;
        let len = self.sender.seal(roc, &mut packet, FIXED_HEADER_LEN, len)?;
        self.sender.socket().send(&packet[..len])?;
        self.seq += 1;
        Ok(())
    }
}

/// Receives until told that it is over, and tells latencies in microseconds.
fn receive(
    viewers: &[Client],
    clock: Instant,
    is_over: &AtomicBool,
    latencies: &Sender<u32>,
) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (key, viewer) in viewers.iter().enumerate() {
        epoll.add(
            viewer.socket(),
            EpollEvent::new(EpollFlags::EPOLLIN, key as u64),
        )?;
    }
    let mut batch = RecvBatch::default();
    let mut events = [EpollEvent::empty(); 256];
    let mut checked_at = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        if checked_at.elapsed() > Duration::from_secs(5) {
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
                    if let Some(stamp) = open_stamp(viewer, datagram) {
                        let _ = latencies.send(now_us.wrapping_sub(stamp));
                    }
                });
            }
        }
    }
    Ok(())
}

fn open_stamp(viewer: &Client, datagram: &mut [u8]) -> Option<u32> {
    if !rtp::is_rtp(datagram) {
        return None;
    }
    let header_len = rtp::header_len(datagram).ok()?;
    viewer.open_any(datagram, header_len)?;
    let stamp_at = header_len + STAMP_AT - FIXED_HEADER_LEN;
    let stamp = datagram.get(stamp_at..stamp_at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(stamp))
}

fn connect_sender(worker: &mut DrivenWorker) -> Result<Client> {
    let transport = TransportId(1);
    let sender = Client::connect(worker, ROUTER, transport, Some(Profile::AeadAes128Gcm))?;
    let ids = Ids::router(ROUTER).transport(transport).producer(PRODUCER);
    worker.produce_vp8(ids, SSRC)?;
    Ok(sender)
}

fn connect_viewer(worker: &mut DrivenWorker, n: u32) -> Result<Client> {
    let transport = TransportId(1000 + n);
    let viewer = Client::connect(worker, ROUTER, transport, Some(Profile::AeadAes128Gcm))?;
    viewer.socket().set_nonblocking(true)?;
    setsockopt(viewer.socket(), RcvBuf, &(1 << 20))?;
    setsockopt(viewer.socket(), UdpGroSegment, &true)?;
    let ids = Ids::router(ROUTER)
        .producer(PRODUCER)
        .consumer(ConsumerId(n))
        .transport(transport);
    worker.consume_vp8(ids, 1000 + 2 * n)?;
    Ok(viewer)
}
