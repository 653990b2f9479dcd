//! Capability negotiation: what a room, a producer and a consumer agree on
//! (`spec: media.md` §17, §18). Pure functions.

use std::collections::{HashMap, HashSet};

use broth_ipc::rtp::{
    MediaKind, Parameters, Profile, RtcpFeedback, RtpCapabilities, RtpCodecCapability,
    RtpCodecParameters, RtpEncodingParameters, RtpHeaderExtension, RtpHeaderExtensionParameters,
    RtpMapping, RtpParameters, RtxParameters,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A codec a room is to allow. RTX is added to every video codec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomMediaCodec {
    /// Audio or video.
    pub kind: MediaKind,
    /// Sub-type in any case, for instance `opus` or `VP8`.
    pub name: String,
    /// In Hz.
    pub clock_rate: u32,
    /// Audio only; `None` equals 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Laid over the built-in parameters and offered to clients.
    #[serde(default)]
    pub parameters: Parameters,
}

impl RoomMediaCodec {
    /// An audio codec.
    pub fn audio(name: &str, clock_rate: u32, channels: u8) -> Self {
        Self {
            kind: MediaKind::Audio,
            name: name.into(),
            clock_rate,
            channels: Some(channels),
            parameters: Parameters::new(),
        }
    }

    /// A video codec.
    pub fn video(name: &str) -> Self {
        Self {
            kind: MediaKind::Video,
            name: name.into(),
            clock_rate: 90_000,
            channels: None,
            parameters: Parameters::new(),
        }
    }

    /// Sets a parameter, for instance `packetization-mode`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.parameters.insert(name.into(), value.into());
        self
    }
}

struct Supported {
    kind: MediaKind,
    name: &'static str,
    clock_rate: u32,
    channels: Option<u8>,
    payload_type: Option<u8>,
    packetization_mode: Option<u8>,
}

const fn audio(name: &'static str, clock_rate: u32, channels: Option<u8>) -> Supported {
    Supported {
        kind: MediaKind::Audio,
        name,
        clock_rate,
        channels,
        payload_type: None,
        packetization_mode: None,
    }
}

const fn fixed(
    name: &'static str,
    clock_rate: u32,
    channels: Option<u8>,
    payload_type: u8,
) -> Supported {
    Supported {
        payload_type: Some(payload_type),
        ..audio(name, clock_rate, channels)
    }
}

const fn video(name: &'static str, packetization_mode: Option<u8>) -> Supported {
    Supported {
        kind: MediaKind::Video,
        packetization_mode,
        ..audio(name, 90_000, None)
    }
}

const SUPPORTED: &[Supported] = &[
    audio("opus", 48_000, Some(2)),
    fixed("PCMU", 8000, Some(1), 0),
    fixed("PCMA", 8000, Some(1), 8),
    audio("ISAC", 32_000, None),
    audio("ISAC", 16_000, None),
    fixed("G722", 8000, Some(1), 9),
    audio("iLBC", 8000, None),
    audio("SILK", 24_000, None),
    audio("SILK", 16_000, None),
    audio("SILK", 12_000, None),
    audio("SILK", 8000, None),
    audio("CN", 32_000, None),
    audio("CN", 16_000, None),
    fixed("CN", 8000, None, 13),
    audio("telephone-event", 48_000, None),
    audio("telephone-event", 32_000, None),
    audio("telephone-event", 16_000, None),
    audio("telephone-event", 8000, None),
    video("VP8", None),
    video("VP9", None),
    video("H264", Some(0)),
    video("H264", Some(1)),
    video("H265", None),
];

const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const TRANSPORT_CC_URI: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// What negotiates feedback on [`TRANSPORT_CC_URI`]. broth gives it to who sends and does not ask
/// for it where it sends itself, so consumers have neither.
const TRANSPORT_CC: &str = "transport-cc";
const ABS_SEND_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";

const EXTENSIONS: &[(MediaKind, &str, u8)] = &[
    (
        MediaKind::Audio,
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        1,
    ),
    (MediaKind::Video, "urn:ietf:params:rtp-hdrext:toffset", 2),
    (MediaKind::Audio, ABS_SEND_TIME_URI, 3),
    (MediaKind::Video, ABS_SEND_TIME_URI, 3),
    (MediaKind::Video, "urn:3gpp:video-orientation", 4),
    (MediaKind::Audio, MID_URI, 5),
    (MediaKind::Video, MID_URI, 5),
    (
        MediaKind::Video,
        "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
        6,
    ),
    (MediaKind::Video, TRANSPORT_CC_URI, 7),
];

/// What two codec descriptions are matched by.
struct Shape<'a> {
    kind: Option<MediaKind>,
    name: &'a str,
    clock_rate: u32,
    channels: Option<u8>,
    packetization_mode: u64,
}

fn packetization_mode(parameters: &Parameters) -> u64 {
    let value = parameters.get("packetization-mode");
    value
        .and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()))
        .unwrap_or(0)
}

impl Shape<'_> {
    fn of_capability(codec: &RtpCodecCapability) -> Shape<'_> {
        Shape {
            kind: codec.kind,
            name: &codec.name,
            clock_rate: codec.clock_rate,
            channels: codec.channels,
            packetization_mode: packetization_mode(&codec.parameters),
        }
    }

    fn matches(&self, other: &Shape<'_>) -> bool {
        let kinds_differ = matches!((self.kind, other.kind), (Some(a), Some(b)) if a != b);
        let is_audio = [self.kind, other.kind].contains(&Some(MediaKind::Audio));
        let channels = |shape: &Shape<'_>| shape.channels.unwrap_or(1);
        let is_h264 = self.name.eq_ignore_ascii_case("h264");
        !kinds_differ
            && self.name.eq_ignore_ascii_case(other.name)
            && self.clock_rate == other.clock_rate
            && (!is_audio || channels(self) == channels(other))
            && (!is_h264 || self.packetization_mode == other.packetization_mode)
    }
}

fn is_rtx(codec: &RtpCodecCapability) -> bool {
    codec.name.eq_ignore_ascii_case("rtx")
}

fn apt(codec: &RtpCodecCapability) -> Option<u64> {
    codec.parameters.get("apt")?.as_u64()
}

/// The name of a codec in use; channel peers may give the MIME type alone.
fn name_of(codec: &RtpCodecParameters) -> &str {
    if codec.name.is_empty() {
        codec.mime_type.rsplit('/').next().unwrap_or_default()
    } else {
        &codec.name
    }
}

fn video_feedback() -> Vec<RtcpFeedback> {
    [
        ("nack", None),
        ("nack", Some("pli")),
        ("ccm", Some("fir")),
        ("goog-remb", None),
        (TRANSPORT_CC, None),
    ]
    .map(|(kind, parameter)| RtcpFeedback {
        kind: kind.into(),
        parameter: parameter.map(Into::into),
    })
    .into()
}

/// Computes a room's capabilities (§17.2).
///
/// # Errors
/// A codec is not supported, or there are too many.
pub fn room_capabilities(media_codecs: &[RoomMediaCodec]) -> Result<RtpCapabilities> {
    if media_codecs.is_empty() {
        return Err(Error::wrong_type("mediaCodecs cannot be empty"));
    }
    let mut dynamic = (100..=127).chain(96..=99).chain(77..=95).chain(35..=71);
    let mut next = || {
        dynamic
            .next()
            .ok_or_else(|| Error::other("cannot allocate more dynamic codec payload types"))
    };
    let mut codecs = Vec::new();
    for wanted in media_codecs {
        let (supported, codec) = support(wanted)?;
        let payload_type = match supported.payload_type {
            Some(payload_type) => payload_type,
            None => next()?,
        };
        codecs.push(RtpCodecCapability {
            preferred_payload_type: payload_type,
            ..codec
        });
        if supported.kind == MediaKind::Video {
            codecs.push(RtpCodecCapability {
                kind: Some(MediaKind::Video),
                name: "rtx".into(),
                mime_type: Some("video/rtx".into()),
                preferred_payload_type: next()?,
                clock_rate: supported.clock_rate,
                channels: None,
                parameters: Parameters::from_iter([("apt".into(), json!(payload_type))]),
                rtcp_feedback: None,
            });
        }
    }
    let header_extensions = EXTENSIONS
        .iter()
        .map(|&(kind, uri, id)| RtpHeaderExtension {
            kind: Some(kind),
            uri: uri.into(),
            preferred_id: id,
            preferred_encrypt: false,
        });
    Ok(RtpCapabilities {
        codecs,
        header_extensions: header_extensions.collect(),
        fec_mechanisms: Vec::new(),
    })
}

/// Takes back the offer of transport-wide feedback, for a worker that gives none.
pub(crate) fn remove_transport_cc(capabilities: &mut RtpCapabilities) {
    for codec in &mut capabilities.codecs {
        if let Some(feedback) = &mut codec.rtcp_feedback {
            feedback.retain(|feedback| feedback.kind != TRANSPORT_CC);
        }
    }
    let extensions = &mut capabilities.header_extensions;
    extensions.retain(|extension| extension.uri != TRANSPORT_CC_URI);
}

/// Finds the supported codec for a wanted one and completes it, except for the payload type.
fn support(wanted: &RoomMediaCodec) -> Result<(&'static Supported, RtpCodecCapability)> {
    if wanted.name.is_empty() || wanted.clock_rate == 0 {
        return Err(Error::wrong_type("invalid RTCCodecCapability"));
    }
    let shape = Shape {
        kind: Some(wanted.kind),
        name: &wanted.name,
        clock_rate: wanted.clock_rate,
        channels: wanted.channels,
        packetization_mode: packetization_mode(&wanted.parameters),
    };
    let supported = SUPPORTED.iter().find(|supported| {
        shape.matches(&Shape {
            kind: Some(supported.kind),
            name: supported.name,
            clock_rate: supported.clock_rate,
            channels: supported.channels,
            packetization_mode: supported.packetization_mode.unwrap_or(0).into(),
        })
    });
    let supported = supported.ok_or_else(|| {
        Error::other(format!(
            "RoomMediaCodec not supported [name:{}]",
            wanted.name
        ))
    })?;
    let mut parameters = Parameters::new();
    if let Some(mode) = supported.packetization_mode {
        parameters.insert("packetization-mode".into(), mode.into());
    }
    parameters.extend(wanted.parameters.clone());
    let is_audio = supported.kind == MediaKind::Audio;
    let codec = RtpCodecCapability {
        kind: Some(supported.kind),
        name: supported.name.into(),
        mime_type: Some(format!("{}/{}", supported.kind, supported.name)),
        preferred_payload_type: 0,
        clock_rate: supported.clock_rate,
        channels: is_audio.then(|| supported.channels.unwrap_or(1)),
        parameters,
        rtcp_feedback: Some(if is_audio { vec![] } else { video_feedback() }),
    };
    Ok((supported, codec))
}

/// Checks that a peer claims only what its room offers (`spec: api.md` §6.3).
///
/// # Errors
/// A codec or header extension is not the room's.
pub fn assert_capabilities_subset(peer: &RtpCapabilities, room: &RtpCapabilities) -> Result<()> {
    for codec in &peer.codecs {
        let is_known = room.codecs.iter().any(|known| {
            known.preferred_payload_type == codec.preferred_payload_type
                && Shape::of_capability(known).matches(&Shape::of_capability(codec))
        });
        if !is_known {
            return Err(Error::other(format!(
                "unsupported codec [name:{}, preferredPayloadType:{}]",
                codec.name, codec.preferred_payload_type
            )));
        }
    }
    for extension in &peer.header_extensions {
        let is_known = room.header_extensions.iter().any(|known| {
            known.preferred_id == extension.preferred_id
                && known.uri == extension.uri
                && (extension.kind.is_none() || known.kind == extension.kind)
        });
        if !is_known {
            let kind = extension.kind.map_or("undefined", MediaKind::as_str);
            return Err(Error::other(format!(
                "unsupported header extension [kind:{kind}, uri:{}]",
                extension.uri
            )));
        }
    }
    Ok(())
}

/// Maps a producer's payload types and extension ids to its room's (§17.3).
///
/// # Errors
/// Something is not the room's, or does not fit `kind`.
pub fn producer_mapping(
    kind: MediaKind,
    parameters: &RtpParameters,
    room: &RtpCapabilities,
) -> Result<RtpMapping> {
    check_profiles(&parameters.encodings)?;
    check_payload_types(&parameters.codecs)?;
    let mut codec_payload_types = Vec::new();
    let mut media: HashMap<u8, &RtpCodecCapability> = HashMap::new();
    for codec in parameters.codecs.iter().filter(|codec| !codec.is_rtx()) {
        let name = name_of(codec);
        let shape = Shape {
            kind: None,
            name,
            clock_rate: codec.clock_rate,
            channels: codec.channels,
            packetization_mode: packetization_mode(&codec.parameters),
        };
        let matching = room
            .codecs
            .iter()
            .find(|known| Shape::of_capability(known).matches(&shape));
        let matching = matching.ok_or_else(|| {
            Error::other(format!(
                "unsupported codec [name:{name}, payloadType:{}]",
                codec.payload_type
            ))
        })?;
        if matching.kind != Some(kind) {
            return Err(Error::other(format!(
                "codec does not match kind [kind:{kind}, name:{name}]"
            )));
        }
        media.insert(codec.payload_type, matching);
        codec_payload_types.push((codec.payload_type, matching.preferred_payload_type));
    }
    for codec in parameters.codecs.iter().filter(|codec| codec.is_rtx()) {
        let media = codec.apt().and_then(|apt| media.get(&apt));
        let media = media.ok_or_else(|| {
            Error::other(format!(
                "no media codec found for RTX PT {}",
                codec.payload_type
            ))
        })?;
        let rtx = rtx_for(room, media.preferred_payload_type).ok_or_else(|| {
            Error::other(format!(
                "no RTX codec found in capabilities [capabilities codec PT:{}]",
                media.preferred_payload_type
            ))
        })?;
        codec_payload_types.push((codec.payload_type, rtx.preferred_payload_type));
    }
    let header_extension_ids = parameters.header_extensions.iter().map(|extension| {
        let known = find_extension(room, &extension.uri).ok_or_else(|| {
            Error::other(format!(
                "unsupported header extensions [uri:\"{}\", id:{}]",
                extension.uri, extension.id
            ))
        })?;
        Ok((extension.id, known.preferred_id))
    });
    Ok(RtpMapping {
        codec_payload_types,
        header_extension_ids: header_extension_ids.collect::<Result<_>>()?,
    })
}

fn rtx_for(room: &RtpCapabilities, payload_type: u8) -> Option<&RtpCodecCapability> {
    room.codecs
        .iter()
        .find(|codec| is_rtx(codec) && apt(codec) == Some(payload_type.into()))
}

fn find_extension<'a>(room: &'a RtpCapabilities, uri: &str) -> Option<&'a RtpHeaderExtension> {
    room.header_extensions.iter().find(|known| known.uri == uri)
}

/// A payload type has seven bits and stands for one codec.
fn check_payload_types(codecs: &[RtpCodecParameters]) -> Result<()> {
    let mut seen = HashSet::new();
    for payload_type in codecs.iter().map(|codec| codec.payload_type) {
        if payload_type > 127 {
            return Err(Error::other(format!(
                "invalid payloadType [payloadType:{payload_type}]"
            )));
        }
        if !seen.insert(payload_type) {
            return Err(Error::other(format!(
                "duplicated payloadType [payloadType:{payload_type}]"
            )));
        }
    }
    Ok(())
}

/// Simulcast layers need a name each; a stream without layers has none.
fn check_profiles(encodings: &[RtpEncodingParameters]) -> Result<()> {
    let mut seen = Vec::new();
    for profile in encodings.iter().map(|e| e.profile.unwrap_or_default()) {
        if profile == Profile::None {
            return Err(Error::other("invalid encoding profile [profile:none]"));
        }
        if seen.contains(&profile) {
            return Err(Error::other(format!(
                "duplicated encoding profile [profile:{profile}]"
            )));
        }
        seen.push(profile);
    }
    if seen.len() > 1 && seen.contains(&Profile::Default) {
        return Err(Error::other("encodings with and without profile mixed"));
    }
    Ok(())
}

/// Expresses a producer's parameters in the room's numbers (§17.4).
///
/// # Errors
/// `mapping` is not the producer's.
pub fn consumable_parameters(
    parameters: &RtpParameters,
    room: &RtpCapabilities,
    mapping: &RtpMapping,
) -> Result<RtpParameters> {
    let mut codecs = Vec::new();
    for codec in parameters.codecs.iter().filter(|codec| !codec.is_rtx()) {
        let name = name_of(codec);
        let payload_type = lookup(&mapping.codec_payload_types, codec.payload_type);
        let payload_type = payload_type.ok_or_else(|| {
            Error::other(format!("codec payloadType mapping not found [name:{name}]"))
        })?;
        let known = room
            .codecs
            .iter()
            .find(|known| known.preferred_payload_type == payload_type)
            .ok_or_else(|| Error::other(format!("capabilities codec not found [name:{name}]")))?;
        // Two of the producer's codecs may be one of the room's.
        if codecs
            .iter()
            .any(|codec: &RtpCodecParameters| codec.payload_type == payload_type)
        {
            continue;
        }
        codecs.push(in_use(known));
        codecs.extend(rtx_for(room, payload_type).map(in_use));
    }
    let extensions = parameters.header_extensions.iter();
    let header_extensions = extensions
        .filter(|extension| ![MID_URI, TRANSPORT_CC_URI].contains(&extension.uri.as_str()))
        .map(|extension| {
            let uri = &extension.uri;
            let id = lookup(&mapping.header_extension_ids, extension.id).ok_or_else(|| {
                Error::other(format!("extension header id mapping not found [uri:{uri}]"))
            })?;
            if find_extension(room, uri).is_none() {
                return Err(Error::other(format!(
                    "capabilities header extension not found [uri:{uri}]"
                )));
            }
            Ok(RtpHeaderExtensionParameters {
                uri: uri.clone(),
                id,
                encrypt: false,
                parameters: Parameters::new(),
            })
        });
    Ok(RtpParameters {
        mux_id: None,
        codecs,
        header_extensions: header_extensions.collect::<Result<_>>()?,
        encodings: parameters.encodings.clone(),
        rtcp: parameters.rtcp.clone(),
        ..RtpParameters::default()
    })
}

fn lookup(pairs: &[(u8, u8)], key: u8) -> Option<u8> {
    let pair = pairs.iter().find(|(own, _)| *own == key)?;
    Some(pair.1)
}

fn in_use(codec: &RtpCodecCapability) -> RtpCodecParameters {
    RtpCodecParameters {
        name: codec.name.clone(),
        mime_type: codec.mime_type.clone().unwrap_or_default(),
        payload_type: codec.preferred_payload_type,
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        parameters: codec.parameters.clone(),
        rtcp_feedback: codec.rtcp_feedback.clone().unwrap_or_default(),
        ..RtpCodecParameters::default()
    }
}

/// What a peer is sent of a producer (§17.5); no codec is left if it can decode none.
pub fn consumer_parameters(
    consumable: &RtpParameters,
    peer: &RtpCapabilities,
    ssrc: u32,
    rtx_ssrc: u32,
) -> RtpParameters {
    let codecs = consumable.codecs.iter().filter_map(|codec| {
        let known = peer
            .codecs
            .iter()
            .find(|known| known.preferred_payload_type == codec.payload_type)?;
        let feedback = known.rtcp_feedback.iter().flatten();
        let rtcp_feedback = feedback.filter(|feedback| feedback.kind != TRANSPORT_CC);
        Some(RtpCodecParameters {
            rtcp_feedback: rtcp_feedback.cloned().collect(),
            ..codec.clone()
        })
    });
    let codecs: Vec<_> = codecs.collect();
    let header_extensions = consumable.header_extensions.iter().filter(|extension| {
        peer.header_extensions
            .iter()
            .any(|known| known.preferred_id == extension.id)
    });
    let has_rtx = codecs.iter().any(RtpCodecParameters::is_rtx);
    RtpParameters {
        mux_id: None,
        header_extensions: header_extensions.cloned().collect(),
        encodings: vec![RtpEncodingParameters {
            ssrc: Some(ssrc),
            rtx: has_rtx.then_some(RtxParameters {
                ssrc: Some(rtx_ssrc),
            }),
            ..RtpEncodingParameters::default()
        }],
        rtcp: consumable.rtcp.clone(),
        codecs,
        ..RtpParameters::default()
    }
}

#[cfg(test)]
mod tests;
