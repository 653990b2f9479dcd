//! A WebRTC transport: the path between one client and its room's worker.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use broth_ipc::body::{
    DtlsParameters, DtlsState, IceCandidate, IceParameters, IceState, LocalDtlsRole, SetMaxBitrate,
    StartMirroring, TransportStats, TransportTuple, WebRtcTransportDump, WebRtcTransportOptions,
};
use broth_ipc::{Call, Event, Ids, SharedFd, TransportId};
use serde_json::{Value, json};

use super::{Base, Transport, TransportEvent, closing_api, common_api};
use crate::error::{Error, Result};
use crate::lock;
use crate::peer::Peer;
use crate::periodic::Periodic;
use crate::room::recovery::{Part, Step};
use crate::sockets::{BoundSocket, Prefer};
use crate::supervisor::worker::WorkerKind;
use crate::worker_channel::Requests;

/// Where the copies of a mirrored transport go, and which packets are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirroringOptions {
    /// Where to.
    pub remote: SocketAddr,
    /// Local address; `None`: the one listened on, of the same family.
    pub local_ip: Option<IpAddr>,
    /// RTP sent to the client.
    pub send_rtp: bool,
    /// RTCP sent to the client.
    pub send_rtcp: bool,
    /// RTP received from the client.
    pub recv_rtp: bool,
    /// RTCP received from the client.
    pub recv_rtcp: bool,
}

impl MirroringOptions {
    /// Everything, to `remote`.
    pub fn new(remote: SocketAddr) -> Self {
        Self {
            remote,
            local_ip: None,
            send_rtp: true,
            send_rtcp: true,
            recv_rtp: true,
            recv_rtcp: true,
        }
    }
}

/// A WebRTC transport. A cheap handle; dropping it closes nothing.
#[derive(Clone)]
pub struct WebRtcTransport(Arc<Inner>);

struct Inner {
    base: Base,
    direction: String,
    options: WebRtcTransportOptions,
    ice_candidates: Vec<IceCandidate>,
    stats: Periodic,
    now: Mutex<Now>,
}

/// What changes.
struct Now {
    ice_parameters: IceParameters,
    ice_state: IceState,
    ice_selected_tuple: Option<TransportTuple>,
    /// The TCP connection that this is.
    connection: Option<SharedFd>,
    dtls_local: DtlsParameters,
    /// Kept for rebuilding the transport on another worker.
    dtls_remote: Option<DtlsParameters>,
    dtls_state: DtlsState,
    dtls_remote_cert: Option<String>,
    bitrate_max: Option<u32>,
    mirroring: Option<MirroringOptions>,
}

common_api!(WebRtcTransport);
closing_api!(WebRtcTransport, WebRtc);

impl WebRtcTransport {
    /// Makes one in the worker for a peer.
    pub(crate) async fn create(
        peer: Peer,
        id: TransportId,
        direction: String,
        options: WebRtcTransportOptions,
        app_data: Value,
    ) -> Result<Self> {
        let room = peer.room().clone();
        let base = Base::new(id, room.clone(), Some(peer), app_data);
        let call = Call::CreateWebRtcTransport(options.clone());
        let created = room
            .channel()
            .request_then(base.ids(), call, vec![], move |answer| {
                let dump: WebRtcTransportDump = crate::parsed(answer?)?;
                let transport = Self(Arc::new(Inner {
                    base,
                    direction,
                    options,
                    ice_candidates: dump.ice_local_candidates,
                    stats: Periodic::default(),
                    now: Mutex::new(Now {
                        ice_parameters: dump.ice_local_parameters,
                        ice_state: dump.ice_state,
                        ice_selected_tuple: dump.ice_selected_tuple,
                        connection: None,
                        dtls_local: dump.dtls_local_parameters,
                        dtls_remote: None,
                        dtls_state: dump.dtls_state,
                        dtls_remote_cert: None,
                        bitrate_max: None,
                        mirroring: None,
                    }),
                }));
                Transport::from(transport.clone()).register()?;
                Ok(transport)
            });
        created.await
    }

    /// `send` or `recv`, from the client's point of view.
    pub fn direction(&self) -> &str {
        &self.0.direction
    }

    /// What the client asked for.
    pub fn options(&self) -> WebRtcTransportOptions {
        self.0.options.clone()
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
        if bitrate == 0 && self.base().room.worker().kind == WorkerKind::V2 {
            return Err(Error::other("the original worker cannot remove a limit"));
        }
        let call = Call::SetMaxBitrate(SetMaxBitrate { bitrate });
        self.change(call, vec![], move |now, _| {
            now.bitrate_max = Some(bitrate);
            Ok(())
        })
        .await
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
        let call = Call::ChangeUfragPwd(Default::default());
        self.change(call, vec![], |now, answer| {
            let parameters: IceParameters = crate::parsed(answer)?;
            now.ice_parameters = parameters.clone();
            Ok(parameters)
        })
        .await
    }

    /// Tells it the client's DTLS parameters, once.
    ///
    /// # Errors
    /// It is closed, has them already, or they cannot be used.
    pub async fn set_remote_dtls_parameters(&self, parameters: DtlsParameters) -> Result<()> {
        self.check_open()?;
        let call = Call::SetRemoteDtlsParameters(parameters.clone());
        self.change(call, vec![], |now, answer| {
            let LocalDtlsRole { role } = crate::parsed(answer)?;
            now.dtls_local.role = role;
            now.dtls_remote = Some(parameters);
            Ok(())
        })
        .await
    }

    /// Copies the decrypted RTP and RTCP of both directions to an address (`spec: api.md` §9.2).
    ///
    /// # Errors
    /// It is closed or mirrored already, the address is of a family that is not listened on, or
    /// no port is free.
    pub async fn start_mirroring(&self, options: MirroringOptions) -> Result<()> {
        self.check_open()?;
        let (call, fds) = self.mirror(options)?;
        self.change(call, fds, move |now, _| {
            now.mirroring = Some(options);
            Ok(())
        })
        .await
    }

    /// The request that starts mirroring, with the descriptor that travels with it.
    fn mirror(&self, options: MirroringOptions) -> Result<(Call, Vec<OwnedFd>)> {
        let remote_ip = options.remote.ip();
        let room = &self.base().room;
        let socket = room.bind_towards(Some(remote_ip), options.local_ip, Prefer::default())?;
        let (described, fd) = socket.map(BoundSocket::into_parts).unzip();
        let call = Call::StartMirroring(StartMirroring {
            remote_ip: remote_ip.to_string(),
            remote_port: options.remote.port(),
            local_ip: options.local_ip.map(|ip| ip.to_string()),
            socket: described,
            send_rtp: options.send_rtp,
            send_rtcp: options.send_rtcp,
            recv_rtp: options.recv_rtp,
            recv_rtcp: options.recv_rtcp,
        });
        Ok((call, Vec::from_iter(fd)))
    }

    /// Stops what [`Self::start_mirroring`] started, if anything.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn stop_mirroring(&self) -> Result<()> {
        self.check_open()?;
        let call = Call::StopMirroring(Default::default());
        self.change(call, vec![], |now, _| {
            now.mirroring = None;
            Ok(())
        })
        .await
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
                    if let Some(peer) = transport.peer() {
                        peer.notify("transportStats", members);
                    }
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

    pub(super) fn base(&self) -> &Base {
        &self.0.base
    }

    async fn request(&self, call: Call) -> Result<Value> {
        self.base().request(call, vec![]).await
    }

    /// Asks for something that `note` keeps, as soon as the answer is read: another worker may be
    /// asked for everything a moment later.
    async fn change<T: Send + 'static>(
        &self,
        call: Call,
        fds: Vec<OwnedFd>,
        note: impl FnOnce(&mut Now, Value) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (transport, base) = (self.clone(), self.base());
        let channel = base.room.channel();
        let changed = channel.request_then(base.ids(), call, fds, move |answer| {
            note(&mut lock(&transport.0.now), answer?)
        });
        changed.await
    }

    /// What makes it again in another worker: as it was, with the same credentials.
    pub(super) fn steps(&self, ids: Ids, part: Part) -> io::Result<Vec<Step>> {
        let now = lock(&self.0.now);
        let create = Call::CreateWebRtcTransport(WebRtcTransportOptions {
            restore: Some(now.ice_parameters.clone()),
            ..self.0.options.clone()
        });
        let mut steps = vec![Step {
            fds: Vec::from_iter(
                now.connection
                    .as_ref()
                    .map(SharedFd::try_clone)
                    .transpose()?,
            ),
            ..Step::new(ids, create, part.clone())
        }];
        if let Some(remote) = &now.dtls_remote {
            let call = Call::SetRemoteDtlsParameters(remote.clone());
            steps.push(Step::new(ids, call, Part::Wish));
        }
        if let Some(bitrate) = now.bitrate_max {
            let call = Call::SetMaxBitrate(SetMaxBitrate { bitrate });
            steps.push(Step::new(ids, call, Part::Wish));
        }
        let mirroring = now.mirroring;
        drop(now);
        // Without a free port for the copies the original goes on.
        if let Some(Ok((call, fds))) = mirroring.map(|options| self.mirror(options)) {
            steps.push(Step {
                fds,
                ..Step::new(ids, call, Part::Wish)
            });
        }
        Ok(steps)
    }

    /// Whether it came back as it was, or further: what the last worker did not live to tell, and
    /// what it told of that is lost, is taken over.
    pub(super) fn check_restored(&self, dump: Value) -> Result<()> {
        let dump: WebRtcTransportDump = crate::parsed(dump)?;
        let mut now = lock(&self.0.now);
        let is_connected = dump.dtls_state == DtlsState::Connected;
        if now.dtls_state == DtlsState::Connected && !is_connected {
            return Err(Error::other("the transport's keys are lost"));
        }
        let events = &self.base().events;
        if now.ice_selected_tuple != dump.ice_selected_tuple {
            now.ice_selected_tuple.clone_from(&dump.ice_selected_tuple);
            if let Some(tuple) = dump.ice_selected_tuple {
                events.emit(TransportEvent::IceSelectedTupleChange(tuple));
            } else {
                now.connection = None;
            }
        }
        if std::mem::replace(&mut now.ice_state, dump.ice_state) != dump.ice_state {
            events.emit(TransportEvent::IceStateChange(dump.ice_state));
        }
        if std::mem::replace(&mut now.dtls_state, dump.dtls_state) != dump.dtls_state {
            events.emit(TransportEvent::DtlsStateChange(dump.dtls_state));
        }
        Ok(())
    }

    /// Something the worker tells.
    pub(super) fn handle(&self, event: Event) {
        let event = match event {
            Event::IceSelectedTupleChange {
                ice_selected_tuple,
                connection,
            } => {
                let mut now = lock(&self.0.now);
                now.ice_selected_tuple = Some(ice_selected_tuple.clone());
                now.connection = connection;
                TransportEvent::IceSelectedTupleChange(ice_selected_tuple)
            }
            Event::IceStateChange { ice_state } => {
                lock(&self.0.now).ice_state = ice_state;
                TransportEvent::IceStateChange(ice_state)
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
                TransportEvent::DtlsStateChange(dtls_state)
            }
            other => {
                return tracing::warn!(id = self.id(), ?other, "unexpected event of a transport");
            }
        };
        self.base().events.emit(event);
    }

    /// It closed: nothing is connected any more.
    pub(super) fn end(&self) {
        let mut now = lock(&self.0.now);
        now.ice_state = IceState::Closed;
        now.dtls_state = DtlsState::Closed;
        now.ice_selected_tuple = None;
        now.connection = None;
        drop(now);
        self.0.stats.disable();
    }
}
