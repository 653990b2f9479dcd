//! Over what a worker died, and what follows for those it was done for. Pure.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use broth_ipc::TransportId;
use nix::sys::signal::Signal;

/// So many deaths within the window are no accident.
pub(crate) const DEATHS_MAX: u32 = 2;

/// A worker's exit status after a panic that is not an abort.
const EXIT_PANICKED: i32 = 101;

/// Whether a process ended over what it did. Who is ended by somebody else (SIGKILL, also for want
/// of memory, or SIGTERM) did nothing.
pub(crate) fn is_own_doing(status: ExitStatus) -> bool {
    let signal = status.signal().map(Signal::try_from);
    let is_crash = matches!(
        signal,
        Some(Ok(Signal::SIGSEGV
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGILL
            | Signal::SIGFPE
            | Signal::SIGSYS
            | Signal::SIGTRAP))
    );
    is_crash || status.code() == Some(EXIT_PANICKED)
}

/// Who in a room a worker died over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Suspect {
    /// The room itself.
    Room,
    /// A transport that nobody has.
    Transport(TransportId),
    /// The peer of a transport, who may make another one at any time.
    Peer(String),
}

/// Over whom workers died.
#[derive(Debug, Default)]
pub(crate) struct Blame(HashMap<Suspect, Vec<Instant>>);

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may have been an accident: the room goes on where it touches nobody else.
    Isolate,
    /// It is closed.
    Close,
}

impl Blame {
    /// A worker died over this at `now`; returns how often that happened within `window`, and what
    /// follows.
    pub(crate) fn implicate(
        &mut self,
        suspect: Suspect,
        now: Instant,
        window: Duration,
    ) -> (u32, Verdict) {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < window;
        self.0.retain(|_, deaths| {
            deaths.retain(is_recent);
            !deaths.is_empty()
        });
        let deaths = self.0.entry(suspect).or_default();
        deaths.push(now);
        let count = u32::try_from(deaths.len()).unwrap_or(u32::MAX);
        let verdict = match count < DEATHS_MAX {
            true => Verdict::Isolate,
            false => Verdict::Close,
        };
        (count, verdict)
    }

    /// When the last of the deaths was that are remembered.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.0.values().flatten().max().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Close, Isolate};

    const WINDOW: Duration = Duration::from_secs(600);

    #[test]
    fn the_second_death_over_the_same_within_ten_minutes_closes_it() {
        let (a, b) = (
            &Suspect::Peer("a".into()),
            &Suspect::Transport(TransportId(2)),
        );
        let room = &Suspect::Room;
        type Death<'s> = (u64, &'s Suspect, u32, Verdict);
        let rows: [&[Death<'_>]; 5] = [
            &[(0, a, 1, Isolate), (1, a, 2, Close), (2, a, 3, Close)],
            &[
                (0, a, 1, Isolate),
                (1, b, 1, Isolate),
                (2, room, 1, Isolate),
            ],
            &[
                (0, a, 1, Isolate),
                (1, b, 1, Isolate),
                (2, b, 2, Close),
                (3, a, 2, Close),
            ],
            &[(0, room, 1, Isolate), (599, room, 2, Close)],
            &[
                (0, a, 1, Isolate),
                (600, a, 1, Isolate),
                (1199, a, 2, Close),
            ],
        ];
        for deaths in rows {
            let (mut blame, start) = (Blame::default(), Instant::now());
            for &(seconds, suspect, count, verdict) in deaths {
                let now = start + Duration::from_secs(seconds);
                let outcome = blame.implicate(suspect.clone(), now, WINDOW);
                assert_eq!(outcome, (count, verdict), "{deaths:?} {seconds}");
            }
        }
    }

    #[test]
    fn what_is_long_over_is_forgotten() {
        let (mut blame, start) = (Blame::default(), Instant::now());
        for id in 0..100 {
            blame.implicate(Suspect::Transport(TransportId(id)), start, WINDOW);
        }
        assert_eq!(blame.last(), Some(start));
        blame.implicate(Suspect::Room, start + WINDOW, WINDOW);
        assert_eq!(blame.last(), Some(start + WINDOW));
        assert_eq!(blame.0.len(), 1);
    }

    #[test]
    fn only_what_a_worker_did_itself_implicates_anybody() {
        let rows = [
            (ExitStatus::from_raw(Signal::SIGSEGV as i32), true),
            (ExitStatus::from_raw(Signal::SIGABRT as i32 | 0x80), true),
            (ExitStatus::from_raw(Signal::SIGBUS as i32), true),
            (ExitStatus::from_raw(Signal::SIGFPE as i32), true),
            (ExitStatus::from_raw(Signal::SIGILL as i32), true),
            (ExitStatus::from_raw(101 << 8), true),
            (ExitStatus::from_raw(Signal::SIGKILL as i32), false),
            (ExitStatus::from_raw(Signal::SIGTERM as i32), false),
            (ExitStatus::from_raw(0), false),
            (ExitStatus::from_raw(1 << 8), false),
        ];
        for (status, expected) in rows {
            assert_eq!(is_own_doing(status), expected, "{status:?}");
        }
    }
}
