//! A producer: what one peer sends as one track, in one or several encodings.
//!
//! Takes decrypted packets to the stream they belong to, repairs and numbers them there, keeps
//! them for retransmission, and lists what the consumers are still to get.

mod flight;

use broth_ipc::body::{
    CreateProducer, ProducerDump, RtpStreamDump, RtpStreamInfo, RtpStreamParams, RtpStreamStats,
};
use broth_ipc::rtp::{MediaKind, Profile, RtpMapping, RtpParameters};
use broth_ipc::{ProducerId, TransportId};

use crate::drop_reason::DropReason;
use crate::io::Io;
use crate::parameters;
use crate::stream::{
    Cuts, KeyFrameLimiter, LevelMeter, ParameterSets, RecvConfig, RecvStream, StoredPacket,
};
use crate::wire::codec::{Codec, inspect};
use crate::wire::rtp::RtpHeader;
use crate::wire::rtp_ext::{ExtensionUri, audio_level};
use flight::Flight;

/// Packets ahead of a late one that are looked at to know when it left.
const AHEAD_MAX: usize = 64;
/// No mapping for this payload type or extension id.
pub const UNMAPPED: u8 = 0xFF;

/// A producer.
pub struct Producer {
    /// Id in the router.
    pub id: ProducerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Key of its transport.
    pub transport: usize,
    /// What it sends.
    pub parameters: RtpParameters,
    /// Paused: received, but not forwarded.
    pub paused: bool,
    /// The layer for consumers without a wish of their own.
    pub preferred: Profile,
    /// Streams received so far, by the index consumers know them by.
    pub streams: Vec<Stream>,
    /// Keys of its consumers.
    pub consumers: Vec<usize>,
    /// Packets that the consumers are still to get: `(stream, sequence number)`.
    pub pending: Vec<(u8, u64)>,
    /// How turns cut its frames.
    pub cuts: Cuts,
    /// Loudness since the last report.
    pub levels: LevelMeter,
    /// Producer's payload type → room's, or [`UNMAPPED`].
    pub pt_map: Box<[u8; 128]>,
    /// Producer's extension id → room's, or [`UNMAPPED`].
    pub ext_map: Box<[u8; 256]>,
    level_ext: Option<u8>,
}

/// One received RTP stream of a producer.
pub struct Stream {
    /// Sequence numbers, repair, statistics, kept packets.
    pub recv: RecvStream,
    /// When to ask for key frames.
    pub keyframes: KeyFrameLimiter,
    /// Codec.
    pub codec: Codec,
    /// SSRC.
    pub ssrc: u32,
    /// RTX SSRC, once known.
    pub rtx_ssrc: Option<u32>,
    /// Payload type.
    pub pt: u8,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// The layer it carries.
    pub profile: Profile,
    /// Whether it sent anything in the last second.
    pub is_active: bool,
    /// The newest packet does not end its frame.
    is_amid_frame: bool,
    parameter_sets: ParameterSets,
    media: MediaKind,
    mime_type: String,
    rid: String,
    has_nack: bool,
    /// Whether key frames can be asked for by PLI.
    pub has_pli: bool,
    /// Whether key frames can be asked for by FIR.
    pub has_fir: bool,
    /// Sequence number of the last FIR.
    pub fir_seq: u8,
    /// An earlier worker died while packets were missing that will not be asked for again.
    pub has_lost: bool,
    /// Index of its encoding.
    encoding: u8,
    flight: Option<Flight>,
}

/// What a received packet changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// A stream appeared: consumers choose their layer again.
    pub is_new_stream: bool,
    /// Index of the stream.
    pub stream: u8,
}

impl Producer {
    /// Creates a producer without streams.
    pub fn new(id: ProducerId, transport: usize, request: CreateProducer) -> Self {
        let RtpMapping {
            codec_payload_types,
            header_extension_ids,
        } = &request.rtp_mapping;
        let mut pt_map = Box::new([UNMAPPED; 128]);
        for &(from, to) in codec_payload_types {
            // No packet has a payload type above 127.
            if let Some(mapped) = pt_map.get_mut(usize::from(from)) {
                *mapped = to & 0x7F;
            }
        }
        let mut ext_map = Box::new([UNMAPPED; 256]);
        for &(from, to) in header_extension_ids {
            // 0 is no id.
            ext_map[usize::from(from)] = if to == 0 { UNMAPPED } else { to };
        }
        Self {
            id,
            kind: request.kind,
            transport,
            level_ext: extension_id(&request.rtp_parameters, ExtensionUri::SsrcAudioLevel)
                .filter(|_| request.kind == MediaKind::Audio),
            parameters: request.rtp_parameters,
            paused: request.paused,
            preferred: Profile::Default,
            streams: Vec::new(),
            consumers: Vec::new(),
            pending: Vec::new(),
            cuts: Cuts::default(),
            levels: LevelMeter::default(),
            pt_map,
            ext_map,
        }
    }

    /// Takes a decrypted packet; `rid` is what its RID extension says.
    pub fn handle_rtp(
        &mut self,
        io: &mut Io,
        header: &RtpHeader,
        packet: &mut [u8],
        rid: Option<&[u8]>,
    ) -> Result<Accepted, DropReason> {
        if let Some(index) = self
            .streams
            .iter()
            .position(|stream| stream.rtx_ssrc == Some(header.ssrc))
        {
            return self.handle_rtx(io, index, header, packet);
        }
        let known = self
            .streams
            .iter()
            .position(|stream| stream.ssrc == header.ssrc);
        let index = match known {
            Some(index) => index,
            None => self.add_stream(header, rid)?,
        };
        let stream = &mut self.streams[index];
        if header.pt != stream.pt {
            return Err(DropReason::NoStream);
        }
        let info = inspect(stream.codec, header.payload(packet));
        let seq = stream
            .recv
            .handle_rtp(io.now, io.arrived, header, packet.len(), info)
            .ok_or(DropReason::Duplicate)?;
        if let Some((_, level)) = self
            .level_ext
            .and_then(|id| audio_level(header.extension(packet, id)?))
            && !self.paused
        {
            self.levels.add(level);
        }
        self.keep(io, index, seq, header, packet, info)?;
        Ok(Accepted {
            is_new_stream: known.is_none(),
            stream: index as u8,
        })
    }

    fn handle_rtx(
        &mut self,
        io: &mut Io,
        index: usize,
        header: &RtpHeader,
        packet: &mut [u8],
    ) -> Result<Accepted, DropReason> {
        let stream = &mut self.streams[index];
        let len = stream
            .recv
            .restore_rtx(header, packet)
            .ok_or(DropReason::EmptyRtx)?;
        let packet = &packet[..len];
        let header = RtpHeader::parse(packet).map_err(|_| DropReason::Rtp)?;
        let info = inspect(stream.codec, header.payload(packet));
        let seq = stream
            .recv
            .handle_restored(io.now, &header, len, info)
            .ok_or(DropReason::NotMissing)?;
        self.keep(io, index, seq, &header, packet, info)?;
        Ok(Accepted {
            is_new_stream: false,
            stream: index as u8,
        })
    }

    /// Keeps an accepted packet for the consumers and for retransmission.
    fn keep(
        &mut self,
        io: &mut Io,
        index: usize,
        seq: u64,
        header: &RtpHeader,
        packet: &[u8],
        mut info: crate::wire::codec::PayloadInfo,
    ) -> Result<(), DropReason> {
        if packet.len() > crate::stream::BUFFER_LEN {
            return Err(DropReason::TooLarge);
        }
        let id = io.pool.alloc(packet).ok_or(DropReason::PoolExhausted)?;
        let stream = &mut self.streams[index];
        if info.has_parameter_sets {
            stream.parameter_sets.note();
        } else if info.is_keyframe && stream.codec.has_parameter_sets() {
            let sets = &mut stream.parameter_sets;
            info.is_keyframe = sets.are_elsewhere(&stream.recv, seq, header.ts);
        }
        if info.is_keyframe {
            // What came ahead of it had left behind it.
            let highest = stream.recv.highest().unwrap_or(seq);
            let ahead = (seq + 1..=highest).take(AHEAD_MAX);
            let arrived = ahead.filter_map(|seq| Some(stream.recv.ring.get(seq)?.arrived));
            let left_by = arrived.min().unwrap_or(io.now);
            stream.keyframes.handle_keyframe(left_by);
        }
        let stored = StoredPacket {
            seq,
            id,
            header: *header,
            info,
            arrived: io.now,
        };
        stream.recv.ring.insert(&mut io.pool, stored);
        if stream.recv.highest() == Some(seq) {
            stream.is_amid_frame = !header.marker;
        }
        if !self.paused {
            self.pending.push((index as u8, seq));
        }
        Ok(())
    }

    /// Looks at what is pending at the end of a turn: whether it is to wait for the rest of a
    /// frame.
    pub fn may_wait(&mut self, io: &Io) -> bool {
        let is_amid_frame = self
            .pending
            .iter()
            .any(|(stream, _)| self.streams[usize::from(*stream)].is_amid_frame);
        let (consumers, packets) = (self.consumers.len(), self.pending.len());
        self.kind == MediaKind::Video
            && self
                .cuts
                .handle_turn(io.now, io.hold, is_amid_frame, consumers, packets)
    }

    /// Finds the encoding of a packet from an unknown SSRC and creates its stream.
    fn add_stream(&mut self, header: &RtpHeader, rid: Option<&[u8]>) -> Result<usize, DropReason> {
        let encodings = &self.parameters.encodings;
        let by_ssrc = encodings
            .iter()
            .find(|encoding| encoding.ssrc == Some(header.ssrc));
        let by_rid = || {
            let rid = rid?;
            encodings
                .iter()
                .find(|encoding| encoding.encoding_id.as_ref().map(String::as_bytes) == Some(rid))
        };
        let by_mid = || match encodings.as_slice() {
            [only] if only.ssrc.is_none() && only.encoding_id.is_none() => Some(only),
            _ => None,
        };
        let encoding = by_ssrc
            .or_else(by_rid)
            .or_else(by_mid)
            .ok_or(DropReason::NoStream)?;
        let index = encodings.iter().position(|one| one == encoding);
        let stream = index
            .and_then(|index| self.new_stream(index, header.ssrc))
            .filter(|stream| stream.pt == header.pt)
            .ok_or(DropReason::NoStream)?;
        self.streams.push(stream);
        Ok(self.streams.len() - 1)
    }

    /// The stream of an encoding; `None` if there is no such encoding or it has one.
    fn new_stream(&self, encoding_index: usize, ssrc: u32) -> Option<Stream> {
        let encoding = self.parameters.encodings.get(encoding_index)?;
        let codec = parameters::codec_of(&self.parameters, encoding)?;
        let profile = encoding.profile.unwrap_or_default();
        if self.streams.iter().any(|stream| stream.profile == profile) {
            return None;
        }
        let rtx_ssrc = encoding.rtx.and_then(|rtx| rtx.ssrc);
        let has_nack = parameters::has_feedback(codec, "nack", None);
        let config = RecvConfig {
            ssrc,
            rtx_ssrc,
            pt: codec.payload_type,
            rtx_pt: parameters::rtx_of(&self.parameters, codec.payload_type)
                .map(|rtx| rtx.payload_type),
            clock_rate: codec.clock_rate,
            has_nack,
        };
        Some(Stream {
            recv: RecvStream::new(config),
            keyframes: KeyFrameLimiter::default(),
            codec: Codec::from_mime_type(&codec.mime_type),
            ssrc,
            rtx_ssrc,
            pt: codec.payload_type,
            clock_rate: codec.clock_rate,
            profile,
            is_active: true,
            is_amid_frame: false,
            parameter_sets: ParameterSets::default(),
            media: parameters::kind_of(codec),
            mime_type: codec.mime_type.clone(),
            rid: encoding.encoding_id.clone().unwrap_or_default(),
            has_nack,
            has_pli: parameters::has_feedback(codec, "nack", Some("pli")),
            has_fir: parameters::has_feedback(codec, "ccm", Some("fir")),
            fir_seq: 0,
            has_lost: false,
            encoding: u8::try_from(encoding_index).ok()?,
            flight: None,
        })
    }

    /// Notices streams that fell silent or speak again. Single streams stay active.
    pub fn update_activity(&mut self, io: &Io) -> bool {
        if self.streams.len() < 2 {
            return false;
        }
        let sending: Vec<bool> = self
            .streams
            .iter()
            .map(|stream| stream.recv.is_active(io.now))
            .collect();
        let is_any_sending = sending.contains(&true);
        let mut has_changed = false;
        for (stream, is_sending) in self.streams.iter_mut().zip(sending) {
            let is_active = is_sending || (stream.is_active && !is_any_sending);
            has_changed |= stream.is_active != is_active;
            stream.is_active = is_active;
        }
        has_changed
    }

    /// Gives back what was kept of streams that fell silent.
    pub fn clear_silent(&mut self, io: &mut Io) {
        for stream in &mut self.streams {
            stream.recv.ring.clear_if_silent(&mut io.pool, io.now);
        }
    }

    /// Gives back the kept packets. Must be called before dropping.
    pub fn clear(&mut self, io: &mut Io) {
        for stream in &mut self.streams {
            stream.recv.ring.clear(&mut io.pool);
        }
    }

    /// Everything about the producer.
    pub fn dump(&self) -> ProducerDump {
        ProducerDump {
            producer_id: self.id,
            kind: self.kind,
            rtp_parameters: self.parameters.clone(),
            rtp_stream_infos: self.streams.iter().map(Stream::info).collect(),
            loss_percentage: mean(self.streams.iter().map(Stream::loss_percentage)),
            header_extension_ids: self.mapped_extensions(),
            paused: self.paused,
        }
    }

    fn mapped_extensions(&self) -> std::collections::BTreeMap<String, u8> {
        [
            ("ssrcAudioLevel", ExtensionUri::SsrcAudioLevel),
            ("absSendTime", ExtensionUri::AbsSendTime),
            ("rid", ExtensionUri::Rid),
        ]
        .into_iter()
        .filter_map(|(name, uri)| {
            let id = match uri {
                ExtensionUri::SsrcAudioLevel => self.level_ext?,
                uri => extension_id(&self.parameters, uri)?,
            };
            let mapped = self.ext_map[usize::from(id)];
            (mapped != UNMAPPED).then(|| (name.to_owned(), mapped))
        })
        .collect()
    }

    /// Stats of every stream.
    pub fn stats(&self, io: &Io, transport: TransportId) -> Vec<RtpStreamStats> {
        self.streams
            .iter()
            .map(|stream| RtpStreamStats {
                transport_id: Some(transport),
                ..stream.stats(io)
            })
            .collect()
    }
}

impl Stream {
    /// The name of the stream in stats.
    pub fn stats_id(&self) -> String {
        format!("inbound-{}", self.ssrc)
    }

    /// Loss of the last interval, in percent.
    pub fn loss_percentage(&self) -> f64 {
        f64::from(self.recv.fraction_lost()) * 100.0 / 256.0
    }

    /// What its statistics say.
    pub fn stats(&self, io: &Io) -> RtpStreamStats {
        let recv = &self.recv;
        RtpStreamStats {
            id: self.stats_id(),
            kind: "inbound-rtp".into(),
            timestamp: io.now_ms(),
            ssrc: self.ssrc,
            media_type: self.media,
            media_kind: self.media,
            mime_type: self.mime_type.clone(),
            packet_count: recv.packets,
            byte_count: recv.bytes,
            bitrate: recv.bitrate(io.now),
            packets_lost: recv.packets_lost(),
            fraction_lost: recv.fraction_lost(),
            packets_discarded: recv.discarded,
            packets_repaired: recv.repaired,
            fir_count: recv.firs,
            pli_count: recv.plis,
            nack_count: recv.nacks,
            sli_count: 0,
            jitter: Some(recv.jitter()),
            round_trip_time: None,
            transport_id: None,
            inbound_rtp_id: None,
        }
    }

    fn info(&self) -> RtpStreamInfo {
        RtpStreamInfo {
            rtp_stream: RtpStreamDump {
                params: RtpStreamParams {
                    ssrc: self.ssrc,
                    payload_type: self.pt,
                    mime_type: self.mime_type.clone(),
                    clock_rate: self.clock_rate,
                    use_nack: self.has_nack,
                    use_pli: self.has_pli,
                },
            },
            rid: self.rid.clone(),
            profile: self.profile,
            rtx_ssrc: self.rtx_ssrc.unwrap_or(0),
            active: self.is_active,
        }
    }
}

/// The id under which parameters carry an extension; 0 is none.
pub fn extension_id(parameters: &RtpParameters, uri: ExtensionUri) -> Option<u8> {
    parameters
        .header_extensions
        .iter()
        .find(|extension| ExtensionUri::from_uri(&extension.uri) == Some(uri))
        .map(|extension| extension.id)
        .filter(|id| *id != 0)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}
