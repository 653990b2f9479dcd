//! What happens to a room when its worker dies: what is in it is made again in the next worker,
//! under the same ids and with the same parameters, from what its objects know.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use broth_ipc::body::{CreateConsumer, CreateRouter, SetAudioLevelsEvent};
use broth_ipc::{Call, ConsumerId, Ids};
use serde_json::Value;

use super::{CloseReason, Room, RoomEvent, State};
use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::lock;
use crate::peer::PeerEvent;
use crate::producer::Producer;
use crate::supervisor::worker::Worker;
use crate::transport::Transport;
use crate::worker_channel::{Command, Requests, WorkerChannel};

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
    /// Its worker is gone, with requests unanswered.
    pub(crate) fn lose(&self, reason: &str, unanswered: Vec<Command>) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        // A worker that dies while it goes on with the room does not begin another gap.
        state.lost_at.get_or_insert_with(Instant::now);
        let peers = state.peers.clone();
        drop(state);
        self.0.channel.cut(unanswered);
        self.0.events.emit(RoomEvent::WorkerDied(reason.into()));
        for peer in peers {
            peer.emit(PeerEvent::WorkerDied(reason.into()));
        }
    }

    /// Goes on with another worker.
    pub(crate) fn recover(&self, worker: &Arc<Worker>) {
        let state = self.lock();
        if state.is_closed {
            return;
        }
        *lock(&self.0.worker) = Arc::clone(worker);
        let steps = |kept: &[Command]| match self.steps(&state, kept) {
            Ok(steps) => {
                for step in steps {
                    self.take(&worker.channel, step);
                }
            }
            Err(error) => self.fail(Error::passing(error)),
        };
        self.0.channel.go_on(&worker.channel, steps);
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

    fn take(&self, channel: &WorkerChannel, step: Step) {
        let room = self.clone();
        let is_last = matches!(step.call, Call::ResumeRouter(_));
        channel.send_with_then(step.ids, step.call, step.fds, move |answer| {
            match room.check(&step.part, answer) {
                // The next worker starts from the beginning.
                Err(Error::ChannelClosed) => {}
                Err(error) => room.give_up(step.part, error),
                Ok(()) if is_last => room.tell_recovered(),
                Ok(()) => {}
            }
        });
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

    fn tell_recovered(&self) {
        let mut state = self.lock();
        if let Some(lost_at) = state.lost_at.take() {
            let gap = lost_at.elapsed();
            self.0.events.emit(RoomEvent::Recovered(gap));
            for peer in &state.peers {
                peer.emit(PeerEvent::Recovered(gap));
            }
        }
    }
}
