//! A consumer: one producer's media on its way to one peer.
//!
//! Chooses the layer, renumbers, writes each packet once into the send queue and seals it
//! there (`rewrite`). Which packet had which number is logged, so that a retransmission repeats
//! exactly what was sent. `flight` is what of it is recorded, `report` what is told of it.

mod flight;
mod report;
mod rewrite;

use std::time::Instant;

use broth_ipc::rtp::{MediaKind, Profile, RtpParameters};
use broth_ipc::{ConsumerId, Rejection};

use crate::io::Io;
use crate::net::sockets::Path;
use crate::parameters;
use crate::producer::{Producer, UNMAPPED, extension_id};
use crate::recorder::Entry;
use crate::srtp::SealKey;
use crate::stream::{
    Numbering, Picture, PictureIds, SendStream, Sent, SentLog, StoredPacket, TsOffset,
};
use crate::wire::codec::{Codec, PayloadInfo};
use crate::wire::rtp_ext::ExtensionUri;
use flight::Flight;
use rewrite::Rewrite;

/// A consumer.
pub struct Consumer {
    /// Id in the router.
    pub id: ConsumerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Key of its producer.
    pub producer: usize,
    /// Key of the transport it is enabled on.
    pub transport: Option<usize>,
    /// Paused by the application or the receiving client.
    pub paused: bool,
    /// Paused because its producer is.
    pub source_paused: bool,
    /// The wanted layer.
    pub preferred: Profile,
    /// Highest temporal layer to forward.
    pub temporal_max: u8,
    /// The layer being forwarded.
    pub effective: Profile,
    /// What it sends, once enabled.
    pub sending: Option<Box<Sending>>,
    current: Option<u8>,
    target: Option<u8>,
    is_sync_due: bool,
    /// What arrived before is not for it.
    listens_since: Option<Instant>,
}

/// The outgoing stream of an enabled consumer.
pub struct Sending {
    /// Counters and reports.
    pub stream: SendStream,
    /// SSRC.
    pub ssrc: u32,
    /// SSRC and payload type for retransmissions.
    pub rtx: Option<(u32, u8)>,
    /// CNAME of the producer.
    pub cname: String,
    parameters: RtpParameters,
    clock_rate: u32,
    media: MediaKind,
    mime_type: String,
    pt: u8,
    has_nack: bool,
    has_pli: bool,
    /// Payload types the receiver takes, by bit.
    pts: u128,
    /// Extension ids the receiver takes, by bit.
    exts: u128,
    abs_send_ext: u8,
    numbering: Numbering,
    ts: TsOffset,
    pictures: PictureIds,
    log: SentLog,
    /// The highest number that an earlier worker may have sent under.
    unrepeatable: Option<u64>,
    /// Sent, and not told to the transport yet.
    untold_bytes: u64,
    flight: Option<Flight>,
}

/// Where and how a transport sends.
#[derive(Clone, Copy)]
pub struct Way<'t> {
    /// The selected path.
    pub path: Path,
    /// Seals what leaves; `None` on a plain transport.
    pub seal: Option<&'t SealKey>,
    /// Where a clear copy goes.
    pub mirror: Option<Path>,
}

impl Consumer {
    /// Creates a consumer that does not send yet.
    pub fn new(id: ConsumerId, producer_key: usize, producer: &Producer) -> Self {
        Self {
            id,
            kind: producer.kind,
            producer: producer_key,
            transport: None,
            paused: false,
            source_paused: producer.paused,
            preferred: Profile::Default,
            temporal_max: u8::MAX,
            effective: Profile::None,
            sending: None,
            current: None,
            target: None,
            is_sync_due: true,
            listens_since: None,
        }
    }

    /// Starts sending on a transport.
    pub fn enable(
        &mut self,
        now: Instant,
        transport: usize,
        parameters: RtpParameters,
    ) -> Result<(), Rejection> {
        let encoding = &parameters.encodings[0];
        let codec = parameters::codec_of(&parameters, encoding)
            .ok_or_else(|| Rejection::invalid("no media codecs found"))?;
        let ssrc = encoding
            .ssrc
            .ok_or_else(|| Rejection::invalid("missing rtpParameters.encodings[0].ssrc"))?;
        let rtx_ssrc = encoding.rtx.and_then(|rtx| rtx.ssrc);
        let rtx = rtx_ssrc
            .zip(parameters::rtx_of(&parameters, codec.payload_type).map(|rtx| rtx.payload_type));
        let bit = |id: u8| 1u128.checked_shl(u32::from(id)).unwrap_or(0);
        let [seq_a, seq_b, rtx_a, rtx_b, ts @ ..] = Io::random::<8>();
        self.sending = Some(Box::new(Sending {
            stream: SendStream::new(
                ssrc,
                codec.clock_rate,
                u16::from_be_bytes([rtx_a, rtx_b]) >> 1,
            ),
            ssrc,
            rtx,
            cname: parameters.rtcp.cname.clone().unwrap_or_default(),
            clock_rate: codec.clock_rate,
            media: parameters::kind_of(codec),
            mime_type: codec.mime_type.clone(),
            pt: codec.payload_type,
            has_nack: parameters::has_feedback(codec, "nack", None),
            has_pli: parameters::has_feedback(codec, "nack", Some("pli")),
            pts: parameters
                .codecs
                .iter()
                .filter(|codec| !codec.is_rtx())
                .fold(0, |bits, codec| bits | bit(codec.payload_type)),
            exts: parameters
                .header_extensions
                .iter()
                .fold(0, |bits, extension| bits | bit(extension.id)),
            abs_send_ext: extension_id(&parameters, ExtensionUri::AbsSendTime).unwrap_or(0),
            numbering: Numbering::new(u16::from_be_bytes([seq_a, seq_b]) >> 1),
            ts: TsOffset::new(u32::from_be_bytes(ts)),
            pictures: PictureIds::default(),
            log: SentLog::default(),
            unrepeatable: None,
            untold_bytes: 0,
            flight: None,
            parameters,
        }));
        self.transport = Some(transport);
        self.restart(now);
        Ok(())
    }

    /// Stops sending; its transport is gone. Its record is to be removed.
    pub fn disable(&mut self) -> Option<Entry> {
        let entry = self.take_entry();
        self.transport = None;
        self.sending = None;
        self.effective = Profile::None;
        self.current = None;
        entry
    }

    /// Begins anew with the next key frame: after a pause, or on a new transport.
    pub fn restart(&mut self, now: Instant) {
        self.current = None;
        self.is_sync_due = true;
        self.listens_since = Some(now);
        if let Some(sending) = &mut self.sending {
            // Whoever is paused takes no memory for it.
            sending.log = SentLog::default();
            sending.note(None);
        }
    }

    /// Begins with SRTP indices below 2^16 again: its transport has new keys, and the receiver
    /// cannot know how often the old numbers rolled over. What was sent under the old keys can
    /// no longer be repeated.
    pub fn rekey(&mut self) {
        if let Some(sending) = &mut self.sending {
            sending.numbering.forget_rollovers();
            sending.stream.forget_rollovers();
            sending.log = SentLog::default();
            sending.note_rekeyed(self.current);
        }
    }

    /// Whether it takes packets.
    pub fn is_sending(&self) -> bool {
        self.sending.is_some() && !self.paused && !self.source_paused
    }

    /// The wanted layer, combined with the producer's.
    pub fn combined_preference(&self, producer: &Producer) -> Profile {
        match self.preferred {
            Profile::Default => producer.preferred,
            wish => wish,
        }
    }

    /// Chooses the stream to forward among those that are sending. Returns the stream that
    /// should be asked for a key frame, and whether the effective layer was lost.
    pub fn choose(&mut self, producer: &Producer) -> Choice {
        let wish = self.combined_preference(producer);
        let mut layers: Vec<(Profile, u8)> = producer
            .streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.is_active)
            .map(|(index, stream)| (stream.profile, index as u8))
            .collect();
        layers.sort_unstable();
        let wanted = match wish {
            Profile::Default => layers.last(),
            wish => layers
                .iter()
                .rev()
                .find(|(profile, _)| *profile <= wish)
                .or_else(|| layers.first()),
        };
        self.target = wanted.map(|(_, index)| *index);
        let is_lost = self.effective != Profile::None
            && !layers.iter().any(|(profile, _)| *profile == self.effective);
        if is_lost {
            self.current = None;
            self.is_sync_due = true;
            self.effective = Profile::None;
        }
        Choice {
            keyframe_from: self
                .target
                .filter(|target| self.is_sending() && self.current != Some(*target)),
            is_lost,
        }
    }

    /// The stream a key frame is to be asked from, on behalf of the receiver.
    pub fn keyframe_source(&self) -> Option<u8> {
        self.target.or(self.current).filter(|_| self.is_sending())
    }

    /// Forwards one packet. Returns the new layer when it begins with this packet.
    pub fn forward(
        &mut self,
        io: &mut Io,
        way: Way<'_>,
        producer: &Producer,
        stream_index: u8,
        packet: &StoredPacket,
    ) -> Option<Profile> {
        if self.paused || self.source_paused {
            return None;
        }
        let sending = self.sending.as_mut()?;
        let stream = &producer.streams[usize::from(stream_index)];
        let pt = producer.pt_map[usize::from(packet.header.pt & 0x7F)];
        if pt == UNMAPPED || sending.pts >> pt & 1 == 0 {
            return None;
        }
        let mut began = None;
        if self.current != Some(stream_index) {
            let may_begin = packet.info.is_keyframe || !stream.codec.has_keyframes();
            if self.target != Some(stream_index) || !may_begin {
                return None;
            }
            self.current = Some(stream_index);
            self.is_sync_due = true;
            if self.effective != stream.profile {
                self.effective = stream.profile;
                began = Some(stream.profile);
            }
        }
        let info = &packet.info;
        // A sender that starts anew begins with another timestamp and picture, too.
        let is_restart = sending.numbering.is_jump(packet.seq);
        if std::mem::take(&mut self.is_sync_due) || is_restart {
            sending.numbering.sync(packet.seq);
            sending
                .ts
                .sync(io.now, packet.header.ts, sending.clock_rate);
            sending.pictures.sync(picture_of(info));
            sending.log.clear();
            sending.note(self.current);
        }
        if info.temporal.is_some_and(|layer| layer > self.temporal_max) {
            sending.numbering.skip(packet.seq);
            sending.note(self.current);
            return began;
        }
        let Some(seq) = sending.numbering.forward(packet.seq) else {
            return began;
        };
        let picture = (stream.codec == Codec::Vp8 && info.picture_id.is_some())
            .then(|| sending.pictures.forward(picture_of(info)));
        let rewrite = Rewrite {
            pt,
            ssrc: sending.ssrc,
            seq,
            ts: sending.ts.forward(io.now, packet.header.ts),
            picture,
            abs_send_time: io.abs_send_time(),
            osn: None,
        };
        sending.note_number();
        if !sending.write(io, way, producer, packet, &rewrite) {
            return began;
        }
        let payload_len = packet.header.payload_range().len();
        let total_len = usize::from(packet.header.payload_start) + payload_len;
        sending
            .stream
            .handle_sent(io.now, rewrite.ts, total_len, payload_len);
        if sending.has_nack {
            let (picture_id, tl0picidx) = picture.unwrap_or_default();
            sending.log.insert(Sent {
                out_seq: seq,
                src_seq: packet.seq,
                stream: stream_index,
                ts: rewrite.ts,
                picture_id,
                tl0picidx,
                abs_send_time: rewrite.abs_send_time,
                at_ms: io.now_ms() as u32,
            });
        }
        began
    }

    /// Whether it forwards this stream.
    pub fn is_on(&self, stream_index: u8) -> bool {
        self.current == Some(stream_index)
    }

    /// Forwards what arrived ahead of the packet that it began with, a key frame that was repaired
    /// late. What is `pending` is not forwarded here.
    pub fn catch_up(
        &mut self,
        io: &mut Io,
        way: Way<'_>,
        producer: &Producer,
        (stream_index, began_with): (u8, u64),
        pending: &[(u8, u64)],
    ) {
        let recv = &producer.streams[usize::from(stream_index)].recv;
        for seq in began_with + 1..=recv.highest().unwrap_or(0) {
            let packet = recv.ring.get(seq);
            let packet = packet.filter(|packet| Some(packet.arrived) >= self.listens_since);
            if let Some(packet) = packet
                && !pending.contains(&(stream_index, seq))
            {
                self.forward(io, way, producer, stream_index, packet);
            }
        }
    }

    /// Sends a packet again that the receiver says it did not get.
    pub fn resend(&mut self, io: &mut Io, way: Way<'_>, producer: &Producer, seq: u16) {
        let now_ms = io.now_ms() as u32;
        let Some(sending) = self.sending.as_mut() else {
            return;
        };
        let rtt_ms = sending.stream.rtt_ms() as u32;
        let Some(sent) = sending.log.may_resend(seq, now_ms, rtt_ms) else {
            return;
        };
        let Some(stream) = producer.streams.get(usize::from(sent.stream)) else {
            return;
        };
        let Some(packet) = stream.recv.ring.get(sent.src_seq) else {
            return;
        };
        let pt = producer.pt_map[usize::from(packet.header.pt & 0x7F)];
        let is_vp8 = stream.codec == Codec::Vp8 && packet.info.picture_id.is_some();
        let mut rewrite = Rewrite {
            pt,
            ssrc: sending.ssrc,
            seq: sent.out_seq,
            ts: sent.ts,
            picture: is_vp8.then_some((sent.picture_id, sent.tl0picidx)),
            abs_send_time: sent.abs_send_time,
            osn: None,
        };
        if let Some((ssrc, pt)) = sending.rtx {
            rewrite.ssrc = ssrc;
            rewrite.pt = pt;
            rewrite.seq = sending.stream.next_rtx_seq();
            sending.note_rtx();
            rewrite.abs_send_time = io.abs_send_time();
            rewrite.osn = Some(sent.out_seq as u16);
        }
        let packet = *packet;
        if sending.write(io, way, producer, &packet, &rewrite) {
            sending.stream.repaired += 1;
            sending.note_feedback();
        }
    }

    /// Counts what was sent since the last call; returns its bytes.
    pub fn settle(&mut self, now: Instant) -> u64 {
        let Some(sending) = &mut self.sending else {
            return 0;
        };
        if sending.untold_bytes > 0 {
            sending.stream.settle(now);
            sending.note_sent();
        }
        std::mem::take(&mut sending.untold_bytes)
    }

    /// Counts a feedback message of the receiver.
    pub fn count_feedback(&mut self, count: impl FnOnce(&mut SendStream)) {
        if let Some(sending) = &mut self.sending {
            count(&mut sending.stream);
            sending.note_feedback();
        }
    }
}

/// The picture a packet belongs to.
fn picture_of(info: &PayloadInfo) -> Picture {
    Picture {
        id: info.picture_id.unwrap_or(0),
        is_narrow: info.is_picture_id_narrow,
        tl0: info.tl0picidx.unwrap_or(0),
    }
}

/// What [`Consumer::choose`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Ask this stream for a key frame.
    pub keyframe_from: Option<u8>,
    /// The layer that was being forwarded is gone.
    pub is_lost: bool,
}
