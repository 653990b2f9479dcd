//! A peer with ICE, DTLS and SRTP that lives in the test: sends VP8 and opus, answers what it is
//! asked for, and remembers what it got.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use broth_ipc::body::{DtlsParameters, DtlsRole, IceParameters};
use broth_worker::dtls::{Certificate, Dtls, DtlsContext, DtlsEvent, SrtpKeys};
use broth_worker::srtp::{Profile, RecvIndex};
use broth_worker::transport::Srtp;
use broth_worker::wire::rtcp::{self, emit_nack};
use broth_worker::wire::rtp::{RtpEmit, RtpHeader, header_len, is_rtcp, is_rtp};
use broth_worker::wire::stun::{is_stun, write_binding_request};
use broth_worker::wire::vp8::Vp8Descriptor;

use crate::stage::{VP8_HEADER, vp8};

pub(crate) const AUDIO_PT: u8 = 100;
const RTX_PT: u8 = 102;
/// Packets kept for retransmission.
const HISTORY: usize = 600;

/// One peer.
pub(crate) struct Client {
    pub(crate) addr: SocketAddr,
    certificate: Certificate,
    dtls: Dtls,
    pub(crate) srtp: Option<Srtp>,
    pub(crate) video: Source,
    pub(crate) audio: Source,
    rtx_seq: u64,
    history: VecDeque<(u64, Vec<u8>)>,
    pub(crate) wants_keyframe: bool,
    pub(crate) nacked: u64,
    pub(crate) plis: u64,
    /// What came, by SSRC.
    pub(crate) got: HashMap<u32, Got>,
    /// Every (SSRC, index) that was ever seen on the wire.
    wire: HashMap<(u32, u64), Vec<u8>>,
    pub(crate) repairs: u64,
}

/// A stream that a client sends.
pub(crate) struct Source {
    pub(crate) ssrc: u32,
    /// Extended number of the last packet; the first ones are short of a rollover.
    pub(crate) seq: u64,
    ts: u32,
    picture: u16,
}

/// A stream that a client gets.
#[derive(Default)]
pub(crate) struct Got {
    /// Source numbers with the extended number they came under.
    pub(crate) by_source: BTreeMap<u64, u64>,
    /// What is added to numbers, timestamps and pictures on the way: the same for all packets.
    offsets: Option<(u64, u32, u16)>,
    pub(crate) index: RecvIndex,
}

impl Client {
    pub(crate) fn new(id: u16, profile: Profile, start: u64) -> Self {
        let certificate = Certificate::generate().unwrap();
        let context = DtlsContext::new(&certificate, &[profile]).unwrap();
        let source = |ssrc| Source {
            ssrc,
            seq: start,
            ts: 0x7000_0000,
            picture: if ssrc % 10 == 0 { 0x7FF0 } else { 0 },
        };
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 1000 + id)),
            dtls: Dtls::new(&context).unwrap(),
            certificate,
            srtp: None,
            video: source(10 * u32::from(id)),
            audio: source(10 * u32::from(id) + 2),
            // The worker may see the stream after its rollover first.
            rtx_seq: 65_530,
            history: VecDeque::new(),
            wants_keyframe: false,
            nacked: 0,
            plis: 0,
            got: HashMap::new(),
            wire: HashMap::new(),
            repairs: 0,
        }
    }

    pub(crate) fn dtls_parameters(&self) -> DtlsParameters {
        DtlsParameters {
            role: DtlsRole::Client,
            fingerprints: self.certificate.fingerprints(),
        }
    }

    /// Begins to connect: returns the check to send first.
    pub(crate) fn connect(
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
    pub(crate) fn handshake(&mut self, now: Instant, datagram: &[u8]) -> Vec<Vec<u8>> {
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

    /// A frame of `count` video packets and one of audio, sealed, with their source numbers.
    pub(crate) fn frame(&mut self, count: u64) -> Vec<Vec<u8>> {
        let is_keyframe = std::mem::take(&mut self.wants_keyframe);
        self.video.ts = self.video.ts.wrapping_add(1800);
        self.video.picture = (self.video.picture + 1) & 0x7FFF;
        let mut packets = Vec::new();
        for n in 0..count {
            self.video.seq += 1;
            let mut buffer = [0; 300];
            let numbers = (self.video.ssrc, self.video.seq as u16, self.video.ts);
            let body = self.video.body();
            let is_key = is_keyframe && n == 0;
            let len = vp8(&mut buffer, numbers, self.video.picture, is_key, &body);
            self.history
                .push_back((self.video.seq, buffer[..len].to_vec()));
            packets.push(self.seal(&buffer[..len], self.video.seq));
        }
        while self.history.len() > HISTORY {
            self.history.pop_front();
        }
        self.audio.seq += 1;
        self.audio.ts = self.audio.ts.wrapping_add(960);
        let packet = emit(AUDIO_PT, &self.audio, &self.audio.body());
        packets.push(self.seal(&packet, self.audio.seq));
        packets
    }

    fn seal(&self, packet: &[u8], seq: u64) -> Vec<u8> {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + 16, 0);
        let header_len = header_len(packet).unwrap();
        let srtp = self.srtp.as_ref().unwrap();
        let sealed =
            srtp.seal
                .protect_rtp((seq >> 16) as u32, &mut buffer, header_len, packet.len());
        buffer.truncate(sealed.unwrap());
        buffer
    }

    /// A NACK for a number of one of its incoming streams.
    pub(crate) fn nack(&mut self, ssrc: u32, seq: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        emit_nack(&mut packet, 1, ssrc, &[seq]);
        self.srtp
            .as_mut()
            .unwrap()
            .protect_rtcp(&mut packet)
            .unwrap();
        packet
    }

    /// Takes what the worker sends; returns the answers.
    pub(crate) fn receive(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut packet = datagram.to_vec();
        if is_rtcp(&packet) {
            return self.receive_rtcp(&mut packet);
        }
        if is_rtp(&packet) {
            self.receive_rtp(&mut packet);
        }
        Vec::new()
    }

    /// Its streams may begin anew.
    pub(crate) fn forget_offsets(&mut self) {
        for got in self.got.values_mut() {
            got.offsets = None;
        }
    }

    fn receive_rtcp(&mut self, packet: &mut [u8]) -> Vec<Vec<u8>> {
        let inbound = &mut self.srtp.as_mut().unwrap().inbound;
        let opened = inbound.unprotect_rtcp(packet);
        let len = opened.expect("every SRTCP packet is authentic and new");
        let mut answers = Vec::new();
        for packet in rtcp::packets(&packet[..len]).flatten() {
            match packet {
                rtcp::Packet::Nack { media, seqs, .. } if media == self.video.ssrc => {
                    for seq in seqs {
                        answers.extend(self.repeat(seq));
                    }
                }
                rtcp::Packet::Pli { media, .. } if media == self.video.ssrc => {
                    self.wants_keyframe = true;
                    self.plis += 1;
                }
                _ => {}
            }
        }
        answers
    }

    /// The packet again, as RTX.
    fn repeat(&mut self, seq: u16) -> Option<Vec<u8>> {
        self.nacked += 1;
        let (_, packet) = self.history.iter().find(|(kept, _)| *kept as u16 == seq)?;
        let header = RtpHeader::parse(packet).unwrap();
        let mut payload = seq.to_be_bytes().to_vec();
        payload.extend_from_slice(header.payload(packet));
        self.rtx_seq += 1;
        let rtx = Source {
            ssrc: self.video.ssrc + 1,
            seq: self.rtx_seq,
            ts: header.ts,
            picture: 0,
        };
        let packet = emit(RTX_PT, &rtx, &payload);
        Some(self.seal(&packet, rtx.seq))
    }

    fn receive_rtp(&mut self, packet: &mut [u8]) {
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
        let mut payload = header.payload(packet).to_vec();
        let (media, index) = if header.pt == RTX_PT {
            self.repairs += 1;
            let media = ssrc - 1;
            let osn = u16::from_be_bytes([payload[0], payload[1]]);
            payload.drain(..2);
            (media, self.got[&media].index.guess(osn))
        } else {
            (ssrc, index)
        };
        let picture = (header.pt != AUDIO_PT).then(|| Vp8Descriptor::parse(&payload).unwrap());
        let body = &payload[if picture.is_some() { VP8_HEADER } else { 0 }..];
        let (seq, body) = body.split_first_chunk().unwrap();
        let (ts, picture_in) = body.split_first_chunk().unwrap();
        let seq = u64::from_be_bytes(*seq);
        let ts = header.ts.wrapping_sub(u32::from_be_bytes(*ts));
        let picture_in = u16::from_be_bytes(picture_in.try_into().unwrap());
        let picture = picture.and_then(|vp8| vp8.picture_id).unwrap_or(0);
        let picture = picture.wrapping_sub(picture_in) & 0x7FFF;
        let got = self.got.entry(media).or_default();
        if header.pt != RTX_PT {
            got.index = RecvIndex::resumed(got.index.highest().unwrap_or(0).max(index));
        }
        let offsets = (index.wrapping_sub(seq), ts, picture);
        let before = *got.offsets.get_or_insert(offsets);
        assert_eq!(offsets, before, "packet {seq} of {media} goes on as before");
        got.by_source.insert(seq, index);
    }
}

impl Source {
    /// Tells the receiver what was sent.
    fn body(&self) -> Vec<u8> {
        let mut body = self.seq.to_be_bytes().to_vec();
        body.extend_from_slice(&self.ts.to_be_bytes());
        body.extend_from_slice(&self.picture.to_be_bytes());
        body
    }
}

fn emit(pt: u8, source: &Source, payload: &[u8]) -> Vec<u8> {
    let emit = RtpEmit {
        marker: true,
        pt,
        seq: source.seq as u16,
        ts: source.ts,
        ssrc: source.ssrc,
    };
    let mut packet = vec![0; 300];
    let at = emit.emit_header(std::iter::empty(), &mut packet).unwrap();
    packet[at..at + payload.len()].copy_from_slice(payload);
    packet.truncate(at + payload.len());
    packet
}
