//! RTP dictionaries in the ORTC flavour of mediasoup v2 (`spec: api.md` §4).
//!
//! Unknown members are ignored on reading, so only what is named here is ever forwarded.

pub(crate) mod dump;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Codec- or extension-specific parameters.
pub type Parameters = Map<String, Value>;

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

impl MediaKind {
    /// The lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A simulcast layer by name, in ascending order of quality.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// No layer at all: nothing is being forwarded.
    None,
    /// The only layer of a stream without simulcast; as a preference, "let broth decide".
    #[default]
    Default,
    /// The smallest simulcast layer.
    Low,
    /// The middle simulcast layer.
    Medium,
    /// The largest simulcast layer.
    High,
}

impl Profile {
    /// The lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Default => "default",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// Reads a lower-case name.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::None,
            Self::Default,
            Self::Low,
            Self::Medium,
            Self::High,
        ]
        .into_iter()
        .find(|profile| profile.as_str() == name)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An RTCP feedback message that may be sent for a codec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcpFeedback {
    /// `nack`, `ccm`, `goog-remb`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// `pli`, `fir`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

impl RtcpFeedback {
    /// Whether this is feedback `kind` with exactly `parameter`.
    pub fn is(&self, kind: &str, parameter: Option<&str>) -> bool {
        let own = self.parameter.as_deref().filter(|p| !p.is_empty());
        self.kind == kind && own == parameter
    }
}

/// What an endpoint can send or receive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCapabilities {
    /// Media and RTX codecs.
    pub codecs: Vec<RtpCodecCapability>,
    /// Header extensions.
    pub header_extensions: Vec<RtpHeaderExtension>,
    /// Always empty.
    #[serde(default)]
    pub fec_mechanisms: Vec<String>,
}

/// A codec an endpoint can send or receive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCodecCapability {
    /// Absent in capabilities of some clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<MediaKind>,
    /// Sub-type, for instance `opus`, `VP8`, `rtx`.
    pub name: String,
    /// For instance `video/VP8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// 0…127.
    pub preferred_payload_type: u8,
    /// In Hz.
    pub clock_rate: u32,
    /// Audio only; absent equals 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Codec parameters; for RTX `apt`.
    #[serde(default)]
    pub parameters: Parameters,
    /// Absent on RTX entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtcp_feedback: Option<Vec<RtcpFeedback>>,
}

/// A header extension an endpoint understands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpHeaderExtension {
    /// Absent: both kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<MediaKind>,
    /// The extension's URI.
    pub uri: String,
    /// 1…14 for the one-byte form.
    pub preferred_id: u8,
    /// Always false.
    #[serde(default)]
    pub preferred_encrypt: bool,
}

/// How a producer sends or a consumer receives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpParameters {
    /// The SDP `mid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mux_id: Option<String>,
    /// Media codecs and their RTX.
    pub codecs: Vec<RtpCodecParameters>,
    /// Header extensions in use.
    #[serde(default)]
    pub header_extensions: Vec<RtpHeaderExtensionParameters>,
    /// One, or one per simulcast layer.
    pub encodings: Vec<RtpEncodingParameters>,
    /// RTCP settings.
    #[serde(default)]
    pub rtcp: RtcpParameters,
    /// What a worker only repeats in dumps; no client can set it.
    #[serde(skip)]
    pub repeated: Parameters,
}

/// A codec in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCodecParameters {
    /// Sub-type, for instance `VP8`. The worker channel may leave it out.
    #[serde(default)]
    pub name: String,
    /// For instance `video/VP8`.
    pub mime_type: String,
    /// 0…127.
    pub payload_type: u8,
    /// In Hz.
    pub clock_rate: u32,
    /// Audio only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Codec parameters; for RTX `apt`.
    #[serde(default)]
    pub parameters: Parameters,
    /// Feedback in use.
    #[serde(default)]
    pub rtcp_feedback: Vec<RtcpFeedback>,
    /// What a worker only repeats in dumps; no client can set it.
    #[serde(skip)]
    pub repeated: Parameters,
}

impl RtpCodecParameters {
    /// Whether this is an RTX entry.
    pub fn is_rtx(&self) -> bool {
        self.mime_type
            .rsplit('/')
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("rtx"))
    }

    /// The payload type an RTX entry repairs.
    pub fn apt(&self) -> Option<u8> {
        u8::try_from(self.parameters.get("apt")?.as_u64()?).ok()
    }
}

/// A header extension in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpHeaderExtensionParameters {
    /// The extension's URI.
    pub uri: String,
    /// The id on the wire.
    pub id: u8,
    /// Always false.
    #[serde(default)]
    pub encrypt: bool,
    /// Extension parameters.
    #[serde(default)]
    pub parameters: Parameters,
}

/// One encoded stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpEncodingParameters {
    /// The media SSRC; absent when the stream is found by MID or RID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    /// The RTX stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtx: Option<RtxParameters>,
    /// Payload type of the codec; absent: the first media codec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec_payload_type: Option<u8>,
    /// The RID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding_id: Option<String>,
    /// The simulcast layer; absent: the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// The FEC stream: a worker knows whose it is, and drops it.
    #[serde(skip)]
    pub fec: Option<FecParameters>,
    /// What a worker only repeats in dumps; no client can set it.
    #[serde(skip)]
    pub repeated: Parameters,
}

impl RtpEncodingParameters {
    /// Every SSRC of the encoding.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> {
        let rtx = self.rtx.and_then(|rtx| rtx.ssrc);
        let fec = self.fec.as_ref().and_then(|fec| fec.ssrc);
        [self.ssrc, rtx, fec].into_iter().flatten()
    }
}

/// The RTX stream of an encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtxParameters {
    /// The RTX SSRC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
}

/// The FEC stream of an encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FecParameters {
    /// For instance `flexfec`.
    pub mechanism: String,
    /// The FEC SSRC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
}

/// RTCP settings of a sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtcpParameters {
    /// Canonical name, shared by the streams to be synchronised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cname: Option<String>,
    /// Reduced-size RTCP (RFC 5506); true unless said otherwise.
    #[serde(default = "default_true")]
    pub reduced_size: bool,
}

impl Default for RtcpParameters {
    fn default() -> Self {
        Self {
            cname: None,
            reduced_size: true,
        }
    }
}

fn default_true() -> bool {
    true
}

/// How a producer's numbers map to its room's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpMapping {
    /// `(payload type of the producer, payload type of the room)`.
    pub codec_payload_types: Vec<(u8, u8)>,
    /// `(extension id of the producer, extension id of the room)`.
    pub header_extension_ids: Vec<(u8, u8)>,
}
