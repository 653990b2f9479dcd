//! Faults on purpose: how an application finds out what a worker's death costs its calls.
//!
//! [`Server::inject`](crate::Server::inject) does one of them to one worker. A death that follows
//! does not count against the worker's place, which is filled again at once however often that
//! happens, and no client is blamed for it. A [`Plan`] does that on a schedule and reports what
//! became of the rooms.

mod plan;
mod report;

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use broth_ipc::body::Misbehave;
use broth_ipc::{Call, Ids};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Error, Result};
use crate::lock;
use crate::server::Server;
use crate::supervisor::worker::Worker;
use crate::worker_channel::{ChannelFault, Requests};

pub use plan::{Order, Plan, Run};
pub use report::{Fate, Outcome, Report, RoomFate, Spread, Summary};

/// For how long after a fault a worker's death is taken for its effect.
const EFFECT_TIME: Duration = Duration::from_secs(10);

/// What can be done to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is killed (SIGKILL).
    Kill,
    /// It stands still (SIGSTOP) until the watchdog finds it, within a second.
    Stop,
    /// It aborts, as over a failed assertion (SIGABRT).
    Abort,
    /// It takes memory until it has so much more than before, gets no more, and aborts over that.
    /// Needs [`Settings::chaos`](crate::Settings::chaos).
    MemoryHog {
        /// How much more, in bytes.
        bytes: u64,
    },
    /// Each message between controller and worker takes longer. Media goes on; the watchdog takes
    /// a worker whose answers take more than 250 ms for one that stands still.
    SlowChannel {
        /// What each message waits, one after the other.
        delay: Duration,
        /// How long that goes on.
        duration: Duration,
    },
    /// Bytes that are no message. Either end gives up a channel on which they come, and the worker
    /// with it.
    Garbage(Direction),
    /// Nothing bad: another worker takes its place, as planned
    /// ([`Server::replace_worker`](crate::Server::replace_worker)).
    Replace,
    /// Nothing bad: its rooms are moved to the workers in other places, as planned
    /// ([`Room::move_to`](crate::Room::move_to)), one after the other.
    Move,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the controller.
    ToWorker,
    /// From the worker. Needs [`Settings::chaos`](crate::Settings::chaos).
    FromWorker,
}

impl Fault {
    /// Whether the worker must do it to itself, which only one that was told to obey does.
    fn needs_help(self) -> bool {
        matches!(
            self,
            Self::MemoryHog { .. } | Self::Garbage(Direction::FromWorker)
        )
    }

    /// Whether it ends a worker by itself.
    fn is_deadly(self) -> bool {
        !matches!(self, Self::SlowChannel { .. }) && !self.is_planned()
    }

    /// Whether it is what operators do to workers.
    fn is_planned(self) -> bool {
        matches!(self, Self::Replace | Self::Move)
    }

    /// How long it goes on.
    fn duration(self) -> Duration {
        match self {
            Self::SlowChannel { duration, .. } => duration,
            _ => Duration::ZERO,
        }
    }
}

/// What faults need of a worker.
#[derive(Default)]
pub(crate) struct Target {
    /// Names the process even if its id belongs to another by now; `None` if the kernel has no
    /// such descriptors.
    process: Option<OwnedFd>,
    /// Until when its death is taken for the effect of a fault.
    suffers_until: Mutex<Option<Instant>>,
}

impl Target {
    /// The process `pid`, which must not have been waited for.
    pub(crate) fn of(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Self {
            process: pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
            suffers_until: Mutex::default(),
        }
    }

    /// Whether its death now is the effect of a fault.
    pub(crate) fn suffers(&self) -> bool {
        lock(&self.suffers_until).is_some_and(|until| Instant::now() < until)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let failed = |error| Error::other(format!("cannot signal the worker: {error}"));
        let unsupported = || failed(rustix::io::Errno::NOSYS);
        let process = self.process.as_ref().ok_or_else(unsupported)?;
        pidfd_send_signal(process, signal).map_err(failed)
    }
}

/// Does `fault` to the worker in a place, which obeys if `is_obedient`.
pub(crate) async fn inject(
    server: &Server,
    worker: &Worker,
    fault: Fault,
    is_obedient: bool,
) -> Result<()> {
    match fault {
        Fault::Replace => server.replace_worker(worker.idx).await,
        Fault::Move => move_rooms(server, worker).await,
        _ => hurt(worker, fault, is_obedient).await,
    }
}

/// Moves its rooms to the workers in other places.
async fn move_rooms(server: &Server, worker: &Worker) -> Result<()> {
    let others = server.workers().into_iter().map(|other| other.idx);
    // Not to those of the quarantine.
    let is_place = |idx: &usize| *idx != worker.idx && *idx < server.places();
    let others: Vec<_> = others.filter(is_place).collect();
    if others.is_empty() {
        return Err(Error::InvalidState(
            "there is no other worker to move rooms to: have two at least".into(),
        ));
    }
    for (room, idx) in worker.rooms.list().into_iter().zip(others.iter().cycle()) {
        room.move_to(*idx).await?;
    }
    Ok(())
}

async fn hurt(worker: &Worker, fault: Fault, is_obedient: bool) -> Result<()> {
    if fault.needs_help() && !is_obedient {
        return Err(Error::InvalidState(format!(
            "{fault:?} needs a worker that obeys: set Settings::chaos"
        )));
    }
    // Before it happens, as its effect may come sooner than the next line.
    let until = Instant::now() + fault.duration() + EFFECT_TIME;
    lock(&worker.target.suffers_until).replace(until);
    match fault {
        Fault::Kill => worker.target.signal(Signal::KILL),
        Fault::Stop => worker.target.signal(Signal::STOP),
        Fault::Abort => worker.target.signal(Signal::ABORT),
        Fault::SlowChannel { delay, duration } => {
            let until = Instant::now() + duration;
            worker.channel.disturb(ChannelFault::Slow { delay, until })
        }
        Fault::Garbage(Direction::ToWorker) => worker.channel.disturb(ChannelFault::Garbage),
        Fault::Garbage(Direction::FromWorker) => ask(worker, Misbehave::Garbage).await,
        Fault::MemoryHog { bytes } => ask(worker, Misbehave::Hog { bytes }).await,
        // Nothing is hurt by these.
        Fault::Replace | Fault::Move => Ok(()),
    }
}

async fn ask(worker: &Worker, misbehave: Misbehave) -> Result<()> {
    let call = Call::Misbehave(misbehave);
    match worker.channel.request(Ids::NONE, call, vec![]).await {
        // It may have died over it already.
        Ok(_) | Err(Error::ChannelClosed) => Ok(()),
        Err(error) => Err(error),
    }
}
