//! Moving a room from a worker to another while both live.
//!
//! The one it is in ends its part and leaves the flight recorder complete; then it is made again in
//! the other, as after a death (`recovery`). What clients send meanwhile waits in the sockets, what
//! is asked meanwhile in the room's channel.

use std::sync::Arc;
use std::time::Instant;

use broth_ipc::Call;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Room, RoomEvent, State};
use crate::error::{Error, Result};
use crate::peer::PeerEvent;
use crate::supervisor::worker::{Rooms, Worker};
use crate::to_its_end;
use crate::worker_channel::Requests;

/// A room on its way.
pub(super) struct Moving {
    target: Arc<Worker>,
    since: Instant,
    /// Its last worker has let go of it.
    is_suspended: bool,
    done: oneshot::Sender<Result<()>>,
}

impl Moving {
    /// Tells who waits for the move how it went.
    pub(super) fn settle(self, outcome: Result<()>) {
        let _ = self.done.send(outcome);
    }
}

impl Room {
    /// Moves it to the worker in another place. Nothing that is sent meanwhile is lost, and no
    /// client is told. Does nothing if it is there.
    ///
    /// Should a worker die meanwhile, the room is recovered as after any death.
    ///
    /// # Errors
    /// The room is closed, no worker is in that place, or one of the two cannot hand over rooms or
    /// take them, as the original one of mediasoup v2; the room stays where it is then. Or a worker
    /// died meanwhile.
    pub async fn move_to(&self, worker_idx: usize) -> Result<()> {
        let place = self.0.places.get(worker_idx).cloned();
        let place = place.ok_or_else(|| Error::other("requested worker idx out of range"))?;
        let room = self.clone();
        let moving = async move {
            let dead = || Error::other(format!("worker {worker_idx} is dead"));
            room.move_into(&place, dead).await
        };
        to_its_end(moving, |()| {}).await
    }

    /// Moves it to the worker that takes a place's rooms; `dead` says that there is none. To be
    /// awaited to its end.
    pub(crate) async fn move_into(&self, place: &Rooms, dead: impl Fn() -> Error) -> Result<()> {
        let _turn = self.0.moves.lock().await;
        let target = place.taker().ok_or_else(&dead)?;
        let (done, outcome) = oneshot::channel();
        {
            let mut state = self.lock();
            Error::if_closed(state.is_closed, "Room")?;
            let from = self.worker();
            if from.is(&target) {
                return Ok(());
            }
            if self.0.recorder.is_none() || !from.hands_over_to(&target) {
                return Err(Error::other(format!(
                    "worker {} cannot go on with what worker {} does",
                    target.idx, from.idx
                )));
            }
            let room = self.clone();
            let is_asked = self.0.channel.hold(|channel| {
                let call = Call::SuspendRouter(Default::default());
                channel.send_once_then(self.ids(), call, vec![], move |answer| {
                    room.handle_suspended(answer);
                });
            });
            if !is_asked {
                return Err(Error::other("the room has no worker at the moment"));
            }
            state.moving = Some(Moving {
                target,
                since: Instant::now(),
                is_suspended: false,
                done,
            });
        }
        // Whatever becomes of the room settles it.
        outcome.await.unwrap_or(Err(Error::ChannelClosed))
    }

    /// Its worker has let go of it, or refuses to.
    fn handle_suspended(&self, answer: Result<Value>) {
        let mut state = self.lock();
        let from = self.worker();
        if state.is_closed {
            if let Err(Error::Refused(_)) = answer {
                from.channel
                    .send(self.ids(), Call::CloseRouter(Default::default()));
            }
            return;
        }
        match answer {
            Ok(_) => self.enter_target(&mut state, &from),
            // The end of the worker follows.
            Err(Error::ChannelClosed | Error::Timeout) => {}
            Err(error) => {
                self.0.channel.go_on(&from.channel, |_| {});
                if let Some(moving) = state.moving.take() {
                    moving.settle(Err(error));
                }
            }
        }
    }

    /// Goes on in the other worker; if that is gone by now, in the one it came from.
    fn enter_target(&self, state: &mut State, from: &Arc<Worker>) {
        let Some(moving) = &mut state.moving else {
            return;
        };
        moving.is_suspended = true;
        let target = Arc::clone(&moving.target);
        let home = match target.rooms.add(&target, self) {
            Ok(()) => {
                if !Arc::ptr_eq(&from.rooms, &target.rooms) {
                    from.rooms.remove(self);
                }
                &target
            }
            Err(error) => {
                tracing::error!(room = self.id(), %error, "not moved");
                from
            }
        };
        self.rebuild(state, home);
    }

    /// A worker has made it again: that ends a move, if the last one had let go of it.
    pub(super) fn tell_moved(&self, state: &mut State) {
        let Some(moving) = state.moving.take_if(|moving| moving.is_suspended) else {
            return;
        };
        let (gap, worker) = (moving.since.elapsed(), self.worker());
        let worker_idx = worker.idx;
        self.0.events.emit(RoomEvent::Moved { worker_idx, gap });
        for peer in &state.peers {
            peer.emit(PeerEvent::Moved(gap));
        }
        let has_arrived = worker.is(&moving.target);
        moving.settle(match has_arrived {
            true => Ok(()),
            false => Err(Error::other("the other worker was gone: the room is back")),
        });
    }
}
