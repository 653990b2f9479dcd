//! A peer: one participant of a room, as its client's messages made it.

mod notifications;
mod requests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broth_ipc::rtp::RtpCapabilities;
use serde_json::{Value, json};

use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::events::{Emitter, EventStream, LONG_BACKLOG};
use crate::producer::Producer;
use crate::protocol::{self, with_app_data};
use crate::room::{Room, State};
use crate::transport::Transport;
use crate::{Originator, lock};

/// What happens to a peer (`spec: api.md` §7.6).
#[derive(Clone, Debug)]
pub enum PeerEvent {
    /// It closed.
    Close {
        /// The application (`Local`) or the client (`Remote`).
        originator: Originator,
        /// Given by whoever closed it.
        app_data: Option<Value>,
    },
    /// A mediasoup protocol notification to be delivered to the client.
    Notify(Value),
    /// The client has a new transport.
    NewTransport(Transport),
    /// The client sends something new.
    NewProducer(Producer),
    /// There is something new to send to the client.
    NewConsumer(Consumer),
    /// The worker of its room died; another one is to go on. The client need not be told.
    WorkerDied(String),
    /// Another worker goes on, so long after the death of the last.
    Recovered(Duration),
    /// Its room was moved to another worker, which took no packets for so long, at most. The client
    /// need not be told.
    Moved(Duration),
}

/// A peer. A cheap handle; dropping it closes nothing.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Inner>);

struct Inner {
    room: Room,
    name: String,
    is_spy: bool,
    rtp_capabilities: RtpCapabilities,
    events: Emitter<PeerEvent>,
    app_data: Mutex<Value>,
    now: Mutex<Now>,
    /// Messages of the client are handled one after the other, in the order they were given.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What changes.
#[derive(Default)]
struct Now {
    is_closed: bool,
    transports: Vec<Transport>,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Peer {
    pub(crate) fn new(
        room: Room,
        name: String,
        is_spy: bool,
        rtp_capabilities: RtpCapabilities,
        app_data: Value,
    ) -> Self {
        Self(Arc::new(Inner {
            room,
            name,
            is_spy,
            rtp_capabilities,
            events: Emitter::keeping(LONG_BACKLOG),
            app_data: Mutex::new(app_data),
            now: Mutex::default(),
            turn: Arc::default(),
        }))
    }

    /// The name, unique in the room.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it has been closed.
    pub fn closed(&self) -> bool {
        lock(&self.0.now).is_closed
    }

    /// The application's own data; initially what the client sent with `join`.
    pub fn app_data(&self) -> Value {
        lock(&self.0.app_data).clone()
    }

    /// Replaces the application's own data.
    pub fn set_app_data(&self, app_data: Value) {
        *lock(&self.0.app_data) = app_data;
    }

    /// What the client can receive, as it told with `join`.
    pub fn rtp_capabilities(&self) -> &RtpCapabilities {
        &self.0.rtp_capabilities
    }

    /// Whether the other clients are not told about it; a spy cannot produce.
    pub fn spy(&self) -> bool {
        self.0.is_spy
    }

    /// The room it is in.
    pub fn room(&self) -> &Room {
        &self.0.room
    }

    /// Its transports in the order they were created.
    pub fn transports(&self) -> Vec<Transport> {
        lock(&self.0.now).transports.clone()
    }

    /// Its producers in the order they were created.
    pub fn producers(&self) -> Vec<Producer> {
        lock(&self.0.now).producers.clone()
    }

    /// Its consumers in the order they were created.
    pub fn consumers(&self) -> Vec<Consumer> {
        lock(&self.0.now).consumers.clone()
    }

    /// The transport with that id.
    pub fn get_transport_by_id(&self, id: u32) -> Option<Transport> {
        let now = lock(&self.0.now);
        now.transports
            .iter()
            .find(|transport| transport.id() == id)
            .cloned()
    }

    /// The producer with that id.
    pub fn get_producer_by_id(&self, id: u32) -> Option<Producer> {
        let now = lock(&self.0.now);
        now.producers
            .iter()
            .find(|producer| producer.id() == id)
            .cloned()
    }

    /// The consumer with that id.
    pub fn get_consumer_by_id(&self, id: u32) -> Option<Consumer> {
        let now = lock(&self.0.now);
        now.consumers
            .iter()
            .find(|consumer| consumer.id() == id)
            .cloned()
    }

    /// The consumer of this peer that `producer` feeds.
    pub fn get_consumer_for_source(&self, producer: &Producer) -> Option<Consumer> {
        let now = lock(&self.0.now);
        now.consumers
            .iter()
            .find(|consumer| consumer.source() == producer)
            .cloned()
    }

    /// What happens from now on; the first subscriber also gets what happened before.
    ///
    /// [`PeerEvent::Notify`] must be delivered to the client, in order.
    pub fn events(&self) -> EventStream<PeerEvent> {
        self.0.events.subscribe()
    }

    /// Closes it with all its transports, producers and consumers, and tells the client.
    ///
    /// Does nothing if it is closed.
    pub fn close(&self, app_data: Option<Value>) {
        let mut state = self.0.room.lock();
        self.close_in(&mut state, Originator::Local, app_data);
    }

    /// Handles a request of the client with target `peer`; the answer is to be sent back.
    ///
    /// Methods: `createTransport`, `restartTransport`, `createProducer`, `enableConsumer`
    /// (`spec: protocol.md` §3). Requests of one peer are handled one after the other.
    ///
    /// # Errors
    /// The request is malformed or not possible; the text is fit for the client.
    pub async fn receive_request(&self, request: Value) -> Result<Value> {
        self.check_open()?;
        let (method, members) = protocol::open_request(request)?;
        let peer = self.clone();
        self.in_turn(async move { peer.handle_request(&method, members).await })
            .await?
    }

    /// Handles a notification of the client with target `peer` (`spec: protocol.md` §4).
    ///
    /// What goes wrong inside is only logged.
    ///
    /// # Errors
    /// The peer is closed, or this is no notification.
    pub async fn receive_notification(&self, notification: Value) -> Result<()> {
        self.check_open()?;
        let (method, mut members) = protocol::open_notification(notification)?;
        if method == "leave" {
            // Not in turn: who leaves does not wait for a request that hangs.
            self.leave(protocol::app_data(&mut members));
            return Ok(());
        }
        let peer = self.clone();
        self.in_turn(async move {
            if let Err(error) = peer.handle_notification(&method, members).await {
                // Clients must not write the log.
                tracing::debug!(peer = peer.name(), %error, "notification failed");
            }
        })
        .await
    }

    /// Everything the worker knows about it: `{ peerName, transports, producers, consumers }`.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn dump(&self) -> Result<Value> {
        Error::if_closed(self.closed(), "Peer")?;
        let (mut transports, mut producers, mut consumers) = (vec![], vec![], vec![]);
        for transport in self.transports() {
            transports.push(transport.dump().await?);
        }
        for producer in self.producers() {
            producers.push(producer.dump().await?);
        }
        for consumer in self.consumers() {
            consumers.push(consumer.dump().await?);
        }
        Ok(json!({
            "peerName": self.name(),
            "transports": transports,
            "producers": producers,
            "consumers": consumers,
        }))
    }

    /// Runs `work` when it is this message's turn, to its end even if the caller loses interest:
    /// half a request would leave the worker with things nobody knows.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.0.turn).lock_owned().await;
        let done = tokio::spawn(async move {
            let result = work.await;
            drop(turn);
            result
        });
        done.await
            .map_err(|error| Error::other(format!("request failed: {error}")))
    }

    fn check_open(&self) -> Result<()> {
        // The text is v2's (`spec: protocol.md` §3).
        Error::if_closed(self.closed(), "Room")
    }

    /// Sends the client a notification, unless it is gone.
    pub(crate) fn notify(&self, method: &str, members: Value) {
        if !self.closed() {
            let notification = protocol::notification(method, members);
            self.0.events.emit(PeerEvent::Notify(notification));
        }
    }

    pub(crate) fn emit(&self, event: PeerEvent) {
        self.0.events.emit(event);
    }

    fn leave(&self, app_data: Option<Value>) {
        let mut state = self.0.room.lock();
        self.close_in(&mut state, Originator::Remote, app_data);
    }

    /// Closes it (`spec: api.md` §7.5).
    pub(crate) fn close_in(
        &self,
        state: &mut State,
        originator: Originator,
        app_data: Option<Value>,
    ) {
        if self.closed() {
            return;
        }
        if originator == Originator::Local {
            self.notify("closed", with_app_data(json!({}), app_data.as_ref()));
        }
        lock(&self.0.now).is_closed = true;
        state.peers.retain(|other| other != self);
        if !self.0.is_spy {
            let members = with_app_data(json!({ "name": self.name() }), app_data.as_ref());
            for other in &state.peers {
                other.notify("peerClosed", members.clone());
            }
        }
        self.0.events.emit_last(PeerEvent::Close {
            originator,
            app_data,
        });
        for producer in self.producers() {
            producer.close_in(state, originator, None, true);
        }
        for consumer in self.consumers() {
            consumer.close_in(state, true);
        }
        for transport in self.transports() {
            transport.close_in(state, originator, None, true);
        }
    }

    pub(crate) fn add_transport(&self, transport: Transport) {
        lock(&self.0.now).transports.push(transport.clone());
        self.emit(PeerEvent::NewTransport(transport));
    }

    pub(crate) fn add_consumer(&self, consumer: Consumer) {
        lock(&self.0.now).consumers.push(consumer);
    }

    pub(crate) fn forget_transport(&self, transport: &Transport) {
        lock(&self.0.now)
            .transports
            .retain(|other| other != transport);
    }

    pub(crate) fn forget_producer(&self, producer: &Producer) {
        lock(&self.0.now)
            .producers
            .retain(|other| other != producer);
    }

    pub(crate) fn forget_consumer(&self, consumer: &Consumer) {
        lock(&self.0.now)
            .consumers
            .retain(|other| other != consumer);
    }

    /// How others see it in `newPeer` and the answer to `join`.
    pub(crate) fn to_data(&self, consumers: &[Value]) -> Value {
        let members = json!({ "consumers": consumers, "name": self.name() });
        let app_data = self.app_data();
        with_app_data(members, Some(&app_data).filter(|data| !data.is_null()))
    }
}
