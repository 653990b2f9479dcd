//! Transports: how media comes and goes. One type per kind, and what they have in common.

mod plain;
mod web_rtc;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use broth_ipc::body::{DtlsState, IceState, TransportTuple};
use broth_ipc::{Call, Event, Ids, TransportId};
use serde_json::{Value, json};

pub use plain::PlainRtpTransport;
pub use web_rtc::{MirroringOptions, WebRtcTransport};

use crate::Originator;
use crate::error::{Error, Result};
use crate::events::Emitter;
use crate::peer::Peer;
use crate::protocol::with_app_data;
use crate::room::recovery::{Part, Step};
use crate::room::{Room, State};
use crate::worker_channel::Requests;

/// What happens to a transport (`spec: api.md` §9.3). A plain RTP transport only closes.
#[derive(Clone, Debug)]
pub enum TransportEvent {
    /// It closed.
    Close {
        /// The application (`Local`) or the client (`Remote`).
        originator: Originator,
        /// Given by whoever closed it.
        app_data: Option<Value>,
    },
    /// Packets take another path.
    IceSelectedTupleChange(TransportTuple),
    /// ICE changed state.
    IceStateChange(IceState),
    /// DTLS changed state.
    DtlsStateChange(DtlsState),
    /// A worker died over something that was done for it, such as a datagram it received. From the
    /// second time on it is closed next, from the third on its peer is.
    Implicated {
        /// How many workers died over it within [`Settings::quarantine`](crate::Settings).
        deaths: u32,
    },
}

/// What all transports have.
pub(crate) struct Base {
    id: TransportId,
    room: Room,
    peer: Option<Peer>,
    is_closed: AtomicBool,
    events: Emitter<TransportEvent>,
    app_data: Mutex<Value>,
}

impl Base {
    pub(crate) fn new(id: TransportId, room: Room, peer: Option<Peer>, app_data: Value) -> Self {
        Self {
            id,
            room,
            peer,
            is_closed: AtomicBool::new(false),
            events: Emitter::default(),
            app_data: Mutex::new(app_data),
        }
    }

    fn ids(&self) -> Ids {
        self.room.ids().transport(self.id)
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    async fn request(&self, call: Call, fds: Vec<OwnedFd>) -> Result<Value> {
        self.room.channel().request(self.ids(), call, fds).await
    }
}

/// The part of the API that all transports share.
macro_rules! common_api {
    ($Type:ident) => {
        impl $Type {
            /// The id, chosen by the client or, for a transport without one, by the server.
            pub fn id(&self) -> u32 {
                self.base().id.0
            }

            /// Whether it has been closed.
            pub fn closed(&self) -> bool {
                self.base().is_closed()
            }

            /// The peer it belongs to; `None` for that of an [`RtpStreamer`](crate::RtpStreamer).
            pub fn peer(&self) -> Option<&$crate::peer::Peer> {
                self.base().peer.as_ref()
            }

            /// The application's own data; initially what the client sent.
            pub fn app_data(&self) -> serde_json::Value {
                $crate::lock(&self.base().app_data).clone()
            }

            /// Replaces the application's own data.
            pub fn set_app_data(&self, app_data: serde_json::Value) {
                *$crate::lock(&self.base().app_data) = app_data;
            }

            /// What happens from now on (`spec: api.md` §9.3).
            pub fn events(&self) -> $crate::events::EventStream<$crate::transport::TransportEvent> {
                self.base().events.subscribe()
            }
        }
    };
}
use common_api;

/// The part of the API that the types share and their sum has otherwise.
macro_rules! closing_api {
    ($Type:ident, $Kind:ident) => {
        impl $Type {
            /// Closes it: its producers close, consumers on it wait for another transport.
            ///
            /// Tells the client. Does nothing if it is closed.
            pub fn close(&self, app_data: Option<serde_json::Value>) {
                $crate::transport::Transport::$Kind(self.clone()).close(app_data);
            }

            pub(crate) fn check_open(&self) -> $crate::error::Result<()> {
                $crate::error::Error::if_closed(self.closed(), stringify!($Type))
            }
        }

        impl std::fmt::Debug for $Type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($Type))
                    .field("id", &self.id())
                    .finish_non_exhaustive()
            }
        }

        impl PartialEq for $Type {
            fn eq(&self, other: &Self) -> bool {
                std::sync::Arc::ptr_eq(&self.0, &other.0)
            }
        }

        impl From<$Type> for $crate::transport::Transport {
            fn from(transport: $Type) -> Self {
                Self::$Kind(transport)
            }
        }
    };
}
use closing_api;

/// A transport of either kind. A cheap handle; dropping it closes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// ICE, DTLS and SRTP.
    WebRtc(WebRtcTransport),
    /// RTP and RTCP in the clear.
    Plain(PlainRtpTransport),
}

common_api!(Transport);

impl Transport {
    /// The WebRTC transport, if it is one.
    pub fn as_web_rtc(&self) -> Option<&WebRtcTransport> {
        match self {
            Self::WebRtc(transport) => Some(transport),
            Self::Plain(_) => None,
        }
    }

    /// The plain RTP transport, if it is one.
    pub fn as_plain(&self) -> Option<&PlainRtpTransport> {
        match self {
            Self::WebRtc(_) => None,
            Self::Plain(transport) => Some(transport),
        }
    }

    /// Closes it: its producers close, consumers on it wait for another transport.
    ///
    /// Tells the client. Does nothing if it is closed.
    pub fn close(&self, app_data: Option<Value>) {
        let mut state = self.base().room.lock();
        self.close_in(&mut state, Originator::Local, app_data, true);
    }

    /// What the worker knows about it.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn dump(&self) -> Result<Value> {
        self.check_open()?;
        let call = Call::DumpTransport(Default::default());
        self.base().request(call, vec![]).await
    }

    /// Sends the client `transportStats` now and every `interval_ms`, at least 1000. A plain RTP
    /// transport has no statistics.
    pub fn enable_stats(&self, interval_ms: u64) {
        if let Self::WebRtc(transport) = self {
            transport.enable_stats(interval_ms);
        }
    }

    /// Stops what [`Self::enable_stats`] started.
    pub fn disable_stats(&self) {
        if let Self::WebRtc(transport) = self {
            transport.disable_stats();
        }
    }

    /// The WebRTC transport, for what only that can do.
    pub(crate) fn web_rtc(&self) -> Result<&WebRtcTransport> {
        self.as_web_rtc()
            .ok_or_else(|| Error::wrong_type("wrong Transport type"))
    }

    /// The plain RTP transport, for what only that can do.
    pub(crate) fn plain(&self) -> Result<&PlainRtpTransport> {
        self.as_plain()
            .ok_or_else(|| Error::wrong_type("wrong Transport type"))
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        match self {
            Self::WebRtc(transport) => transport.check_open(),
            Self::Plain(transport) => transport.check_open(),
        }
    }

    pub(crate) fn ids(&self) -> Ids {
        self.base().ids()
    }

    pub(crate) fn emit(&self, event: TransportEvent) {
        self.base().events.emit(event);
    }

    fn base(&self) -> &Base {
        match self {
            Self::WebRtc(transport) => transport.base(),
            Self::Plain(transport) => transport.base(),
        }
    }

    /// What makes it again in another worker.
    pub(crate) fn steps(&self) -> io::Result<Vec<Step>> {
        let (ids, part) = (self.ids(), Part::Transport(self.clone()));
        match self {
            Self::WebRtc(transport) => transport.steps(ids, part),
            Self::Plain(transport) => transport.steps(ids, part),
        }
    }

    /// Whether it came back as it was, by what the worker says of it.
    ///
    /// # Errors
    /// What was connected is not any more.
    pub(crate) fn check_restored(&self, dump: Value) -> Result<()> {
        match self {
            Self::WebRtc(transport) => transport.check_restored(dump),
            Self::Plain(_) => Ok(()),
        }
    }

    /// Enters it into the tables, when the answer that made it is read: an older transport of its
    /// id, just closed, has had its last event before.
    ///
    /// # Errors
    /// Whoever it was for has closed meanwhile; the worker is told to close it.
    pub(crate) fn register(&self) -> Result<()> {
        let base = self.base();
        let mut state = base.room.lock();
        let is_over = match &base.peer {
            Some(peer) => peer.closed(),
            None => state.is_closed(),
        };
        if is_over {
            state.send(self.ids(), Call::CloseTransport(Default::default()));
            return Err(Error::closed("Room"));
        }
        state.transports.insert(base.id, self.clone());
        if let Some(peer) = &base.peer {
            peer.add_transport(self.clone());
        }
        Ok(())
    }

    /// Something the worker tells.
    pub(crate) fn handle(&self, state: &mut State, event: Event) {
        match (self, event) {
            (_, Event::Close) => self.close_in(state, Originator::Local, None, false),
            (Self::WebRtc(transport), event) => transport.handle(event),
            (Self::Plain(_), event) => {
                tracing::warn!(id = self.id(), ?event, "unexpected event of a transport");
            }
        }
    }

    /// Closes it (`spec: api.md` §9.4).
    pub(crate) fn close_in(
        &self,
        state: &mut State,
        originator: Originator,
        app_data: Option<Value>,
        tell_worker: bool,
    ) {
        let base = self.base();
        if base.is_closed.swap(true, Ordering::AcqRel) {
            return;
        }
        match self {
            Self::WebRtc(transport) => transport.end(),
            Self::Plain(transport) => transport.end(),
        }
        state.transports.remove(&base.id);
        match &base.peer {
            Some(peer) => {
                if originator == Originator::Local {
                    let members = with_app_data(json!({ "id": self.id() }), app_data.as_ref());
                    peer.notify("transportClosed", members);
                }
                peer.forget_transport(self);
                state.departed.note(Instant::now(), base.id, peer.name());
                for producer in peer.producers() {
                    if producer.transport() == self {
                        producer.close_in(state, Originator::Local, None, false);
                    }
                }
                for consumer in peer.consumers() {
                    consumer.leave_transport(self);
                }
            }
            None => state.close_streamers(|streamer| self.as_plain() == Some(streamer.transport())),
        }
        base.events.emit_last(TransportEvent::Close {
            originator,
            app_data,
        });
        if tell_worker {
            state.send(self.ids(), Call::CloseTransport(Default::default()));
        }
    }
}
