//! A producer: media coming from one client.

use std::sync::{Arc, Mutex};

use broth_ipc::body::{CreateProducer, ProducerDump, RtpStreamStats, SetPreferredProfile};
use broth_ipc::rtp::{MediaKind, Profile, RtpMapping, RtpParameters};
use broth_ipc::{Call, Ids, ProducerId};
use serde_json::{Value, json};

use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::events::{Emitter, EventStream};
use crate::pauses::{Pauses, Sum};
use crate::peer::Peer;
use crate::periodic::Periodic;
use crate::protocol::with_app_data;
use crate::room::State;
use crate::transport::Transport;
use crate::{Originator, lock};

/// What happens to a producer (`spec: api.md` §11.3).
#[derive(Clone, Debug)]
pub enum ProducerEvent {
    /// It closed.
    Close {
        /// The application (`Local`) or the client (`Remote`).
        originator: Originator,
        /// Given by whoever closed it.
        app_data: Option<Value>,
    },
    /// It was paused.
    Pause {
        /// The application (`Local`) or the client (`Remote`).
        originator: Originator,
        /// Given by whoever paused it.
        app_data: Option<Value>,
    },
    /// It was resumed, by one of the two who may pause it.
    Resume {
        /// The application (`Local`) or the client (`Remote`).
        originator: Originator,
        /// Given by whoever resumed it.
        app_data: Option<Value>,
    },
}

/// A producer. A cheap handle; dropping it closes nothing.
#[derive(Clone)]
pub struct Producer(Arc<Inner>);

struct Inner {
    id: ProducerId,
    peer: Peer,
    transport: Transport,
    request: CreateProducer,
    consumable: RtpParameters,
    events: Emitter<ProducerEvent>,
    stats: Periodic,
    app_data: Mutex<Value>,
    now: Mutex<Now>,
}

/// What changes.
#[derive(Default)]
struct Now {
    is_closed: bool,
    pauses: Pauses,
    preferred_profile: Profile,
    consumers: Vec<Consumer>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("id", &self.0.id)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Producer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Producer {
    pub(crate) fn new(
        id: ProducerId,
        peer: Peer,
        transport: Transport,
        request: CreateProducer,
        consumable: RtpParameters,
        app_data: Value,
    ) -> Self {
        let now = Now {
            pauses: Pauses {
                local: false,
                remote: request.paused,
            },
            ..Now::default()
        };
        Self(Arc::new(Inner {
            id,
            peer,
            transport,
            request,
            consumable,
            events: Emitter::default(),
            stats: Periodic::default(),
            app_data: Mutex::new(app_data),
            now: Mutex::new(now),
        }))
    }

    /// The id, chosen by the client.
    pub fn id(&self) -> u32 {
        self.0.id.0
    }

    /// Whether it has been closed.
    pub fn closed(&self) -> bool {
        lock(&self.0.now).is_closed
    }

    /// The application's own data; initially what the client sent. A consumer starts with it.
    pub fn app_data(&self) -> Value {
        lock(&self.0.app_data).clone()
    }

    /// Replaces the application's own data.
    pub fn set_app_data(&self, app_data: Value) {
        *lock(&self.0.app_data) = app_data;
    }

    /// Audio or video.
    pub fn kind(&self) -> MediaKind {
        self.0.request.kind
    }

    /// The peer that sends.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// The transport it sends on; kept even after that has closed.
    pub fn transport(&self) -> &Transport {
        &self.0.transport
    }

    /// What the client sends, in its own payload types and extension ids.
    pub fn rtp_parameters(&self) -> &RtpParameters {
        &self.0.request.rtp_parameters
    }

    /// How its payload types and extension ids map to the room's.
    pub fn rtp_mapping(&self) -> &RtpMapping {
        &self.0.request.rtp_mapping
    }

    /// What the client sends, in the room's payload types and extension ids.
    pub fn consumable_rtp_parameters(&self) -> &RtpParameters {
        &self.0.consumable
    }

    /// Whether the application paused it.
    pub fn locally_paused(&self) -> bool {
        lock(&self.0.now).pauses.local
    }

    /// Whether the client paused it.
    pub fn remotely_paused(&self) -> bool {
        lock(&self.0.now).pauses.remote
    }

    /// Whether anybody paused it.
    pub fn paused(&self) -> bool {
        lock(&self.0.now).pauses.is_any()
    }

    /// The layer for consumers without a wish of their own.
    pub fn preferred_profile(&self) -> Profile {
        lock(&self.0.now).preferred_profile
    }

    /// What happens from now on.
    pub fn events(&self) -> EventStream<ProducerEvent> {
        self.0.events.subscribe()
    }

    /// Closes it and the consumers it feeds, and tells the clients. Does nothing if it is closed.
    pub fn close(&self, app_data: Option<Value>) {
        let mut state = self.peer().room().lock();
        if self.closed() {
            return;
        }
        let members = json!({ "id": self.id(), "peerName": self.peer().name() });
        self.peer()
            .notify("producerClosed", with_app_data(members, app_data.as_ref()));
        self.close_in(&mut state, Originator::Local, app_data, true);
    }

    /// Stops forwarding what the client sends, and tells the clients. Returns whether it is
    /// paused now; a closed one never is.
    pub fn pause(&self, app_data: Option<Value>) -> bool {
        self.set_paused(Originator::Local, true, app_data);
        self.paused() && !self.closed()
    }

    /// Takes back [`Self::pause`]. Returns whether it runs now, as the client may have paused it
    /// too; `true` if there was nothing to take back.
    pub fn resume(&self, app_data: Option<Value>) -> bool {
        let was_paused = self.locally_paused();
        self.set_paused(Originator::Local, false, app_data);
        !(self.closed() || was_paused && self.paused())
    }

    /// Sets the layer for consumers without a wish of their own.
    pub fn set_preferred_profile(&self, profile: Profile) {
        if self.closed() || profile == Profile::None || profile == self.preferred_profile() {
            return tracing::debug!(id = self.id(), %profile, "preferred profile not changed");
        }
        let producer = self.clone();
        let call = Call::SetProducerProfile(SetPreferredProfile { profile });
        let channel = self.peer().room().channel();
        channel.send_then(self.ids(), call, move |answer| match answer {
            Ok(_) => lock(&producer.0.now).preferred_profile = profile,
            Err(error) => tracing::error!(%error, "producer.setPreferredProfile"),
        });
    }

    /// Statistics, one entry per received stream (`spec: channel.md` §8.2).
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn get_stats(&self) -> Result<Vec<RtpStreamStats>> {
        self.check_open()?;
        crate::parsed(
            self.request(Call::GetProducerStats(Default::default()))
                .await?,
        )
    }

    /// What the worker knows about it.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn dump(&self) -> Result<ProducerDump> {
        self.check_open()?;
        crate::parsed(self.request(Call::DumpProducer(Default::default())).await?)
    }

    /// Sends the client `producerStats` now and every `interval_ms`, at least 1000, unless paused.
    pub fn enable_stats(&self, interval_ms: u64) {
        if self.closed() {
            return tracing::error!(id = self.id(), "enable_stats: producer closed");
        }
        let producer = self.clone();
        self.0.stats.enable(interval_ms, move || {
            let producer = producer.clone();
            async move {
                if !producer.paused()
                    && let Ok(stats) = producer.get_stats().await
                {
                    let members = json!({ "id": producer.id(), "stats": stats });
                    producer.peer().notify("producerStats", members);
                }
                !producer.closed()
            }
        });
    }

    /// Stops what [`Self::enable_stats`] started.
    pub fn disable_stats(&self) {
        self.0.stats.disable();
    }

    /// Pauses or resumes on one side. The worker only hears of the sum of both.
    pub(crate) fn set_paused(&self, side: Originator, is_paused: bool, app_data: Option<Value>) {
        let state = self.peer().room().lock();
        let sum = {
            let mut now = lock(&self.0.now);
            if now.is_closed {
                return tracing::error!(id = self.id(), "pause/resume: producer closed");
            }
            let Some(sum) = now.pauses.set(side, is_paused) else {
                return;
            };
            sum
        };
        if side == Originator::Local {
            let method = if is_paused {
                "producerPaused"
            } else {
                "producerResumed"
            };
            let members = json!({ "id": self.id(), "peerName": self.peer().name() });
            self.peer()
                .notify(method, with_app_data(members, app_data.as_ref()));
        }
        match sum {
            Sum::Paused => state.send(self.ids(), Call::PauseProducer(Default::default())),
            Sum::Resumed => state.send(self.ids(), Call::ResumeProducer(Default::default())),
            Sum::Same => {}
        }
        self.0.events.emit(match is_paused {
            true => ProducerEvent::Pause {
                originator: side,
                app_data,
            },
            false => ProducerEvent::Resume {
                originator: side,
                app_data,
            },
        });
    }

    /// Closes it and its consumers (`spec: api.md` §11.4).
    pub(crate) fn close_in(
        &self,
        state: &mut State,
        originator: Originator,
        app_data: Option<Value>,
        tell_worker: bool,
    ) {
        let consumers = {
            let mut now = lock(&self.0.now);
            if std::mem::replace(&mut now.is_closed, true) {
                return;
            }
            std::mem::take(&mut now.consumers)
        };
        self.0.stats.disable();
        state.producers.remove(&self.0.id);
        self.peer().forget_producer(self);
        self.0.events.emit_last(ProducerEvent::Close {
            originator,
            app_data,
        });
        // The worker closes them by itself.
        for consumer in consumers {
            consumer.close_in(state, false);
        }
        if tell_worker {
            state.send(self.ids(), Call::CloseProducer(Default::default()));
        }
    }

    pub(crate) fn add_consumer(&self, consumer: Consumer) {
        lock(&self.0.now).consumers.push(consumer);
    }

    pub(crate) fn forget_consumer(&self, consumer: &Consumer) {
        lock(&self.0.now)
            .consumers
            .retain(|other| other != consumer);
    }

    pub(crate) fn ids(&self) -> Ids {
        self.0.transport.ids().producer(self.0.id)
    }

    fn check_open(&self) -> Result<()> {
        Error::if_closed(self.closed(), "Producer")
    }

    async fn request(&self, call: Call) -> Result<Value> {
        self.peer()
            .room()
            .channel()
            .request(self.ids(), call, vec![])
            .await
    }
}
