//! Places for rooms over which a worker died: one room each, so that another death over it touches
//! nobody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;

use crate::lock;
use crate::room::Room;
use crate::supervisor::slot::Slot;

/// The first of these places.
const FIRST: usize = 10_000;

/// So many rooms at most: whoever attacks one attacks many, and each costs a process.
const ROOMS_MAX: usize = 8;

/// The places that are taken.
#[derive(Default)]
pub(crate) struct Quarantine(Mutex<Table>);

#[derive(Default)]
struct Table {
    is_closed: bool,
    wards: BTreeMap<usize, Ward>,
}

/// A place.
pub(crate) struct Ward {
    pub(crate) slot: Arc<Slot>,
    /// What keeps it filled.
    pub(crate) task: JoinHandle<()>,
}

impl Quarantine {
    /// Takes in a room that has no worker. `make` makes a place and `fill` fills it. Does nothing
    /// if the room is closed, or if there are too many.
    pub(crate) fn take(
        &self,
        room: &Room,
        make: impl FnOnce(usize) -> Slot,
        fill: impl FnOnce(Arc<Slot>) -> JoinHandle<()>,
    ) {
        let mut table = lock(&self.0);
        if table.is_closed {
            return;
        }
        if table.wards.len() == ROOMS_MAX {
            tracing::error!(room = room.id(), "no place left in quarantine");
            return;
        }
        let free = |idx: &usize| !table.wards.contains_key(idx);
        let idx = (FIRST..).find(free).expect("the range is endless");
        let slot = Arc::new(make(idx));
        if room.move_home(&slot.rooms) {
            let task = fill(Arc::clone(&slot));
            table.wards.insert(idx, Ward { slot, task });
        }
    }

    /// Gives up a place.
    pub(crate) fn forget(&self, idx: usize) {
        lock(&self.0).wards.remove(&idx);
    }

    /// Snapshot of the places.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        let table = lock(&self.0);
        let slots = table.wards.values();
        slots.map(|ward| Arc::clone(&ward.slot)).collect()
    }

    /// Takes in no more rooms; returns the places there are.
    pub(crate) fn close(&self) -> Vec<Ward> {
        let mut table = lock(&self.0);
        table.is_closed = true;
        std::mem::take(&mut table.wards).into_values().collect()
    }
}
