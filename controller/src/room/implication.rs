//! What follows for a room over which a worker died, and for the transport in it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use broth_ipc::TransportId;

use super::{CloseReason, Room, RoomEvent};
use crate::Originator;
use crate::blame::{DEATHS_MAX, Suspect, Verdict};
use crate::transport::TransportEvent;

/// A transport may be closed for so long before a worker is found to have died over it: one that
/// stands still is found within a second, and a controller may be busy.
const DEPARTED_TIME: Duration = Duration::from_secs(30);

/// Who was implicated, and what followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Implication {
    suspect: Suspect,
    deaths: u32,
    transport: Option<TransportId>,
    pub(crate) outcome: Outcome,
}

/// Whose the transports were that closed lately: nobody escapes by closing the one in hand.
#[derive(Default)]
pub(crate) struct Departed(VecDeque<(Instant, TransportId, String)>);

/// What followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The room is to go on where it touches nobody else.
    Isolate,
    /// The transport is closed.
    TransportClosed,
    /// The peer is closed.
    PeerClosed,
    /// The room is closed.
    RoomClosed,
    /// What it was is gone.
    Nothing,
}

impl Departed {
    /// A transport of a peer closed at `now`.
    pub(crate) fn note(&mut self, now: Instant, id: TransportId, peer: &str) {
        let is_long_over = |(at, ..): &(Instant, TransportId, String)| {
            now.saturating_duration_since(*at) > DEPARTED_TIME
        };
        while self.0.front().is_some_and(is_long_over) {
            self.0.pop_front();
        }
        self.0.push_back((now, id, peer.to_owned()));
    }

    /// Whose a transport was, the last of that id.
    fn peer_of(&self, id: TransportId) -> Option<&str> {
        let mut latest = self.0.iter().rev();
        let (.., peer) = latest.find(|(_, departed, _)| *departed == id)?;
        Some(peer)
    }
}

impl Implication {
    /// The name of the peer whose transport it is or was.
    pub(crate) fn peer(&self) -> Option<&str> {
        match &self.suspect {
            Suspect::Peer(name) => Some(name),
            Suspect::Room | Suspect::Transport(_) => None,
        }
    }
}

impl Room {
    /// A worker died, as `reason` says, over this room or over a transport in it. Whatever
    /// workers died over before, within `window`, is closed: the next one is not asked for it.
    pub(crate) fn implicate(
        &self,
        transport_id: Option<TransportId>,
        reason: &str,
        window: Duration,
    ) -> Option<Implication> {
        let mut state = self.lock();
        if state.is_closed {
            return None;
        }
        // One that is gone has been closed a moment ago.
        let transport = transport_id.and_then(|id| state.transports.get(&id).cloned());
        let peer = match &transport {
            Some(transport) => transport.peer().map(|peer| peer.name().to_owned()),
            None => transport_id.and_then(|id| state.departed.peer_of(id).map(str::to_owned)),
        };
        let suspect = match (transport_id, peer) {
            (None, _) => Suspect::Room,
            (Some(_), Some(name)) => Suspect::Peer(name),
            (Some(id), None) => Suspect::Transport(id),
        };
        let (deaths, verdict) = state
            .blame
            .implicate(suspect.clone(), Instant::now(), window);
        let event = RoomEvent::Implicated {
            transport: transport.clone(),
            deaths,
        };
        self.0.events.emit(event);
        if let Some(transport) = &transport {
            transport.emit(TransportEvent::Implicated { deaths });
        }
        drop(state);
        let mut implication = Implication {
            suspect,
            deaths,
            transport: transport_id,
            outcome: Outcome::Isolate,
        };
        if verdict == Verdict::Close {
            implication.outcome = self.close_suspect(&implication, reason);
        }
        Some(implication)
    }

    /// Closes what a worker died over, as `reason` says: the transport in hand; its peer if that
    /// is gone already, or was another one when workers died before.
    pub(crate) fn close_suspect(&self, implication: &Implication, reason: &str) -> Outcome {
        if implication.suspect == Suspect::Room {
            self.close_for(CloseReason::Implicated(reason.into()), None);
            return Outcome::RoomClosed;
        }
        let mut state = self.lock();
        let transport = implication.transport;
        let transport = transport.and_then(|id| state.transports.get(&id).cloned());
        let peer = implication.peer();
        let peer = peer.and_then(|name| state.peers.iter().find(|peer| peer.name() == name));
        let comes_again = implication.deaths > DEATHS_MAX || transport.is_none();
        match (peer.filter(|_| comes_again).cloned(), transport) {
            (Some(peer), _) => {
                peer.close_in(&mut state, Originator::Local, None);
                Outcome::PeerClosed
            }
            (None, Some(transport)) => {
                transport.close_in(&mut state, Originator::Local, None, false);
                Outcome::TransportClosed
            }
            (None, None) => Outcome::Nothing,
        }
    }

    /// When a worker died over it last, if ever.
    pub(crate) fn implicated_at(&self) -> Option<Instant> {
        self.lock().blame.last()
    }
}
