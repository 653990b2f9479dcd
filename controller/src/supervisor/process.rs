//! A child process: waited for and signalled by its one owner, so that never a stranger is hit.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

/// Sends a signal; one that has ended gets none.
pub(crate) fn signal(child: &Child, signal: Signal) {
    // The id stays taken until `child` has been waited for, and then it is `None`.
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Waits until it has ended. Cancel safe.
pub(crate) async fn ended(child: &mut Child) -> ExitStatus {
    // Fails only if somebody else waited for our child; then how it ended is not known.
    child.wait().await.unwrap_or_default()
}

/// Whether somebody has stopped it (SIGSTOP, or a debugger).
pub(crate) fn is_stopped(child: &Child) -> bool {
    let usage = child.id().and_then(Usage::of);
    usage.is_some_and(|usage| matches!(usage.state, 'T' | 't'))
}

/// What a process does, and how much it has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// `R` when it runs or could, `S` when it waits, `T` when somebody stopped it: proc(5).
    pub(crate) state: char,
    /// CPU time it has used.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// As the kernel has it now; `None` if there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        /// Fields between the state and the user time.
        const BETWEEN: usize = 10;
        /// Unit of times that the kernel tells: 10 ms on every architecture of Linux.
        const TICK: Duration = Duration::from_millis(10);
        // The state comes behind the name, which may hold anything, in parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let mut fields = fields.skip(BETWEEN);
        let user: u32 = fields.next()?.parse().ok()?;
        let system: u32 = fields.next()?.parse().ok()?;
        Some(Self {
            state,
            cpu: TICK * user.saturating_add(system),
        })
    }
}

/// How a process ended, for people.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_name() {
        let stat = "42 (a) R (b) 9) S 1 42 42 0 -1 4194560 5 0 0 0 120 30 0 0 20 0 1 0 77 8 9";
        let usage = Usage {
            state: 'S',
            cpu: Duration::from_millis(1500),
        };
        assert_eq!(Usage::parse(stat), Some(usage));
        for broken in [
            "",
            "42 (a)",
            "42 (a) S 1 2 3",
            "42 (a) S 1 2 3 4 5 6 7 8 9 10 x 3",
        ] {
            assert_eq!(Usage::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn this_process_runs() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(matches!(usage.state, 'R' | 'S'), "{usage:?}");
    }
}
