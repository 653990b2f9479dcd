//! The load generator: one producer, N consumers with a transport each, over ICE, DTLS and
//! SRTP, against a worker pinned to one CPU.
//!
//! Reports the worker's CPU time per forwarded packet next to a *calib unit*, the CPU time of
//! one datagram sent to and read from a loopback socket on the same CPU, measured right before
//! and after. Machines differ and have neighbours: compare the ratio.

use std::io::{self, Write};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use broth_bench::peer::Peer;
use broth_bench::rtp::{identity_mapping, vp8_packet, vp8_parameters};
use broth_bench::worker::DrivenWorker;
use broth_ipc::body::{
    CreateConsumer, CreateProducer, Empty, EnableConsumer, Load, WebRtcTransportOptions,
};
use broth_ipc::rtp::MediaKind;
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, RouterId, TransportId};
use broth_worker::net::sys::{Message, RecvBatch, send};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtp::FIXED_HEADER_LEN;
use clap::{Parser, ValueEnum};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, UdpGroSegment};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use std::os::fd::AsFd;

const ROUTER: RouterId = RouterId(1);
const PRODUCER: ProducerId = ProducerId(1);
const SEND_SSRC: u32 = 10;
/// Where the send time lies in the payload: behind the VP8 descriptor.
const STAMP_AT: usize = FIXED_HEADER_LEN + 8;
/// Datagrams of one calibration.
const CALIBRATION: u32 = 100_000;

/// Measures what a worker's forwarding costs.
#[derive(Parser)]
struct Args {
    /// Viewers, each with its own transport.
    #[arg(long, default_value_t = 50)]
    consumers: u32,
    /// Packets per second of the producer.
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Packets that leave together, as those of one video frame.
    #[arg(long, default_value_t = 10)]
    burst: u32,
    /// Bytes of one RTP packet.
    #[arg(long, default_value_t = 1200)]
    size: usize,
    /// Seconds to measure, after one second of warming up.
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// SRTP profile.
    #[arg(long, value_enum, default_value_t = Srtp::Gcm128)]
    srtp: Srtp,
    /// What the viewers' side of the loopback charges to the worker.
    #[arg(long, value_enum, default_value_t = Receivers::Nic)]
    receivers: Receivers,
    /// CPU of the worker; the load runs on the others.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Srtp {
    Gcm128,
    Gcm256,
    CmSha1,
}

/// How viewers receive. On loopback a send also runs the receiving half of the stack, on the
/// sender's CPU time; on a network card it ends at the device.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Receivers {
    /// As near to a card as loopback gets: a GSO message is taken whole (`UDP_GRO`), and by a
    /// thread that polls, so that nobody has to be woken.
    Nic,
    /// Every datagram for itself, by a thread that sleeps until the worker's send wakes it.
    Loopback,
}

fn main() -> Result<()> {
    broth_worker::run_if_asked();
    run(&Args::parse())
}

fn run(args: &Args) -> Result<()> {
    let profile = match args.srtp {
        Srtp::Gcm128 => Profile::AeadAes128Gcm,
        Srtp::Gcm256 => Profile::AeadAes256Gcm,
        Srtp::CmSha1 => Profile::Aes128CmSha1_80,
    };
    let before = calibrate(args)?;
    let started = Instant::now();
    let mut worker = DrivenWorker::in_process(args.cpu)?;
    let ready = started.elapsed();
    pin_beside(args.cpu)?;
    worker.create_router(ROUTER)?;
    let round_trip = time_transport(&mut worker)?;

    let sender = Peer::connect(&mut worker, ROUTER, TransportId(1), profile)?;
    create_producer(&mut worker)?;
    let rss_before = load(&mut worker)?.rss_bytes;
    let viewers: Vec<Peer> = (0..args.consumers)
        .map(|n| connect_viewer(&mut worker, n, profile))
        .collect::<Result<_>>()?;
    let rss_after = load(&mut worker)?.rss_bytes;

    let outcome = measure(args, &mut worker, &sender, viewers)?;
    let calib = (before + calibrate(args)?) / 2.0;
    report(
        args,
        &outcome,
        calib,
        ready,
        round_trip,
        rss_after - rss_before,
    )?;
    Ok(())
}

/// What a window gave.
struct Outcome {
    cpu_ns: f64,
    wall: Duration,
    expected: u64,
    received: u64,
    calls: u64,
    latencies_us: Vec<u32>,
    drops: String,
}

fn measure(
    args: &Args,
    worker: &mut DrivenWorker,
    sender: &Peer,
    viewers: Vec<Peer>,
) -> Result<Outcome> {
    let clock = Instant::now();
    let is_over = AtomicBool::new(false);
    let is_counting = AtomicBool::new(false);
    let received = AtomicU64::new(0);
    let is_polling = args.receivers == Receivers::Nic;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            receive(
                &viewers,
                is_polling,
                clock,
                &is_over,
                &is_counting,
                &received,
            )
        });
        let mut source = Source {
            peer: sender,
            seq: 0,
            clock,
        };
        source.send(args, Duration::from_secs(1))?;
        thread::sleep(Duration::from_millis(100));
        let begin = load(worker)?;
        let begun = Instant::now();
        received.store(0, Ordering::Relaxed);
        is_counting.store(true, Ordering::Relaxed);
        let sent = source.send(args, Duration::from_secs(args.seconds.into()))?;
        let wall = begun.elapsed();
        let end = load(worker)?;
        thread::sleep(Duration::from_millis(300));
        is_over.store(true, Ordering::Relaxed);
        let mut latencies_us = receiver
            .join()
            .map_err(|_| anyhow::anyhow!("the receiving thread panicked"))??;
        latencies_us.sort_unstable();
        let cpu_ms = end.cpu_user_ms + end.cpu_system_ms - begin.cpu_user_ms - begin.cpu_system_ms;
        Ok(Outcome {
            cpu_ns: cpu_ms as f64 * 1e6,
            wall,
            expected: sent * u64::from(args.consumers),
            received: received.load(Ordering::Relaxed),
            calls: end.send_calls - begin.send_calls,
            latencies_us,
            drops: format!("{:?}", end.drops),
        })
    })
}

/// Sends bursts of video packets.
struct Source<'p> {
    peer: &'p Peer,
    seq: u64,
    clock: Instant,
}

impl Source<'_> {
    fn send(&mut self, args: &Args, window: Duration) -> Result<u64> {
        let bursts = u64::from(args.rate / args.burst) * window.as_secs();
        let interval = Duration::from_secs(1) * args.burst / args.rate;
        let begin = Instant::now();
        for burst in 0..bursts {
            let due = begin + interval * burst as u32;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.send_burst(args)?;
        }
        thread::sleep((begin + window).saturating_duration_since(Instant::now()));
        Ok(bursts * u64::from(args.burst))
    }

    /// The packets of one frame, handed to the kernel at once; the first frame, and one in a
    /// hundred, is a key frame.
    fn send_burst(&mut self, args: &Args) -> Result<()> {
        let frame = self.seq / u64::from(args.burst);
        let seal = &self.peer.srtp.seal;
        let mut arena = Vec::new();
        let mut slices = Vec::new();
        for n in 0..args.burst {
            let mut packet = [0; 2048];
            let ts = (frame * 3000) as u32;
            let is_start = n == 0;
            let is_keyframe = is_start && frame.is_multiple_of(100);
            let len = vp8_packet(
                &mut packet,
                SEND_SSRC,
                self.seq as u16,
                ts,
                is_keyframe,
                is_start,
                args.size - FIXED_HEADER_LEN,
            );
            let stamp = self.clock.elapsed().as_micros() as u32;
            packet[STAMP_AT..STAMP_AT + 4].copy_from_slice(&stamp.to_be_bytes());
            let roc = (self.seq >> 16) as u32;
            let len = seal.protect_rtp(roc, &mut packet, FIXED_HEADER_LEN, len)?;
            slices.push((arena.len() as u32, len as u32));
            arena.extend_from_slice(&packet[..len]);
            self.seq += 1;
        }
        let message = Message {
            remote: self.peer.socket.peer_addr()?,
            slices: slices.len(),
            segment_len: slices[0].1 as u16,
        };
        send(self.peer.socket.as_fd(), &arena, &slices, &[message])?;
        Ok(())
    }
}

/// Counts what the viewers get; opens one packet in a hundred for its latency.
fn receive(
    viewers: &[Peer],
    is_polling: bool,
    clock: Instant,
    is_over: &AtomicBool,
    is_counting: &AtomicBool,
    received: &AtomicU64,
) -> Result<Vec<u32>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (key, viewer) in viewers.iter().enumerate() {
        viewer.socket.set_nonblocking(true)?;
        setsockopt(&viewer.socket, UdpGroSegment, &is_polling)?;
        epoll.add(
            &viewer.socket,
            EpollEvent::new(EpollFlags::EPOLLIN, key as u64),
        )?;
    }
    let mut batch = RecvBatch::default();
    let mut latencies_us = Vec::new();
    let mut events = [EpollEvent::empty(); 256];
    let timeout = EpollTimeout::from(if is_polling { 0u16 } else { 50 });
    while !is_over.load(Ordering::Relaxed) {
        let ready = epoll.wait(&mut events, timeout)?;
        for event in &events[..ready] {
            let viewer = &viewers[event.data() as usize];
            let Ok(count) = batch.recv(viewer.socket.as_fd()) else {
                continue;
            };
            let now_us = clock.elapsed().as_micros() as u32;
            for index in 0..count {
                batch.datagrams(index, |datagram, _| {
                    if !broth_worker::wire::rtp::is_rtp(datagram) {
                        return;
                    }
                    let total = received.fetch_add(1, Ordering::Relaxed);
                    if is_counting.load(Ordering::Relaxed) && total.is_multiple_of(100) {
                        latencies_us.extend(open_stamp(viewer, datagram, now_us));
                    }
                });
            }
        }
    }
    Ok(latencies_us)
}

/// Opens a packet and reads how long it was on its way.
fn open_stamp(viewer: &Peer, datagram: &mut [u8], now_us: u32) -> Option<u32> {
    let header_len = broth_worker::wire::rtp::header_len(datagram).ok()?;
    let stamp_at = header_len + STAMP_AT - FIXED_HEADER_LEN;
    // A fresh index guesses the first rollover counter: windows are shorter than a rollover.
    let mut index = broth_worker::srtp::RecvIndex::new();
    viewer
        .open
        .unprotect_rtp(&mut index, datagram, header_len)
        .ok()?;
    let stamp = datagram.get(stamp_at..stamp_at + 4)?.try_into().ok()?;
    Some(now_us.wrapping_sub(u32::from_be_bytes(stamp)))
}

fn connect_viewer(worker: &mut DrivenWorker, n: u32, profile: Profile) -> Result<Peer> {
    let transport = TransportId(100 + n);
    let peer = Peer::connect(worker, ROUTER, transport, profile)?;
    setsockopt(&peer.socket, RcvBuf, &(1 << 20))?;
    let ids = Ids::router(ROUTER)
        .producer(PRODUCER)
        .consumer(ConsumerId(100 + n))
        .transport(transport);
    let kind = MediaKind::Video;
    worker.call(ids, Call::CreateConsumer(CreateConsumer { kind }))?;
    let rtp_parameters = vp8_parameters(1000 + 2 * n);
    worker.call(ids, Call::EnableConsumer(EnableConsumer { rtp_parameters }))?;
    Ok(peer)
}

fn create_producer(worker: &mut DrivenWorker) -> Result<()> {
    let request = CreateProducer {
        kind: MediaKind::Video,
        rtp_parameters: vp8_parameters(SEND_SSRC),
        rtp_mapping: identity_mapping(),
        paused: false,
    };
    let ids = Ids::router(ROUTER)
        .transport(TransportId(1))
        .producer(PRODUCER);
    worker.call(ids, Call::CreateProducer(request))?;
    Ok(())
}

/// Median round trip of creating a transport.
fn time_transport(worker: &mut DrivenWorker) -> Result<Duration> {
    let mut times = Vec::new();
    for n in 0..51 {
        let ids = Ids::router(ROUTER).transport(TransportId(1_000_000 + n));
        let begin = Instant::now();
        let options = WebRtcTransportOptions::default();
        worker.call(ids, Call::CreateWebRtcTransport(options))?;
        times.push(begin.elapsed());
        worker.call(ids, Call::CloseTransport(Empty {}))?;
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn load(worker: &mut DrivenWorker) -> Result<Load> {
    let answer = worker.call(Ids::NONE, Call::GetLoad(Empty {}))?;
    serde_json::from_value(answer).context("load")
}

/// CPU ns of one datagram sent to and read from a loopback socket on the worker's CPU.
fn calibrate(args: &Args) -> Result<f64> {
    let own = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus = CpuSet::new();
    cpus.set(args.cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let a = UdpSocket::bind("127.0.0.1:0")?;
    let b = UdpSocket::bind("127.0.0.1:0")?;
    let to = b.local_addr()?;
    let datagram = vec![0; args.size];
    let mut buffer = vec![0; 2048];
    let begin = thread_cpu_ns()?;
    for _ in 0..CALIBRATION {
        a.send_to(&datagram, to)?;
        b.recv(&mut buffer)?;
    }
    let took = thread_cpu_ns()? - begin;
    sched_setaffinity(Pid::from_raw(0), &own)?;
    Ok(took / f64::from(CALIBRATION))
}

fn thread_cpu_ns() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let ns = |time: TimeVal| time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3;
    Ok(ns(usage.user_time()) + ns(usage.system_time()))
}

/// Keeps this process off the worker's CPU, if there is another.
fn pin_beside(cpu: usize) -> Result<()> {
    let mut cpus = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    let others = (0..CpuSet::count()).filter(|&c| c != cpu && cpus.is_set(c).unwrap_or(false));
    if others.count() > 0 {
        cpus.unset(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
    }
    Ok(())
}

fn report(
    args: &Args,
    outcome: &Outcome,
    calib_ns: f64,
    ready: Duration,
    round_trip: Duration,
    rss_bytes: u64,
) -> io::Result<()> {
    let forwarded = outcome.received.max(1) as f64;
    let ns = outcome.cpu_ns / forwarded;
    let percentile = |p: usize| {
        let at = (outcome.latencies_us.len() * p / 100).min(outcome.latencies_us.len() - 1);
        f64::from(outcome.latencies_us[at]) / 1000.0
    };
    let has_latencies = !outcome.latencies_us.is_empty();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "1 x {} at {} packets/s of {} bytes in bursts of {}, {} s",
        args.consumers, args.rate, args.size, args.burst, args.seconds
    )?;
    writeln!(out, "  CPU per forwarded packet   {ns:>9.0} ns")?;
    writeln!(out, "  calib unit                 {calib_ns:>9.0} ns")?;
    writeln!(out, "  ratio                      {:>9.2}", ns / calib_ns)?;
    writeln!(
        out,
        "  worker's share of a core   {:>9.1} %",
        outcome.cpu_ns / outcome.wall.as_nanos() as f64 * 100.0
    )?;
    writeln!(
        out,
        "  loss                       {:>9.3} %  ({} of {})",
        100.0 * (1.0 - outcome.received as f64 / outcome.expected as f64),
        outcome.expected.saturating_sub(outcome.received),
        outcome.expected
    )?;
    writeln!(
        out,
        "  packets per send call      {:>9.1}",
        forwarded / outcome.calls.max(1) as f64
    )?;
    if has_latencies {
        writeln!(
            out,
            "  latency p50 / p99          {:>6.2} / {:.2} ms",
            percentile(50),
            percentile(99)
        )?;
    }
    writeln!(
        out,
        "  RSS per consumer           {:>9.1} KiB, with its transport",
        rss_bytes as f64 / 1024.0 / f64::from(args.consumers)
    )?;
    writeln!(
        out,
        "  worker start to ready      {:>9.1} ms",
        ready.as_secs_f64() * 1e3
    )?;
    writeln!(
        out,
        "  createWebRtcTransport      {:>9.3} ms",
        round_trip.as_secs_f64() * 1e3
    )?;
    writeln!(out, "  drops                      {}", outcome.drops)
}
