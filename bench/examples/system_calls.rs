//! Which system calls a worker makes while it forwards bursts of ten packets to fifty viewers, as
//! `strace` sees them. `scripts/syscalls` installs what it needs.

use std::cmp::Reverse;
use std::fs;
use std::io::{self, Write};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use broth_client::burst::Burst;
use broth_client::peer::Peer;
use broth_client::rtp::vp8_packet;
use broth_client::worker::DrivenWorker;
use broth_ipc::{ConsumerId, Ids, ProducerId, RouterId, TransportId};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtp::FIXED_HEADER_LEN;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ROUTER: RouterId = RouterId(1);
const PROFILE: Profile = Profile::AeadAes128Gcm;
const SENDER: TransportId = TransportId(1);
const PRODUCER: ProducerId = ProducerId(1);
const SSRC: u32 = 10;
const VIEWERS: u32 = 50;
const BURSTS: u64 = 300;
const PACKETS: u64 = 10;
const PACKET_BYTES: usize = 1200;
const INTERVAL: Duration = Duration::from_millis(33);
/// Time to attach, and for what is under way.
const SETTLE: Duration = Duration::from_secs(1);
/// Calls of one kind per forwarded packet that reports and timers account for.
const RARE: f64 = 0.01;

fn main() -> Result<()> {
    broth_worker::run_if_asked();
    let mut worker = DrivenWorker::in_process(0)?;
    worker.create_recorded_router(ROUTER)?;
    let sender = connect_sender(&mut worker)?;
    let viewers: Vec<Peer> = (0..VIEWERS)
        .map(|n| connect_viewer(&mut worker, 100 + n))
        .collect::<Result<_>>()?;
    send_burst(&sender, 0)?;
    thread::sleep(SETTLE);

    let summary = std::env::temp_dir().join(format!("broth-syscalls-{}", std::process::id()));
    let mut strace = Command::new("strace")
        .args(["-q", "-c", "-f", "-p"])
        .arg(worker.pid().context("it is a process")?.to_string())
        .arg("-o")
        .arg(&summary)
        .spawn()
        .context("starting strace")?;
    thread::sleep(SETTLE);
    for burst in 1..=BURSTS {
        send_burst(&sender, burst)?;
        thread::sleep(INTERVAL);
    }
    kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT)?;
    strace.wait()?;
    let table = fs::read_to_string(&summary)?;
    fs::remove_file(&summary)?;
    drop(viewers);
    tell(&calls(&table))
}

/// How often each system call was made, the most frequent one first.
fn calls(table: &str) -> Vec<(&str, u64)> {
    let rows = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let count = columns.get(3)?.parse().ok()?;
        let name = columns.last().filter(|name| **name != "total")?;
        Some((*name, count))
    });
    let mut calls: Vec<(&str, u64)> = rows.collect();
    calls.sort_unstable_by_key(|(_, count)| Reverse(*count));
    calls
}

fn tell(calls: &[(&str, u64)]) -> Result<()> {
    let mut out = io::stdout().lock();
    let packets = BURSTS * PACKETS * u64::from(VIEWERS);
    writeln!(
        out,
        "{BURSTS} bursts of {PACKETS} packets to {VIEWERS} viewers"
    )?;
    writeln!(out, "   calls  per burst  per packet  system call")?;
    for &(name, count) in calls {
        let per_burst = count as f64 / BURSTS as f64;
        let per_packet = count as f64 / packets as f64;
        writeln!(out, "{count:8}  {per_burst:9.2}  {per_packet:10.5}  {name}")?;
    }
    let count = |wanted| calls.iter().find(|(name, _)| *name == wanted);
    let received = count("recvmmsg").map_or(0, |(_, count)| *count);
    ensure!(
        (1..=BURSTS).contains(&received),
        "not one call to receive a burst"
    );
    for (name, count) in calls {
        let is_expected = matches!(
            *name,
            "epoll_pwait2" | "epoll_wait" | "recvmmsg" | "sendmmsg"
        );
        let is_rare = *count as f64 / (packets as f64) < RARE;
        ensure!(is_expected || is_rare, "{name} is called too often");
    }
    Ok(())
}

fn connect_sender(worker: &mut DrivenWorker) -> Result<Peer> {
    let peer = Peer::connect(worker, ROUTER, SENDER, PROFILE)?;
    let ids = Ids::router(ROUTER).transport(SENDER).producer(PRODUCER);
    worker.produce_vp8(ids, SSRC)?;
    Ok(peer)
}

fn connect_viewer(worker: &mut DrivenWorker, id: u32) -> Result<Peer> {
    let peer = Peer::connect(worker, ROUTER, TransportId(id), PROFILE)?;
    let ids = Ids::router(ROUTER)
        .transport(peer.transport)
        .producer(PRODUCER)
        .consumer(ConsumerId(id));
    worker.consume_vp8(ids, 1000 + 2 * id)?;
    Ok(peer)
}

/// The packets of one frame, handed to the kernel at once; the first frame is a key frame.
fn send_burst(sender: &Peer, frame: u64) -> Result<()> {
    let mut burst = Burst::default();
    for n in 0..PACKETS {
        let is_start = n == 0;
        let mut packet = [0; 1500];
        let len = vp8_packet(
            &mut packet,
            SSRC,
            (frame * PACKETS + n) as u16,
            (frame * 3000) as u32,
            is_start && frame == 0,
            is_start,
            PACKET_BYTES - FIXED_HEADER_LEN,
        );
        let len = sender.seal(0, &mut packet, FIXED_HEADER_LEN, len)?;
        burst.push(&packet[..len]);
    }
    burst.send(&sender.socket, sender.socket.peer_addr()?)?;
    Ok(())
}
