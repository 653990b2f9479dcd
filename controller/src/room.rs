//! A room: peers that see and hear each other, in one worker.

pub(crate) mod implication;
mod moving;
pub(crate) mod recovery;

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use broth_ipc::body::{CreateConsumer, RouterDump, SetAudioLevelsEvent};
use broth_ipc::rtp::RtpCapabilities;
use broth_ipc::{
    Call, ConsumerId, Event, Ids, Notification, ProducerId, RouterId, Scope, TransportId,
};
use serde_json::{Value, json};

use crate::active_speaker::ActiveSpeakerDetector;
use crate::blame::Blame;
use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::events::{Emitter, EventStream, LONG_BACKLOG};
use crate::memory;
use crate::ortc::{self, RoomMediaCodec};
use crate::peer::{Peer, PeerEvent};
use crate::producer::Producer;
use crate::protocol::{self, Members, PlainOptions};
use crate::room_channel::RoomChannel;
use crate::rtp_streamer::{RtpStreamer, RtpStreamerOptions};
use crate::settings::Limits;
use crate::sockets::{BoundSocket, Ports, Prefer, RoomSockets};
use crate::supervisor::worker::{Places, Rooms, Worker, WorkerKind};
use crate::transport::{PlainRtpTransport, Transport};
use crate::worker_channel::Requests;
use crate::{lock, random_id, to_its_end};

use implication::Departed;
use moving::Moving;

/// What happens to a room (`spec: api.md` §6.4).
#[derive(Clone, Debug)]
pub enum RoomEvent {
    /// It closed.
    Close {
        /// Why.
        reason: CloseReason,
        /// Given by the application, if it closed the room.
        app_data: Option<Value>,
    },
    /// A client joined.
    NewPeer(Peer),
    /// Its worker died; another one is to go on with it.
    WorkerDied(String),
    /// Another worker goes on with it, so long after the death of the last.
    Recovered(Duration),
    /// It was moved to another worker, as planned.
    Moved {
        /// Place of the worker, from 0: the same as before if that one was replaced.
        worker_idx: usize,
        /// How long no worker took its packets, at most. They waited.
        gap: Duration,
    },
    /// A worker died over a datagram of this transport or something else that was done for it, or
    /// for the room as a whole. The first time the room goes on in a worker of its own; the second
    /// time it is closed, and from the third on the peer whose transport it is.
    Implicated {
        /// The transport; `None` for the room, or for a transport that is gone.
        transport: Option<Transport>,
        /// How many workers died over it within [`Settings::quarantine`](crate::Settings).
        deaths: u32,
    },
}

/// Why a room closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The application closed it.
    Application,
    /// The server closed.
    Server,
    /// Its worker died; the text says how.
    WorkerDied(String),
    /// Workers died over it more than once; the text says how the last one did.
    Implicated(String),
}

/// Producers that were heard in the last 500 ms, the loudest first, with their level in dBov:
/// 0 is the loudest, -127 silence (RFC 6464).
pub type AudioLevels = Vec<(Producer, i8)>;

/// A room. A cheap handle; dropping it closes nothing.
#[derive(Clone)]
pub struct Room(Arc<Inner>);

struct Inner {
    id: RouterId,
    /// The worker it lives in, or lived in until that died.
    worker: Mutex<Arc<Worker>>,
    /// Where it is listed: with that worker, unless it waits for another one elsewhere.
    home: Mutex<Arc<Rooms>>,
    channel: Arc<RoomChannel>,
    capabilities: RtpCapabilities,
    limits: Limits,
    ports: Arc<Ports>,
    /// Where it may go.
    places: Places,
    /// It is moved once at a time.
    moves: tokio::sync::Mutex<()>,
    /// Kept here so that they outlive the worker.
    sockets: RoomSockets,
    /// What the worker writes down for the next; `None` if it does not.
    recorder: Option<OwnedFd>,
    events: Emitter<RoomEvent>,
    audio_levels: Emitter<AudioLevels>,
    state: Mutex<State>,
}

/// The structure of a room: who is in it and what there is.
///
/// Every change of structure happens under its lock, which is never held across an `await`.
/// Locks of single objects are taken inside it, one at a time. Whoever has a `&mut State` holds
/// the lock.
pub(crate) struct State {
    is_closed: bool,
    is_reporting_levels: bool,
    /// When the worker died that nobody has replaced yet.
    lost_at: Option<Instant>,
    /// While it is on its way to another worker.
    moving: Option<Moving>,
    blame: Blame,
    pub(crate) departed: Departed,
    channel: Arc<RoomChannel>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) transports: HashMap<TransportId, Transport>,
    pub(crate) producers: HashMap<ProducerId, Producer>,
    pub(crate) consumers: HashMap<ConsumerId, Consumer>,
    pub(crate) streamers: Vec<RtpStreamer>,
}

impl State {
    /// Sends the worker a request whose refusal is only logged. Once the room is closed, its
    /// router goes with all there is in it.
    pub(crate) fn send(&self, ids: Ids, call: Call) {
        if !self.is_closed {
            self.channel.send(ids, call);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether something in the room has that id.
    pub(crate) fn knows(&self, id: u32) -> bool {
        self.scope_of(id).is_some() || self.producers.contains_key(&ProducerId(id))
    }

    /// What kind of thing with events has that id.
    fn scope_of(&self, id: u32) -> Option<Scope> {
        if self.transports.contains_key(&TransportId(id)) {
            return Some(Scope::Transport);
        }
        let is_consumer = self.consumers.contains_key(&ConsumerId(id));
        is_consumer.then_some(Scope::Consumer)
    }

    /// Closes the streamers whose consumer or transport closed.
    pub(crate) fn close_streamers(&mut self, is_over: impl Fn(&RtpStreamer) -> bool) {
        while let Some(at) = self.streamers.iter().position(&is_over) {
            let streamer = self.streamers.swap_remove(at);
            streamer.close_in(self);
        }
    }
}

impl PartialEq for Room {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room")
            .field("id", &self.0.id)
            .finish_non_exhaustive()
    }
}

impl Room {
    /// Makes a room on a worker.
    pub(crate) async fn create(
        worker: Arc<Worker>,
        places: Places,
        media_codecs: Vec<RoomMediaCodec>,
        ports: Arc<Ports>,
        limits: Limits,
    ) -> Result<Self> {
        let mut capabilities = ortc::room_capabilities(&media_codecs)?;
        let sockets = match worker.kind {
            WorkerKind::Broth { .. } => RoomSockets::bind(&ports)?,
            WorkerKind::V2 => {
                ortc::remove_transport_cc(&mut capabilities);
                RoomSockets::default()
            }
        };
        let recorder = match worker.kind {
            WorkerKind::Broth { restores: true } => {
                Some(memory::recorder().map_err(Error::passing)?)
            }
            WorkerKind::Broth { restores: false } | WorkerKind::V2 => None,
        };
        let channel = Arc::new(RoomChannel::new(worker.channel.clone()));
        let state = State {
            is_closed: false,
            is_reporting_levels: false,
            lost_at: None,
            moving: None,
            blame: Blame::default(),
            departed: Departed::default(),
            channel: Arc::clone(&channel),
            peers: Vec::new(),
            transports: HashMap::new(),
            producers: HashMap::new(),
            consumers: HashMap::new(),
            streamers: Vec::new(),
        };
        let room = Self(Arc::new(Inner {
            id: worker.free_router_id(),
            worker: Mutex::new(Arc::clone(&worker)),
            home: Mutex::new(Arc::clone(&worker.rooms)),
            channel,
            capabilities,
            limits,
            ports,
            places,
            moves: tokio::sync::Mutex::default(),
            sockets,
            recorder,
            events: Emitter::keeping(LONG_BACKLOG),
            audio_levels: Emitter::default(),
            state: Mutex::new(state),
        }));
        let (call, fds) = room.create_router(false).map_err(Error::passing)?;
        worker.channel.request(room.ids(), call, fds).await?;
        // From here on it survives the worker. If that has just died, the next one will not know
        // the room, and it is made again.
        worker.rooms.add(&worker, &room)?;
        Ok(room)
    }

    /// The id.
    pub fn id(&self) -> u32 {
        self.0.id.0
    }

    /// Whether it has been closed.
    pub fn closed(&self) -> bool {
        self.lock().is_closed
    }

    /// What can be sent and received in the room.
    pub fn rtp_capabilities(&self) -> &RtpCapabilities {
        &self.0.capabilities
    }

    /// The peers in the order they joined, spies included.
    pub fn peers(&self) -> Vec<Peer> {
        self.lock().peers.clone()
    }

    /// The peer with that name.
    pub fn get_peer_by_name(&self, name: &str) -> Option<Peer> {
        self.lock()
            .peers
            .iter()
            .find(|peer| peer.name() == name)
            .cloned()
    }

    /// Place of its worker among the server's, from 0.
    pub fn worker_idx(&self) -> usize {
        self.worker().idx
    }

    /// The ports media is received at: `(address, port)` of each UDP socket and TCP listener that
    /// its WebRTC transports share.
    pub fn ports(&self) -> Vec<(IpAddr, u16)> {
        let described = self.0.sockets.described.iter();
        described.map(|socket| (socket.ip, socket.port)).collect()
    }

    /// What happens from now on; the first subscriber also gets what happened before.
    pub fn events(&self) -> EventStream<RoomEvent> {
        self.0.events.subscribe()
    }

    /// Who is heard, every 500 ms. The worker measures only while somebody listens.
    pub fn audio_levels(&self) -> EventStream<AudioLevels> {
        let mut state = self.lock();
        let levels = self.0.audio_levels.subscribe();
        if state.is_closed {
            self.0.audio_levels.end();
        }
        self.report_levels(&mut state, true);
        levels
    }

    /// Closes it with everything in it. Does nothing if it is closed.
    pub fn close(&self, app_data: Option<Value>) {
        self.close_for(CloseReason::Application, app_data);
    }

    /// Handles a request of a client with target `room`: `queryRoom` or `join`
    /// (`spec: protocol.md` §2). The answer is to be sent back.
    ///
    /// The peer that joined comes by [`RoomEvent::NewPeer`] and [`Self::get_peer_by_name`]; what
    /// [`Self::join`] returns is handier.
    ///
    /// # Errors
    /// The room is closed, or the request is malformed or not possible; the text is fit for the
    /// client.
    pub async fn receive_request(&self, request: Value) -> Result<Value> {
        self.check_open()?;
        let (method, members) = protocol::open_request(request)?;
        match method.as_str() {
            "queryRoom" => Ok(json!({
                "rtpCapabilities": self.0.capabilities,
                "mandatoryCodecPayloadTypes": [],
            })),
            "join" => Ok(self.join_with(members)?.1),
            other => Err(Error::other(format!("unknown request method \"{other}\""))),
        }
    }

    /// Handles a `join` request and returns the peer with the answer for its client.
    ///
    /// # Errors
    /// As [`Self::receive_request`].
    pub fn join(&self, request: Value) -> Result<(Peer, Value)> {
        self.check_open()?;
        match protocol::open_request(request)? {
            (method, members) if method == "join" => self.join_with(members),
            (method, _) => Err(Error::other(format!("\"{method}\" is not join"))),
        }
    }

    /// Sends what a producer of this room sends to an address, as plain RTP (`spec: api.md` §13).
    ///
    /// # Errors
    /// The producer is not of this room or closed, the address is of a family that is not
    /// listened on, no port is free, or the worker refuses.
    pub async fn create_rtp_streamer(
        &self,
        producer: &Producer,
        options: RtpStreamerOptions,
    ) -> Result<RtpStreamer> {
        self.check_open()?;
        if !self.has(producer) {
            return Err(Error::other("Producer not found"));
        }
        let (room, producer) = (self.clone(), producer.clone());
        let stream = async move { room.stream(&producer, options).await };
        to_its_end(stream, |streamer: RtpStreamer| streamer.close()).await
    }

    /// Starts telling who speaks (`spec: api.md` §14).
    ///
    /// # Errors
    /// The room is closed.
    pub fn create_active_speaker_detector(&self) -> Result<ActiveSpeakerDetector> {
        self.check_open()?;
        Ok(ActiveSpeakerDetector::start(self))
    }

    /// Everything the worker knows about it.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn dump(&self) -> Result<RouterDump> {
        self.check_open()?;
        let call = Call::DumpRouter(Default::default());
        crate::parsed(self.channel().request(self.ids(), call, vec![]).await?)
    }

    /// Checks everything first, so that a failed join leaves nothing behind.
    fn join_with(&self, mut members: Members) -> Result<(Peer, Value)> {
        let name = protocol::text(&members, "peerName")?;
        let mut state = self.lock();
        if state.is_closed {
            return Err(Error::closed("Room"));
        }
        if state.peers.iter().any(|peer| peer.name() == name) {
            return Err(Error::other(format!(
                "duplicated Peer [peerName:\"{name}\"]"
            )));
        }
        let capabilities: RtpCapabilities = protocol::shaped(&mut members, "rtpCapabilities")?;
        ortc::assert_capabilities_subset(&capabilities, &self.0.capabilities)?;
        let is_spy = protocol::flag(&members, "spy")?;
        let app_data = protocol::app_data(&mut members).unwrap_or_default();
        let peer = Peer::new(self.clone(), name, is_spy, capabilities, app_data);
        let others = state.peers.clone();
        let mut described = Vec::new();
        for other in &others {
            let mut consumers = Vec::new();
            for producer in other.producers() {
                let consumer = self.add_consumer(&mut state, Some(&peer), &producer);
                peer.emit(PeerEvent::NewConsumer(consumer.clone()));
                consumers.push(consumer.to_data());
            }
            if !is_spy {
                other.notify("newPeer", peer.to_data(&[]));
            }
            if !other.spy() {
                described.push(other.to_data(&consumers));
            }
        }
        state.peers.push(peer.clone());
        self.0.events.emit(RoomEvent::NewPeer(peer.clone()));
        Ok((peer, json!({ "peers": described })))
    }

    async fn stream(
        &self,
        producer: &Producer,
        options: RtpStreamerOptions,
    ) -> Result<RtpStreamer> {
        let id = TransportId(random_id());
        let options = PlainOptions::towards(options.remote, options.local_ip);
        let transport = PlainRtpTransport::create(self, None, id, options, Value::Null).await?;
        let consumer = {
            let mut state = self.lock();
            if producer.closed() {
                drop(state);
                transport.close(None);
                return Err(Error::other("Producer not found"));
            }
            let consumer = self.add_consumer(&mut state, None, producer);
            let streamer = RtpStreamer::new(self.clone(), consumer.clone(), transport.clone());
            state.streamers.push(streamer);
            consumer
        };
        // Whatever closes meanwhile closes the rest.
        let enabled = consumer.enable(&Transport::from(transport)).await;
        let mut state = self.lock();
        let is_its = |streamer: &RtpStreamer| streamer.consumer() == &consumer;
        match (
            enabled,
            state.streamers.iter().find(|streamer| is_its(streamer)),
        ) {
            (Ok(()), Some(streamer)) => Ok(streamer.clone()),
            (Ok(()), None) => Err(Error::closed("RtpStreamer")),
            (Err(error), _) => {
                state.close_streamers(is_its);
                Err(error)
            }
        }
    }

    /// Makes the consumer of `owner`, or of a streamer, for `producer`.
    pub(crate) fn add_consumer(
        &self,
        state: &mut State,
        owner: Option<&Peer>,
        producer: &Producer,
    ) -> Consumer {
        let id = std::iter::repeat_with(random_id)
            .find(|id| !state.knows(*id))
            .map(ConsumerId)
            .expect("the iterator is endless");
        // All consumers of a client may share a transport and hence a key: no SSRC twice.
        let consumers = owner.map(Peer::consumers).unwrap_or_default();
        let is_free = |ssrc: &u32| !consumers.iter().any(|other| other.uses(*ssrc));
        let mut free = std::iter::repeat_with(random_id).filter(is_free);
        let ssrc = free.next().expect("the iterator is endless");
        let rtx_ssrc = free
            .find(|rtx| *rtx != ssrc)
            .expect("the iterator is endless");
        let parameters = ortc::consumer_parameters(
            producer.consumable_rtp_parameters(),
            owner.map_or(&self.0.capabilities, Peer::rtp_capabilities),
            ssrc,
            rtx_ssrc,
        );
        let consumer = Consumer::new(id, producer.clone(), owner.cloned(), parameters);
        state.consumers.insert(id, consumer.clone());
        if let Some(owner) = owner {
            owner.add_consumer(consumer.clone());
        }
        producer.add_consumer(consumer.clone());
        let call = Call::CreateConsumer(CreateConsumer {
            kind: producer.kind(),
        });
        let (room, refused) = (self.clone(), consumer.clone());
        state
            .channel
            .send_then(consumer.ids(), call, move |answer| {
                match answer {
                    // The next worker is asked for it with all the rest.
                    Ok(_) | Err(Error::ChannelClosed) => {}
                    Err(error) => {
                        tracing::error!(id = refused.id(), %error, "consumer refused");
                        refused.close_in(&mut room.lock(), false);
                    }
                }
            });
        consumer
    }

    /// Something the worker tells about the room or something in it.
    pub(crate) fn handle(&self, notification: Notification) {
        let mut state = self.lock();
        let (id, event) = (notification.target.target_id, notification.event);
        // The original worker does not say what it speaks of.
        let scope = notification.target.scope.or_else(|| state.scope_of(id));
        // What is not found was closed from this side a moment ago.
        match scope {
            Some(Scope::Transport) => {
                if let Some(transport) = state.transports.get(&TransportId(id)).cloned() {
                    transport.handle(&mut state, event);
                }
            }
            Some(Scope::Consumer) => {
                if let Some(consumer) = state.consumers.get(&ConsumerId(id)).cloned() {
                    consumer.handle(&mut state, event);
                }
            }
            _ => match event {
                Event::AudioLevels { entries } => self.tell_levels(&mut state, entries),
                other => tracing::warn!(id, ?other, "unexpected event of a room"),
            },
        }
    }

    fn tell_levels(&self, state: &mut State, mut entries: Vec<(ProducerId, i8)>) {
        entries.sort_by_key(|(_, level)| std::cmp::Reverse(*level));
        let known = entries.into_iter().filter_map(|(id, level)| {
            let producer = state.producers.get(&id)?.clone();
            Some((producer, level))
        });
        if !self.0.audio_levels.emit(known.collect()) {
            self.report_levels(state, false);
        }
    }

    fn report_levels(&self, state: &mut State, enabled: bool) {
        if std::mem::replace(&mut state.is_reporting_levels, enabled) != enabled {
            let call = Call::SetAudioLevelsEvent(SetAudioLevelsEvent { enabled });
            state.send(self.ids(), call);
        }
    }

    /// Closes it (`spec: api.md` §6.5).
    pub(crate) fn close_for(&self, reason: CloseReason, app_data: Option<Value>) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_closed, true) {
            return;
        }
        self.home().remove(self);
        self.0.events.emit_last(RoomEvent::Close {
            reason: reason.clone(),
            app_data,
        });
        self.0.audio_levels.end();
        for peer in state.peers.clone() {
            peer.close_in(&mut state, crate::Originator::Local, None);
        }
        // A worker that is told to end leaves rooms to a successor, and says no goodbye to anybody.
        if matches!(reason, CloseReason::Application | CloseReason::Server) {
            state
                .channel
                .send(self.ids(), Call::CloseRouter(Default::default()));
        }
        state.channel.close();
        if let Some(moving) = state.moving.take() {
            moving.settle(Err(Error::closed("Room")));
        }
        // Not left to the last handle: an application may keep one for long.
        self.0.sockets.release();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    pub(crate) fn ids(&self) -> Ids {
        Ids::router(self.0.id)
    }

    pub(crate) fn router_id(&self) -> RouterId {
        self.0.id
    }

    pub(crate) fn channel(&self) -> &RoomChannel {
        &self.0.channel
    }

    pub(crate) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Binds a UDP socket that can reach `remote`; `None` if the worker is to do that.
    pub(crate) fn bind_towards(
        &self,
        remote: Option<IpAddr>,
        local: Option<IpAddr>,
        prefer: Prefer,
    ) -> Result<Option<BoundSocket>> {
        match self.worker().kind {
            WorkerKind::Broth { .. } => self.0.ports.bind_towards(remote, local, prefer).map(Some),
            WorkerKind::V2 => Ok(None),
        }
    }

    pub(crate) fn worker(&self) -> Arc<Worker> {
        Arc::clone(&lock(&self.0.worker))
    }

    fn home(&self) -> Arc<Rooms> {
        Arc::clone(&lock(&self.0.home))
    }

    /// It is listed there.
    pub(crate) fn set_home(&self, home: &Arc<Rooms>) {
        *lock(&self.0.home) = Arc::clone(home);
    }

    /// Lets it wait for a worker elsewhere, if it is open and has none; returns whether it does.
    pub(crate) fn move_home(&self, home: &Arc<Rooms>) -> bool {
        let state = self.lock();
        let waits = !state.is_closed && self.0.channel.is_down();
        if waits {
            self.home().remove(self);
            self.set_home(home);
            home.shelter(self);
        }
        waits
    }

    /// Whether a worker's notification with that target, which says no more, is for it.
    pub(crate) fn is_target(&self, id: u32) -> bool {
        self.0.id.0 == id || self.lock().scope_of(id).is_some()
    }

    fn has(&self, producer: &Producer) -> bool {
        let known = self
            .lock()
            .producers
            .get(&ProducerId(producer.id()))
            .cloned();
        known.as_ref() == Some(producer)
    }

    /// How many things it has, for placing the next one.
    pub(crate) fn weight(&self) -> usize {
        let state = self.lock();
        state.peers.len() + state.producers.len() + state.consumers.len()
    }

    fn check_open(&self) -> Result<()> {
        Error::if_closed(self.closed(), "Room")
    }
}
