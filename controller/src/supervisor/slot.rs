//! One worker's place: starts a worker, watches it, closes its rooms when it dies, starts another.

use std::convert::Infallible;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broth_ipc::body::{Empty, Hello, Ready, WorkerSettings};
use broth_ipc::{Call, Ids, V2_PAYLOAD_BYTES_MAX};
use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::output::{self, LastWords};
use super::policy::{Decision, Policy};
use super::process::{describe, ended, signal};
use super::spawn::{Spawner, WorkerSpec};
use super::watchdog;
use super::worker::{Rooms, Worker, WorkerKind};
use crate::chaos::Target;
use crate::error::{Error, Result};
use crate::lock;
use crate::room::CloseReason;
use crate::worker_channel::{ChannelEnd, Command, Requests, WorkerChannel};

/// How long a worker may take from its start to being ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a worker may take to end when asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a worker may take to close its rooms before it is asked to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a worker that closed its channel may take to end by itself, which tells how it ended.
const END_TIME: Duration = Duration::from_millis(200);

/// How long the last words of a worker may take to arrive.
const WORDS_TIME: Duration = Duration::from_millis(50);

/// The kind of worker whose rooms go on in the next.
const WORKER_THAT_RESTORES: WorkerKind = WorkerKind::Broth { restores: true };

/// How long rooms wait for another worker to go on with them.
const RECOVERY_TIME: Duration = Duration::from_secs(5);

/// How mediasoup v2's worker answers what it does not know.
const UNKNOWN_METHOD: &str = "unknown method";

/// What is in the place now.
#[derive(Clone)]
pub(crate) enum Status {
    Starting,
    Ready(Arc<Worker>),
    /// Another start follows.
    Dead(String),
    GaveUp(String),
}

/// What happens in the place.
pub(crate) enum SlotEvent {
    Ready { pid: u32 },
    Died { reason: String, gave_up: bool },
}

/// One worker's place.
pub(crate) struct Slot {
    pub(crate) idx: usize,
    id: String,
    spec: WorkerSpec,
    /// With the certificate of the first worker, unless there was one before: successors are to be
    /// recognised by clients.
    hello: Mutex<Hello>,
    /// Why the original worker cannot serve here.
    original_refusal: Option<&'static str>,
    /// Whether another worker is ready to take over.
    has_standby: bool,
    /// Log settings changed since, for every worker to come.
    settings: Mutex<WorkerSettings>,
    /// The rooms of whichever worker is here.
    pub(crate) rooms: Arc<Rooms>,
    status: watch::Sender<Status>,
    /// Process id of the standby, while one is ready.
    standby_pid: Mutex<Option<u32>>,
    is_stopped: watch::Sender<bool>,
}

/// A worker that is ready.
struct Started {
    kind: WorkerKind,
    child: Child,
    channel: WorkerChannel,
    channel_end: JoinHandle<ChannelEnd>,
    words: LastWords,
}

/// How a worker ended.
struct End {
    code: Option<i32>,
    /// For how long it was ready, if ever.
    served: Option<Duration>,
    /// The effect of a fault on purpose.
    was_injected: bool,
    reason: String,
}

impl Slot {
    /// An empty place.
    pub(crate) fn new(
        idx: usize,
        id: String,
        spec: WorkerSpec,
        hello: Hello,
        original_refusal: Option<&'static str>,
        has_standby: bool,
    ) -> Self {
        Self {
            idx,
            id,
            spec,
            hello: Mutex::new(hello),
            original_refusal,
            has_standby,
            settings: Mutex::default(),
            rooms: Arc::default(),
            status: watch::Sender::new(Status::Starting),
            standby_pid: Mutex::default(),
            is_stopped: watch::Sender::new(false),
        }
    }

    /// The worker in the place, if one is ready and not known to be lost.
    pub(crate) fn worker(&self) -> Option<Arc<Worker>> {
        match &*self.status.borrow() {
            // Its channel ends before its death is told.
            Status::Ready(worker) if worker.channel.is_closed() => None,
            Status::Ready(worker) => Some(Arc::clone(worker)),
            Status::Starting | Status::Dead(_) | Status::GaveUp(_) => None,
        }
    }

    /// Process id of the standby, if one is ready.
    pub(crate) fn standby_pid(&self) -> Option<u32> {
        *lock(&self.standby_pid)
    }

    /// Whether no worker will ever be here again.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(&*self.status.borrow(), Status::GaveUp(_))
    }

    /// Waits for the outcome of the first start.
    pub(crate) async fn started(&self) -> Result<(), String> {
        let mut status = self.status.subscribe();
        let outcome = status
            .wait_for(|status| !matches!(status, Status::Starting))
            .await;
        match outcome.as_deref() {
            Ok(Status::Dead(reason) | Status::GaveUp(reason)) => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// Changes the log settings of the worker in the place and of all that follow.
    pub(crate) async fn update_settings(&self, settings: WorkerSettings) -> Result<()> {
        {
            let mut kept = lock(&self.settings);
            if settings.log_level.is_some() {
                kept.log_level.clone_from(&settings.log_level);
            }
            if settings.log_tags.is_some() {
                kept.log_tags.clone_from(&settings.log_tags);
            }
        }
        let Some(worker) = self.worker() else {
            return Ok(());
        };
        let call = Call::UpdateSettings(settings);
        worker.channel.request(Ids::NONE, call, vec![]).await?;
        Ok(())
    }

    /// Asks the worker to end and starts no other.
    pub(crate) fn stop(&self) {
        self.is_stopped.send_replace(true);
    }

    /// Keeps the place filled until it is stopped or hopeless.
    pub(crate) async fn run(&self, spawner: Spawner, tell: impl Fn(SlotEvent)) {
        let mut policy = Policy::default();
        let mut is_stopped = self.is_stopped.subscribe();
        let mut lost_at = None;
        let mut standby = None;
        loop {
            let end = self.live(&spawner, &mut standby, &tell).await;
            if *is_stopped.borrow_and_update() {
                break;
            }
            if end.served.is_some() {
                lost_at = Some(Instant::now());
            }
            let decision = match end.was_injected {
                true => Decision::Spawn(Duration::ZERO),
                false => policy.handle_death(end.code, end.served),
            };
            let gave_up = decision == Decision::GiveUp;
            let is_late = lost_at.is_some_and(|at: Instant| at.elapsed() > RECOVERY_TIME);
            // A worker that serves and dies again and again may do so over one of its rooms.
            let is_hopeless = match decision {
                Decision::GiveUp => true,
                Decision::Spawn(wait) => !wait.is_zero() && (end.served.is_some() || is_late),
            };
            if is_hopeless {
                self.rooms
                    .close(&CloseReason::WorkerDied(end.reason.clone()));
            }
            self.status.send_replace(match gave_up {
                true => Status::GaveUp(end.reason.clone()),
                false => Status::Dead(end.reason.clone()),
            });
            tell(SlotEvent::Died {
                reason: end.reason,
                gave_up,
            });
            let Decision::Spawn(wait) = decision else {
                break;
            };
            tokio::select! {
                () = sleep(wait) => {}
                _ = is_stopped.changed() => break,
            }
        }
        if let Some(Started { mut child, .. }) = standby {
            signal(&child, Signal::SIGTERM);
            end(&mut child, STOP_TIMEOUT).await;
        }
    }

    /// One worker's life: the standby's, if there is one. Another standby is started behind it.
    async fn live(
        &self,
        spawner: &Spawner,
        standby: &mut Option<Started>,
        tell: &impl Fn(SlotEvent),
    ) -> End {
        *lock(&self.standby_pid) = None;
        let started = match standby
            .take()
            .filter(|standby| !standby.channel.is_closed())
        {
            Some(standby) => standby,
            None => match self.start(spawner).await {
                Ok(started) => started,
                Err(end) => return end,
            },
        };
        let wants_standby = self.has_standby && started.kind == WORKER_THAT_RESTORES;
        let warm_up = async {
            if wants_standby {
                match self.start(spawner).await {
                    Ok(started) => {
                        *lock(&self.standby_pid) = started.child.id();
                        *standby = Some(started);
                    }
                    Err(end) => tracing::error!(worker = self.id, end.reason, "no standby"),
                }
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            end = self.serve(started, tell) => end,
            never = warm_up => match never {},
        }
    }

    /// Starts a worker and waits until it is ready.
    async fn start(&self, spawner: &Spawner) -> Result<Started, End> {
        let failed = |what: &str, error: std::io::Error| End {
            code: None,
            served: None,
            was_injected: false,
            reason: format!("{what} {}: {error}", self.spec.bin.display()),
        };
        let spawned = spawner.spawn(self.spec.clone()).await;
        let spawned = spawned.map_err(|error| failed("cannot start", error))?;
        let words = output::log(&self.id, spawned.stdout, spawned.stderr);
        let mut child = spawned.child;
        let heard = Arc::clone(&self.rooms);
        let started = WorkerChannel::start(spawned.channel, move |event| heard.handle(event));
        let (channel, mut channel_end) = match started {
            Ok(started) => started,
            Err(error) => {
                signal(&child, Signal::SIGKILL);
                ended(&mut child).await;
                return Err(failed("no channel to", error));
            }
        };
        let greeted = tokio::select! {
            greeted = self.greet(&channel) => greeted,
            _ = &mut channel_end => Err(format!("not ready: {}", Error::ChannelClosed)),
            () = self.stopped() => Err("stopped".into()),
        };
        match greeted {
            Ok(kind) => Ok(Started {
                kind,
                child,
                channel,
                channel_end,
                words,
            }),
            Err(complaint) => {
                let status = end(&mut child, END_TIME).await;
                sleep(WORDS_TIME).await;
                Err(End {
                    code: status.code(),
                    served: None,
                    was_injected: false,
                    reason: format!("{complaint} ({})", epitaph(status, &words)),
                })
            }
        }
    }

    /// Lets a worker that is ready take rooms, until it ends.
    async fn serve(&self, started: Started, tell: &impl Fn(SlotEvent)) -> End {
        let Started {
            kind,
            mut child,
            channel,
            channel_end,
            words,
        } = started;
        let ready_at = Instant::now();
        let pid = child.id().unwrap_or_default();
        let worker = Arc::new(Worker {
            idx: self.idx,
            id: self.id.clone(),
            kind,
            pid,
            cpu: self.spec.cpu,
            channel,
            rooms: Arc::clone(&self.rooms),
            load: Default::default(),
            target: Target::of(pid),
        });
        let settings = lock(&self.settings).clone();
        if settings != WorkerSettings::default() {
            worker
                .channel
                .send(Ids::NONE, Call::UpdateSettings(settings));
        }
        self.rooms.recover(&worker);
        // Whoever hears of it can use it at once.
        self.status.send_replace(Status::Ready(Arc::clone(&worker)));
        tell(SlotEvent::Ready { pid: worker.pid });
        let (status, unanswered) = self.watch(&mut child, channel_end, &worker).await;
        let goes_on = kind == WORKER_THAT_RESTORES && !*self.is_stopped.borrow();
        if goes_on {
            self.rooms.lose(&describe(status), unanswered);
        }
        if !goes_on && status.signal() != Some(Signal::SIGKILL as i32) {
            // It may have said why, on its way through the pipe.
            sleep(WORDS_TIME).await;
        }
        let reason = epitaph(status, &words);
        self.status.send_replace(Status::Dead(reason.clone()));
        if !goes_on {
            self.rooms.close(&CloseReason::WorkerDied(reason.clone()));
        }
        End {
            code: status.code(),
            served: Some(ready_at.elapsed()),
            was_injected: worker.target.suffers(),
            reason,
        }
    }

    /// Finds out what kind of worker the other end is: the original one does not know `hello`.
    /// One of ours must be pinned where it should be.
    async fn greet(&self, channel: &WorkerChannel) -> Result<WorkerKind, String> {
        let hello = lock(&self.hello).clone();
        let hello = channel.request(Ids::NONE, Call::Hello(hello), vec![]);
        let answer = timeout(READY_TIMEOUT, hello).await;
        let answer = match answer.map_err(|_| "not ready in time".to_owned())? {
            Err(Error::Refused(refusal)) if refusal.reason == UNKNOWN_METHOD => {
                channel.limit_payloads(V2_PAYLOAD_BYTES_MAX);
                return match self.original_refusal {
                    Some(refusal) => Err(refusal.into()),
                    None => Ok(WorkerKind::V2),
                };
            }
            answer => answer.map_err(|error| format!("not ready: {error}"))?,
        };
        let ready: Ready = crate::parsed(answer).map_err(|error| error.to_string())?;
        if ready.cpus != [self.spec.cpu] {
            return Err(format!("pinned to {:?}, not {}", ready.cpus, self.spec.cpu));
        }
        if let Some(identity) = ready.dtls {
            lock(&self.hello).dtls.get_or_insert(identity);
        }
        let restores = ready.restores;
        Ok(WorkerKind::Broth { restores })
    }

    /// Waits for the worker's end, which a lost channel or a wish to stop brings about.
    async fn watch(
        &self,
        child: &mut Child,
        mut channel_end: JoinHandle<ChannelEnd>,
        worker: &Worker,
    ) -> (ExitStatus, Vec<Command>) {
        let status = tokio::select! {
            status = ended(child) => status,
            left = &mut channel_end => {
                let left = left.unwrap_or_default();
                let patience = match left.given_up {
                    // It would take its controller for gone and say goodbye to the clients.
                    Some(_) => Duration::ZERO,
                    None => END_TIME,
                };
                return (end(child, patience).await, left.unanswered);
            }
            () = self.stopped() => {
                // Rooms it still has when it is told to end would wait for another worker.
                let closed = worker.channel.request(Ids::NONE, Call::GetLoad(Empty {}), vec![]);
                let _ = timeout(CLOSE_TIMEOUT, closed).await;
                signal(child, Signal::SIGTERM);
                end(child, STOP_TIMEOUT).await
            }
            () = watchdog::watch(worker) => {
                tracing::error!(worker = worker.id, "stands still, is killed");
                end(child, Duration::ZERO).await
            }
        };
        // What it said last is still on its way; then its end of the channel is closed.
        let left = timeout(END_TIME, channel_end).await;
        let left = left.map(Result::unwrap_or_default).unwrap_or_default();
        (status, left.unanswered)
    }

    async fn stopped(&self) {
        // Fails only if the sender is gone, which is here.
        let _ = self
            .is_stopped
            .subscribe()
            .wait_for(|is_stopped| *is_stopped)
            .await;
    }
}

/// Waits for a process to end, and ends it after `patience`.
async fn end(child: &mut Child, patience: Duration) -> ExitStatus {
    if let Ok(status) = timeout(patience, ended(child)).await {
        return status;
    }
    signal(child, Signal::SIGKILL);
    ended(child).await
}

fn epitaph(status: ExitStatus, words: &LastWords) -> String {
    let words = words.get();
    match (describe(status), words.is_empty()) {
        (how, true) => how,
        (how, false) => format!("{how}: {words}"),
    }
}
