//! The load generator: P producers and N viewers with a transport each, every viewer consuming
//! every producer, over ICE, DTLS and SRTP or plain RTP, against a worker pinned to one CPU.
//!
//! Reports the worker's CPU time per forwarded packet next to a *calib unit*, the CPU time of
//! one datagram sent to and read from a loopback socket on the same CPU, measured right before
//! and after. Machines differ and have neighbours: compare the ratio.
//!
//! On loopback a sender also pays for its receivers: the kernel cuts a GSO message up again in
//! the sender's time, unless the receiver takes it whole (`UDP_GRO`). A worker behind a network
//! card pays neither. Both are measured, one window after the other.

mod calib;
mod receive;
mod report;
mod source;

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use broth_client::client::Client;
use broth_client::rtp::{identity_mapping, vp8_parameters};
use broth_client::worker::DrivenWorker;
use broth_ipc::body::{
    CreateConsumer, CreateProducer, Empty, EnableConsumer, Load, WebRtcTransportOptions,
};
use broth_ipc::rtp::MediaKind;
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, RouterId, TransportId};
use broth_worker::srtp::Profile;
use clap::{Parser, ValueEnum};

use crate::calib::{calibrate, pin_beside};
use crate::receive::{Tally, receive, set_coalescing, widen};
use crate::report::{Outcome, Setup};
use crate::source::Source;

const ROUTER: RouterId = RouterId(1);
/// The first of the viewers' transports, behind those of the producers.
const VIEWERS_FROM: u32 = 1000;
/// How long packets may be under way when a window ends.
const SETTLE: Duration = Duration::from_millis(300);
/// Windows in which the rate for a load is searched, and their length.
const SEARCH_WINDOWS: u32 = 6;
const SEARCH_WINDOW: Duration = Duration::from_secs(2);

/// Measures what a worker's forwarding costs.
#[derive(Parser)]
struct Args {
    /// Producers, each with its own transport.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    producers: u32,
    /// Viewers, each with its own transport and a consumer of every producer.
    #[arg(long, default_value_t = 50)]
    consumers: u32,
    /// Packets per second of each producer.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Instead of a rate: the share of its core, in percent, that the worker is to use.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    load: Option<u32>,
    /// Packets that leave together, as those of one video frame.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=40))]
    burst: u32,
    /// Bytes of one RTP packet.
    #[arg(long, default_value_t = 1200)]
    size: usize,
    /// Seconds to measure, after one second of warming up.
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// What the clients speak.
    #[arg(long, value_enum, default_value_t = Kind::Webrtc)]
    transport: Kind,
    /// SRTP profile.
    #[arg(long, value_enum, default_value_t = Srtp::Gcm128)]
    srtp: Srtp,
    /// How the viewers take what the kernel has for them.
    #[arg(long, value_enum, default_value_t = Receivers::Both)]
    receivers: Receivers,
    /// Without a flight recorder, as before there was one.
    #[arg(long)]
    unrecorded: bool,
    /// CPU of the worker; the load runs on the others.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// ICE, DTLS and SRTP.
    Webrtc,
    /// RTP in the clear, a socket of the worker for each client.
    Plain,
}

#[derive(Clone, Copy, ValueEnum)]
enum Srtp {
    Gcm128,
    Gcm256,
    CmSha1,
}

#[derive(Clone, Copy, ValueEnum)]
enum Receivers {
    /// Packet by packet.
    Plain,
    /// Coalesced by the kernel (`UDP_GRO`).
    Gro,
    /// A window of each.
    Both,
}

impl Receivers {
    fn windows(self) -> &'static [bool] {
        match self {
            Self::Plain => &[false],
            Self::Gro => &[true],
            Self::Both => &[false, true],
        }
    }
}

fn main() -> Result<()> {
    broth_worker::run_if_asked();
    run(&Args::parse())
}

fn run(args: &Args) -> Result<()> {
    let profile = match (args.transport, args.srtp) {
        (Kind::Plain, _) => None,
        (Kind::Webrtc, Srtp::Gcm128) => Some(Profile::AeadAes128Gcm),
        (Kind::Webrtc, Srtp::Gcm256) => Some(Profile::AeadAes256Gcm),
        (Kind::Webrtc, Srtp::CmSha1) => Some(Profile::Aes128CmSha1_80),
    };
    let started = Instant::now();
    let mut worker = DrivenWorker::in_process(args.cpu)?;
    let ready = started.elapsed();
    pin_beside(args.cpu)?;
    match args.unrecorded {
        true => worker.create_router(ROUTER)?,
        false => worker.create_recorded_router(ROUTER)?,
    }
    let round_trip = time_transport(&mut worker)?;

    let senders: Vec<Client> = (0..args.producers)
        .map(|p| connect_producer(&mut worker, p, profile))
        .collect::<Result<_>>()?;
    let rss_before = load(&mut worker)?.rss_bytes;
    let viewers: Vec<Client> = (0..args.consumers)
        .map(|n| connect_viewer(args, &mut worker, n, profile))
        .collect::<Result<_>>()?;
    let rss_bytes = load(&mut worker)?.rss_bytes - rss_before;

    measure(args, &mut worker, &senders, &viewers)?;
    let setup = Setup {
        ready,
        round_trip,
        rss_bytes,
    };
    setup.print(args)?;
    Ok(())
}

/// Measures and reports one window for each way to receive.
fn measure(
    args: &Args,
    worker: &mut DrivenWorker,
    senders: &[Client],
    viewers: &[Client],
) -> Result<()> {
    let clock = Instant::now();
    let tally = Tally::default();
    let (samples, latencies) = mpsc::channel();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(viewers, clock, &tally, &samples));
        let mut bench = Bench {
            args,
            worker,
            source: Source::new(senders, clock)?,
            tally: &tally,
            latencies,
        };
        let result = bench.run(viewers);
        tally.is_over.store(true, Ordering::Relaxed);
        receiver
            .join()
            .map_err(|_| anyhow::anyhow!("the receiving thread panicked"))??;
        result
    })
}

/// What a window needs.
struct Bench<'b> {
    args: &'b Args,
    worker: &'b mut DrivenWorker,
    source: Source<'b>,
    tally: &'b Tally,
    latencies: Receiver<u32>,
}

impl Bench<'_> {
    fn run(&mut self, viewers: &[Client]) -> Result<()> {
        for &is_coalescing in self.args.receivers.windows() {
            set_coalescing(viewers, is_coalescing)?;
            let receivers = if is_coalescing { "UDP_GRO" } else { "plain" };
            let mut rate = self.args.rate;
            self.source.send(self.args, rate, Duration::from_secs(1))?;
            if let Some(load) = self.args.load {
                rate = self.find_rate(load)?;
            }
            let window = Duration::from_secs(self.args.seconds.into());
            let before = calibrate(self.args.cpu, self.args.size)?;
            let mut outcome = self.window(rate, window)?;
            let after = calibrate(self.args.cpu, self.args.size)?;
            pin_beside(self.args.cpu)?;
            outcome.calib_ns = (before + after) / 2.0;
            outcome.receivers = receivers;
            outcome.print(self.args)?;
        }
        Ok(())
    }

    /// Finds the rate at which the worker uses about `load` percent of its core.
    fn find_rate(&mut self, load: u32) -> Result<u32> {
        let mut rate = self.args.rate;
        for _ in 0..SEARCH_WINDOWS {
            let share = self.window(rate, SEARCH_WINDOW)?.share().max(0.1);
            // A busier worker spends less on each packet: the factor is a guess, to be repeated.
            let factor = (f64::from(load) / share).clamp(0.25, 3.0);
            rate = (f64::from(rate) * factor).max(1.0) as u32;
        }
        Ok(rate)
    }

    fn window(&mut self, rate: u32, window: Duration) -> Result<Outcome> {
        thread::sleep(SETTLE);
        let begin = load(self.worker)?;
        let begun = Instant::now();
        self.latencies.try_iter().for_each(drop);
        self.tally.forged.store(0, Ordering::Relaxed);
        self.tally.received.store(0, Ordering::Relaxed);
        self.tally.is_counting.store(true, Ordering::Relaxed);
        let sent = self.source.send(self.args, rate, window)?;
        let wall = begun.elapsed();
        let end = load(self.worker)?;
        thread::sleep(SETTLE);
        self.tally.is_counting.store(false, Ordering::Relaxed);
        let mut latencies_us: Vec<u32> = self.latencies.try_iter().collect();
        latencies_us.sort_unstable();
        let cpu_ms = end.cpu_user_ms + end.cpu_system_ms - begin.cpu_user_ms - begin.cpu_system_ms;
        Ok(Outcome {
            receivers: "",
            rate,
            cpu_ns: cpu_ms as f64 * 1e6,
            calib_ns: 0.0,
            wall,
            expected: sent * u64::from(self.args.consumers),
            received: self.tally.received.load(Ordering::Relaxed),
            forged: self.tally.forged.load(Ordering::Relaxed),
            calls: end.send_calls - begin.send_calls,
            loop_us_max: end.loop_us_max,
            latencies_us,
            drops: format!("{:?}", end.drops),
        })
    }
}

fn connect_viewer(
    args: &Args,
    worker: &mut DrivenWorker,
    n: u32,
    profile: Option<Profile>,
) -> Result<Client> {
    let transport = TransportId(VIEWERS_FROM + n);
    let peer = Client::connect(worker, ROUTER, transport, profile)?;
    widen(&peer)?;
    for p in 0..args.producers {
        let consumer = n * args.producers + p;
        let ids = Ids::router(ROUTER)
            .producer(ProducerId(p))
            .consumer(ConsumerId(consumer))
            .transport(transport);
        let kind = MediaKind::Video;
        worker.call(ids, Call::CreateConsumer(CreateConsumer { kind }))?;
        let rtp_parameters = vp8_parameters(1000 + 2 * consumer);
        worker.call(ids, Call::EnableConsumer(EnableConsumer { rtp_parameters }))?;
    }
    Ok(peer)
}

fn connect_producer(worker: &mut DrivenWorker, p: u32, profile: Option<Profile>) -> Result<Client> {
    let transport = TransportId(p);
    let peer = Client::connect(worker, ROUTER, transport, profile)?;
    let request = CreateProducer {
        kind: MediaKind::Video,
        rtp_parameters: vp8_parameters(send_ssrc(p)),
        rtp_mapping: identity_mapping(),
        paused: false,
    };
    let ids = Ids::router(ROUTER)
        .transport(transport)
        .producer(ProducerId(p));
    worker.call(ids, Call::CreateProducer(request))?;
    Ok(peer)
}

/// The SSRC of a producer; its RTX has the next one.
fn send_ssrc(p: u32) -> u32 {
    10 + 2 * p
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
