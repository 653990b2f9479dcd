//! A running worker as the controller sees it, and the rooms that live in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use broth_ipc::body::Load;
use broth_ipc::{Notification, RouterId};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::chaos::Target;
use crate::error::{Error, Result};
use crate::room::{CloseReason, Room};
use crate::worker_channel::{Command, WorkerChannel};
use crate::{lock, random_id};

/// Rooms that are made again in a worker at the same time: it works on each as fast as on any, and
/// none waits long.
const ROOMS_AT_ONCE: usize = 8;

/// Which project a worker is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerKind {
    /// Ours: it said hello.
    Broth {
        /// Whether it can go on with the rooms of one that died.
        restores: bool,
    },
    /// The original one of mediasoup v2: it binds its own ports, gives no transport-wide
    /// feedback, tells no load, and says of its events only which id they are about.
    V2,
}

/// A worker that said it is ready.
pub(crate) struct Worker {
    /// Its place, from 0.
    pub(crate) idx: usize,
    /// Its name in logs.
    pub(crate) id: String,
    pub(crate) kind: WorkerKind,
    pub(crate) pid: u32,
    /// The CPU it is pinned to.
    pub(crate) cpu: usize,
    pub(crate) channel: WorkerChannel,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) load: Mutex<Load>,
    pub(crate) target: Target,
    /// Version of its flight recorder's layout.
    pub(crate) recorder_version: u32,
    pub(crate) stage: watch::Sender<Stage>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub(crate) enum Stage {
    /// It has rooms, or may get some.
    #[default]
    Serving,
    /// It is to end: another one has its rooms.
    Retiring,
    /// It is gone.
    Ended,
}

/// The rooms of one worker's place, which outlive its workers.
///
/// While a worker is replaced there are two in the place, and each of the rooms is in one of them.
#[derive(Default)]
pub(crate) struct Rooms(Mutex<Table>);

/// The rooms of all of a server's places.
pub(crate) type Places = Arc<[Arc<Rooms>]>;

#[derive(Default)]
struct Table {
    /// The worker that takes rooms.
    taker: Option<Arc<Worker>>,
    rooms: HashMap<RouterId, Room>,
}

impl Rooms {
    /// Lets a room hear what its worker tells about it, and survive its death.
    ///
    /// # Errors
    /// The worker is dead already, or another room has the same id.
    pub(crate) fn add(&self, worker: &Worker, room: &Room) -> Result<()> {
        let mut table = lock(&self.0);
        if !table.taker.as_ref().is_some_and(|taker| taker.is(worker)) {
            return Err(Error::ChannelClosed);
        }
        let there = table.rooms.entry(room.router_id());
        match there.or_insert_with(|| room.clone()) == room {
            true => Ok(()),
            false => Err(Error::other("another room there has the same id")),
        }
    }

    /// The worker that takes rooms, if there is one.
    pub(crate) fn taker(&self) -> Option<Arc<Worker>> {
        let taker = lock(&self.0).taker.clone();
        // Its channel ends before its death is told.
        taker.filter(|taker| !taker.channel.is_closed())
    }

    pub(crate) fn remove(&self, room: &Room) {
        lock(&self.0).rooms.remove(&room.router_id());
    }

    /// Passes on what the worker tells.
    pub(crate) fn handle(&self, notification: Notification) {
        let room = match notification.target.router_id {
            Some(id) => lock(&self.0).rooms.get(&id).cloned(),
            None => self.find(notification.target.target_id),
        };
        // A room that is not found was closed from this side a moment ago.
        if let Some(room) = room {
            room.handle(notification);
        }
    }

    /// A worker is ready: it takes rooms from now on, those that lost theirs first.
    pub(crate) fn enter(&self, worker: &Arc<Worker>) {
        for room in self.lost() {
            if !room.worker().hands_over_to(worker) {
                let reason = "another kind of worker follows".into();
                room.close_for(CloseReason::WorkerDied(reason), None);
            }
        }
        lock(&self.0).taker = Some(Arc::clone(worker));
        self.recover(worker);
    }

    /// Lets a worker go on with the rooms that have none: some at a time, the smallest first, as
    /// they are the fastest and so most people wait the least.
    fn recover(&self, worker: &Arc<Worker>) {
        let mut lost = self.lost();
        lost.sort_by_cached_key(Room::weight);
        let mut lost = lost.into_iter();
        let worker = Arc::clone(worker);
        let mut next = move || {
            let is_there = || !worker.channel.is_closed();
            lost.by_ref()
                .take_while(|_| is_there())
                .find_map(|room| room.recover(&worker))
        };
        // At once: whoever asks the worker for something now comes behind these.
        let first = std::iter::from_fn(&mut next).take(ROOMS_AT_ONCE);
        let mut under_way: FuturesUnordered<_> = first.collect();
        if under_way.is_empty() {
            return;
        }
        tokio::spawn(async move {
            while under_way.next().await.is_some() {
                under_way.extend(next());
            }
        });
    }

    /// A worker is gone, with requests unanswered: its rooms go on in another one of the place, or
    /// wait for the next.
    pub(crate) fn lose(&self, worker: &Worker, reason: &str, unanswered: Vec<Command>) {
        self.take_down(worker);
        let mut by_room: HashMap<_, Vec<_>> = HashMap::new();
        for command in unanswered {
            by_room
                .entry(command.ids.router_id)
                .or_default()
                .push(command);
        }
        for room in self.list() {
            if room.worker().is(worker) {
                let left = by_room.remove(&Some(room.router_id()));
                room.lose(worker, reason, left.unwrap_or_default());
            }
        }
        if let Some(taker) = self.taker() {
            self.recover(&taker);
        }
    }

    /// Closes the rooms that have no worker.
    pub(crate) fn give_up(&self, reason: &CloseReason) {
        for room in self.lost() {
            room.close_for(reason.clone(), None);
        }
    }

    /// Closes all rooms; a worker may come and take others.
    pub(crate) fn close(&self, reason: &CloseReason) {
        lock(&self.0).taker = None;
        for room in self.list() {
            room.close_for(reason.clone(), None);
        }
    }

    /// Snapshot of what is there.
    pub(crate) fn list(&self) -> Vec<Room> {
        lock(&self.0).rooms.values().cloned().collect()
    }

    /// Those that wait for a worker.
    fn lost(&self) -> Vec<Room> {
        let mut rooms = self.list();
        rooms.retain(Room::is_lost);
        rooms
    }

    /// That worker takes no more rooms.
    fn take_down(&self, worker: &Worker) {
        let mut table = lock(&self.0);
        table.taker.take_if(|taker| taker.is(worker));
    }

    /// The room that the original worker means, which tells one id and no room.
    fn find(&self, id: u32) -> Option<Room> {
        self.list().into_iter().find(|room| room.is_target(id))
    }
}

impl Worker {
    /// Whether it is the same one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }

    /// Whether its rooms can go on in another one.
    pub(crate) fn hands_over_to(&self, other: &Self) -> bool {
        let restores = WorkerKind::Broth { restores: true };
        self.kind == restores
            && other.kind == restores
            && self.recorder_version == other.recorder_version
    }

    /// Lets it end, as it has no rooms any more.
    pub(crate) fn retire(&self) {
        self.stage.send_if_modified(|stage| {
            let is_news = *stage == Stage::Serving;
            if is_news {
                *stage = Stage::Retiring;
            }
            is_news
        });
    }

    /// Waits until it is in that stage of its life, or a later one.
    pub(crate) async fn reached(&self, stage: Stage) {
        // Fails only if the sender is gone, which is here.
        let _ = self.stage.subscribe().wait_for(|now| *now >= stage).await;
    }

    /// An id no router of this worker has.
    pub(crate) fn free_router_id(&self) -> RouterId {
        let table = lock(&self.rooms.0);
        std::iter::repeat_with(|| RouterId(random_id()))
            .find(|id| !table.rooms.contains_key(id))
            .expect("the iterator is endless")
    }

    /// Whether events of a new transport with that id would be taken for those of another thing.
    pub(crate) fn is_confused_by(&self, id: u32) -> bool {
        self.kind == WorkerKind::V2 && self.rooms.find(id).is_some()
    }
}
