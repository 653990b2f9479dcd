//! The server: worker processes and the rooms in them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broth_ipc::body::{Hello, Load, WorkerDump, WorkerSettings};
use broth_ipc::{Call, Ids, PROTOCOL};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

use crate::chaos::{self, Fault};
use crate::error::{Error, Result};
use crate::events::{Emitter, EventStream, LONG_BACKLOG};
use crate::ortc::RoomMediaCodec;
use crate::quarantine::Quarantine;
use crate::room::{CloseReason, Room};
use crate::settings::{Settings, check_log_level};
use crate::sockets::Ports;
use crate::supervisor::args::{original_refusal, worker_args};
use crate::supervisor::cpus;
use crate::supervisor::inquest::Inquest;
use crate::supervisor::placement::{self, Candidate};
use crate::supervisor::slot::{Slot, SlotEvent, Tell};
use crate::supervisor::spawn::{Spawner, WorkerSpec, allowed_cpus};
use crate::supervisor::succession::Succession;
use crate::supervisor::worker::{Places, Worker};
use crate::worker_channel::Requests;
use crate::{lock, to_its_end, upkeep};

/// Between two tries to move a room out of quarantine.
const RELEASE_PAUSE: Duration = Duration::from_secs(10);

/// How many workers may die under a new room before it is not made.
const ROOM_TRIES: usize = 3;

/// What happens to a server.
#[derive(Clone, Debug)]
pub enum ServerEvent {
    /// It closed.
    Close,
    /// A room was made.
    NewRoom(Room),
    /// A worker is ready.
    WorkerReady {
        /// Its place, from 0.
        idx: usize,
        /// Its process id.
        pid: u32,
    },
    /// A worker died; its rooms go on in the next one, if it can hand them over.
    WorkerDied {
        /// Its place, from 0.
        idx: usize,
        /// How it ended, with its last complaint.
        reason: String,
        /// Whether its place stays empty: another start would fail the same way.
        gave_up: bool,
    },
    /// A worker was replaced as planned; its rooms go on in the other one.
    WorkerReplaced {
        /// Its place, from 0.
        idx: usize,
        /// Process id of the one that ended; `None` if none was there.
        old_pid: Option<u32>,
        /// Process id of the other one.
        pid: u32,
    },
}

/// How a room is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoomOptions {
    /// Place of the worker; `None`: the least loaded one.
    pub worker_idx: Option<usize>,
}

/// A worker that is alive.
#[derive(Clone, Debug)]
pub struct WorkerInfo {
    /// Its place, from 0; from 10 000 if it is for a single room over which workers died.
    pub idx: usize,
    /// Its name in logs.
    pub id: String,
    /// Its process id.
    pub pid: u32,
    /// Process id of the worker that is ready to take over from it.
    pub standby_pid: Option<u32>,
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// Rooms in it.
    pub rooms: usize,
    /// What it said of its load, at most a second ago.
    pub load: Load,
}

/// A server. A cheap handle; dropping it closes nothing.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    settings: Settings,
    ports: Arc<Ports>,
    slots: Vec<Arc<Slot>>,
    places: Places,
    quarantine: Quarantine,
    events: Emitter<ServerEvent>,
    /// Workers are replaced one after the other.
    succession: tokio::sync::Mutex<()>,
    tasks: Mutex<Tasks>,
}

enum Tasks {
    Running {
        spawner: Spawner,
        /// One for each place.
        slots: Vec<JoinHandle<()>>,
        /// Ends with the server.
        upkeep: AbortHandle,
    },
    Closed,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("workers", &self.0.slots.len())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Checks the settings, starts the workers and waits until all are ready.
    ///
    /// # Errors
    /// The settings cannot work, or a worker does not become ready; then none is left.
    pub async fn new(settings: Settings) -> Result<Self> {
        settings.validate()?;
        let bin = settings.find_worker_bin()?;
        let system = |error| Error::other(format!("cannot start workers: {error}"));
        let ordered = cpus::order(&allowed_cpus().map_err(system)?, cpus::first_sibling);
        let spawner = Spawner::start().map_err(system)?;
        let name = format!("{:08x}", rand::random::<u32>());
        let hello = Arc::new(Mutex::new(Hello {
            protocol: PROTOCOL,
            dtls: settings.dtls.clone(),
            chaos: settings.chaos,
            black_box: false,
            hold_us: Some(u32::try_from(settings.hold.as_micros()).unwrap_or(u32::MAX)),
        }));
        let cpus = cpus::assign(&ordered, settings.num_workers);
        let count = cpus.len();
        let slots = cpus.into_iter().enumerate().map(|(idx, cpu)| {
            let id = format!("{name}#{}", idx + 1);
            let spec = WorkerSpec {
                bin: bin.clone(),
                edition: 0,
                args: worker_args(&settings, &id, idx, count),
                cpu,
            };
            let refusal = original_refusal(&settings);
            let (hello, standby) = (Arc::clone(&hello), settings.standby);
            let inquest = Inquest {
                crash_dir: settings.crash_dir.clone(),
                window: settings.quarantine,
            };
            Arc::new(Slot::new(idx, id, spec, hello, refusal, standby, inquest))
        });
        let slots: Vec<_> = slots.collect();
        let server = Self(Arc::new(Inner {
            places: slots.iter().map(|slot| Arc::clone(&slot.rooms)).collect(),
            slots,
            quarantine: Quarantine::default(),
            ports: Arc::new(Ports {
                listen: settings.listen.clone(),
                range: settings.rtc_ports.clone(),
            }),
            settings,
            events: Emitter::keeping(LONG_BACKLOG),
            succession: tokio::sync::Mutex::default(),
            tasks: Mutex::new(Tasks::Closed),
        }));
        let tasks = server.0.slots.iter().map(|slot| {
            let (slot, spawner) = (Arc::clone(slot), spawner.clone());
            let tell = server.tell(slot.idx);
            tokio::spawn(async move { slot.run(spawner, tell).await })
        });
        let running = Tasks::Running {
            slots: tasks.collect(),
            upkeep: tokio::spawn(upkeep::run(server.clone())).abort_handle(),
            spawner,
        };
        *lock(&server.0.tasks) = running;
        for slot in &server.0.slots {
            if let Err(reason) = slot.started().await {
                server.close().await;
                return Err(Error::other(format!("worker {}: {reason}", slot.idx)));
            }
        }
        Ok(server)
    }

    /// Whether it has been closed.
    pub fn closed(&self) -> bool {
        matches!(*lock(&self.0.tasks), Tasks::Closed)
    }

    /// Workers alive now.
    pub fn num_workers(&self) -> usize {
        let is_alive = |slot: &Arc<Slot>| slot.worker().is_some();
        self.all_slots().filter(is_alive).count()
    }

    /// The workers alive now, with their load.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let alive = self.all_slots().filter_map(|slot| {
            let worker = slot.worker()?;
            Some((slot, worker))
        });
        let described = alive.map(|(slot, worker)| WorkerInfo {
            idx: worker.idx,
            id: worker.id.clone(),
            pid: worker.pid,
            standby_pid: slot.standby_pid(),
            cpu: worker.cpu,
            rooms: worker.rooms.list().len(),
            load: lock(&worker.load).clone(),
        });
        described.collect()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The workers alive now.
    pub(crate) fn alive(&self) -> Vec<Arc<Worker>> {
        let slots = self.0.slots.iter();
        slots.filter_map(|slot| slot.worker()).collect()
    }

    /// Places for workers, whether or not one is alive in each.
    pub(crate) fn places(&self) -> usize {
        self.0.slots.len()
    }

    /// The rooms that are open now.
    pub fn rooms(&self) -> Vec<Room> {
        let slots = self.all_slots();
        slots.flat_map(|slot| slot.rooms.list()).collect()
    }

    /// What happens from now on; the first subscriber also gets what happened before.
    pub fn events(&self) -> EventStream<ServerEvent> {
        self.0.events.subscribe()
    }

    /// Makes a room that allows `media_codecs`, on the least loaded worker.
    ///
    /// # Errors
    /// The server is closed, a codec is not supported, no port is free, or no worker is alive.
    pub async fn room(
        &self,
        media_codecs: &[RoomMediaCodec],
        options: RoomOptions,
    ) -> Result<Room> {
        self.check_open()?;
        let limits = self.0.settings.limits;
        for _ in 0..ROOM_TRIES {
            self.check_open()?;
            let worker = self.place(options)?;
            let (codecs, ports) = (media_codecs.to_vec(), Arc::clone(&self.0.ports));
            let places = Arc::clone(&self.0.places);
            let create = Room::create(worker, places, codecs, ports, limits);
            match to_its_end(create, |room| room.close(None)).await {
                // The worker just died: another one may live.
                Err(Error::ChannelClosed) => {}
                Err(error) => return Err(error),
                Ok(room) => {
                    self.0.events.emit(ServerEvent::NewRoom(room.clone()));
                    return Ok(room);
                }
            }
        }
        Err(Error::other("workers keep dying"))
    }

    /// Changes the log settings of all workers; absent members stay as they are.
    ///
    /// # Errors
    /// The server is closed, or the level is unknown.
    pub async fn update_settings(&self, settings: WorkerSettings) -> Result<()> {
        self.check_open()?;
        if let Some(level) = &settings.log_level {
            check_log_level(level)?;
        }
        let mut outcome = Ok(());
        for slot in self.all_slots() {
            let updated = slot.update_settings(settings.clone()).await;
            outcome = outcome.and(updated);
        }
        outcome
    }

    /// Everything the workers know.
    ///
    /// # Errors
    /// The server is closed, or a worker dies meanwhile.
    pub async fn dump(&self) -> Result<Vec<WorkerDump>> {
        self.check_open()?;
        let mut dumps = Vec::new();
        for worker in self.all_slots().filter_map(|slot| slot.worker()) {
            let call = Call::DumpWorker(Default::default());
            dumps.push(crate::parsed(
                worker.channel.request(Ids::NONE, call, vec![]).await?,
            )?);
        }
        Ok(dumps)
    }

    /// Does something to the worker in a place, on purpose. Returns when it is done, which may be
    /// before it has an effect.
    ///
    /// # Errors
    /// The server is closed, no worker is in that place, the fault needs [`Settings::chaos`], or
    /// what is planned cannot be done.
    pub async fn inject(&self, worker_idx: usize, fault: Fault) -> Result<()> {
        self.check_open()?;
        let slot = self.all_slots().find(|slot| slot.idx == worker_idx);
        let worker = worker_in(worker_idx, slot.as_deref())?;
        chaos::inject(self, &worker, fault, self.0.settings.chaos).await
    }

    /// Starts another worker in a place, moves all rooms to it, and ends the one that was there.
    /// Clients notice nothing but a gap of some milliseconds.
    ///
    /// # Errors
    /// The server is closed, there is no such place, or no other worker can be started there that
    /// goes on with rooms. Nothing has changed then.
    pub async fn replace_worker(&self, worker_idx: usize) -> Result<()> {
        self.check_open()?;
        if worker_idx >= self.places() {
            return Err(Error::other("requested worker idx out of range"));
        }
        let server = self.clone();
        let replace = async move { server.replace(worker_idx, None).await };
        to_its_end(replace, |()| {}).await
    }

    /// Replaces all workers, one place after the other, by ones that are another executable; it is
    /// also what workers are started from later. May be the same path, if there is another file by
    /// now. An executable like [`WorkerBin::ThisExecutable`](crate::WorkerBin::ThisExecutable) will do, too.
    ///
    /// # Errors
    /// The server is closed, or the executable does not start, speaks another protocol, or cannot
    /// go on with what the workers do. If that shows in the first place, as it does unless the file
    /// changes meanwhile, nothing has changed then.
    pub async fn upgrade(&self, new_binary: impl Into<PathBuf>) -> Result<()> {
        self.check_open()?;
        let (server, bin) = (self.clone(), new_binary.into());
        let upgrade = async move {
            for idx in 0..server.places() {
                if !server.0.slots[idx].is_given_up() {
                    server.replace(idx, Some(&bin)).await?;
                }
            }
            Ok(())
        };
        to_its_end(upgrade, |()| {}).await
    }

    /// Closes all rooms, ends all workers and waits for their end. Does nothing if it is closed.
    pub async fn close(&self) {
        let tasks = std::mem::replace(&mut *lock(&self.0.tasks), Tasks::Closed);
        let Tasks::Running {
            slots: tasks,
            upkeep,
            spawner: _,
        } = tasks
        else {
            return;
        };
        upkeep.abort();
        self.0.events.emit_last(ServerEvent::Close);
        let wards = self.0.quarantine.close();
        for ward in &wards {
            ward.slot.rooms.close(&CloseReason::Server);
            ward.slot.stop();
        }
        for slot in self.0.slots.iter().rev() {
            slot.rooms.close(&CloseReason::Server);
            slot.stop();
        }
        let wards = wards.into_iter().map(|ward| ward.task);
        for task in tasks.into_iter().chain(wards) {
            // A task that panicked has said so.
            let _ = task.await;
        }
    }

    /// All places, those for rooms over which workers died last.
    fn all_slots(&self) -> impl Iterator<Item = Arc<Slot>> {
        let slots = self.0.slots.iter().cloned();
        slots.chain(self.0.quarantine.slots())
    }

    fn tell(&self, idx: usize) -> Tell {
        let server = self.clone();
        Arc::new(move |event| server.handle(idx, event))
    }

    fn handle(&self, idx: usize, event: SlotEvent) {
        match event {
            SlotEvent::Isolate(room) => self.isolate(idx, &room),
            SlotEvent::Ready { pid } => {
                self.0.events.emit(ServerEvent::WorkerReady { idx, pid });
            }
            SlotEvent::Died { reason, gave_up } => {
                self.0.events.emit(ServerEvent::WorkerDied {
                    idx,
                    reason,
                    gave_up,
                });
                if self.0.slots.iter().all(|slot| slot.is_given_up()) {
                    let server = self.clone();
                    tokio::spawn(async move { server.close().await });
                }
            }
        }
    }

    async fn replace(&self, idx: usize, bin: Option<&Path>) -> Result<()> {
        let _turn = self.0.succession.lock().await;
        let spawner = match &*lock(&self.0.tasks) {
            Tasks::Running { spawner, .. } => spawner.clone(),
            Tasks::Closed => return Err(Error::closed("Server")),
        };
        let Succession { old_pid, pid } = self.0.slots[idx].replace(&spawner, bin).await?;
        let event = ServerEvent::WorkerReplaced { idx, old_pid, pid };
        self.0.events.emit(event);
        Ok(())
    }

    /// Lets a room over which the worker in a place died go on in a worker of its own, unless it
    /// does so already.
    fn isolate(&self, idx: usize, room: &Room) {
        let Some(origin) = self.0.slots.get(idx) else {
            return;
        };
        let spawner = match &*lock(&self.0.tasks) {
            Tasks::Running { spawner, .. } => spawner.clone(),
            Tasks::Closed => return,
        };
        let keep = |slot| {
            let (server, room) = (self.clone(), room.clone());
            tokio::spawn(async move { server.keep(&slot, &room, spawner).await })
        };
        let make = |idx| origin.quarantine(idx);
        self.0.quarantine.take(room, make, keep);
    }

    /// Keeps a place for a room filled until that is closed or has gone back.
    async fn keep(&self, slot: &Arc<Slot>, room: &Room, spawner: Spawner) {
        let release = async {
            self.release(slot, room).await;
            slot.stop();
        };
        tokio::join!(slot.run(spawner, self.tell(slot.idx)), release);
        self.0.quarantine.forget(slot.idx);
    }

    /// Moves a room back to an ordinary worker once none has died over it for long enough; returns
    /// when it is gone from there.
    async fn release(&self, slot: &Slot, room: &Room) {
        loop {
            let window = self.0.settings.quarantine;
            let quiet = room.implicated_at().map_or(window, |at| at.elapsed());
            let mut left = window.saturating_sub(quiet);
            if left.is_zero() {
                left = RELEASE_PAUSE;
                let moved = match self.place(RoomOptions::default()) {
                    Ok(worker) => {
                        let dead = || Error::other("no worker is alive");
                        room.move_into(&worker.rooms, dead).await
                    }
                    Err(error) => Err(error),
                };
                if let Err(error) = moved {
                    tracing::warn!(room = room.id(), %error, "stays in quarantine");
                }
            }
            tokio::select! {
                () = slot.rooms.emptied() => return,
                () = sleep(left) => {}
            }
        }
    }

    fn place(&self, options: RoomOptions) -> Result<Arc<Worker>> {
        let slots = &self.0.slots;
        if let Some(idx) = options.worker_idx {
            return self.worker(idx);
        }
        let candidates = self.alive().into_iter().map(|worker| {
            let rooms = worker.rooms.list();
            Candidate {
                idx: worker.idx,
                busy: lock(&worker.load).busy,
                weight: rooms.iter().map(Room::weight).sum(),
                rooms: rooms.len(),
            }
        });
        placement::least_loaded(candidates)
            .and_then(|idx| slots[idx].worker())
            .ok_or_else(|| Error::other("no worker is alive"))
    }

    /// The worker in a place.
    fn worker(&self, idx: usize) -> Result<Arc<Worker>> {
        worker_in(idx, self.0.slots.get(idx).map(|slot| &**slot))
    }

    fn check_open(&self) -> Result<()> {
        Error::if_closed(self.closed(), "Server")
    }
}

/// The worker in a place, by its number.
fn worker_in(idx: usize, slot: Option<&Slot>) -> Result<Arc<Worker>> {
    let slot = slot.ok_or_else(|| Error::other("requested worker idx out of range"))?;
    let dead = || Error::other(format!("worker {idx} is dead"));
    slot.worker().ok_or_else(dead)
}
