//! A WebRTC transport: the path between one client and its room's worker.

use std::sync::{Arc, Mutex};

use broth_ipc::body::{
    DtlsParameters, DtlsState, IceCandidate, IceParameters, IceState, LocalDtlsRole, SetMaxBitrate,
    TransportStats, TransportTuple, WebRtcTransportDump, WebRtcTransportOptions,
};
use broth_ipc::{Call, Event, Ids, TransportId};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::events::{Emitter, EventStream};
use crate::peer::Peer;
use crate::periodic::Periodic;
use crate::protocol::with_app_data;
use crate::room::State;
use crate::{Originator, lock};

/// What happens to a transport (`spec: api.md` §9.3).
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
}

/// A WebRTC transport. A cheap handle; dropping it closes nothing.
#[derive(Clone)]
pub struct WebRtcTransport(Arc<Inner>);

struct Inner {
    id: TransportId,
    peer: Peer,
    direction: String,
    options: WebRtcTransportOptions,
    ice_candidates: Vec<IceCandidate>,
    events: Emitter<TransportEvent>,
    stats: Periodic,
    app_data: Mutex<Value>,
    now: Mutex<Now>,
}

/// What changes.
struct Now {
    is_closed: bool,
    ice_parameters: IceParameters,
    ice_state: IceState,
    ice_selected_tuple: Option<TransportTuple>,
    dtls_local: DtlsParameters,
    /// Kept for rebuilding the transport on another worker.
    dtls_remote: Option<DtlsParameters>,
    dtls_state: DtlsState,
    dtls_remote_cert: Option<String>,
}

impl std::fmt::Debug for WebRtcTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebRtcTransport")
            .field("id", &self.0.id)
            .finish_non_exhaustive()
    }
}

impl PartialEq for WebRtcTransport {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl WebRtcTransport {
    pub(crate) fn new(
        peer: Peer,
        direction: String,
        options: WebRtcTransportOptions,
        dump: WebRtcTransportDump,
        app_data: Value,
    ) -> Self {
        Self(Arc::new(Inner {
            id: dump.transport_id,
            peer,
            direction,
            options,
            ice_candidates: dump.ice_local_candidates,
            events: Emitter::default(),
            stats: Periodic::default(),
            app_data: Mutex::new(app_data),
            now: Mutex::new(Now {
                is_closed: false,
                ice_parameters: dump.ice_local_parameters,
                ice_state: dump.ice_state,
                ice_selected_tuple: dump.ice_selected_tuple,
                dtls_local: dump.dtls_local_parameters,
                dtls_remote: None,
                dtls_state: dump.dtls_state,
                dtls_remote_cert: None,
            }),
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

    /// The peer it belongs to.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// The application's own data; initially what the client sent.
    pub fn app_data(&self) -> Value {
        lock(&self.0.app_data).clone()
    }

    /// Replaces the application's own data.
    pub fn set_app_data(&self, app_data: Value) {
        *lock(&self.0.app_data) = app_data;
    }

    /// `send` or `recv`, from the client's point of view.
    pub fn direction(&self) -> &str {
        &self.0.direction
    }

    /// What the client asked for.
    pub fn options(&self) -> WebRtcTransportOptions {
        self.0.options
    }

    /// Always `controlled`: broth is an ICE-lite agent (RFC 8445 §2.5).
    pub fn ice_role(&self) -> &'static str {
        "controlled"
    }

    /// Our ICE credentials; replaced by an ICE restart.
    pub fn ice_local_parameters(&self) -> IceParameters {
        lock(&self.0.now).ice_parameters.clone()
    }

    /// Our candidates.
    pub fn ice_local_candidates(&self) -> &[IceCandidate] {
        &self.0.ice_candidates
    }

    /// State of ICE; `Closed` once the transport is.
    pub fn ice_state(&self) -> IceState {
        lock(&self.0.now).ice_state
    }

    /// The path in use.
    pub fn ice_selected_tuple(&self) -> Option<TransportTuple> {
        lock(&self.0.now).ice_selected_tuple.clone()
    }

    /// Our DTLS role and fingerprints; the role is `Auto` until the client's is known.
    pub fn dtls_local_parameters(&self) -> DtlsParameters {
        lock(&self.0.now).dtls_local.clone()
    }

    /// The client's DTLS parameters, once told.
    pub fn dtls_remote_parameters(&self) -> Option<DtlsParameters> {
        lock(&self.0.now).dtls_remote.clone()
    }

    /// State of DTLS; `Closed` once the transport is.
    pub fn dtls_state(&self) -> DtlsState {
        lock(&self.0.now).dtls_state
    }

    /// The client's certificate (PEM), once DTLS is connected.
    pub fn dtls_remote_cert(&self) -> Option<String> {
        lock(&self.0.now).dtls_remote_cert.clone()
    }

    /// What happens from now on (`spec: api.md` §9.3).
    pub fn events(&self) -> EventStream<TransportEvent> {
        self.0.events.subscribe()
    }

    /// Closes it: its producers close, consumers on it wait for another transport.
    ///
    /// Tells the client. Does nothing if it is closed.
    pub fn close(&self, app_data: Option<Value>) {
        let mut state = self.0.peer.room().lock();
        self.close_in(&mut state, Originator::Local, app_data, true);
    }

    /// Limits the bitrate the client is told to send, in bits per second; 0 removes the limit,
    /// 1 to 9999 count as 10000.
    ///
    /// # Errors
    /// It is closed, its direction is not `send`, or the worker refuses.
    pub async fn set_max_bitrate(&self, bitrate: u32) -> Result<()> {
        self.check_open()?;
        if self.0.direction != "send" {
            return Err(Error::other("invalid WebRtcTransport direction"));
        }
        self.request(Call::SetMaxBitrate(SetMaxBitrate { bitrate }))
            .await?;
        Ok(())
    }

    /// Statistics: an array with one entry (`spec: channel.md` §8.1).
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn get_stats(&self) -> Result<Vec<TransportStats>> {
        self.check_open()?;
        let stats = self
            .request(Call::GetTransportStats(Default::default()))
            .await?;
        crate::parsed(stats)
    }

    /// What the worker knows about it.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn dump(&self) -> Result<WebRtcTransportDump> {
        self.check_open()?;
        crate::parsed(
            self.request(Call::DumpTransport(Default::default()))
                .await?,
        )
    }

    /// Gives it new ICE credentials (an ICE restart, RFC 8445 §2.4); the path in use stays until
    /// the client has another.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn change_ufrag_pwd(&self) -> Result<IceParameters> {
        self.check_open()?;
        let answer = self
            .request(Call::ChangeUfragPwd(Default::default()))
            .await?;
        let parameters: IceParameters = crate::parsed(answer)?;
        lock(&self.0.now).ice_parameters = parameters.clone();
        Ok(parameters)
    }

    /// Tells it the client's DTLS parameters, once.
    ///
    /// # Errors
    /// It is closed, has them already, or they cannot be used.
    pub async fn set_remote_dtls_parameters(&self, parameters: DtlsParameters) -> Result<()> {
        self.check_open()?;
        let call = Call::SetRemoteDtlsParameters(parameters.clone());
        let LocalDtlsRole { role } = crate::parsed(self.request(call).await?)?;
        let mut now = lock(&self.0.now);
        now.dtls_local.role = role;
        now.dtls_remote = Some(parameters);
        Ok(())
    }

    /// Sends the client `transportStats` now and every `interval_ms`, at least 1000.
    pub fn enable_stats(&self, interval_ms: u64) {
        if self.closed() {
            return tracing::error!(id = self.id(), "enable_stats: transport closed");
        }
        let transport = self.clone();
        self.0.stats.enable(interval_ms, move || {
            let transport = transport.clone();
            async move {
                if let Ok(stats) = transport.get_stats().await {
                    let members = json!({ "id": transport.id(), "stats": stats });
                    transport.0.peer.notify("transportStats", members);
                }
                !transport.closed()
            }
        });
    }

    /// Stops what [`Self::enable_stats`] started.
    pub fn disable_stats(&self) {
        self.0.stats.disable();
    }

    /// The answer to the client that asked for it.
    pub(crate) fn to_response(&self) -> Value {
        let now = lock(&self.0.now);
        json!({
            "iceParameters": now.ice_parameters,
            "iceCandidates": self.0.ice_candidates,
            "dtlsParameters": now.dtls_local,
        })
    }

    pub(crate) fn ids(&self) -> Ids {
        self.0.peer.room().ids().transport(self.0.id)
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        Error::if_closed(self.closed(), "WebRtcTransport")
    }

    async fn request(&self, call: Call) -> Result<Value> {
        self.0
            .peer
            .room()
            .channel()
            .request(self.ids(), call, vec![])
            .await
    }

    /// Something the worker tells.
    pub(crate) fn handle(&self, state: &mut State, event: Event) {
        match event {
            Event::Close => self.close_in(state, Originator::Local, None, false),
            Event::IceSelectedTupleChange { ice_selected_tuple } => {
                lock(&self.0.now).ice_selected_tuple = Some(ice_selected_tuple.clone());
                let event = TransportEvent::IceSelectedTupleChange(ice_selected_tuple);
                self.0.events.emit(event);
            }
            Event::IceStateChange { ice_state } => {
                lock(&self.0.now).ice_state = ice_state;
                self.0
                    .events
                    .emit(TransportEvent::IceStateChange(ice_state));
            }
            Event::DtlsStateChange {
                dtls_state,
                dtls_remote_cert,
            } => {
                let mut now = lock(&self.0.now);
                now.dtls_state = dtls_state;
                if dtls_remote_cert.is_some() {
                    now.dtls_remote_cert = dtls_remote_cert;
                }
                drop(now);
                self.0
                    .events
                    .emit(TransportEvent::DtlsStateChange(dtls_state));
            }
            other => tracing::warn!(id = self.id(), ?other, "unexpected event of a transport"),
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
        {
            let mut now = lock(&self.0.now);
            if std::mem::replace(&mut now.is_closed, true) {
                return;
            }
            now.ice_state = IceState::Closed;
            now.dtls_state = DtlsState::Closed;
            now.ice_selected_tuple = None;
        }
        self.0.stats.disable();
        let peer = &self.0.peer;
        if originator == Originator::Local {
            let members = with_app_data(json!({ "id": self.id() }), app_data.as_ref());
            peer.notify("transportClosed", members);
        }
        state.transports.remove(&self.0.id);
        peer.forget_transport(self);
        for producer in peer.producers() {
            if producer.transport() == self {
                producer.close_in(state, Originator::Local, None, false);
            }
        }
        for consumer in peer.consumers() {
            consumer.leave_transport(self);
        }
        self.0.events.emit_last(TransportEvent::Close {
            originator,
            app_data,
        });
        if tell_worker {
            state.send(self.ids(), Call::CloseTransport(Default::default()));
        }
    }
}
