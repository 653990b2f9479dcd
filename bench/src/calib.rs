//! The yardstick: CPU time of one loopback datagram on the worker's CPU.

use std::net::UdpSocket;

use anyhow::Result;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

/// Datagrams of one calibration.
const DATAGRAMS: u32 = 100_000;

/// CPU ns of one datagram of `size` bytes sent to and read from a loopback socket on `cpu`.
pub(crate) fn calibrate(cpu: usize, size: usize) -> Result<f64> {
    let own = sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let a = UdpSocket::bind("127.0.0.1:0")?;
    let b = UdpSocket::bind("127.0.0.1:0")?;
    let to = b.local_addr()?;
    let datagram = vec![0; size];
    let mut buffer = vec![0; 2048];
    let begin = thread_cpu_ns()?;
    for _ in 0..DATAGRAMS {
        a.send_to(&datagram, to)?;
        b.recv(&mut buffer)?;
    }
    let took = thread_cpu_ns()? - begin;
    sched_setaffinity(Pid::from_raw(0), &own)?;
    Ok(took / f64::from(DATAGRAMS))
}

/// Keeps this process off the worker's CPU, if there is another.
pub(crate) fn pin_beside(cpu: usize) -> Result<()> {
    let mut cpus = sched_getaffinity(Pid::from_raw(0))?;
    let others = (0..CpuSet::count()).filter(|&c| c != cpu && cpus.is_set(c).unwrap_or(false));
    if others.count() > 0 {
        cpus.unset(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
    }
    Ok(())
}

fn thread_cpu_ns() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let ns = |time: TimeVal| time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3;
    Ok(ns(usage.user_time()) + ns(usage.system_time()))
}
