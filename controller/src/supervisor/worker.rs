//! A running worker as the controller sees it, and the rooms that live in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use broth_ipc::body::Load;
use broth_ipc::{Notification, RouterId};

use crate::error::{Error, Result};
use crate::room::{CloseReason, Room};
use crate::worker_channel::WorkerChannel;
use crate::{lock, random_id};

/// Which project a worker is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerKind {
    /// Ours: it said hello.
    Broth,
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
}

/// The rooms of a worker; `None` once it is dead.
pub(crate) struct Rooms(Mutex<Option<HashMap<RouterId, Room>>>);

impl Default for Rooms {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Rooms {
    /// Passes on what the worker tells.
    pub(crate) fn handle(&self, notification: Notification) {
        let room = match notification.target.router_id {
            Some(id) => lock(&self.0)
                .as_ref()
                .and_then(|rooms| rooms.get(&id).cloned()),
            None => self.find(notification.target.target_id),
        };
        // A room that is not found was closed from this side a moment ago.
        if let Some(room) = room {
            room.handle(notification);
        }
    }

    /// The room that the original worker means, which tells one id and no room.
    fn find(&self, id: u32) -> Option<Room> {
        self.list().into_iter().find(|room| room.is_target(id))
    }

    /// Closes all rooms and takes no new ones.
    pub(crate) fn close(&self, reason: &CloseReason) {
        let rooms = lock(&self.0).take().unwrap_or_default();
        for room in rooms.into_values() {
            room.close_for(reason.clone(), None);
        }
    }

    /// Snapshot of what is there.
    pub(crate) fn list(&self) -> Vec<Room> {
        lock(&self.0)
            .iter()
            .flat_map(HashMap::values)
            .cloned()
            .collect()
    }
}

impl Worker {
    /// An id no router of this worker has.
    pub(crate) fn free_router_id(&self) -> RouterId {
        let rooms = lock(&self.rooms.0);
        let is_free = |id: &RouterId| rooms.as_ref().is_none_or(|rooms| !rooms.contains_key(id));
        std::iter::repeat_with(|| RouterId(random_id()))
            .find(is_free)
            .expect("the iterator is endless")
    }

    /// Whether events of a new transport with that id would be taken for those of another thing.
    pub(crate) fn is_confused_by(&self, id: u32) -> bool {
        self.kind == WorkerKind::V2 && self.rooms.find(id).is_some()
    }

    /// Lets a room hear what the worker tells about it.
    pub(crate) fn add_room(&self, room: &Room) -> Result<()> {
        match lock(&self.rooms.0).as_mut() {
            Some(rooms) => {
                rooms.insert(room.router_id(), room.clone());
                Ok(())
            }
            None => Err(Error::ChannelClosed),
        }
    }

    pub(crate) fn remove_room(&self, room: &Room) {
        if let Some(rooms) = lock(&self.rooms.0).as_mut() {
            rooms.remove(&room.router_id());
        }
    }
}
