//! A transport: one peer's way in and out, and the tables that say which producer a received
//! packet belongs to. `webrtc` and `plain` are the two ways, `listener` is the tables.

mod flight;
mod listener;
mod mirror;
mod plain;
mod webrtc;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use broth_ipc::body::{
    PlainRtpTransportDump, RouterSocket, SendBandwidth, TransportStats, TransportTuple,
    WebRtcTransportDump, WebRtcTransportOptions,
};
use broth_ipc::{Rejection, TransportId};
use serde_json::Value;

use crate::consumer::Way;
use crate::io::Io;
use crate::net::sockets::{Path, Sockets};
use crate::recorder::{BYTES_RECEIVED, BYTES_SENT, Entry, InboundRecord};
use crate::stream::Arrivals;
use crate::wire::rtcp::emit_transport_feedback;

pub use flight::Flight;
pub use listener::Listener;
pub use mirror::{Copied, Mirror};
pub use plain::{Plain, remote_address};
pub use webrtc::{Srtp, WebRtc};

/// Between two RTCP reports; each interval varies around it (RFC 3550 §6.2).
const RTCP_INTERVAL: Duration = Duration::from_millis(1000);

/// A transport.
pub struct Transport {
    /// Id in the router.
    pub id: TransportId,
    /// The way to the peer.
    pub link: Link,
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
    /// Where copies of clear packets go.
    pub mirror: Option<Mirror>,
    /// Where it is recorded, while it is connected.
    pub flight: Option<Box<Flight>>,
    /// The SSRCs received under its keys, and where they are recorded.
    pub inbound: Vec<(InboundRecord, Option<Entry>)>,
    /// Bytes received on it.
    pub bytes_received: u64,
    /// Bytes sent on it.
    pub bytes_sent: u64,
}

/// The way to a peer.
pub enum Link {
    /// ICE, DTLS and SRTP.
    WebRtc(Box<WebRtc>),
    /// RTP in the clear.
    Plain(Plain),
}

impl Transport {
    /// Creates a WebRTC transport that waits for connectivity checks on sockets.
    ///
    /// # Errors
    /// No socket fits the options, or OpenSSL fails.
    pub fn webrtc(
        io: &Io,
        id: TransportId,
        options: &WebRtcTransportOptions,
        sockets: &[RouterSocket],
    ) -> Result<Self, Rejection> {
        let webrtc = WebRtc::new(io, options, sockets)?;
        Ok(Self::new(io, id, Link::WebRtc(Box::new(webrtc))))
    }

    /// Creates a transport over a link.
    pub fn new(io: &Io, id: TransportId, link: Link) -> Self {
        Self {
            id,
            link,
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
            mirror: None,
            flight: None,
            inbound: Vec::new(),
            bytes_received: 0,
            bytes_sent: 0,
        }
    }

    /// ICE, DTLS and SRTP.
    ///
    /// # Errors
    /// It is a plain transport.
    pub fn webrtc_mut(&mut self) -> Result<&mut WebRtc, Rejection> {
        match &mut self.link {
            Link::WebRtc(webrtc) => Ok(webrtc),
            Link::Plain(_) => Err(wrong_type()),
        }
    }

    /// The plain link.
    ///
    /// # Errors
    /// It is a WebRTC transport.
    pub fn plain_mut(&mut self) -> Result<&mut Plain, Rejection> {
        match &mut self.link {
            Link::WebRtc(_) => Err(wrong_type()),
            Link::Plain(plain) => Ok(plain),
        }
    }

    /// Where and how to send media; `None` until connected.
    pub fn way(&self) -> Option<Way<'_>> {
        let way = match &self.link {
            Link::WebRtc(webrtc) => webrtc.way(),
            Link::Plain(plain) => plain.way(),
        };
        let mirror = self.mirror_path(Copied::SentRtp);
        way.map(|way| Way { mirror, ..way })
    }

    /// Where a copy of a packet goes; `None` if none is wanted.
    pub fn mirror_path(&self, copied: Copied) -> Option<Path> {
        self.mirror.as_ref()?.path(copied)
    }

    /// Tells the peer when its packets arrived.
    pub fn send_arrivals(&mut self, io: &mut Io) {
        let mut packet = std::mem::take(&mut io.scratch);
        io.fci.clear();
        while self.arrivals.emit(&mut io.fci) {
            packet.clear();
            emit_transport_feedback(&mut packet, 0, self.arrivals.media(), &io.fci);
            self.send_rtcp(io, &mut packet);
            io.fci.clear();
        }
        if let Some(flight) = &self.flight {
            flight.set_twcc_count(self.arrivals.feedback_count());
        }
        io.scratch = packet;
    }

    /// Seals and queues a compound RTCP packet, which is emptied.
    pub fn send_rtcp(&mut self, io: &mut Io, packet: &mut Vec<u8>) {
        let mirror = self.mirror_path(Copied::SentRtcp);
        let path = match &mut self.link {
            _ if packet.is_empty() => None,
            Link::WebRtc(webrtc) => webrtc.ice.selected().filter(|_| {
                let Some(srtp) = &mut webrtc.srtp else {
                    return false;
                };
                if let Some(mirror) = mirror {
                    io.sockets.send(mirror, packet);
                }
                let is_sealed = srtp.protect_rtcp(packet).is_ok();
                if let Some(flight) = &self.flight {
                    flight.set_srtcp_index(srtp.rtcp_index());
                }
                is_sealed
            }),
            Link::Plain(plain) => plain.path(),
        };
        if let Some(path) = path {
            self.count_sent(packet.len() as u64);
            io.sockets.send(path, packet);
        }
        packet.clear();
    }

    /// Counts bytes that arrived.
    pub fn count_received(&mut self, len: usize) {
        self.bytes_received += len as u64;
        if let Some(flight) = &self.flight {
            flight.entry.set(BYTES_RECEIVED, self.bytes_received);
        }
    }

    /// Counts bytes that leave.
    pub fn count_sent(&mut self, len: u64) {
        self.bytes_sent += len;
        if let Some(flight) = &self.flight {
            flight.entry.set(BYTES_SENT, self.bytes_sent);
        }
    }

    /// Schedules the next reports: 0.5 to 1.5 of the interval from now, so that transports do not
    /// fall into step, and together with those of others that are due about then.
    pub fn schedule_rtcp(&mut self, io: &Io) {
        // Not to be guessed is not asked of it, to be had cheaply is.
        let random = RandomState::new().hash_one(self.id) as u8;
        let interval = RTCP_INTERVAL * (128 + u32::from(random)) / 256;
        self.rtcp_at = io.next_tick(io.now + interval);
    }

    /// When the link wants to be woken, or arrivals are to be told.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let link = match &self.link {
            Link::WebRtc(webrtc) => {
                let timeouts = [webrtc.ice.poll_timeout(), webrtc.dtls.poll_timeout()];
                timeouts.into_iter().flatten().min()
            }
            Link::Plain(_) => None,
        };
        [link, self.arrivals.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Wakes what is due in the link.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Link::WebRtc(webrtc) = &mut self.link {
            if webrtc.ice.poll_timeout().is_some_and(|at| at <= now) {
                webrtc.ice.handle_timeout(now);
            }
            if webrtc.dtls.poll_timeout().is_some_and(|at| at <= now) {
                webrtc.dtls.handle_timeout(now);
            }
        }
    }

    /// Everything about the transport.
    pub fn dump(&self, io: &Io) -> Value {
        let rtp_listener = self.listener.dump();
        let dump = match &self.link {
            Link::WebRtc(webrtc) => serde_json::to_value(WebRtcTransportDump {
                transport_id: self.id,
                ice_role: "controlled".into(),
                ice_local_parameters: webrtc.ice_parameters(),
                ice_local_candidates: webrtc.candidates.clone(),
                ice_selected_tuple: webrtc.ice.selected().and_then(|p| tuple(p, &io.sockets)),
                ice_state: webrtc.ice.state(),
                dtls_local_parameters: webrtc.dtls_parameters(io),
                dtls_state: webrtc.dtls_state(),
                header_extension_ids: self.listener.extension_ids(),
                rtp_listener,
            }),
            Link::Plain(plain) => serde_json::to_value(PlainRtpTransportDump {
                transport_id: self.id,
                local_ip: plain.socket.ip,
                local_port: plain.socket.port,
                tuple: plain.path().and_then(|path| tuple(path, &io.sockets)),
                rtp_listener,
            }),
        };
        dump.expect("dumps are plain structures with text keys")
    }

    /// Stats; a plain transport has none (`spec: channel.md` §6.4).
    pub fn stats(&self, io: &Io, ssrcs: Vec<u32>) -> Option<TransportStats> {
        let Link::WebRtc(webrtc) = &self.link else {
            return None;
        };
        let selected = webrtc.ice.selected();
        // REMB leaves only with a limit, and names what it limits.
        let is_told = self.bitrate_max > 0 && !ssrcs.is_empty();
        Some(TransportStats {
            kind: "transport".into(),
            timestamp: io.now_ms(),
            id: self.id,
            bytes_received: selected.map(|_| self.bytes_received),
            bytes_sent: selected.map(|_| self.bytes_sent),
            ice_selected_tuple: selected.and_then(|path| tuple(path, &io.sockets)),
            dtls_state: webrtc.dtls_state(),
            ice_connection_state: webrtc.ice.state(),
            local_available_send_bw: SendBandwidth {
                max_bitrate: Some(self.bitrate_max),
                bitrate: if is_told {
                    u64::from(self.bitrate_max)
                } else {
                    0
                },
                ssrcs: if is_told { ssrcs } else { Vec::new() },
            },
            remote_available_send_bw: self.remote_bandwidth.clone(),
        })
    }
}

fn wrong_type() -> Rejection {
    Rejection::state("wrong Transport type")
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
