//! A peer with ICE, DTLS and SRTP that lives in the test: sends streams, answers what it is asked
//! for, and opens what it gets. What it gets must open, and come under no index twice.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use broth_ipc::body::{DtlsParameters, DtlsRole, IceParameters};
use broth_worker::dtls::{Certificate, Dtls, DtlsContext, DtlsEvent, SrtpKeys};
use broth_worker::srtp::{Profile, TAG_LEN_MAX};
use broth_worker::transport::Srtp;
use broth_worker::wire::rtcp::{self, ReportBlock, emit_nack, emit_receiver_report};
use broth_worker::wire::rtp::{RtpHeader, header_len, is_rtcp, is_rtp};
use broth_worker::wire::stun::{is_stun, write_binding_request};

use super::source::Source;
use crate::stage::numbered;

/// More feedback than is lost at a time.
const FEEDBACKS_LOST_MAX: u8 = 10;

/// One peer.
pub(super) struct Client {
    pub(super) addr: SocketAddr,
    certificate: Certificate,
    dtls: Dtls,
    pub(super) srtp: Option<Srtp>,
    pub(super) sources: Vec<Source>,
    pub(super) nacked: u64,
    pub(super) plis: u64,
    /// Every (SSRC, index) that was ever seen on the wire, under the keys it has.
    wire: HashMap<(u32, u64), Vec<u8>>,
    /// The number of the next packet in the whole transport.
    twcc_seq: u16,
    /// The count of the next feedback about arrivals.
    next_feedback: u8,
    /// Feedback about arrivals that came.
    pub(super) feedbacks: u64,
    /// Reports that came.
    pub(super) reports: u64,
}

/// An RTP packet that came.
pub(super) struct Arrived {
    pub(super) ssrc: u32,
    pub(super) pt: u8,
    pub(super) index: u64,
    pub(super) ts: u32,
    pub(super) payload: Vec<u8>,
}

impl Client {
    pub(super) fn new(addr: SocketAddr, profile: Profile) -> Self {
        let certificate = Certificate::generate().unwrap();
        let context = DtlsContext::new(&certificate, &[profile]).unwrap();
        Self {
            addr,
            dtls: Dtls::new(&context).unwrap(),
            certificate,
            srtp: None,
            sources: Vec::new(),
            nacked: 0,
            plis: 0,
            wire: HashMap::new(),
            twcc_seq: 0,
            next_feedback: 0,
            feedbacks: 0,
            reports: 0,
        }
    }

    pub(super) fn dtls_parameters(&self) -> DtlsParameters {
        DtlsParameters {
            role: DtlsRole::Client,
            fingerprints: self.certificate.fingerprints(),
        }
    }

    /// Begins to connect: returns the check to send first.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        ice: &IceParameters,
        dtls: &DtlsParameters,
    ) -> Vec<u8> {
        let role = DtlsRole::Server;
        self.dtls.set_remote(now, role, &dtls.fingerprints).unwrap();
        let mut check = Vec::new();
        let username = format!("{}:x", ice.username_fragment);
        let pwd = ice.password.as_bytes();
        write_binding_request(&mut check, [7; 12], &username, 1, true, 5, pwd);
        check
    }

    /// Takes a datagram of the handshake; returns what to send.
    pub(super) fn handshake(&mut self, now: Instant, datagram: &[u8]) -> Vec<Vec<u8>> {
        if is_stun(datagram) {
            self.dtls.handle_ice_connected(now);
        } else if !is_rtcp(datagram) {
            self.dtls.handle_datagram(now, datagram);
        }
        while let Some(event) = self.dtls.poll_event() {
            if let DtlsEvent::Connected { keys, .. } = event {
                let keys: &SrtpKeys = &keys;
                self.srtp = Some(Srtp::new(keys).unwrap());
            }
        }
        std::iter::from_fn(|| self.dtls.poll_transmit()).collect()
    }

    /// A sealed frame of `count` packets of one of its streams; nothing of a silent one.
    pub(super) fn frame(&mut self, at: usize, count: u64) -> Vec<Vec<u8>> {
        let source = &mut self.sources[at];
        if source.is_silent {
            return Vec::new();
        }
        let packets = source.frame(count);
        let sealed = packets.iter().map(|(seq, packet)| self.seal(*seq, packet));
        sealed.collect()
    }

    /// Seals a packet, numbered in the whole transport.
    fn seal(&mut self, seq: u64, packet: &[u8]) -> Vec<u8> {
        let header = RtpHeader::parse(packet).unwrap();
        let mut buffer = numbered(&header, self.twcc_seq, header.payload(packet));
        self.twcc_seq = self.twcc_seq.wrapping_add(1);
        let (len, header_len) = (buffer.len(), header_len(&buffer).unwrap());
        buffer.resize(len + TAG_LEN_MAX, 0);
        let seal = &self.srtp.as_ref().unwrap().seal;
        let sealed = seal.protect_rtp((seq >> 16) as u32, &mut buffer, header_len, len);
        buffer.truncate(sealed.unwrap());
        buffer
    }

    /// A NACK for a number of one of its incoming streams.
    pub(super) fn nack(&mut self, ssrc: u32, seq: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        emit_nack(&mut packet, 1, ssrc, &[seq]);
        self.seal_rtcp(packet)
    }

    /// A report about one of its incoming streams.
    pub(super) fn report(&mut self, ssrc: u32, lost: i32) -> Vec<u8> {
        let mut packet = Vec::new();
        let block = ReportBlock {
            ssrc,
            lost,
            fraction_lost: 0,
            highest_seq: 0,
            jitter: 0,
            lsr: 0,
            dlsr: 0,
        };
        emit_receiver_report(&mut packet, 1, &[block]);
        self.seal_rtcp(packet)
    }

    fn seal_rtcp(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        let srtp = self.srtp.as_mut().unwrap();
        srtp.protect_rtcp(&mut packet).unwrap();
        packet
    }

    /// Takes what the worker sends: an RTP packet, or RTCP and the answers to it.
    pub(super) fn receive(&mut self, datagram: &[u8]) -> (Option<Arrived>, Vec<Vec<u8>>) {
        let mut packet = datagram.to_vec();
        if is_rtcp(&packet) {
            (None, self.receive_rtcp(&mut packet))
        } else if is_rtp(&packet) {
            (Some(self.receive_rtp(&mut packet)), Vec::new())
        } else {
            (None, Vec::new())
        }
    }

    fn receive_rtcp(&mut self, packet: &mut [u8]) -> Vec<Vec<u8>> {
        let inbound = &mut self.srtp.as_mut().unwrap().inbound;
        let opened = inbound.unprotect_rtcp(packet);
        let len = opened.expect("every SRTCP packet is authentic and new");
        let mut repeated = Vec::new();
        for packet in rtcp::packets(&packet[..len]).flatten() {
            match packet {
                rtcp::Packet::Nack { media, seqs, .. } => {
                    let sources = &mut self.sources;
                    if let Some(source) = sources.iter_mut().find(|source| source.ssrc == media) {
                        let asked: Vec<u16> = seqs.collect();
                        self.nacked += asked.len() as u64;
                        repeated.extend(asked.into_iter().filter_map(|seq| source.repeat(seq)));
                    }
                }
                rtcp::Packet::Pli { media, .. } => {
                    let sources = &mut self.sources;
                    if let Some(source) = sources.iter_mut().find(|source| source.ssrc == media) {
                        source.wants_keyframe = true;
                        // A layer whose silence is not known yet is asked in vain.
                        self.plis += u64::from(!source.is_silent);
                    }
                }
                rtcp::Packet::Twcc { fci, .. } => {
                    // Some are lost on the way, or with the worker; none is counted twice.
                    let missing = fci[7].wrapping_sub(self.next_feedback);
                    assert!(missing < FEEDBACKS_LOST_MAX, "{missing} lost");
                    self.next_feedback = fci[7].wrapping_add(1);
                    self.feedbacks += 1;
                }
                rtcp::Packet::Sr(..) | rtcp::Packet::Rr { .. } => self.reports += 1,
                _ => {}
            }
        }
        let sealed = repeated.iter().map(|(seq, packet)| self.seal(*seq, packet));
        sealed.collect()
    }

    fn receive_rtp(&mut self, packet: &mut [u8]) -> Arrived {
        let sealed = packet.to_vec();
        let header_len = header_len(packet).unwrap();
        let ssrc = RtpHeader::parse(packet).unwrap().ssrc;
        let seq = u16::from_be_bytes([packet[2], packet[3]]);
        let inbound = &mut self.srtp.as_mut().unwrap().inbound;
        let before = inbound.recv_index(ssrc);
        let opened = inbound.unprotect_rtp(packet, header_len);
        let len = opened.unwrap_or_else(|error| panic!("{ssrc} {seq} after {before:?}: {error}"));
        let index = before.map_or_else(
            || inbound.highest_rtp(ssrc).unwrap(),
            |before| before.guess(seq),
        );
        let before = self.wire.insert((ssrc, index), sealed);
        assert_eq!(before, None, "{ssrc} {index} was sealed before");
        let packet = &packet[..len];
        let header = RtpHeader::parse(packet).unwrap();
        Arrived {
            ssrc,
            pt: header.pt,
            index,
            ts: header.ts,
            payload: header.payload(packet).to_vec(),
        }
    }
}
