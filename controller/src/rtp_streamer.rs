//! A streamer: one producer's media sent to an address as plain RTP, for a recorder or a gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::consumer::Consumer;
use crate::events::{Emitter, EventStream};
use crate::room::State;
use crate::transport::PlainRtpTransport;
use crate::{Originator, room::Room};

/// Where a streamer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpStreamerOptions {
    /// Where to.
    pub remote: SocketAddr,
    /// Local address, with any port; `None`: the one listened on, of the same family, with one of
    /// the server's ports.
    pub local_ip: Option<IpAddr>,
}

/// What happens to a streamer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtpStreamerEvent {
    /// It closed: it was told to, or its producer, transport or room closed.
    Close,
}

/// A streamer. A cheap handle; dropping it closes nothing.
#[derive(Clone)]
pub struct RtpStreamer(Arc<Inner>);

struct Inner {
    room: Room,
    consumer: Consumer,
    transport: PlainRtpTransport,
    events: Emitter<RtpStreamerEvent>,
}

impl std::fmt::Debug for RtpStreamer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtpStreamer")
            .field("consumer", &self.0.consumer.id())
            .finish_non_exhaustive()
    }
}

impl RtpStreamer {
    pub(crate) fn new(room: Room, consumer: Consumer, transport: PlainRtpTransport) -> Self {
        Self(Arc::new(Inner {
            room,
            consumer,
            transport,
            events: Emitter::default(),
        }))
    }

    /// What is sent: `rtp_parameters()` say its payload types and SSRCs.
    pub fn consumer(&self) -> &Consumer {
        &self.0.consumer
    }

    /// The way it takes.
    pub fn transport(&self) -> &PlainRtpTransport {
        &self.0.transport
    }

    /// What happens from now on.
    pub fn events(&self) -> EventStream<RtpStreamerEvent> {
        self.0.events.subscribe()
    }

    /// Closes it with its consumer and its transport. Does nothing if it is closed.
    pub fn close(&self) {
        let mut state = self.0.room.lock();
        self.close_in(&mut state);
    }

    /// Closes what is not closed yet (`spec: api.md` §13).
    pub(crate) fn close_in(&self, state: &mut State) {
        self.0.consumer.close_in(state, true);
        let transport = crate::Transport::from(self.0.transport.clone());
        transport.close_in(state, Originator::Local, None, true);
        self.0.events.emit_last(RtpStreamerEvent::Close);
    }
}
