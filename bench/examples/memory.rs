//! What a worker's objects take of its memory, as it grows by many of one kind; with `--soak
//! SECONDS`, whether it stays as it is while media flows and viewers come and go.
//!
//! `cargo run --release -p broth-bench --example memory -- [--count N] [--soak SECONDS]`

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use broth_client::client::PlainPeer;
use broth_client::peer::Peer;
use broth_client::rtp::vp8_packet;
use broth_client::worker::DrivenWorker;
use broth_ipc::body::{Empty, WebRtcTransportOptions};
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, RouterId, TransportId};
use broth_worker::srtp::Profile;
use clap::Parser;

const ROUTER: RouterId = RouterId(1);
const PROFILE: Profile = Profile::AeadAes128Gcm;
const SENDER: TransportId = TransportId(1);
const PRODUCER: ProducerId = ProducerId(1);
/// The sender's SSRC.
const SSRC: u32 = 10;
/// Viewers at a time in a soak.
const VIEWERS: usize = 20;
/// Packets of a frame, bytes of one, and between two frames: 300 packets/s.
const BURST: u16 = 10;
const PACKET_BYTES: usize = 1200;
const FRAME_INTERVAL: Duration = Duration::from_millis(33);
/// In a soak, between one viewer's going and the next one's, and between two lines.
const CHANGE_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Measures a worker's memory.
#[derive(Parser)]
struct Args {
    /// Objects of each kind.
    #[arg(long, default_value_t = 500)]
    count: u32,
    /// Seconds of media and of viewers that come and go, instead.
    #[arg(long)]
    soak: Option<u64>,
}

fn main() -> Result<()> {
    broth_worker::run_if_asked();
    let args = Args::parse();
    let mut worker = DrivenWorker::in_process(0)?;
    worker.create_recorded_router(ROUTER)?;
    match args.soak {
        Some(seconds) => soak(&mut worker, Duration::from_secs(seconds)),
        None => measure(&mut worker, args.count),
    }
}

/// Creates many objects of one kind after the other.
fn measure(worker: &mut DrivenWorker, count: u32) -> Result<()> {
    let mut sender = Sender::connect(worker)?;
    // Whatever is allocated once is there before anything is counted.
    let first = Viewer::connect(worker, 0)?;
    for _ in 0..3 {
        sender.send_frame()?;
    }
    thread::sleep(FRAME_INTERVAL);
    let mut gauge = Gauge {
        before: rss(worker)?,
        count,
    };

    for n in 0..count {
        let ids = Ids::router(ROUTER).transport(TransportId(10_000 + n));
        let options = WebRtcTransportOptions::default();
        worker.call(ids, Call::CreateWebRtcTransport(options))?;
    }
    gauge.tell(worker, "WebRTC transport, not connected")?;

    let peers: Vec<Peer> = (0..count)
        .map(|n| Peer::connect(worker, ROUTER, TransportId(20_000 + n), PROFILE))
        .collect::<Result<_>>()?;
    gauge.tell(worker, "WebRTC transport, connected")?;

    for (n, peer) in (0..).zip(&peers) {
        consume(worker, peer.transport, 20_000 + n)?;
    }
    gauge.tell(worker, "consumer of a producer that is silent")?;

    peers.iter().try_for_each(Peer::keep_alive)?;
    sender.peer.keep_alive()?;
    sender.send_frame()?;
    thread::sleep(10 * FRAME_INTERVAL);
    gauge.tell(worker, "the same consumer, after its first packets")?;

    for _ in 0..3 * 30 {
        sender.send_frame()?;
        thread::sleep(FRAME_INTERVAL);
    }
    gauge.tell(worker, "the same consumer, after three seconds")?;

    for n in 0..count {
        let ids = Ids::router(ROUTER).consumer(ConsumerId(20_000 + n));
        worker.call(ids, Call::PauseConsumer(Empty {}))?;
    }
    gauge.tell(worker, "the same consumer, paused")?;

    let plain: Vec<PlainPeer> = (0..count)
        .map(|n| PlainPeer::connect(worker, ROUTER, TransportId(30_000 + n)))
        .collect::<Result<_>>()?;
    gauge.tell(worker, "plain RTP transport")?;
    drop((first, peers, plain));
    Ok(())
}

/// What the worker took when it was last looked at.
struct Gauge {
    before: u64,
    count: u32,
}

impl Gauge {
    fn tell(&mut self, worker: &mut DrivenWorker, what: &str) -> Result<()> {
        let now = rss(worker)?;
        let grown = now as f64 - self.before as f64;
        let each = grown / 1024.0 / f64::from(self.count);
        writeln!(io::stdout(), "{each:7.1} KiB  {what}")?;
        self.before = now;
        Ok(())
    }
}

/// Media for [`VIEWERS`] viewers, of whom the longest there goes every now and then and another
/// comes.
fn soak(worker: &mut DrivenWorker, time: Duration) -> Result<()> {
    let mut sender = Sender::connect(worker)?;
    let mut viewers = VecDeque::new();
    let mut joined = 0;
    let begun = Instant::now();
    let mut changed_at = begun;
    let mut told_at = begun;
    while begun.elapsed() < time {
        sender.send_frame()?;
        if changed_at.elapsed() >= CHANGE_INTERVAL {
            changed_at = Instant::now();
            if viewers.len() == VIEWERS {
                let gone: Option<Viewer> = viewers.pop_front();
                gone.context("there are viewers")?.leave(worker)?;
            }
            viewers.push_back(Viewer::connect(worker, joined)?);
            joined += 1;
            sender.peer.keep_alive()?;
        }
        if told_at.elapsed() >= LINE_INTERVAL {
            told_at = Instant::now();
            let load = worker.load()?;
            writeln!(
                io::stdout(),
                "{:5} s  {:7} KiB  {joined} joined, {} datagrams sent",
                begun.elapsed().as_secs(),
                load.rss_bytes / 1024,
                load.datagrams_sent
            )?;
        }
        worker.notes.clear();
        thread::sleep(FRAME_INTERVAL);
    }
    Ok(())
}

/// Who sends.
struct Sender {
    peer: Peer,
    seq: u64,
}

impl Sender {
    fn connect(worker: &mut DrivenWorker) -> Result<Self> {
        let peer = Peer::connect(worker, ROUTER, SENDER, PROFILE)?;
        let ids = Ids::router(ROUTER).transport(SENDER).producer(PRODUCER);
        worker.produce_vp8(ids, SSRC)?;
        Ok(Self { peer, seq: 0 })
    }

    /// Sends a key frame, so that every viewer can begin with it.
    fn send_frame(&mut self) -> Result<()> {
        let frame = self.seq / u64::from(BURST);
        for n in 0..BURST {
            let mut packet = [0; 1500];
            let is_start = n == 0;
            let len = vp8_packet(
                &mut packet,
                SSRC,
                self.seq as u16,
                (frame * 3000) as u32,
                is_start,
                is_start,
                PACKET_BYTES,
            );
            let roc = (self.seq >> 16) as u32;
            self.peer.send_rtp(roc, &mut packet, len)?;
            self.seq += 1;
        }
        Ok(())
    }
}

/// Who receives. Nothing is read: what its socket has no room for is lost.
struct Viewer {
    peer: Peer,
}

impl Viewer {
    fn connect(worker: &mut DrivenWorker, n: u32) -> Result<Self> {
        let id = 1000 + n;
        let peer = Peer::connect(worker, ROUTER, TransportId(id), PROFILE)?;
        consume(worker, peer.transport, id)?;
        Ok(Self { peer })
    }

    /// As the controller closes who left.
    fn leave(self, worker: &mut DrivenWorker) -> Result<()> {
        let id = self.peer.transport;
        let ids = Ids::router(ROUTER);
        let consumer = ids.consumer(ConsumerId(id.0));
        worker.call(consumer, Call::CloseConsumer(Empty {}))?;
        worker.call(ids.transport(id), Call::CloseTransport(Empty {}))?;
        Ok(())
    }
}

fn consume(worker: &mut DrivenWorker, transport: TransportId, id: u32) -> Result<()> {
    let ids = Ids::router(ROUTER)
        .transport(transport)
        .producer(PRODUCER)
        .consumer(ConsumerId(id));
    worker.consume_vp8(ids, 2 * id)
}

fn rss(worker: &mut DrivenWorker) -> Result<u64> {
    Ok(worker.load()?.rss_bytes)
}
