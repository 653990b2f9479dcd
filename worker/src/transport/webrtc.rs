//! The WebRTC way to reach a peer: ICE, DTLS and SRTP over the router's sockets, or over
//! its own.

use std::net::IpAddr;
use std::time::Instant;

use broth_ipc::body::{
    DtlsParameters, DtlsState, IceCandidate, IceParameters, IceState, Protocol, RouterSocket,
    WebRtcTransportOptions,
};
use broth_ipc::{ErrorCode, Rejection};

use crate::consumer::Way;
use crate::dtls::{Dtls, SrtpKeys};
use crate::ice::{Credentials, IceLite, candidate_priority};
use crate::io::Io;
use crate::net::sockets::Path;
use crate::srtp::{OpenKey, SealKey, SrtpError, SrtpInbound};

/// Local preference of a candidate nobody prefers (`spec: media.md` §3).
const PREFERENCE: u32 = 20_000;
const FAMILY_BONUS: u32 = 10_000;
const PROTOCOL_BONUS: u32 = 5_000;

/// ICE, DTLS and SRTP of one peer.
pub struct WebRtc {
    /// Connectivity.
    pub ice: IceLite<Path>,
    /// Key agreement.
    pub dtls: Dtls,
    /// Keys, once DTLS is connected.
    pub srtp: Option<Srtp>,
    pub(super) candidates: Vec<IceCandidate>,
}

/// The keys of both directions.
pub struct Srtp {
    /// Seals what leaves.
    pub seal: SealKey,
    /// Opens what arrives.
    pub inbound: SrtpInbound,
    /// Next SRTCP index; all our RTCP has one sender SSRC space per key.
    rtcp_index: u32,
}

impl Srtp {
    /// Makes the session keys.
    ///
    /// # Errors
    /// The keys have not the lengths of the profile.
    pub fn new(keys: &SrtpKeys) -> Result<Self, SrtpError> {
        Ok(Self {
            seal: SealKey::new(keys.profile, &keys.local_key, &keys.local_salt)?,
            inbound: SrtpInbound::new(OpenKey::new(
                keys.profile,
                &keys.remote_key,
                &keys.remote_salt,
            )?),
            rtcp_index: 0,
        })
    }

    /// Seals a compound RTCP packet.
    ///
    /// # Errors
    /// All indices of the key are used.
    pub fn protect_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        self.seal.protect_rtcp(self.rtcp_index, packet)?;
        self.rtcp_index += 1;
        Ok(())
    }
}

impl WebRtc {
    /// Waits for connectivity checks on those of `sockets` that fit the options.
    pub(super) fn new(
        io: &Io,
        options: &WebRtcTransportOptions,
        sockets: &[RouterSocket],
    ) -> Result<Self, Rejection> {
        let candidates = candidates(options, sockets);
        if candidates.is_empty() {
            let reason = "could not open any IP:port";
            return Err(Rejection::new(ErrorCode::Unavailable, reason));
        }
        let dtls = Dtls::new(&io.dtls)
            .map_err(|error| Rejection::new(ErrorCode::Unavailable, error.to_string()))?;
        Ok(Self {
            ice: IceLite::new(Credentials::from_random(&Io::random())),
            dtls,
            srtp: None,
            candidates,
        })
    }

    /// Where and how to send media; `None` until connected.
    pub(super) fn way(&self) -> Option<Way<'_>> {
        let path = self.ice.selected()?;
        let seal = Some(&self.srtp.as_ref()?.seal);
        (self.ice.state() != IceState::Disconnected).then_some(Way {
            path,
            seal,
            mirror: None,
        })
    }

    /// Our credentials.
    pub fn ice_parameters(&self) -> IceParameters {
        let credentials = self.ice.credentials();
        IceParameters {
            username_fragment: credentials.ufrag.clone(),
            password: credentials.pwd.clone(),
            ice_lite: true,
        }
    }

    /// Our role and fingerprints.
    pub(super) fn dtls_parameters(&self, io: &Io) -> DtlsParameters {
        DtlsParameters {
            role: self.dtls.local_role(),
            fingerprints: io.certificate.fingerprints(),
        }
    }

    /// Starts DTLS if there is a path and it has not begun: parameters may come after the path.
    pub fn start_dtls(&mut self, now: Instant) {
        if matches!(self.ice.state(), IceState::Connected | IceState::Completed) {
            self.dtls.handle_ice_connected(now);
        }
    }

    /// The state of key agreement.
    pub(super) fn dtls_state(&self) -> DtlsState {
        self.dtls.state()
    }
}

fn candidates(options: &WebRtcTransportOptions, sockets: &[RouterSocket]) -> Vec<IceCandidate> {
    sockets
        .iter()
        .filter(|socket| match socket.protocol {
            Protocol::Udp => options.udp,
            Protocol::Tcp => options.tcp,
        })
        .map(|socket| candidate(options, socket))
        .collect()
}

fn candidate(options: &WebRtcTransportOptions, socket: &RouterSocket) -> IceCandidate {
    let (family, prefers_family) = match socket.ip {
        IpAddr::V4(_) => ("ipv4", options.prefer_ipv4),
        IpAddr::V6(_) => ("ipv6", options.prefer_ipv6),
    };
    let (foundation, prefers_protocol, tcp_type) = match socket.protocol {
        Protocol::Udp => ("udpcandidate", options.prefer_udp, None),
        Protocol::Tcp => ("tcpcandidate", options.prefer_tcp, Some("passive")),
    };
    let preference = PREFERENCE
        + u32::from(prefers_family) * FAMILY_BONUS
        + u32::from(prefers_protocol) * PROTOCOL_BONUS;
    IceCandidate {
        foundation: foundation.into(),
        family: family.into(),
        priority: candidate_priority(preference),
        ip: socket
            .announced_ip
            .clone()
            .unwrap_or_else(|| socket.ip.to_string()),
        port: socket.port,
        kind: "host".into(),
        protocol: socket.protocol,
        tcp_type: tcp_type.map(Into::into),
    }
}
