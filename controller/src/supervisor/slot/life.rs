//! From a worker's being ready to its end.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use broth_ipc::body::{Empty, WorkerSettings};
use broth_ipc::{Call, Ids};
use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::birth::{Body, Started};
use super::{Slot, SlotEvent, Status, Tell, WORKER_THAT_RESTORES};
use crate::chaos::Target;
use crate::crash::Dead;
use crate::lock;
use crate::room::CloseReason;
use crate::supervisor::inquest::{Death, Finding};
use crate::supervisor::output::LastWords;
use crate::supervisor::process::{describe, ended, is_stopped, signal};
use crate::supervisor::watchdog;
use crate::supervisor::worker::{Stage, Worker};
use crate::worker_channel::{Command, Requests};

/// How long a worker may take to end when asked to.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a worker may take to close its rooms before it is asked to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the channel of a worker that is gone may take to end. Nothing but a controller that
/// gets no CPU delays it.
const WORDS_LEFT_TIME: Duration = Duration::from_secs(5);

/// How long a worker that closed its channel may take to end by itself, which tells how it ended.
pub(super) const END_TIME: Duration = Duration::from_millis(200);

/// How long a worker that spins may take to say where it is.
const ABORT_TIME: Duration = Duration::from_millis(250);

/// How long the last words of a worker may take to arrive.
pub(super) const WORDS_TIME: Duration = Duration::from_millis(50);

/// How a worker ended.
pub(in crate::supervisor) struct End {
    pub(super) code: Option<i32>,
    /// For how long it was ready, if ever.
    pub(super) served: Option<Duration>,
    /// It says nothing about the next worker.
    pub(super) is_excused: bool,
    pub(in crate::supervisor) reason: String,
}

impl Slot {
    /// Lets a worker that is ready take the place and its rooms. Its life goes on by itself.
    pub(super) fn enter(
        self: &Arc<Self>,
        started: Started,
        tell: &Tell,
    ) -> (Arc<Worker>, JoinHandle<End>) {
        let Started {
            kind,
            recorder_version,
            version,
            spec,
            channel,
            body,
        } = started;
        let pid = body.child.id().unwrap_or_default();
        let worker = Arc::new(Worker {
            idx: self.idx,
            id: self.id.clone(),
            kind,
            pid,
            cpu: spec.cpu,
            channel,
            rooms: Arc::clone(&self.rooms),
            load: Default::default(),
            target: Target::of(pid),
            ready_at: std::time::Instant::now(),
            recorder_version,
            stage: watch::Sender::default(),
        });
        let settings = lock(&self.settings).clone();
        if settings != WorkerSettings::default() {
            worker
                .channel
                .send(Ids::NONE, Call::UpdateSettings(settings));
        }
        self.rooms.enter(&worker);
        // Whoever hears of it can use it at once.
        self.status.send_replace(Status::Ready(Arc::clone(&worker)));
        tell(SlotEvent::Ready { pid });
        let dead = Dead {
            idx: self.idx,
            id: self.id.clone(),
            pid,
            cpu: spec.cpu,
            bin: spec.bin,
            version,
        };
        let (slot, served, tell) = (Arc::clone(self), Arc::clone(&worker), Arc::clone(tell));
        let life = async move { slot.serve(&served, body, dead, &tell).await };
        (worker, tokio::spawn(life))
    }

    /// A worker's life in the place.
    async fn serve(&self, worker: &Arc<Worker>, mut body: Body, dead: Dead, tell: &Tell) -> End {
        let (death, unanswered) = self.watch(&mut body, worker).await;
        let (status, words) = (death.status, body.words);
        let is_stopped = *self.is_stopped.borrow();
        let goes_on = worker.kind == WORKER_THAT_RESTORES && !is_stopped;
        let was_injected = worker.target.suffers();
        let is_retired = *worker.stage.borrow() != Stage::Serving;
        let is_on_purpose = is_stopped || was_injected || is_retired;
        let mut finding = Finding::default();
        if goes_on {
            let isolate = |room| tell(SlotEvent::Isolate(room));
            let blame = || {
                if !is_on_purpose {
                    finding = self.inquest.hold(&death, worker, isolate);
                }
            };
            self.rooms
                .lose(worker, &describe(status), unanswered, blame);
        }
        let served = Some(worker.ready_at.elapsed());
        let is_excused = was_injected || finding.is_settled();
        if !is_on_purpose {
            let words = words.clone();
            self.inquest.report(dead, served, death, finding, words);
        }
        if !goes_on && status.signal() != Some(Signal::SIGKILL as i32) {
            // It may have said why, on its way through the pipe.
            sleep(WORDS_TIME).await;
        }
        let reason = epitaph(status, &words);
        let was_here = self.status.send_if_modified(|status| {
            let is_here = matches!(status, Status::Ready(here) if here.is(worker));
            if is_here {
                *status = Status::Dead(reason.clone());
            }
            is_here
        });
        if !goes_on {
            self.rooms.close(&CloseReason::WorkerDied(reason.clone()));
        }
        if worker.stage.send_replace(Stage::Ended) == Stage::Serving && !was_here {
            tracing::error!(worker = worker.id, reason, "died while it was replaced");
        }
        End {
            code: status.code(),
            served,
            is_excused,
            reason,
        }
    }

    /// Waits for the worker's end, which a lost channel or a wish to stop brings about.
    async fn watch(&self, body: &mut Body, worker: &Worker) -> (Death, Vec<Command>) {
        let Body {
            child,
            channel_end,
            black_box,
            ..
        } = body;
        let (mut stood_still, mut was_stopped) = (false, false);
        let status = tokio::select! {
            status = ended(child) => status,
            left = &mut *channel_end => {
                let left = left.unwrap_or_default();
                let patience = match left.given_up {
                    // It would take its controller for gone and say goodbye to the clients.
                    Some(_) => Duration::ZERO,
                    None => END_TIME,
                };
                let status = end(child, patience).await;
                let death = Death::new(status, false, false, Some(black_box));
                return (death, left.unanswered);
            }
            () = self.stopped() => {
                // Rooms it still has when it is told to end would wait for another worker.
                let closed = worker.channel.request(Ids::NONE, Call::GetLoad(Empty {}), vec![]);
                let _ = timeout(CLOSE_TIMEOUT, closed).await;
                signal(child, Signal::SIGTERM);
                end(child, STOP_TIMEOUT).await
            }
            () = worker.reached(Stage::Retiring) => {
                signal(child, Signal::SIGTERM);
                end(child, STOP_TIMEOUT).await
            }
            is_starved = watchdog::watch(worker) => {
                stood_still = true;
                // Neither is its own doing.
                was_stopped = is_starved || is_stopped(child);
                tracing::error!(worker = worker.id, was_stopped, "stands still, is killed");
                let patience = match was_stopped {
                    true => Duration::ZERO,
                    false => {
                        signal(child, Signal::SIGABRT);
                        ABORT_TIME
                    }
                };
                end(child, patience).await
            }
        };
        // What it said last is still on its way, however slowly it was made to go; then its end of
        // the channel is closed.
        worker.channel.hurry();
        let left = timeout(WORDS_LEFT_TIME, channel_end).await;
        let left = left.map(Result::unwrap_or_default).unwrap_or_default();
        let death = Death::new(status, stood_still, was_stopped, Some(black_box));
        (death, left.unanswered)
    }
}

impl End {
    /// Of a worker that never was ready.
    pub(super) fn unready(reason: String) -> Self {
        Self {
            code: None,
            served: None,
            is_excused: false,
            reason,
        }
    }
}

/// Waits for a process to end, and ends it after `patience`.
pub(super) async fn end(child: &mut Child, patience: Duration) -> ExitStatus {
    if let Ok(status) = timeout(patience, ended(child)).await {
        return status;
    }
    signal(child, Signal::SIGKILL);
    ended(child).await
}

pub(super) fn epitaph(status: ExitStatus, words: &LastWords) -> String {
    let words = words.get();
    match (describe(status), words.is_empty()) {
        (how, true) => how,
        (how, false) => format!("{how}: {words}"),
    }
}
