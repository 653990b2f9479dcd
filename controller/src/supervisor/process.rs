//! A child process: waited for and signalled by its one owner, so that never a stranger is hit.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

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
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    // The state comes behind the name, which may hold anything, in parentheses.
    let stat = child.id().and_then(stat).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    matches!(state, Some('T' | 't'))
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
