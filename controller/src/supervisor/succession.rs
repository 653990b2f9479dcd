//! One worker takes the place of another while both live: with the same executable, so that memory
//! is given back, or with another one.
//!
//! The successor is started and looked at before anything is touched. Then it takes the place, the
//! rooms are moved one by one, and the worker that was there ends.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;

use super::slot::{Entered, Slot, Started};
use super::spawn::Spawner;
use super::worker::{Stage, Worker, WorkerKind};
use crate::error::{Error, Result};
use crate::room::Room;

/// Rooms that are on their way at the same time: one worker lets go while the other makes. More would
/// only share the other one's time, and each would be on its way for longer.
const MOVES_AT_ONCE: usize = 2;

/// Who took whose place, by process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Succession {
    /// The worker that was there, if there was one.
    pub(crate) old_pid: Option<u32>,
    pub(crate) pid: u32,
}

impl Slot {
    /// Replaces the worker in the place, by one with the executable `bin` if that is given, which
    /// is also what all that follow have. To be awaited to its end, one at a time.
    ///
    /// # Errors
    /// The successor does not start, cannot take the rooms, or nobody fills the place any more.
    /// Nothing has changed then.
    pub(crate) async fn replace(
        &self,
        spawner: &Spawner,
        bin: Option<&Path>,
    ) -> Result<Succession> {
        let mut spec = self.spec();
        if let Some(bin) = bin {
            spec.bin = bin.into();
            spec.edition += 1;
        }
        let started = self.start(spawner, spec.clone()).await;
        let refused = |reason: &str| {
            let idx = self.idx;
            Error::other(format!("worker {idx} is not replaced: {reason}"))
        };
        let started = started.map_err(|end| refused(&end.reason))?;
        if let Err(reason) = self.can_follow(&started) {
            started.dismiss().await;
            return Err(refused(&reason));
        }
        self.set_spec(spec);
        let entered = self.enter_successor(started).await;
        let Entered { old, new } = entered.ok_or_else(|| refused("the place is given up"))?;
        let Some(old) = old.filter(|old| !old.is(&new)) else {
            return Ok(Succession {
                old_pid: None,
                pid: new.pid,
            });
        };
        self.move_rooms(&old).await;
        // What could not be moved goes on as after a death.
        old.retire();
        old.reached(Stage::Ended).await;
        Ok(Succession {
            old_pid: Some(old.pid),
            pid: new.pid,
        })
    }

    fn can_follow(&self, started: &Started) -> Result<(), String> {
        match started.kind {
            WorkerKind::Broth { restores: true } => {}
            _ => return Err("the other one cannot go on with rooms".into()),
        }
        let Some(worker) = self.worker() else {
            return Ok(());
        };
        if worker.kind != started.kind {
            return Err("its rooms cannot go on in another one".into());
        }
        let (own, other) = (worker.recorder_version, started.recorder_version);
        match own == other {
            true => Ok(()),
            false => Err(format!(
                "the other one reads flight recorders of version {other}, not {own}"
            )),
        }
    }

    /// Moves the rooms of a worker to the one that takes those of the place: the smallest first.
    async fn move_rooms(&self, old: &Arc<Worker>) {
        loop {
            let mut rooms = self.rooms.list();
            rooms.retain(|room| room.worker().is(old));
            rooms.sort_by_cached_key(Room::weight);
            let moves = stream::iter(rooms).map(|room| async move {
                let dead = || Error::other("there is no worker to move it to");
                let moved = room.move_into(&self.rooms, dead).await;
                if let Err(error) = &moved {
                    tracing::warn!(room = room.id(), %error, "not moved");
                }
                moved.is_ok()
            });
            let moved: Vec<bool> = moves.buffer_unordered(MOVES_AT_ONCE).collect().await;
            // Others may have come while these went.
            if !moved.contains(&true) {
                return;
            }
        }
    }
}
