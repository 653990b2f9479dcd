//! A peer over a real socket: full ICE agent (one check), DTLS client, SRTP both ways.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use broth_ipc::body::{
    DtlsParameters, DtlsRole, Fingerprint, IceCandidate, IceParameters, Protocol,
    WebRtcTransportDump, WebRtcTransportOptions,
};
use broth_ipc::{Call, Ids, RouterId, TransportId};
use broth_worker::dtls::{Certificate, Dtls, DtlsContext, DtlsEvent, SrtpKeys};
use broth_worker::srtp::{OpenKey, Profile, RecvIndex, SrtpError};
use broth_worker::transport::Srtp;
use broth_worker::wire::stun::{is_stun, write_binding_request};
use serde::Deserialize;
use serde_json::Value;

use crate::worker::DrivenWorker;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest datagram.
const DATAGRAM_BYTES: usize = 2048;
/// Rollovers of the sequence number tried by [`Peer::open_any`].
const ROLLOVERS_MAX: u64 = 32;

/// What the far end of a transport tells: the answer to `createTransport`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Its ICE credentials.
    pub ice_parameters: IceParameters,
    /// Where it listens.
    pub ice_candidates: Vec<IceCandidate>,
    /// Its DTLS fingerprints.
    pub dtls_parameters: DtlsParameters,
}

impl From<WebRtcTransportDump> for Answer {
    fn from(dump: WebRtcTransportDump) -> Self {
        Self {
            ice_parameters: dump.ice_local_parameters,
            ice_candidates: dump.ice_local_candidates,
            dtls_parameters: dump.dtls_local_parameters,
        }
    }
}

/// A peer that has a certificate and no connection yet.
pub struct Endpoint {
    certificate: Certificate,
    role: DtlsRole,
}

impl Endpoint {
    /// Makes a certificate for a peer of this DTLS role.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn new(role: DtlsRole) -> Result<Self> {
        Ok(Self {
            certificate: Certificate::generate()?,
            role,
        })
    }

    /// Role and fingerprints, to be told to the far end.
    pub fn dtls_parameters(&self) -> DtlsParameters {
        DtlsParameters {
            role: self.role,
            fingerprints: self.certificate.fingerprints(),
        }
    }

    /// Connects to where the answer to a `createTransport` request says.
    ///
    /// # Errors
    /// The answer has another shape, or the handshake did not finish.
    pub fn connect_to(self, answer: &Value, transport: u32, profile: Profile) -> Result<Peer> {
        let answer: Answer = serde_json::from_value(answer.clone())?;
        self.connect(&answer, TransportId(transport), profile)
    }

    /// Connects to the first UDP candidate of the far end.
    ///
    /// # Errors
    /// There is none, or the handshake did not finish.
    pub fn connect(
        self,
        answer: &Answer,
        transport: TransportId,
        profile: Profile,
    ) -> Result<Peer> {
        let candidates = &mut answer.ice_candidates.iter();
        let candidate = candidates
            .find(|candidate| candidate.protocol == Protocol::Udp)
            .context("no UDP candidate")?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(SocketAddr::new(candidate.ip.parse()?, candidate.port))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let check = check(answer);
        let keys = self.handshake(&socket, answer, &check, profile)?;
        Ok(Peer {
            check,
            ..Peer::with_keys(socket, &keys, transport)?
        })
    }

    fn handshake(
        &self,
        socket: &UdpSocket,
        answer: &Answer,
        check: &[u8],
        profile: Profile,
    ) -> Result<Box<SrtpKeys>> {
        let remote_role = match self.role {
            DtlsRole::Server => DtlsRole::Client,
            DtlsRole::Client | DtlsRole::Auto => DtlsRole::Server,
        };
        let fingerprints: &[Fingerprint] = &answer.dtls_parameters.fingerprints;
        let mut dtls = Dtls::new(&DtlsContext::new(&self.certificate, &[profile])?)?;
        dtls.set_remote(Instant::now(), remote_role, fingerprints)?;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let mut buffer = [0; DATAGRAM_BYTES];
        let mut is_checked = false;
        while Instant::now() < deadline {
            if !is_checked {
                socket.send(check)?;
            }
            if let Ok(len) = socket.recv(&mut buffer) {
                let now = Instant::now();
                if is_stun(&buffer[..len]) {
                    is_checked = true;
                    dtls.handle_ice_connected(now);
                } else {
                    dtls.handle_datagram(now, &buffer[..len]);
                }
            }
            while let Some(datagram) = dtls.poll_transmit() {
                socket.send(&datagram)?;
            }
            while let Some(event) = dtls.poll_event() {
                if let DtlsEvent::Connected { keys, .. } = event {
                    return Ok(keys);
                }
            }
        }
        bail!(
            "no handshake within {CONNECT_TIMEOUT:?}, DTLS is {:?}",
            dtls.state()
        )
    }
}

/// A connected peer.
pub struct Peer {
    /// Connected to the worker's room socket.
    pub socket: UdpSocket,
    /// Keys of both directions.
    pub srtp: Srtp,
    /// Opens what arrives, whatever its order: for looking at single packets.
    pub open: OpenKey,
    /// Its transport in the worker.
    pub transport: TransportId,
    /// The connectivity check, to be repeated.
    check: Vec<u8>,
}

impl Peer {
    /// Creates a transport in the worker and connects to it with `profile`.
    ///
    /// # Errors
    /// The worker refused, or the handshake did not finish.
    pub fn connect(
        worker: &mut DrivenWorker,
        router: RouterId,
        transport: TransportId,
        profile: Profile,
    ) -> Result<Self> {
        let ids = Ids::router(router).transport(transport);
        let options = WebRtcTransportOptions::default();
        let created = worker.call(ids, Call::CreateWebRtcTransport(options))?;
        let dump: WebRtcTransportDump = serde_json::from_value(created)?;
        let endpoint = Endpoint::new(DtlsRole::Client)?;
        let remote = endpoint.dtls_parameters();
        worker.call(ids, Call::SetRemoteDtlsParameters(remote))?;
        endpoint.connect(&dump.into(), transport, profile)
    }

    /// A peer of a far end that shook no hands and needs no checks: both have the keys.
    ///
    /// # Errors
    /// The keys have not the lengths of the profile.
    pub fn with_keys(
        socket: UdpSocket,
        keys: &SrtpKeys,
        transport: TransportId,
    ) -> Result<Self, SrtpError> {
        Ok(Self {
            socket,
            srtp: Srtp::new(keys)?,
            open: OpenKey::new(keys.profile, &keys.remote_key, &keys.remote_salt)?,
            transport,
            check: Vec::new(),
        })
    }

    /// Repeats the check: without one for half a minute the worker takes the peer for gone
    /// (RFC 7675).
    ///
    /// # Errors
    /// The socket failed.
    pub fn keep_alive(&self) -> Result<()> {
        if !self.check.is_empty() {
            self.socket.send(&self.check)?;
        }
        Ok(())
    }

    /// Seals `buffer[..len]` in place and returns the new length.
    ///
    /// # Errors
    /// There is no room for the tag.
    pub fn seal(
        &self,
        roc: u32,
        buffer: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize> {
        Ok(self.srtp.seal.protect_rtp(roc, buffer, header_len, len)?)
    }

    /// Opens a packet in place whatever came before it; `None` if it is not authentic.
    pub fn open_any(&self, packet: &mut [u8], header_len: usize) -> Option<usize> {
        let seq = u64::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let mut copy = [0; DATAGRAM_BYTES];
        let copy = copy.get_mut(..packet.len())?;
        // Opening spoils the packet when the rollover counter was another.
        (0..ROLLOVERS_MAX).find_map(|roc| {
            copy.copy_from_slice(packet);
            let len = self.open_at(roc << 16 | seq, copy, header_len)?;
            packet.copy_from_slice(copy);
            Some(len)
        })
    }

    /// Opens a packet in place that has the SRTP index `index`, whatever came before it; `None` if
    /// it is not authentic, and its payload is spoilt then.
    pub fn open_at(&self, index: u64, packet: &mut [u8], header_len: usize) -> Option<usize> {
        let before = index.checked_sub(1);
        let mut state = before.map_or_else(RecvIndex::new, RecvIndex::resumed);
        self.open.unprotect_rtp(&mut state, packet, header_len).ok()
    }

    /// Seals and sends an RTP packet; `buffer[..len]` is the packet, with room for a tag.
    ///
    /// # Errors
    /// The socket failed.
    pub fn send_rtp(&self, roc: u32, buffer: &mut [u8], len: usize) -> Result<()> {
        let header_len = broth_worker::wire::rtp::header_len(&buffer[..len])?;
        let len = self.seal(roc, buffer, header_len, len)?;
        self.socket.send(&buffer[..len])?;
        Ok(())
    }
}

/// The connectivity check that makes a path and keeps it.
fn check(answer: &Answer) -> Vec<u8> {
    let ice = &answer.ice_parameters;
    let mut check = Vec::new();
    write_binding_request(
        &mut check,
        [7; 12],
        &format!("{}:peer", ice.username_fragment),
        1_853_693_695,
        true,
        42,
        ice.password.as_bytes(),
    );
    check
}
