//! The server: worker processes and the rooms in them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use broth_ipc::body::{Hello, Load, WorkerDump, WorkerSettings};
use broth_ipc::{Call, Ids, PROTOCOL};
use tokio::task::JoinHandle;

use crate::chaos::{self, Fault};
use crate::error::{Error, Result};
use crate::events::{Emitter, EventStream, LONG_BACKLOG};
use crate::ortc::RoomMediaCodec;
use crate::room::{CloseReason, Room};
use crate::settings::{Settings, check_log_level};
use crate::sockets::Ports;
use crate::supervisor::args::{original_refusal, worker_args};
use crate::supervisor::cpus;
use crate::supervisor::placement::{self, Candidate};
use crate::supervisor::slot::{Slot, SlotEvent, Tell};
use crate::supervisor::spawn::{Spawner, WorkerSpec, allowed_cpus};
use crate::supervisor::succession::Succession;
use crate::supervisor::worker::{Places, Worker};
use crate::worker_channel::Requests;
use crate::{lock, to_its_end};

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
    /// A worker died; its rooms have closed.
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
    /// Its place, from 0.
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
            let hello = Arc::clone(&hello);
            Arc::new(Slot::new(idx, id, spec, hello, refusal, settings.standby))
        });
        let slots: Vec<_> = slots.collect();
        let server = Self(Arc::new(Inner {
            places: slots.iter().map(|slot| Arc::clone(&slot.rooms)).collect(),
            slots,
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
            let (slot, spawner, told) = (Arc::clone(slot), spawner.clone(), server.clone());
            let idx = slot.idx;
            let tell: Tell = Arc::new(move |event| told.handle(idx, event));
            tokio::spawn(async move { slot.run(spawner, tell).await })
        });
        *lock(&server.0.tasks) = Tasks::Running {
            slots: tasks.collect(),
            spawner,
        };
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
        self.0
            .slots
            .iter()
            .filter(|slot| slot.worker().is_some())
            .count()
    }

    /// The workers alive now, with their load.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let alive = self.0.slots.iter().filter_map(|slot| slot.worker());
        let described = alive.map(|worker| WorkerInfo {
            idx: worker.idx,
            id: worker.id.clone(),
            pid: worker.pid,
            standby_pid: self.0.slots[worker.idx].standby_pid(),
            cpu: worker.cpu,
            rooms: worker.rooms.list().len(),
            load: lock(&worker.load).clone(),
        });
        described.collect()
    }

    /// Places for workers, whether or not one is alive in each.
    pub(crate) fn places(&self) -> usize {
        self.0.slots.len()
    }

    /// The rooms that are open now.
    pub fn rooms(&self) -> Vec<Room> {
        let slots = self.0.slots.iter();
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
        for slot in &self.0.slots {
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
        for worker in self.0.slots.iter().filter_map(|slot| slot.worker()) {
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
        let worker = self.worker(worker_idx)?;
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
        let Tasks::Running { slots: tasks, .. } = tasks else {
            return;
        };
        self.0.events.emit_last(ServerEvent::Close);
        for slot in self.0.slots.iter().rev() {
            slot.rooms.close(&CloseReason::Server);
            slot.stop();
        }
        for task in tasks {
            // A task that panicked has said so.
            let _ = task.await;
        }
    }

    fn handle(&self, idx: usize, event: SlotEvent) {
        match event {
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

    fn place(&self, options: RoomOptions) -> Result<Arc<Worker>> {
        let slots = &self.0.slots;
        if let Some(idx) = options.worker_idx {
            return self.worker(idx);
        }
        let alive = slots.iter().filter_map(|slot| slot.worker());
        let candidates = alive.map(|worker| {
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
        let slot = self.0.slots.get(idx);
        let slot = slot.ok_or_else(|| Error::other("requested worker idx out of range"))?;
        let dead = || Error::other(format!("worker {idx} is dead"));
        slot.worker().ok_or_else(dead)
    }

    fn check_open(&self) -> Result<()> {
        Error::if_closed(self.closed(), "Server")
    }
}
