//! A consumer: media of one producer going to one client.

use std::sync::{Arc, Mutex};

use broth_ipc::body::{
    ConsumerDump, CreateConsumer, EnableConsumer, EncodingPreferences, RtpStreamStats,
    SetPreferredProfile,
};
use broth_ipc::rtp::{MediaKind, Profile, RtpParameters};
use broth_ipc::{Call, ConsumerId, Event, Ids, TransportId};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::events::{Emitter, EventStream};
use crate::pauses::{Pauses, Sum};
use crate::peer::Peer;
use crate::periodic::Periodic;
use crate::producer::Producer;
use crate::protocol::with_app_data;
use crate::room::recovery::{Part, Step};
use crate::room::{Room, State};
use crate::transport::Transport;
use crate::worker_channel::Requests;
use crate::{Originator, lock};

/// What happens to a consumer (`spec: api.md` §12.3).
#[derive(Clone, Debug)]
pub enum ConsumerEvent {
    /// It closed.
    Close,
    /// It was paused.
    Pause {
        /// The application (`Local`), the client (`Remote`) or the producer (`Source`).
        originator: Originator,
        /// Given by whoever paused it.
        app_data: Option<Value>,
    },
    /// It was resumed, by one of the three who may pause it.
    Resume {
        /// The application (`Local`), the client (`Remote`) or the producer (`Source`).
        originator: Originator,
        /// Given by whoever resumed it.
        app_data: Option<Value>,
    },
    /// Another layer is being forwarded.
    EffectiveProfileChange(Profile),
    /// It was enabled on a transport.
    Handled,
    /// Its transport closed; it can be enabled on another.
    Unhandled,
}

/// A consumer. A cheap handle; dropping it closes nothing.
#[derive(Clone)]
pub struct Consumer(Arc<Inner>);

struct Inner {
    id: ConsumerId,
    source: Producer,
    /// `None`: an RTP streamer.
    owner: Option<Peer>,
    rtp_parameters: RtpParameters,
    events: Emitter<ConsumerEvent>,
    stats: Periodic,
    app_data: Mutex<Value>,
    now: Mutex<Now>,
}

/// What changes.
#[derive(Default)]
struct Now {
    is_closed: bool,
    transport: Option<Transport>,
    pauses: Pauses,
    is_source_paused: bool,
    preferred_profile: Profile,
    effective_profile: Option<Profile>,
    encoding_preferences: EncodingPreferences,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("id", &self.0.id)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Consumer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Consumer {
    pub(crate) fn new(
        id: ConsumerId,
        source: Producer,
        owner: Option<Peer>,
        rtp_parameters: RtpParameters,
    ) -> Self {
        let app_data = match &owner {
            Some(_) => source.app_data(),
            None => Value::Null,
        };
        let now = Now {
            is_source_paused: source.paused(),
            ..Now::default()
        };
        Self(Arc::new(Inner {
            id,
            owner,
            rtp_parameters,
            events: Emitter::default(),
            stats: Periodic::default(),
            app_data: Mutex::new(app_data),
            now: Mutex::new(now),
            source,
        }))
    }

    /// The id, chosen by the server.
    pub fn id(&self) -> u32 {
        self.0.id.0
    }

    /// Whether it has been closed.
    pub fn closed(&self) -> bool {
        lock(&self.0.now).is_closed
    }

    /// The application's own data; initially the producer's.
    pub fn app_data(&self) -> Value {
        lock(&self.0.app_data).clone()
    }

    /// Replaces the application's own data.
    pub fn set_app_data(&self, app_data: Value) {
        *lock(&self.0.app_data) = app_data;
    }

    /// Audio or video.
    pub fn kind(&self) -> MediaKind {
        self.0.source.kind()
    }

    /// The peer that **sends** the media, as in mediasoup v2; see [`Self::owner`].
    pub fn peer(&self) -> &Peer {
        self.0.source.peer()
    }

    /// The peer that receives the media; `None` in an [`RtpStreamer`](crate::RtpStreamer).
    pub fn owner(&self) -> Option<&Peer> {
        self.0.owner.as_ref()
    }

    /// The transport it is enabled on.
    pub fn transport(&self) -> Option<Transport> {
        lock(&self.0.now).transport.clone()
    }

    /// What the client is sent; without codecs if it can decode none.
    pub fn rtp_parameters(&self) -> &RtpParameters {
        &self.0.rtp_parameters
    }

    /// The producer that feeds it.
    pub fn source(&self) -> &Producer {
        &self.0.source
    }

    /// Whether it has a transport.
    pub fn enabled(&self) -> bool {
        lock(&self.0.now).transport.is_some()
    }

    /// Whether the application paused it.
    pub fn locally_paused(&self) -> bool {
        lock(&self.0.now).pauses.local
    }

    /// Whether the receiving client paused it.
    pub fn remotely_paused(&self) -> bool {
        lock(&self.0.now).pauses.remote
    }

    /// Whether its producer is paused.
    pub fn source_paused(&self) -> bool {
        lock(&self.0.now).is_source_paused
    }

    /// Whether anybody paused it.
    pub fn paused(&self) -> bool {
        let now = lock(&self.0.now);
        now.pauses.is_any() || now.is_source_paused
    }

    /// The wanted layer.
    pub fn preferred_profile(&self) -> Profile {
        lock(&self.0.now).preferred_profile
    }

    /// The layer being forwarded; `None` until the worker has said.
    pub fn effective_profile(&self) -> Option<Profile> {
        lock(&self.0.now).effective_profile
    }

    /// What happens from now on.
    pub fn events(&self) -> EventStream<ConsumerEvent> {
        self.0.events.subscribe()
    }

    /// Closes it and tells the client. Does nothing if it is closed.
    pub fn close(&self) {
        let mut state = self.room().lock();
        self.close_in(&mut state, true);
    }

    /// Stops sending to the client and tells it. Returns whether it is paused now; a closed one
    /// never is.
    pub fn pause(&self, app_data: Option<Value>) -> bool {
        self.set_paused(Originator::Local, true, app_data);
        self.paused() && !self.closed()
    }

    /// Takes back [`Self::pause`]. Returns whether it runs now, as the client or the producer may
    /// be paused too; `true` if there was nothing to take back.
    pub fn resume(&self, app_data: Option<Value>) -> bool {
        let was_paused = self.locally_paused();
        self.set_paused(Originator::Local, false, app_data);
        !(self.closed() || was_paused && self.paused())
    }

    /// Sets the wanted layer and tells the client.
    pub fn set_preferred_profile(&self, profile: Profile) {
        if self.closed() || profile == Profile::None || profile == self.preferred_profile() {
            return tracing::debug!(id = self.id(), %profile, "preferred profile not changed");
        }
        let consumer = self.clone();
        let call = Call::SetConsumerProfile(SetPreferredProfile { profile });
        let channel = self.room().channel();
        channel.send_then(self.ids(), call, move |answer| match answer {
            // Its client has been told that it is gone.
            Ok(_) if consumer.closed() => {}
            Ok(_) => {
                lock(&consumer.0.now).preferred_profile = profile;
                consumer.tell("consumerPreferredProfileSet", json!({ "profile": profile }));
            }
            Err(error) => tracing::error!(%error, "consumer.setPreferredProfile"),
        });
    }

    /// Limits what is sent of a stream that is coded in layers. The worker does so while it is
    /// enabled; absent members are no limit.
    pub fn set_encoding_preferences(&self, preferences: EncodingPreferences) {
        if self.closed() {
            return tracing::error!(id = self.id(), "set_encoding_preferences: consumer closed");
        }
        lock(&self.0.now).encoding_preferences = preferences;
        let call = Call::SetEncodingPreferences(preferences);
        self.room().channel().send(self.ids(), call);
    }

    /// Asks the producer for a key frame. Ignored unless video is being sent.
    pub fn request_key_frame(&self) {
        if !self.closed() && self.enabled() && !self.paused() && self.kind() == MediaKind::Video {
            let call = Call::RequestKeyFrame(Default::default());
            self.room().channel().send(self.ids(), call);
        }
    }

    /// Statistics, one entry per stream (`spec: channel.md` §8.3); empty while not enabled.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn get_stats(&self) -> Result<Vec<RtpStreamStats>> {
        self.check_open()?;
        if !self.enabled() {
            return Ok(Vec::new());
        }
        crate::parsed(
            self.request(Call::GetConsumerStats(Default::default()))
                .await?,
        )
    }

    /// What the worker knows about it.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn dump(&self) -> Result<ConsumerDump> {
        self.check_open()?;
        crate::parsed(self.request(Call::DumpConsumer(Default::default())).await?)
    }

    /// Sends the client `consumerStats` now and every `interval_ms`, at least 1000, while enabled
    /// and not paused. A streamer's has no client.
    pub fn enable_stats(&self, interval_ms: u64) {
        if self.closed() || self.0.owner.is_none() {
            return tracing::error!(
                id = self.id(),
                "enable_stats: consumer closed or of a streamer"
            );
        }
        let consumer = self.clone();
        self.0.stats.enable(interval_ms, move || {
            let consumer = consumer.clone();
            async move {
                if consumer.enabled()
                    && !consumer.paused()
                    && let Ok(stats) = consumer.get_stats().await
                {
                    consumer.tell("consumerStats", json!({ "stats": stats }));
                }
                !consumer.closed()
            }
        });
    }

    /// Stops what [`Self::enable_stats`] started.
    pub fn disable_stats(&self) {
        self.0.stats.disable();
    }

    /// Starts sending on a transport of the client.
    pub(crate) async fn enable(&self, transport: &Transport) -> Result<()> {
        self.check_open()?;
        if self.enabled() {
            return Err(Error::InvalidState("Consumer already enabled".into()));
        }
        let call = Call::EnableConsumer(EnableConsumer {
            rtp_parameters: self.0.rtp_parameters.clone(),
        });
        let (consumer, transport) = (self.clone(), transport.clone());
        let ids = self.ids().transport(TransportId(transport.id()));
        let room = self.room();
        // Done when the answer is read, as events of the sending consumer follow right behind it.
        let enabled = room
            .channel()
            .request_then(ids, call, vec![], move |answer| {
                answer?;
                let _state = consumer.room().lock();
                consumer.check_open()?;
                transport.check_open()?;
                lock(&consumer.0.now).transport = Some(transport);
                consumer.0.events.emit(ConsumerEvent::Handled);
                Ok(())
            });
        enabled.await
    }

    /// Sets the layer the client wants, without an echo to it.
    pub(crate) async fn prefer_remotely(&self, profile: Profile) -> Result<()> {
        if profile == self.preferred_profile() {
            return Ok(());
        }
        let consumer = self.clone();
        let call = Call::SetConsumerProfile(SetPreferredProfile { profile });
        let channel = self.room().channel();
        let set = channel.request_then(self.ids(), call, vec![], move |answer| {
            answer?;
            lock(&consumer.0.now).preferred_profile = profile;
            Ok(())
        });
        set.await
    }

    /// Pauses or resumes on the application's or the client's side. The worker hears of the sum
    /// of both; the source's pause it knows by itself.
    pub(crate) fn set_paused(&self, side: Originator, is_paused: bool, app_data: Option<Value>) {
        let state = self.room().lock();
        let (sum, is_heard) = {
            let mut now = lock(&self.0.now);
            if now.is_closed {
                return tracing::error!(id = self.id(), "pause/resume: consumer closed");
            }
            let Some(sum) = now.pauses.set(side, is_paused) else {
                return;
            };
            (sum, now.transport.is_some() && !now.is_source_paused)
        };
        if side == Originator::Local && is_heard {
            self.tell(
                paused_method(is_paused),
                with_app_data(json!({}), app_data.as_ref()),
            );
        }
        match sum {
            Sum::Paused => state.send(self.ids(), Call::PauseConsumer(Default::default())),
            Sum::Resumed => state.send(self.ids(), Call::ResumeConsumer(Default::default())),
            Sum::Same => {}
        }
        self.emit_paused(side, is_paused, app_data);
    }

    /// Something the worker tells.
    pub(crate) fn handle(&self, state: &mut State, event: Event) {
        match event {
            Event::Close => self.close_in(state, false),
            Event::SourcePaused => self.set_source_paused(true),
            Event::SourceResumed => self.set_source_paused(false),
            Event::EffectiveProfileChange { profile } => {
                let is_enabled = {
                    let mut now = lock(&self.0.now);
                    if now.effective_profile.replace(profile) == Some(profile) {
                        return;
                    }
                    now.transport.is_some()
                };
                if is_enabled {
                    let members = json!({ "profile": profile });
                    self.tell("consumerEffectiveProfileChanged", members);
                }
                self.0
                    .events
                    .emit(ConsumerEvent::EffectiveProfileChange(profile));
            }
            other => tracing::warn!(id = self.id(), ?other, "unexpected event of a consumer"),
        }
    }

    /// Takes over whether its producer is paused, which no worker may have told.
    pub(crate) fn follow_source(&self) {
        self.set_source_paused(self.0.source.paused());
    }

    fn set_source_paused(&self, is_paused: bool) {
        let is_heard = {
            let mut now = lock(&self.0.now);
            if std::mem::replace(&mut now.is_source_paused, is_paused) == is_paused {
                return;
            }
            now.transport.is_some() && !now.pauses.local
        };
        if is_heard {
            self.tell(paused_method(is_paused), json!({}));
        }
        self.emit_paused(Originator::Source, is_paused, None);
    }

    fn emit_paused(&self, originator: Originator, is_paused: bool, app_data: Option<Value>) {
        self.0.events.emit(match is_paused {
            true => ConsumerEvent::Pause {
                originator,
                app_data,
            },
            false => ConsumerEvent::Resume {
                originator,
                app_data,
            },
        });
    }

    /// Closes it (`spec: api.md` §12.4).
    pub(crate) fn close_in(&self, state: &mut State, tell_worker: bool) {
        {
            let mut now = lock(&self.0.now);
            if std::mem::replace(&mut now.is_closed, true) {
                return;
            }
        }
        self.0.stats.disable();
        // `peerClosed` implies it.
        if !self.peer().closed() {
            self.tell("consumerClosed", json!({}));
        }
        state.consumers.remove(&self.0.id);
        if let Some(owner) = &self.0.owner {
            owner.forget_consumer(self);
        }
        self.0.source.forget_consumer(self);
        self.0.events.emit_last(ConsumerEvent::Close);
        if tell_worker {
            state.send(self.ids(), Call::CloseConsumer(Default::default()));
        }
        state.close_streamers(|streamer| streamer.consumer() == self);
    }

    /// What makes it again in another worker.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let kind = self.kind();
        let create = Call::CreateConsumer(CreateConsumer { kind });
        let mut steps = vec![Step::new(self.ids(), create, Part::Consumer(self.clone()))];
        let now = lock(&self.0.now);
        if now.pauses.is_any() {
            let call = Call::PauseConsumer(Default::default());
            steps.push(Step::new(self.ids(), call, Part::Wish));
        }
        if now.preferred_profile != Profile::Default {
            let profile = now.preferred_profile;
            let call = Call::SetConsumerProfile(SetPreferredProfile { profile });
            steps.push(Step::new(self.ids(), call, Part::Wish));
        }
        if now.encoding_preferences != EncodingPreferences::default() {
            let call = Call::SetEncodingPreferences(now.encoding_preferences);
            steps.push(Step::new(self.ids(), call, Part::Wish));
        }
        if let Some(transport) = &now.transport {
            let rtp_parameters = self.0.rtp_parameters.clone();
            let call = Call::EnableConsumer(EnableConsumer { rtp_parameters });
            let ids = self.ids().transport(TransportId(transport.id()));
            steps.push(Step::new(ids, call, Part::Consumer(self.clone())));
        }
        steps
    }

    /// Its transport closed.
    pub(crate) fn leave_transport(&self, transport: &Transport) {
        let left = {
            let mut now = lock(&self.0.now);
            now.transport.take_if(|own| own == transport)
        };
        if left.is_some() {
            self.0.events.emit(ConsumerEvent::Unhandled);
        }
    }

    /// ConsumerData (`spec: protocol.md` §2.2).
    pub(crate) fn to_data(&self) -> Value {
        let members = json!({
            "id": self.id(),
            "kind": self.kind(),
            "rtpParameters": self.0.rtp_parameters,
            "paused": self.paused(),
            "preferredProfile": self.preferred_profile(),
            "effectiveProfile": self.effective_profile(),
            "peerName": self.peer().name(),
        });
        let app_data = self.app_data();
        with_app_data(members, Some(&app_data).filter(|data| !data.is_null()))
    }

    /// Tells the receiving client, if there is one, something about it.
    fn tell(&self, method: &str, mut members: Value) {
        let Some(owner) = &self.0.owner else { return };
        members["id"] = self.id().into();
        members["peerName"] = self.peer().name().into();
        owner.notify(method, members);
    }

    fn room(&self) -> &Room {
        self.peer().room()
    }

    /// Whether the client is sent this SSRC.
    pub(crate) fn uses(&self, ssrc: u32) -> bool {
        let mut encodings = self.0.rtp_parameters.encodings.iter();
        encodings.any(|encoding| {
            encoding.ssrc == Some(ssrc) || encoding.rtx.is_some_and(|rtx| rtx.ssrc == Some(ssrc))
        })
    }

    pub(crate) fn ids(&self) -> Ids {
        self.0.source.ids().consumer(self.0.id)
    }

    fn check_open(&self) -> Result<()> {
        Error::if_closed(self.closed(), "Consumer")
    }

    async fn request(&self, call: Call) -> Result<Value> {
        self.room()
            .channel()
            .request(self.ids(), call, vec![])
            .await
    }
}

fn paused_method(is_paused: bool) -> &'static str {
    match is_paused {
        true => "consumerPaused",
        false => "consumerResumed",
    }
}
