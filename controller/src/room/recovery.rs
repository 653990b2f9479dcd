//! What happens to a room when its worker dies: what is in it is made again in the next worker,
//! under the same ids and with the same parameters, from what its objects know.
//!
//! A room that is moved is made again in the same way (`moving`).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use broth_ipc::body::{CreateConsumer, CreateRouter, SetAudioLevelsEvent};
use broth_ipc::{Call, ConsumerId, Ids};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{CloseReason, Room, RoomEvent, State};
use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::lock;
use crate::peer::PeerEvent;
use crate::producer::Producer;
use crate::supervisor::worker::Worker;
use crate::transport::Transport;
use crate::worker_channel::{Command, Requests, WorkerChannel};

/// Ends when a worker has made a room again, or failed to.
pub(crate) type Over = oneshot::Receiver<()>;

/// One request that makes a part of the room again.
pub(crate) struct Step {
    pub(crate) ids: Ids,
    pub(crate) call: Call,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) part: Part,
}

/// What closes if a step fails.
#[derive(Clone)]
pub(crate) enum Part {
    /// The room itself.
    Room,
    /// A transport, also if it comes back unconnected.
    Transport(Transport),
    /// A producer.
    Producer(Producer),
    /// A consumer.
    Consumer(Consumer),
    /// Nothing: a wish that is not granted.
    Wish,
}

impl Step {
    pub(crate) fn new(ids: Ids, call: Call, part: Part) -> Self {
        Self {
            ids,
            call,
            fds: Vec::new(),
            part,
        }
    }
}

impl Room {
    /// That worker is gone, with requests unanswered: if it was the room's, another one is to go
    /// on with it.
    pub(crate) fn lose(&self, worker: &Worker, reason: &str, unanswered: Vec<Command>) {
        let mut state = self.lock();
        if state.is_closed || !self.worker().is(worker) {
            return;
        }
        // A worker that dies while it goes on with the room does not begin another gap.
        state.lost_at.get_or_insert_with(Instant::now);
        let (peers, moving) = (state.peers.clone(), state.moving.take());
        let given_up = self.0.channel.cut(unanswered);
        drop(state);
        given_up.settle();
        if let Some(moving) = moving {
            moving.settle(Err(Error::other(
                "the worker died while the room was moved",
            )));
        }
        self.0.events.emit(RoomEvent::WorkerDied(reason.into()));
        for peer in peers {
            peer.emit(PeerEvent::WorkerDied(reason.into()));
        }
    }

    /// Whether its worker died and no other one has it yet.
    pub(crate) fn is_lost(&self) -> bool {
        let state = self.lock();
        state.lost_at.is_some() && self.0.channel.is_down()
    }

    /// Goes on with another worker if its own died; what is returned ends when that is over.
    pub(crate) fn recover(&self, worker: &Arc<Worker>) -> Option<Over> {
        let state = self.lock();
        if state.is_closed || state.lost_at.is_none() {
            return None;
        }
        self.rebuild(&state, worker)
    }

    /// Lets a worker make the room again, if it has none.
    pub(super) fn rebuild(&self, state: &State, worker: &Arc<Worker>) -> Option<Over> {
        let mut under_way = None;
        let steps = |kept: &[Command]| {
            *lock(&self.0.worker) = Arc::clone(worker);
            let (over, is_over) = oneshot::channel();
            under_way = Some(is_over);
            match self.steps(state, kept) {
                Ok(steps) => self.take_all(&worker.channel, steps, over),
                Err(error) => self.fail(Error::passing(error)),
            }
        };
        self.0.channel.go_on(&worker.channel, steps);
        under_way
    }

    /// Everything that makes the room again, in order.
    fn steps(&self, state: &State, kept: &[Command]) -> io::Result<Vec<Step>> {
        let (call, fds) = self.create_router(true)?;
        let mut steps = vec![Step {
            fds,
            ..Step::new(self.ids(), call, Part::Room)
        }];
        let mut transports: Vec<_> = state.transports.values().collect();
        transports.sort_by_key(|transport| transport.id());
        for transport in transports {
            steps.extend(transport.steps()?);
        }
        let mut producers: Vec<_> = state.producers.values().collect();
        producers.sort_by_key(|producer| producer.id());
        for producer in producers {
            steps.extend(producer.steps());
        }
        // One whose making the last worker did not confirm is among what is kept.
        let is_kept = |id: ConsumerId| {
            let is_it = |command: &Command| command.ids.consumer_id == Some(id);
            let mut made = kept.iter().filter(|command| is_it(command));
            made.any(|command| matches!(command.call, Call::CreateConsumer(CreateConsumer { .. })))
        };
        let mut consumers: Vec<_> = state.consumers.iter().collect();
        consumers.sort_by_key(|(id, _)| **id);
        for (id, consumer) in consumers {
            if !is_kept(*id) {
                steps.extend(consumer.steps());
            }
        }
        if state.is_reporting_levels {
            let call = Call::SetAudioLevelsEvent(SetAudioLevelsEvent { enabled: true });
            steps.push(Step::new(self.ids(), call, Part::Wish));
        }
        let call = Call::ResumeRouter(Default::default());
        steps.push(Step::new(self.ids(), call, Part::Room));
        Ok(steps)
    }

    /// The request that makes its router, with the descriptors that travel with it.
    pub(super) fn create_router(&self, restore: bool) -> io::Result<(Call, Vec<OwnedFd>)> {
        let mut fds = self.0.sockets.try_clone_fds()?;
        let recorder = self.0.recorder.as_ref();
        fds.extend(recorder.map(OwnedFd::try_clone).transpose()?);
        let call = Call::CreateRouter(CreateRouter {
            sockets: self.0.sockets.described.clone(),
            recorder: recorder.is_some(),
            restore,
        });
        Ok((call, fds))
    }

    /// Takes the steps; `over` is let go with the last answer, or with the worker.
    fn take_all(&self, channel: &WorkerChannel, steps: Vec<Step>, over: oneshot::Sender<()>) {
        let mut over = Some(over);
        for step in steps {
            let is_last = matches!(step.call, Call::ResumeRouter(_));
            let over = over.take_if(|_| is_last);
            let room = self.clone();
            channel.send_once_then(step.ids, step.call, step.fds, move |answer| {
                match room.check(&step.part, answer) {
                    // The next worker starts from the beginning.
                    Err(Error::ChannelClosed) => {}
                    Err(error) => room.give_up(step.part, error),
                    Ok(()) if is_last => room.tell_gone_on(),
                    Ok(()) => {}
                }
                drop(over);
            });
        }
    }

    fn check(&self, part: &Part, answer: Result<Value>) -> Result<()> {
        let answer = answer?;
        match part {
            Part::Transport(transport) => transport.check_restored(answer),
            Part::Room | Part::Producer(_) | Part::Consumer(_) | Part::Wish => Ok(()),
        }
    }

    /// Closes what could not be made again.
    fn give_up(&self, part: Part, error: Error) {
        tracing::error!(room = self.id(), %error, "not recovered");
        match part {
            Part::Room => self.fail(error),
            Part::Transport(transport) => transport.close(None),
            Part::Producer(producer) => producer.close(None),
            Part::Consumer(consumer) => consumer.close(),
            Part::Wish => {}
        }
    }

    /// Closes the room apart from this call, which may hold its lock.
    fn fail(&self, error: Error) {
        let (room, reason) = (self.clone(), CloseReason::WorkerDied(error.to_string()));
        tokio::spawn(async move { room.close_for(reason, None) });
    }

    fn tell_gone_on(&self) {
        let mut state = self.lock();
        if let Some(lost_at) = state.lost_at.take() {
            let gap = lost_at.elapsed();
            self.0.events.emit(RoomEvent::Recovered(gap));
            for peer in &state.peers {
                peer.emit(PeerEvent::Recovered(gap));
            }
        } else {
            self.tell_moved(&mut state);
        }
        // The worker tells nothing of pauses that it was made with.
        for consumer in state.consumers.values() {
            consumer.follow_source();
        }
    }
}
