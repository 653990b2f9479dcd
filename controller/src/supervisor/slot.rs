//! One worker's place: starts a worker, watches it, and starts another when it dies or when another
//! is to take its place (`succession`).

use std::convert::Infallible;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broth_ipc::body::{Empty, Hello, Ready, WorkerSettings};
use broth_ipc::{Call, Event, Ids, PROTOCOL, V2_PAYLOAD_BYTES_MAX};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::inquest::{Death, Finding, Inquest};
use super::output::{self, LastWords};
use super::policy::{Decision, Policy};
use super::process::{describe, ended, is_stopped, signal};
use super::spawn::{Spawner, WorkerSpec};
use super::watchdog;
use super::worker::{Rooms, Stage, Worker, WorkerKind};
use crate::chaos::Target;
use crate::crash::Dead;
use crate::error::{Error, Result};
use crate::lock;
use crate::memory::BlackBox;
use crate::room::{CloseReason, Room};
use crate::worker_channel::{ChannelEnd, Command, Requests, WorkerChannel};

/// How long a worker may take from its start to being ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a worker may take to end when asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a worker may take to close its rooms before it is asked to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the channel of a worker that is gone may take to end. Nothing but a controller that
/// gets no CPU delays it.
const WORDS_LEFT_TIME: Duration = Duration::from_secs(5);

/// How long a worker that closed its channel may take to end by itself, which tells how it ended.
const END_TIME: Duration = Duration::from_millis(200);

/// How long a worker that spins may take to say where it is.
const ABORT_TIME: Duration = Duration::from_millis(250);

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
    Ready {
        pid: u32,
    },
    Died {
        reason: String,
        gave_up: bool,
    },
    /// A worker died over this room, which waits for another one: better elsewhere.
    Isolate(Room),
}

/// Who is told what happens in the place.
pub(crate) type Tell = Arc<dyn Fn(SlotEvent) + Send + Sync>;

/// One worker's place.
pub(crate) struct Slot {
    pub(crate) idx: usize,
    id: String,
    spec: Mutex<WorkerSpec>,
    /// With the certificate of the server's first worker, unless there was one before: all others
    /// are to be recognised by clients.
    hello: Arc<Mutex<Hello>>,
    /// Why the original worker cannot serve here.
    original_refusal: Option<&'static str>,
    /// Whether another worker is ready to take over.
    has_standby: bool,
    /// What becomes of deaths.
    inquest: Inquest,
    /// It is for a room over which a worker died.
    is_quarantine: bool,
    /// Log settings changed since, for every worker to come.
    settings: Mutex<WorkerSettings>,
    /// The rooms of whichever worker is here.
    pub(crate) rooms: Arc<Rooms>,
    status: watch::Sender<Status>,
    /// Process id of the standby, while one is ready.
    standby_pid: Mutex<Option<u32>>,
    is_stopped: watch::Sender<bool>,
    successors: mpsc::UnboundedSender<Successor>,
    /// Taken by [`Self::run`].
    succession: Mutex<Option<mpsc::UnboundedReceiver<Successor>>>,
}

/// A worker that is to take the place of the one that is there.
pub(super) struct Successor {
    pub(super) started: Started,
    /// Told once it has.
    pub(super) entered: oneshot::Sender<Entered>,
}

/// A worker has taken a place.
pub(super) struct Entered {
    /// The one that was there, which still has its rooms.
    pub(super) old: Option<Arc<Worker>>,
    pub(super) new: Arc<Worker>,
}

/// A worker that is ready.
pub(super) struct Started {
    pub(super) kind: WorkerKind,
    pub(super) recorder_version: u32,
    /// Of its package, as it says.
    version: String,
    spec: WorkerSpec,
    black_box: BlackBox,
    child: Child,
    channel: WorkerChannel,
    channel_end: JoinHandle<ChannelEnd>,
    words: LastWords,
}

/// How a worker ended.
pub(super) struct End {
    code: Option<i32>,
    /// For how long it was ready, if ever.
    served: Option<Duration>,
    /// It says nothing about the next worker.
    is_excused: bool,
    pub(super) reason: String,
}

/// What a worker says of itself.
struct Greeting {
    kind: WorkerKind,
    recorder_version: u32,
    version: String,
}

/// Why a worker is not the place's any more.
enum Change {
    Ended(End),
    Succeeded(Box<Successor>),
}

impl Slot {
    /// An empty place.
    pub(crate) fn new(
        idx: usize,
        id: String,
        spec: WorkerSpec,
        hello: Arc<Mutex<Hello>>,
        original_refusal: Option<&'static str>,
        has_standby: bool,
        inquest: Inquest,
    ) -> Self {
        let (successors, succession) = mpsc::unbounded_channel();
        Self {
            idx,
            id,
            spec: Mutex::new(spec),
            hello,
            original_refusal,
            has_standby,
            inquest,
            is_quarantine: false,
            settings: Mutex::default(),
            rooms: Arc::default(),
            status: watch::Sender::new(Status::Starting),
            standby_pid: Mutex::default(),
            is_stopped: watch::Sender::new(false),
            successors,
            succession: Mutex::new(Some(succession)),
        }
    }

    /// Another empty place, on the same CPU, for one of its rooms.
    pub(crate) fn quarantine(&self, idx: usize) -> Self {
        let name = self.id.split('#').next().unwrap_or_default();
        let id = format!("{name}#{}", idx + 1);
        let mut spec = self.spec();
        if let Some(first) = spec.args.first_mut() {
            first.clone_from(&id);
        }
        let hello = Arc::clone(&self.hello);
        let (refusal, inquest) = (self.original_refusal, self.inquest.clone());
        Self {
            is_quarantine: true,
            settings: Mutex::new(lock(&self.settings).clone()),
            ..Self::new(idx, id, spec, hello, refusal, false, inquest)
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

    /// What the next worker is started as.
    pub(super) fn spec(&self) -> WorkerSpec {
        lock(&self.spec).clone()
    }

    /// Lets all workers to come be started as that.
    pub(super) fn set_spec(&self, spec: WorkerSpec) {
        *lock(&self.spec) = spec;
    }

    /// Lets another worker take the place; `None` if nobody fills it any more.
    pub(super) async fn enter_successor(&self, started: Started) -> Option<Entered> {
        let (entered, has_entered) = oneshot::channel();
        let successor = Successor { started, entered };
        self.successors.send(successor).ok()?;
        has_entered.await.ok()
    }

    /// Keeps the place filled until it is stopped or hopeless.
    pub(crate) async fn run(self: &Arc<Self>, spawner: Spawner, tell: Tell) {
        let Some(mut succession) = lock(&self.succession).take() else {
            return;
        };
        let mut policy = Policy::default();
        let mut is_stopped = self.is_stopped.subscribe();
        // A room waits for a quarantine worker before there is one.
        let mut lost_at = self.is_quarantine.then(Instant::now);
        let mut standby = None;
        let mut next: Option<Successor> = None;
        // Those that others took the place of.
        let mut retiring: Vec<JoinHandle<End>> = Vec::new();
        loop {
            let old = self.worker();
            let (started, entered) = next.take().map_or((None, None), |successor| {
                (Some(successor.started), Some(successor.entered))
            });
            let started = match started {
                Some(started) => Ok(started),
                None => self.take_or_start(&spawner, &mut standby).await,
            };
            let end = match started {
                Err(end) => end,
                Ok(started) => {
                    let (new, mut life) = self.enter(started, &tell);
                    if let Some(entered) = entered {
                        // Whoever wanted it may have lost interest: then it just stays.
                        let _ = entered.send(Entered { old, new });
                    }
                    match self
                        .change(&spawner, &mut life, &mut standby, &mut succession)
                        .await
                    {
                        Change::Ended(end) => end,
                        Change::Succeeded(successor) => {
                            next = Some(*successor);
                            retiring.retain(|life| !life.is_finished());
                            retiring.push(life);
                            continue;
                        }
                    }
                }
            };
            if *is_stopped.borrow_and_update() {
                break;
            }
            if end.served.is_some() {
                lost_at = Some(Instant::now());
            }
            let decision = match end.is_excused {
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
                    .give_up(&CloseReason::WorkerDied(end.reason.clone()));
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
                successor = succession.recv() => next = successor,
                _ = is_stopped.changed() => break,
            }
        }
        if let Some(standby) = standby {
            standby.dismiss().await;
        }
        for life in retiring {
            // A task that panicked has said so.
            let _ = life.await;
        }
    }

    /// The standby, if there is one of the right kind, else another worker.
    async fn take_or_start(
        &self,
        spawner: &Spawner,
        standby: &mut Option<Started>,
    ) -> Result<Started, End> {
        *lock(&self.standby_pid) = None;
        match standby.take().filter(|standby| self.is_usable(standby)) {
            Some(standby) => Ok(standby),
            None => self.start(spawner, self.spec()).await,
        }
    }

    fn is_usable(&self, standby: &Started) -> bool {
        !standby.channel.is_closed() && standby.spec.edition == lock(&self.spec).edition
    }

    /// Waits until the worker in the place ends or another is to take its place. A standby is kept
    /// behind it.
    async fn change(
        &self,
        spawner: &Spawner,
        life: &mut JoinHandle<End>,
        standby: &mut Option<Started>,
        succession: &mut mpsc::UnboundedReceiver<Successor>,
    ) -> Change {
        let restores = |worker: Arc<Worker>| worker.kind == WORKER_THAT_RESTORES;
        let wants_standby = self.has_standby && self.worker().is_some_and(restores);
        let keep_warm = async {
            if wants_standby {
                self.keep_warm(spawner, standby).await;
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            end = life => Change::Ended(end.unwrap_or_else(|error| End::unready(error.to_string()))),
            // The sender is here.
            Some(successor) = succession.recv() => Change::Succeeded(Box::new(successor)),
            never = keep_warm => match never {},
        }
    }

    /// Makes sure that there is a standby, until there is no hope of one.
    async fn keep_warm(&self, spawner: &Spawner, standby: &mut Option<Started>) {
        let mut policy = Policy::default();
        loop {
            let mut end = None;
            if let Some(ready) = standby.as_mut().filter(|standby| self.is_usable(standby)) {
                let since = Instant::now();
                let _ = (&mut ready.channel_end).await;
                end = Some(End {
                    served: Some(since.elapsed()),
                    ..End::unready("the standby's channel ended".into())
                });
            }
            *lock(&self.standby_pid) = None;
            if let Some(stale) = standby.take() {
                stale.dismiss().await;
            }
            if end.is_none() {
                match self.start(spawner, self.spec()).await {
                    Ok(started) => {
                        *lock(&self.standby_pid) = started.child.id();
                        *standby = Some(started);
                    }
                    Err(failed) => end = Some(failed),
                }
            }
            let Some(end) = end else { continue };
            tracing::error!(worker = self.id, end.reason, "no standby");
            match policy.handle_death(end.code, end.served) {
                Decision::Spawn(wait) => sleep(wait).await,
                Decision::GiveUp => return,
            }
        }
    }

    /// Starts a worker and waits until it is ready.
    pub(super) async fn start(&self, spawner: &Spawner, spec: WorkerSpec) -> Result<Started, End> {
        let bin = spec.bin.display();
        let failed =
            |what: &str, error: std::io::Error| End::unready(format!("{what} {bin}: {error}"));
        let black_box = BlackBox::create();
        let black_box = black_box.map_err(|error| failed("no black box for", error))?;
        let spawned = spawner.spawn(spec.clone()).await;
        let spawned = spawned.map_err(|error| failed("cannot start", error))?;
        let words = output::log(&self.id, spawned.stdout, spawned.stderr);
        let mut child = spawned.child;
        let (heard, said) = (Arc::clone(&self.rooms), words.clone());
        let started = WorkerChannel::start(spawned.channel, move |told| match &told.event {
            Event::Log { level, message } => said.note(&format!("{level}: {message}")),
            _ => heard.handle(told),
        });
        let (channel, mut channel_end) = match started {
            Ok(started) => started,
            Err(error) => {
                signal(&child, Signal::SIGKILL);
                ended(&mut child).await;
                return Err(failed("no channel to", error));
            }
        };
        let greeted = tokio::select! {
            greeted = self.greet(&channel, spec.cpu, &black_box) => greeted,
            _ = &mut channel_end => Err(format!("not ready: {}", Error::ChannelClosed)),
            () = self.stopped() => Err("stopped".into()),
        };
        match greeted {
            Ok(greeting) => Ok(Started {
                kind: greeting.kind,
                recorder_version: greeting.recorder_version,
                version: greeting.version,
                spec,
                black_box,
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
                    ..End::unready(format!("{complaint} ({})", epitaph(status, &words)))
                })
            }
        }
    }

    /// Lets a worker that is ready take the place and its rooms. Its life goes on by itself.
    fn enter(self: &Arc<Self>, started: Started, tell: &Tell) -> (Arc<Worker>, JoinHandle<End>) {
        let Started {
            kind,
            recorder_version,
            version,
            spec,
            black_box,
            child,
            channel,
            channel_end,
            words,
        } = started;
        let pid = child.id().unwrap_or_default();
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
        let body = Body {
            child,
            channel_end,
            black_box,
            words,
            dead,
        };
        let (slot, served, tell) = (Arc::clone(self), Arc::clone(&worker), Arc::clone(tell));
        let life = async move { slot.serve(&served, body, &tell).await };
        (worker, tokio::spawn(life))
    }

    /// A worker's life in the place.
    async fn serve(&self, worker: &Arc<Worker>, mut body: Body, tell: &Tell) -> End {
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
            self.inquest
                .report(body.dead, served, death, finding, words);
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

    /// Finds out what kind of worker the other end is: the original one does not know `hello`.
    /// One of ours must be pinned where it should be.
    ///
    /// Hands over its black box.
    async fn greet(
        &self,
        channel: &WorkerChannel,
        cpu: usize,
        black_box: &BlackBox,
    ) -> Result<Greeting, String> {
        let answer = match self.say_hello(channel, Some(black_box)).await? {
            Err(Error::Refused(refusal)) if refusal.reason == UNKNOWN_METHOD => {
                channel.limit_payloads(V2_PAYLOAD_BYTES_MAX);
                return match self.original_refusal {
                    Some(refusal) => Err(refusal.into()),
                    None => Ok(Greeting {
                        kind: WorkerKind::V2,
                        recorder_version: 0,
                        version: "mediasoup v2".into(),
                    }),
                };
            }
            answer => answer.map_err(|error| format!("not ready: {error}"))?,
        };
        let ready: Ready = crate::parsed(answer).map_err(|error| error.to_string())?;
        if ready.protocol != PROTOCOL {
            return Err(format!(
                "it speaks protocol {}, not {PROTOCOL}",
                ready.protocol
            ));
        }
        if ready.cpus != [cpu] {
            return Err(format!("pinned to {:?}, not {cpu}", ready.cpus));
        }
        if let Some(made) = ready.dtls {
            let is_first = *lock(&self.hello).dtls.get_or_insert_with(|| made.clone()) == made;
            if !is_first {
                // Another one was first meanwhile: with its certificate, then.
                let answer = self.say_hello(channel, None).await?;
                answer.map_err(|error| format!("not ready: {error}"))?;
            }
        }
        let restores = ready.restores;
        Ok(Greeting {
            kind: WorkerKind::Broth { restores },
            recorder_version: ready.recorder_version,
            version: ready.version,
        })
    }

    async fn say_hello(
        &self,
        channel: &WorkerChannel,
        black_box: Option<&BlackBox>,
    ) -> Result<Result<Value>, String> {
        let fd = black_box.map(BlackBox::try_clone_fd).transpose();
        let fd = fd.map_err(|error| format!("no black box: {error}"))?;
        let mut hello = lock(&self.hello).clone();
        hello.black_box = fd.is_some();
        let hello = channel.request(Ids::NONE, Call::Hello(hello), fd.into_iter().collect());
        let answer = timeout(READY_TIMEOUT, hello).await;
        answer.map_err(|_| "not ready in time".to_owned())
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

    async fn stopped(&self) {
        // Fails only if the sender is gone, which is here.
        let _ = self
            .is_stopped
            .subscribe()
            .wait_for(|is_stopped| *is_stopped)
            .await;
    }
}

/// The process of a worker, and what is left of it.
struct Body {
    child: Child,
    channel_end: JoinHandle<ChannelEnd>,
    black_box: BlackBox,
    words: LastWords,
    dead: Dead,
}

impl Started {
    /// Ends one that has no rooms.
    pub(super) async fn dismiss(mut self) {
        signal(&self.child, Signal::SIGTERM);
        end(&mut self.child, STOP_TIMEOUT).await;
    }
}

impl End {
    /// Of a worker that never was ready.
    fn unready(reason: String) -> Self {
        Self {
            code: None,
            served: None,
            is_excused: false,
            reason,
        }
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
