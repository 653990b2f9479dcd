//! A peer over a real socket: full ICE agent (one check), DTLS client, SRTP both ways.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use broth_ipc::body::{DtlsParameters, DtlsRole, WebRtcTransportDump, WebRtcTransportOptions};
use broth_ipc::{Call, Ids, RouterId, TransportId};
use broth_worker::dtls::{Certificate, Dtls, DtlsContext, DtlsEvent, SrtpKeys};
use broth_worker::srtp::{OpenKey, Profile, RecvIndex};
use broth_worker::transport::Srtp;
use broth_worker::wire::stun::{is_stun, write_binding_request};

use crate::worker::DrivenWorker;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest datagram.
const DATAGRAM_BYTES: usize = 2048;
/// Rollovers of the sequence number tried by [`Peer::open_any`].
const ROLLOVERS_MAX: u64 = 32;

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
        let certificate = Certificate::generate()?;
        let remote = DtlsParameters {
            role: DtlsRole::Client,
            fingerprints: certificate.fingerprints(),
        };
        worker.call(ids, Call::SetRemoteDtlsParameters(remote))?;

        let candidate = dump.ice_local_candidates.first().context("no candidate")?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(SocketAddr::new(candidate.ip.parse()?, candidate.port))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let check = check(&dump);
        let keys = handshake(&socket, &dump, &check, &certificate, profile)?;
        Ok(Self {
            socket,
            srtp: Srtp::new(&keys)?,
            open: OpenKey::new(keys.profile, &keys.remote_key, &keys.remote_salt)?,
            transport,
            check,
        })
    }

    /// Repeats the check: without one for half a minute the worker takes the peer for gone
    /// (RFC 7675).
    ///
    /// # Errors
    /// The socket failed.
    pub fn keep_alive(&self) -> Result<()> {
        self.socket.send(&self.check)?;
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
            let before = (roc << 16 | seq).checked_sub(1);
            let mut index = before.map_or_else(RecvIndex::new, RecvIndex::resumed);
            let len = self.open.unprotect_rtp(&mut index, copy, header_len).ok()?;
            packet.copy_from_slice(copy);
            Some(len)
        })
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

fn check(dump: &WebRtcTransportDump) -> Vec<u8> {
    let ice = &dump.ice_local_parameters;
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

fn handshake(
    socket: &UdpSocket,
    dump: &WebRtcTransportDump,
    check: &[u8],
    certificate: &Certificate,
    profile: Profile,
) -> Result<Box<SrtpKeys>> {
    let mut dtls = Dtls::new(&DtlsContext::new(certificate, &[profile])?)?;
    dtls.set_remote(
        Instant::now(),
        DtlsRole::Server,
        &dump.dtls_local_parameters.fingerprints,
    )?;
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
