//! A running worker as the controller sees it, and the rooms that live in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use broth_ipc::body::Load;
use broth_ipc::{Notification, RouterId};

use crate::chaos::Target;
use crate::error::{Error, Result};
use crate::room::{CloseReason, Room};
use crate::worker_channel::{Command, WorkerChannel};
use crate::{lock, random_id};

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
}

/// The rooms of one worker's place, which outlive its workers.
#[derive(Default)]
pub(crate) struct Rooms(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// Process id of the worker that takes rooms.
    pid: Option<u32>,
    rooms: HashMap<RouterId, Room>,
}

impl Rooms {
    /// Lets a room hear what its worker tells about it, and survive its death.
    ///
    /// # Errors
    /// The worker is dead already.
    pub(crate) fn add(&self, worker: &Worker, room: &Room) -> Result<()> {
        let mut table = lock(&self.0);
        if table.pid != Some(worker.pid) {
            return Err(Error::ChannelClosed);
        }
        table.rooms.insert(room.router_id(), room.clone());
        Ok(())
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

    /// A worker is ready: it takes rooms from now on, those of the last one first.
    pub(crate) fn recover(&self, worker: &Arc<Worker>) {
        if worker.kind != (WorkerKind::Broth { restores: true }) {
            self.close(&CloseReason::WorkerDied(
                "another kind of worker follows".into(),
            ));
        }
        let mut rooms = self.list();
        // The smallest are the fastest: most people wait the least.
        rooms.sort_by_cached_key(Room::weight);
        for room in rooms {
            room.recover(worker);
        }
        lock(&self.0).pid = Some(worker.pid);
    }

    /// The worker is gone, with requests unanswered: the rooms wait for the next one.
    pub(crate) fn lose(&self, reason: &str, unanswered: Vec<Command>) {
        let rooms = self.take_down();
        let mut by_room: HashMap<_, Vec<_>> = HashMap::new();
        for command in unanswered {
            by_room
                .entry(command.ids.router_id)
                .or_default()
                .push(command);
        }
        for room in rooms {
            let left = by_room.remove(&Some(room.router_id()));
            room.lose(reason, left.unwrap_or_default());
        }
    }

    /// Closes all rooms; a worker may come and take others.
    pub(crate) fn close(&self, reason: &CloseReason) {
        for room in self.take_down() {
            room.close_for(reason.clone(), None);
        }
    }

    /// Snapshot of what is there.
    pub(crate) fn list(&self) -> Vec<Room> {
        lock(&self.0).rooms.values().cloned().collect()
    }

    /// Takes no more rooms; returns those that are there.
    fn take_down(&self) -> Vec<Room> {
        lock(&self.0).pid = None;
        self.list()
    }

    /// The room that the original worker means, which tells one id and no room.
    fn find(&self, id: u32) -> Option<Room> {
        self.list().into_iter().find(|room| room.is_target(id))
    }
}

impl Worker {
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
