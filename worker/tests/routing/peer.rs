//! A peer of a stage with ICE, DTLS and SRTP.

use std::net::SocketAddr;

use broth_ipc::body::{DtlsParameters, DtlsRole, WebRtcTransportDump, WebRtcTransportOptions};
use broth_ipc::{Call, Ids, TransportId};
use broth_worker::dtls::{Certificate, Dtls, DtlsContext, DtlsEvent};
use broth_worker::net::sockets::Path;
use broth_worker::srtp::Profile;
use broth_worker::transport::Srtp;
use broth_worker::wire::rtp::header_len;
use broth_worker::wire::stun::{is_stun, write_binding_request};

use crate::stage::{ROUTER, Stage};

/// Room for the longest tag behind a packet.
const TAG_LEN: usize = 16;

/// A connected peer.
pub(crate) struct Peer {
    pub(crate) path: Path,
    pub(crate) srtp: Srtp,
    /// The connectivity check, to be repeated.
    pub(crate) check: Vec<u8>,
}

impl Peer {
    /// Connects to a new transport over the router's socket.
    pub(crate) fn connect(stage: &mut Stage, id: TransportId, profile: Profile) -> Self {
        let certificate = Certificate::generate().unwrap();
        let ids = Ids::router(ROUTER).transport(id);
        let create = Call::CreateWebRtcTransport(WebRtcTransportOptions::default());
        let dump = stage.call(ids, create).unwrap();
        let dump: WebRtcTransportDump = serde_json::from_value(dump).unwrap();
        let remote = Call::SetRemoteDtlsParameters(DtlsParameters {
            role: DtlsRole::Client,
            fingerprints: certificate.fingerprints(),
        });
        stage.call(ids, remote).unwrap();

        let now = stage.now();
        let mut dtls = Dtls::new(&DtlsContext::new(&certificate, &[profile]).unwrap()).unwrap();
        let fingerprints = &dump.dtls_local_parameters.fingerprints;
        dtls.set_remote(now, DtlsRole::Server, fingerprints)
            .unwrap();
        let path = Path {
            socket: stage.sockets()[0],
            remote: SocketAddr::from(([127, 0, 0, 1], 10_000 + id.0 as u16)),
        };
        let ice = dump.ice_local_parameters;
        let mut check = Vec::new();
        let username = format!("{}:x", ice.username_fragment);
        let pwd = ice.password.as_bytes();
        write_binding_request(&mut check, [7; 12], &username, 1, true, 5, pwd);

        let mut to_worker = vec![check.clone()];
        let srtp = loop {
            for mut datagram in to_worker.drain(..) {
                stage.receive(path, &mut datagram);
            }
            stage.take(|_, _, datagram| {
                if is_stun(datagram) {
                    dtls.handle_ice_connected(now);
                } else {
                    dtls.handle_datagram(now, datagram);
                }
            });
            to_worker.extend(std::iter::from_fn(|| dtls.poll_transmit()));
            if let Some(DtlsEvent::Connected { keys, .. }) =
                std::iter::from_fn(|| dtls.poll_event()).last()
            {
                break Srtp::new(&keys).unwrap();
            }
            assert!(!to_worker.is_empty(), "the handshake goes on");
        };
        Self { path, srtp, check }
    }

    /// Seals the first packets of an SSRC: no rollover of its numbers yet.
    pub(crate) fn seal(&self, packet: &[u8]) -> Vec<u8> {
        let mut sealed = packet.to_vec();
        sealed.resize(packet.len() + TAG_LEN, 0);
        let header_len = header_len(packet).unwrap();
        let seal = &self.srtp.seal;
        let len = seal.protect_rtp(0, &mut sealed, header_len, packet.len());
        sealed.truncate(len.unwrap());
        sealed
    }

    /// Seals a compound RTCP packet.
    pub(crate) fn seal_rtcp(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        self.srtp.protect_rtcp(&mut packet).unwrap();
        packet
    }
}
