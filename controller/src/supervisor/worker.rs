//! A running worker as the controller sees it, and the rooms that live in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use broth_ipc::body::Load;
use broth_ipc::{Notification, RouterId};

use crate::error::{Error, Result};
use crate::room::{CloseReason, Room};
use crate::worker_channel::WorkerChannel;
use crate::{lock, random_id};

/// A worker that said it is ready.
pub(crate) struct Worker {
    /// Its place, from 0.
    pub(crate) idx: usize,
    /// Its name in logs.
    pub(crate) id: String,
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
        let Some(id) = notification.target.router_id else {
            return tracing::warn!(?notification, "notification without a router");
        };
        let room = lock(&self.0)
            .as_ref()
            .and_then(|rooms| rooms.get(&id).cloned());
        // A room that is not found was closed from this side a moment ago.
        if let Some(room) = room {
            room.handle(notification);
        }
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
