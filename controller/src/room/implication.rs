//! What follows for a room over which a worker died, and for the transport in it.

use std::time::{Duration, Instant};

use broth_ipc::TransportId;

use super::{CloseReason, Room, RoomEvent};
use crate::Originator;
use crate::blame::{Suspect, Verdict};
use crate::transport::TransportEvent;

/// Who was implicated, and what followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Implication {
    /// The name of the peer whose transport it is.
    pub(crate) peer: Option<String>,
    pub(crate) outcome: Outcome,
}

/// What followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The room is to go on where it touches nobody else.
    Isolate,
    /// The transport is closed.
    TransportClosed,
    /// The room is closed.
    RoomClosed,
    /// What it was is gone.
    Nothing,
}

impl Room {
    /// A worker died, as `reason` says, over this room or over a transport in it. Whatever
    /// workers died over before, within `window`, is closed: the next one is not asked for it.
    pub(crate) fn implicate(
        &self,
        suspect: Option<TransportId>,
        reason: &str,
        window: Duration,
    ) -> Option<Implication> {
        let mut state = self.lock();
        if state.is_closed {
            return None;
        }
        // One that is gone has been closed a moment ago.
        let transport = suspect.and_then(|id| state.transports.get(&id).cloned());
        let peer = transport.as_ref().and_then(|transport| transport.peer());
        let peer = peer.map(|peer| peer.name().to_owned());
        let blamed = match (suspect, &peer) {
            (None, _) => Suspect::Room,
            (Some(_), Some(name)) => Suspect::Peer(name.clone()),
            (Some(id), None) => Suspect::Transport(id),
        };
        let (deaths, verdict) = state.blame.implicate(blamed, Instant::now(), window);
        let event = RoomEvent::Implicated {
            transport: transport.clone(),
            deaths,
        };
        self.0.events.emit(event);
        if let Some(transport) = &transport {
            transport.emit(TransportEvent::Implicated { deaths });
        }
        drop(state);
        let outcome = match verdict {
            Verdict::Isolate => Outcome::Isolate,
            Verdict::Close => self.close_suspect(suspect, reason),
        };
        Some(Implication { peer, outcome })
    }

    /// Closes what a worker died over, as `reason` says.
    pub(crate) fn close_suspect(&self, suspect: Option<TransportId>, reason: &str) -> Outcome {
        let Some(id) = suspect else {
            self.close_for(CloseReason::Implicated(reason.into()), None);
            return Outcome::RoomClosed;
        };
        let mut state = self.lock();
        match state.transports.get(&id).cloned() {
            Some(transport) => {
                transport.close_in(&mut state, Originator::Local, None, false);
                Outcome::TransportClosed
            }
            None => Outcome::Nothing,
        }
    }

    /// When a worker died over it last, if ever.
    pub(crate) fn implicated_at(&self) -> Option<Instant> {
        self.lock().blame.last()
    }
}
