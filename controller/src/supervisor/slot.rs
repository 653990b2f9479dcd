//! One worker's place: starts a worker (`birth`), watches it (`life`), and starts another when it
//! dies or when another is to take its place (`succession`).

mod birth;
mod life;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broth_ipc::body::{Hello, WorkerSettings};
use broth_ipc::{Call, Ids};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub(super) use self::birth::Started;
use self::life::End;
use super::inquest::Inquest;
use super::policy::{Decision, Policy};
use super::spawn::{Spawner, WorkerSpec};
use super::worker::{Rooms, Worker, WorkerKind};
use crate::error::Result;
use crate::lock;
use crate::room::{CloseReason, Room};
use crate::worker_channel::Requests;

/// The kind of worker whose rooms go on in the next.
const WORKER_THAT_RESTORES: WorkerKind = WorkerKind::Broth { restores: true };

/// How long rooms wait for another worker to go on with them.
const RECOVERY_TIME: Duration = Duration::from_secs(5);

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

    /// Keeps a standby, until there is no hope of one.
    async fn keep_warm(&self, spawner: &Spawner, standby: &mut Option<Started>) {
        let mut policy = Policy::default();
        loop {
            let end = self.warm_once(spawner, standby).await;
            *lock(&self.standby_pid) = None;
            tracing::error!(worker = self.id, end.reason, "no standby");
            match policy.handle_death(end.code, end.served) {
                Decision::Spawn(wait) => sleep(wait).await,
                Decision::GiveUp => return,
            }
        }
    }

    /// Makes sure that there is a standby and waits for its end.
    async fn warm_once(&self, spawner: &Spawner, standby: &mut Option<Started>) -> End {
        let ready = match standby.take() {
            Some(ready) if self.is_usable(&ready) => ready,
            stale => {
                if let Some(stale) = stale {
                    stale.dismiss().await;
                }
                match self.start(spawner, self.spec()).await {
                    Ok(started) => started,
                    Err(failed) => return failed,
                }
            }
        };
        *lock(&self.standby_pid) = ready.body.child.id();
        let (ready, since) = (standby.insert(ready), Instant::now());
        // However it ended, it is gone.
        let _ = (&mut ready.body.channel_end).await;
        End {
            served: Some(since.elapsed()),
            ..End::unready("the standby's channel ended".into())
        }
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
