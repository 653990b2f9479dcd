//! What the worker costs: CPU time, memory, and how long its loop takes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use broth_ipc::body::Load;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

/// Memory of the process, in pages.
const STATM: &str = "/proc/self/statm";

/// Measures the event loop between two questions.
#[derive(Debug)]
pub struct LoadMeter {
    /// `/proc/self/statm`: one call reads it, four open and close it.
    statm: Option<File>,
    since: Instant,
    busy: Duration,
    turn_max: Duration,
}

impl LoadMeter {
    /// Begins to measure.
    pub fn new(now: Instant) -> Self {
        Self {
            statm: File::open(STATM).ok(),
            since: now,
            busy: Duration::ZERO,
            turn_max: Duration::ZERO,
        }
    }

    /// Counts one turn of the loop, without its sleep.
    pub fn add_turn(&mut self, took: Duration) {
        self.busy += took;
        self.turn_max = self.turn_max.max(took);
    }

    /// What the worker cost; begins a new interval for the loop.
    pub fn take(&mut self) -> Load {
        let now = Instant::now();
        let interval = now.duration_since(self.since).as_secs_f64();
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let load = Load {
            cpu_user_ms: usage.map_or(0, |usage| millis(usage.user_time())),
            cpu_system_ms: usage.map_or(0, |usage| millis(usage.system_time())),
            busy: if interval > 0.0 {
                (self.busy.as_secs_f64() / interval).min(1.0)
            } else {
                0.0
            },
            loop_us_max: u64::try_from(self.turn_max.as_micros()).unwrap_or(u64::MAX),
            rss_bytes: self.rss_bytes().unwrap_or(0),
            ..Load::default()
        };
        self.since = now;
        self.busy = Duration::ZERO;
        self.turn_max = Duration::ZERO;
        load
    }

    fn rss_bytes(&self) -> Option<u64> {
        statm_bytes(self.statm.as_ref()?, 1)
    }
}

/// The CPUs this process may run on.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect()
}

fn millis(time: TimeVal) -> u64 {
    u64::try_from(time.tv_sec() * 1000 + time.tv_usec() / 1000).unwrap_or(0)
}

/// What the process has mapped.
pub(crate) fn mapped_bytes() -> Option<u64> {
    statm_bytes(&File::open(STATM).ok()?, 0)
}

/// A column of `/proc/self/statm`, in pages; page size is 4 KiB on every machine we run on.
fn statm_bytes(statm: &File, column: usize) -> Option<u64> {
    let mut text = [0; 128];
    let len = statm.read_at(&mut text, 0).ok()?;
    let text = str::from_utf8(&text[..len]).ok()?;
    let pages: u64 = text.split_whitespace().nth(column)?.parse().ok()?;
    Some(pages * 4096)
}
