//! One window: traffic through one server for some seconds, and what it cost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::process::{CpuTime, softirq_time};
use crate::receive::{Counts, Hall};
use crate::servers::{Said, Server};
use crate::stats::percentile;

/// How long packets flow before they count.
const WARM_UP: Duration = Duration::from_millis(700);
/// How often a server is asked for its load.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// How many viewers who joined for a while are there at once.
const GUESTS: usize = 5;

/// What a window gave.
pub(crate) struct Outcome {
    /// Packets per second of each producer.
    pub(crate) rate: u32,
    /// CPU time of the server until its last packet arrived.
    pub(crate) cpu: CpuTime,
    /// Its share of the core while packets were sent, 0…1.
    pub(crate) share: f64,
    /// The share of the core's time that was spent in softirqs and counted to nobody, 0…1.
    pub(crate) softirq_share: Option<f64>,
    /// The yardstick, around the window; set by who measures it.
    pub(crate) calib_ns: f64,
    /// Packets the viewers should have got.
    pub(crate) expected: u64,
    /// What they got.
    pub(crate) counts: Counts,
    /// Packets that found no room in the viewers' sockets: the load's fault.
    pub(crate) dropped_by_load: u64,
    /// What the server said, of this window alone.
    pub(crate) said: Option<Said>,
    /// Sampled latencies in microseconds, sorted.
    pub(crate) latencies_us: Vec<u32>,
}

impl Outcome {
    /// CPU time of one forwarded packet.
    pub(crate) fn ns_per_packet(&self) -> f64 {
        let arrived = self.counts.viewers + self.counts.guests;
        self.cpu.all.as_nanos() as f64 / arrived.max(1) as f64
    }

    /// The same in calib units.
    pub(crate) fn calib_units(&self) -> f64 {
        self.ns_per_packet() / self.calib_ns
    }

    /// The share of packets that did not arrive, 0…1.
    pub(crate) fn loss(&self) -> f64 {
        let lost = self.expected.saturating_sub(self.counts.viewers);
        lost as f64 / self.expected.max(1) as f64
    }

    /// A percentile of the latency.
    pub(crate) fn latency_ms(&self, permille: usize) -> f64 {
        f64::from(percentile(&self.latencies_us, permille)) / 1e3
    }
}

/// Sends `rate` packets per second and producer through a server and measures.
pub(crate) fn measure(
    server: &Server<'_>,
    hall: &Hall,
    latencies: &Receiver<u32>,
    cpu: usize,
    rate: u32,
    length: Duration,
) -> Result<Outcome> {
    server.send(rate, WARM_UP)?;
    hall.settle();
    let seats = server.seats();
    let dropped_before = hall.dropped(&seats)?;
    latencies.try_iter().for_each(drop);
    hall.start_counting();
    let softirq_before = softirq_time(cpu);
    let before = CpuTime::of(server.pid)?;
    let begin = Instant::now();
    let (sent, said) = send(server, rate, length)?;
    let sending = begin.elapsed();
    let while_sending = CpuTime::of(server.pid)?.since(before);
    let softirq = softirq_time(cpu)
        .zip(softirq_before)
        .map(|(after, before)| after - before);
    hall.settle();
    let used = CpuTime::of(server.pid)?.since(before);
    let counts = hall.stop_counting();
    let mut latencies_us: Vec<u32> = latencies.try_iter().collect();
    latencies_us.sort_unstable();
    Ok(Outcome {
        rate,
        cpu: used,
        share: while_sending.all.div_duration_f64(sending),
        softirq_share: softirq.map(|softirq| softirq.div_duration_f64(sending)),
        calib_ns: 0.0,
        expected: sent * u64::from(server.plan.fan_out()),
        counts,
        dropped_by_load: hall.dropped(&seats)? - dropped_before,
        said,
        latencies_us,
    })
}

/// Sends, while others come and go if they are to, and the server is asked how it is.
fn send(server: &Server<'_>, rate: u32, length: Duration) -> Result<(u64, Option<Said>)> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let listener = scope.spawn(|| listen(server, &is_over));
        let crowd = scope.spawn(|| match server.has_guests() {
            true => come_and_go(server, &is_over),
            false => Ok(()),
        });
        let sent = server.send(rate, length);
        is_over.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow!("a thread panicked");
        crowd.join().map_err(panicked)??;
        let said = listener.join().map_err(panicked)??;
        Ok((sent?, said))
    })
}

/// Collects what the server says until it is over: counts since the beginning, the longest of all
/// turns.
fn listen(server: &Server<'_>, is_over: &AtomicBool) -> Result<Option<Said>> {
    let Some(first) = server.ask()? else {
        return Ok(None);
    };
    let mut said = first;
    let mut turn_us_max = 0;
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(ASK_INTERVAL);
        if let Some(now) = server.ask()? {
            // What it had to say already was about the time before.
            if now.packets != first.packets {
                turn_us_max = turn_us_max.max(now.turn_us_max);
            }
            said = now;
        }
    }
    Ok(Some(Said {
        packets: said.packets - first.packets,
        calls: said.calls - first.calls,
        dropped: said.dropped - first.dropped,
        turn_us_max,
    }))
}

/// Lets viewers join, so many per second, and leave a little later.
fn come_and_go(server: &Server<'_>, is_over: &AtomicBool) -> Result<()> {
    let per_second = server.plan.churn;
    if per_second == 0 {
        return Ok(());
    }
    let mut guests = VecDeque::new();
    let mut due = Instant::now();
    loop {
        due += Duration::from_secs(1) / per_second;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        guests.push_back(server.admit_guest()?);
        if guests.len() > GUESTS
            && let Some(guest) = guests.pop_front()
        {
            server.dismiss(&guest)?;
        }
    }
    guests.iter().try_for_each(|guest| server.dismiss(guest))
}
