//! A WebRTC transport: one peer's ICE, DTLS and SRTP, and the tables that say which producer a
//! received packet belongs to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use broth_ipc::body::{
    DtlsParameters, IceCandidate, IceParameters, IceState, Protocol, RouterSocket, RtpListenerDump,
    SendBandwidth, TransportStats, TransportTuple, WebRtcTransportDump, WebRtcTransportOptions,
};
use broth_ipc::rtp::RtpParameters;
use broth_ipc::{ProducerId, Rejection, TransportId};

use crate::consumer::Way;
use crate::dtls::{Dtls, SrtpKeys};
use crate::ice::{Credentials, IceLite, candidate_priority};
use crate::io::Io;
use crate::net::sockets::{Path, Sockets};
use crate::producer::extension_id;
use crate::srtp::{OpenKey, SealKey, SrtpError, SrtpInbound};
use crate::stream::Arrivals;
use crate::wire::rtcp::emit_transport_feedback;
use crate::wire::rtp::RtpHeader;
use crate::wire::rtp_ext::ExtensionUri;

/// Between two RTCP reports; each interval varies around it (RFC 3550 §6.2).
const RTCP_INTERVAL: Duration = Duration::from_millis(1000);

/// Local preference of a candidate nobody prefers (`spec: media.md` §3).
const PREFERENCE: u32 = 20_000;
const FAMILY_BONUS: u32 = 10_000;
const PROTOCOL_BONUS: u32 = 5_000;

/// A WebRTC transport.
pub struct Transport {
    /// Id in the router.
    pub id: TransportId,
    /// Connectivity.
    pub ice: IceLite<Path>,
    /// Key agreement.
    pub dtls: Dtls,
    /// Keys, once DTLS is connected.
    pub srtp: Option<Srtp>,
    /// Which producer a packet belongs to.
    pub listener: Listener,
    /// Keys of the producers on it.
    pub producers: Vec<usize>,
    /// Keys of the consumers enabled on it.
    pub consumers: Vec<usize>,
    /// Consumers by media and RTX SSRC.
    pub consumer_by_ssrc: HashMap<u32, usize>,
    /// When it wants to be woken; what is in the timer heap.
    pub wake_at: Option<Instant>,
    /// When the next RTCP reports leave.
    pub rtcp_at: Instant,
    /// Limit told to the peer by REMB, 0 for none, in bits per second.
    pub bitrate_max: u32,
    /// The last REMB of the peer.
    pub remote_bandwidth: SendBandwidth,
    /// The last receiver reference time of the peer: SSRC, middle bits, arrival.
    pub reference_time: Option<(u32, u32, Instant)>,
    /// Arrivals to be reported to the peer's bandwidth estimator.
    pub arrivals: Arrivals,
    /// Bytes received and sent on it.
    pub bytes_received: u64,
    /// Bytes sent on it.
    pub bytes_sent: u64,
    candidates: Vec<IceCandidate>,
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

impl Transport {
    /// Creates a transport that waits for connectivity checks on the router's sockets.
    ///
    /// # Errors
    /// No socket fits the options, or OpenSSL fails.
    pub fn new(
        io: &Io,
        id: TransportId,
        options: &WebRtcTransportOptions,
        sockets: &[RouterSocket],
    ) -> Result<Self, Rejection> {
        let candidates = candidates(options, sockets);
        if candidates.is_empty() {
            return Err(Rejection::new(
                broth_ipc::ErrorCode::Unavailable,
                "could not open any IP:port",
            ));
        }
        let dtls = Dtls::new(&io.dtls).map_err(|error| {
            Rejection::new(broth_ipc::ErrorCode::Unavailable, error.to_string())
        })?;
        Ok(Self {
            id,
            ice: IceLite::new(Credentials::from_random(&Io::random())),
            dtls,
            srtp: None,
            listener: Listener::default(),
            producers: Vec::new(),
            consumers: Vec::new(),
            consumer_by_ssrc: HashMap::new(),
            wake_at: None,
            rtcp_at: io.now + RTCP_INTERVAL / 2,
            bitrate_max: 0,
            remote_bandwidth: SendBandwidth::default(),
            reference_time: None,
            arrivals: Arrivals::default(),
            bytes_received: 0,
            bytes_sent: 0,
            candidates,
        })
    }

    /// Where and how to send media; `None` until connected.
    pub fn way(&self) -> Option<Way<'_>> {
        let path = self.ice.selected()?;
        let seal = &self.srtp.as_ref()?.seal;
        (self.ice.state() != IceState::Disconnected).then_some(Way { path, seal })
    }

    /// Tells the peer when its packets arrived.
    pub fn send_arrivals(&mut self, io: &mut Io) {
        let mut packet = std::mem::take(&mut io.scratch);
        let mut fci = Vec::new();
        while self.arrivals.emit(&mut fci) {
            packet.clear();
            emit_transport_feedback(&mut packet, 0, self.arrivals.media(), &fci);
            self.send_rtcp(io, &mut packet);
            fci.clear();
        }
        io.scratch = packet;
    }

    /// Seals and queues a compound RTCP packet, which is emptied.
    pub fn send_rtcp(&mut self, io: &mut Io, packet: &mut Vec<u8>) {
        if let (Some(path), Some(srtp)) = (self.ice.selected(), self.srtp.as_mut())
            && !packet.is_empty()
            && srtp.protect_rtcp(packet).is_ok()
        {
            self.bytes_sent += packet.len() as u64;
            io.sockets.send(path, packet);
        }
        packet.clear();
    }

    /// Schedules the next reports.
    pub fn schedule_rtcp(&mut self, now: Instant) {
        let [random] = Io::random::<1>();
        // 0.5 to 1.5 of the interval, so that transports do not fall into step.
        self.rtcp_at = now + RTCP_INTERVAL * (128 + u32::from(random)) / 256;
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

    /// The path in use.
    pub fn tuple(&self, sockets: &Sockets) -> Option<TransportTuple> {
        tuple(self.ice.selected()?, sockets)
    }

    /// Everything about the transport.
    pub fn dump(&self, io: &Io) -> WebRtcTransportDump {
        WebRtcTransportDump {
            transport_id: self.id,
            ice_role: "controlled".into(),
            ice_local_parameters: self.ice_parameters(),
            ice_local_candidates: self.candidates.clone(),
            ice_selected_tuple: self.tuple(&io.sockets),
            ice_state: self.ice.state(),
            dtls_local_parameters: DtlsParameters {
                role: self.dtls.local_role(),
                fingerprints: io.certificate.fingerprints(),
            },
            dtls_state: self.dtls.state(),
            header_extension_ids: self.listener.extension_ids(),
            rtp_listener: self.listener.dump(),
        }
    }

    /// Stats.
    pub fn stats(&self, io: &Io, ssrcs: Vec<u32>) -> TransportStats {
        TransportStats {
            kind: "transport".into(),
            timestamp: io.now_ms(),
            id: self.id,
            bytes_received: self.ice.selected().map(|_| self.bytes_received),
            bytes_sent: self.ice.selected().map(|_| self.bytes_sent),
            ice_selected_tuple: self.tuple(&io.sockets),
            dtls_state: self.dtls.state(),
            ice_connection_state: self.ice.state(),
            local_available_send_bw: SendBandwidth {
                max_bitrate: Some(self.bitrate_max),
                bitrate: u64::from(self.bitrate_max),
                ssrcs,
            },
            remote_available_send_bw: self.remote_bandwidth.clone(),
        }
    }
}

/// A path as the controller sees it.
pub fn tuple(path: Path, sockets: &Sockets) -> Option<TransportTuple> {
    let (local_ip, local_port, protocol) = sockets.local(path.socket)?;
    Some(TransportTuple {
        local_ip,
        local_port,
        remote_ip: path.remote.ip(),
        remote_port: path.remote.port(),
        protocol,
    })
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

/// Which producer a received packet belongs to: by SSRC, else by MID, else by RID
/// (`spec: media.md` §5).
#[derive(Default)]
pub struct Listener {
    by_ssrc: HashMap<u32, (usize, ProducerId)>,
    by_mid: HashMap<String, (usize, ProducerId)>,
    by_rid: HashMap<String, (usize, ProducerId)>,
    mid_ext: Option<u8>,
    /// Extension id of the RID, once a producer declared it.
    pub rid_ext: Option<u8>,
    /// Extension id of the transport-wide sequence number, once a producer declared it.
    pub twcc_ext: Option<u8>,
    abs_send_ext: Option<u8>,
}

impl Listener {
    /// Adds what a producer declares.
    ///
    /// # Errors
    /// An SSRC, MID or RID belongs to another producer; nothing was added.
    pub fn add(
        &mut self,
        key: usize,
        id: ProducerId,
        parameters: &RtpParameters,
    ) -> Result<(), Rejection> {
        let ssrcs: Vec<u32> = parameters
            .encodings
            .iter()
            .flat_map(|encoding| [encoding.ssrc, encoding.rtx.and_then(|rtx| rtx.ssrc)])
            .flatten()
            .collect();
        let rids: Vec<&String> = parameters
            .encodings
            .iter()
            .filter_map(|encoding| encoding.encoding_id.as_ref())
            .collect();
        for (at, ssrc) in ssrcs.iter().enumerate() {
            if self.by_ssrc.contains_key(ssrc) || ssrcs[..at].contains(ssrc) {
                return Err(Rejection::exists(format!(
                    "ssrc already exists in RTP listener [ssrc:{ssrc}]"
                )));
            }
        }
        if let Some(mid) = &parameters.mux_id
            && self.by_mid.contains_key(mid)
        {
            return Err(Rejection::exists(format!(
                "muxId already exists in RTP listener [muxId:'{mid}']"
            )));
        }
        // RIDs are unique within a MID only, so without a MID they must be unique here.
        if parameters.mux_id.is_none()
            && let Some(rid) = rids.iter().find(|rid| self.by_rid.contains_key(**rid))
        {
            return Err(Rejection::exists(format!(
                "rid already exists in RTP listener [rid:'{rid}']"
            )));
        }
        for ssrc in ssrcs {
            self.by_ssrc.insert(ssrc, (key, id));
        }
        for rid in rids {
            self.by_rid.entry(rid.clone()).or_insert((key, id));
        }
        if let Some(mid) = &parameters.mux_id {
            self.by_mid.insert(mid.clone(), (key, id));
        }
        let known = |uri, old| extension_id(parameters, uri).or(old);
        self.mid_ext = known(ExtensionUri::Mid, self.mid_ext);
        self.rid_ext = known(ExtensionUri::Rid, self.rid_ext);
        self.twcc_ext = known(ExtensionUri::TransportWideCc, self.twcc_ext);
        self.abs_send_ext = known(ExtensionUri::AbsSendTime, self.abs_send_ext);
        Ok(())
    }

    /// Removes a producer.
    pub fn remove(&mut self, key: usize) {
        self.by_ssrc.retain(|_, (owner, _)| *owner != key);
        self.by_mid.retain(|_, (owner, _)| *owner != key);
        self.by_rid.retain(|_, (owner, _)| *owner != key);
    }

    /// Finds the producer of a packet and remembers its SSRC.
    pub fn find(&mut self, header: &RtpHeader, packet: &[u8]) -> Option<usize> {
        if let Some((key, _)) = self.by_ssrc.get(&header.ssrc) {
            return Some(*key);
        }
        let text = |id: Option<u8>| std::str::from_utf8(header.extension(packet, id?)?).ok();
        let owner = text(self.mid_ext)
            .and_then(|mid| self.by_mid.get(mid))
            .or_else(|| self.by_rid.get(text(self.rid_ext)?))
            .copied()?;
        self.by_ssrc.insert(header.ssrc, owner);
        Some(owner.0)
    }

    /// The producer that owns an SSRC.
    pub fn producer_of(&self, ssrc: u32) -> Option<usize> {
        self.by_ssrc.get(&ssrc).map(|(key, _)| *key)
    }

    fn extension_ids(&self) -> std::collections::BTreeMap<String, u8> {
        [
            ("absSendTime", self.abs_send_ext),
            ("mid", self.mid_ext),
            ("rid", self.rid_ext),
            ("transportWideCc", self.twcc_ext),
        ]
        .into_iter()
        .filter_map(|(name, id)| Some((name.to_owned(), id?)))
        .collect()
    }

    fn dump(&self) -> RtpListenerDump {
        let text = |table: &HashMap<String, (usize, ProducerId)>| {
            table
                .iter()
                .map(|(key, (_, id))| (key.clone(), id.to_string()))
                .collect()
        };
        RtpListenerDump {
            ssrc_table: self
                .by_ssrc
                .iter()
                .map(|(ssrc, (_, id))| (ssrc.to_string(), id.to_string()))
                .collect(),
            mux_id_table: text(&self.by_mid),
            rid_table: text(&self.by_rid),
        }
    }
}
