//! What a run says in the end.

use std::io::{self, Write};
use std::time::Duration;

use crate::Args;

/// What a window gave.
pub(crate) struct Outcome {
    /// How the viewers receive.
    pub(crate) receivers: &'static str,
    /// Packets per second of the producer.
    pub(crate) rate: u32,
    /// CPU time of the worker.
    pub(crate) cpu_ns: f64,
    /// The yardstick, around the window.
    pub(crate) calib_ns: f64,
    /// Length of the window.
    pub(crate) wall: Duration,
    /// Packets the viewers should have got.
    pub(crate) expected: u64,
    /// Packets they got.
    pub(crate) received: u64,
    /// Sampled packets that did not open.
    pub(crate) forged: u64,
    /// System calls that sent.
    pub(crate) calls: u64,
    /// Longest turn of the worker's loop.
    pub(crate) loop_us_max: u64,
    /// Sampled latencies, sorted.
    pub(crate) latencies_us: Vec<u32>,
    /// Packets the worker dropped, by reason.
    pub(crate) drops: String,
}

/// What does not depend on the window.
pub(crate) struct Setup {
    /// From start to the answer to the first request.
    pub(crate) ready: Duration,
    /// Median of `createWebRtcTransport`.
    pub(crate) round_trip: Duration,
    /// What the consumers and their transports added to the worker's RSS.
    pub(crate) rss_bytes: u64,
}

impl Outcome {
    /// The worker's share of a core, in percent.
    pub(crate) fn share(&self) -> f64 {
        self.cpu_ns / self.wall.as_nanos() as f64 * 100.0
    }

    fn percentile_ms(&self, p: usize) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let at = (self.latencies_us.len() * p / 100).min(last);
        f64::from(self.latencies_us.get(at).copied().unwrap_or(0)) / 1000.0
    }

    pub(crate) fn print(&self, args: &Args) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let ns = self.cpu_ns / self.received.max(1) as f64;
        writeln!(
            out,
            "{} x {} at {} packets/s of {} bytes in bursts of {}, {} s, {} receivers",
            args.producers,
            args.consumers,
            self.rate,
            args.size,
            args.burst,
            args.seconds,
            self.receivers
        )?;
        writeln!(out, "  CPU per forwarded packet   {ns:>9.0} ns")?;
        writeln!(
            out,
            "  calib unit                 {:>9.0} ns",
            self.calib_ns
        )?;
        writeln!(
            out,
            "  ratio                      {:>9.2}",
            ns / self.calib_ns
        )?;
        writeln!(out, "  worker's share of a core   {:>9.1} %", self.share())?;
        writeln!(
            out,
            "  loss                       {:>9.3} %  ({} of {})",
            100.0 * (1.0 - self.received as f64 / self.expected as f64),
            self.expected.saturating_sub(self.received),
            self.expected
        )?;
        if self.forged > 0 {
            writeln!(out, "  DID NOT OPEN               {:>9}", self.forged)?;
        }
        writeln!(
            out,
            "  packets per send call      {:>9.1}",
            self.received as f64 / self.calls.max(1) as f64
        )?;
        writeln!(
            out,
            "  latency p50 / p99          {:>6.2} / {:.2} ms",
            self.percentile_ms(50),
            self.percentile_ms(99)
        )?;
        writeln!(
            out,
            "  longest turn of the loop   {:>9.2} ms",
            self.loop_us_max as f64 / 1e3
        )?;
        writeln!(out, "  drops                      {}", self.drops)
    }
}

impl Setup {
    pub(crate) fn print(&self, args: &Args) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "RSS per consumer             {:>9.1} KiB, with its share of a transport",
            self.rss_bytes as f64 / 1024.0 / f64::from(args.producers * args.consumers)
        )?;
        writeln!(
            out,
            "worker start to ready        {:>9.1} ms",
            self.ready.as_secs_f64() * 1e3
        )?;
        writeln!(
            out,
            "createWebRtcTransport        {:>9.3} ms",
            self.round_trip.as_secs_f64() * 1e3
        )
    }
}
