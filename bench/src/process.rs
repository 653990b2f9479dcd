//! What the kernel says of a process and its CPU: time, memory, softirqs, datagrams that found no
//! room in a socket.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// CPU time of a process, or of part of its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// All of it, as the scheduler counts it.
    pub(crate) all: Duration,
    /// In user mode, in the kernel's ticks.
    pub(crate) user: Duration,
    /// In the kernel, in its ticks.
    pub(crate) system: Duration,
}

impl CpuTime {
    /// What a process has used so far.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        let stat = stat.with_context(|| format!("its process {pid} is gone"))?;
        let (user, system) = user_and_system(&stat).context("/proc/PID/stat")?;
        let mut ns = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            let on_cpu = schedstat.split_whitespace().next();
            ns += on_cpu.context("schedstat")?.parse::<u64>()?;
        }
        Ok(Self {
            all: Duration::from_nanos(ns),
            user: ticks(user)?,
            system: ticks(system)?,
        })
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            all: self.all.saturating_sub(before.all),
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

fn ticks(count: u64) -> Result<Duration> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("ticks per second")?;
    Ok(Duration::from_secs_f64(count as f64 / per_second as f64))
}

/// `utime` and `stime` of `/proc/PID/stat`; the name before them may hold anything.
fn user_and_system(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Resident memory of a process.
pub(crate) fn rss_bytes(pid: u32) -> Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = statm.split_whitespace().nth(1).context("/proc/PID/statm")?;
    let page = sysconf(SysconfVar::PAGE_SIZE)?.context("size of a page")?;
    Ok(pages.parse::<u64>()? * page as u64)
}

/// Pins all threads of a process to a CPU.
pub(crate) fn pin(pid: u32, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.file_name().to_string_lossy().parse()?;
        sched_setaffinity(Pid::from_raw(task), &cpus)?;
    }
    Ok(())
}

/// Time a CPU has spent in softirqs that the kernel counts to no process; `None` if it does not
/// say.
pub(crate) fn softirq_time(cpu: usize) -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    ticks(softirq_ticks(&stat, cpu)?).ok()
}

fn softirq_ticks(stat: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    line.split_whitespace().nth(6)?.parse().ok()
}

/// Datagrams that found no room in the sockets of these ports, since they were opened.
pub(crate) fn dropped_at(ports: &HashSet<u16>) -> Result<u64> {
    Ok(drops(&fs::read_to_string("/proc/net/udp")?, ports))
}

fn drops(table: &str, ports: &HashSet<u16>) -> u64 {
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, port) = fields.nth(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        ports
            .contains(&port)
            .then(|| fields.last()?.parse::<u64>().ok())?
    };
    table.lines().skip(1).filter_map(of_line).sum::<u64>()
}

/// The machine's load average over one minute, as text; empty if it is not known.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 1 0 9 9 9";
        assert_eq!(user_and_system(stat), Some((123, 45)));
        assert_eq!(user_and_system("7 (a"), None);
    }

    #[test]
    fn softirqs_are_those_of_the_cpu() {
        let stat = "cpu  9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8\ncpu1 1 2 3 4 5 6 70 8\n";
        assert_eq!(softirq_ticks(stat, 0), Some(7));
        assert_eq!(softirq_ticks(stat, 1), Some(70));
        assert_eq!(softirq_ticks(stat, 2), None);
    }

    #[test]
    fn drops_are_those_of_the_ports() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt \
                     uid timeout inode ref pointer drops\n   \
                     1: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 0 0 \
                     5 2 0000 17\n   \
                     2: 0100007F:9C41 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 0 0 \
                     6 2 0000 4\n";
        assert_eq!(drops(table, &HashSet::from([0x9C40, 1])), 17);
        assert_eq!(drops(table, &HashSet::from([0x9C40, 0x9C41])), 21);
        assert_eq!(drops(table, &HashSet::new()), 0);
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id();
        assert!(CpuTime::of(pid).unwrap().all > Duration::ZERO);
        assert!(rss_bytes(pid).unwrap() > 0);
    }
}
