//! What forwarding needs to know about a payload, whatever the codec.

use super::h264;
use super::h265;
use super::vp8::Vp8Descriptor;
use super::vp9::Vp9Descriptor;

/// The codecs that are told apart when forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
    /// H.264 (RFC 6184).
    H264,
    /// H.265 (RFC 7798).
    H265,
    /// Opus (RFC 7587).
    Opus,
    /// Anything else: forwarded without a look inside.
    Other,
}

impl Codec {
    /// Finds the codec of a MIME type such as `video/VP8`, ignoring case.
    pub fn from_mime_type(mime_type: &str) -> Self {
        let known = [
            ("video/vp8", Self::Vp8),
            ("video/vp9", Self::Vp9),
            ("video/h264", Self::H264),
            ("video/h265", Self::H265),
            ("audio/opus", Self::Opus),
        ];
        known
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(mime_type))
            .map_or(Self::Other, |(_, codec)| codec)
    }

    /// Tells whether parameter sets may come in packets of their own.
    pub fn has_parameter_sets(self) -> bool {
        matches!(self, Self::H264 | Self::H265)
    }

    /// Tells whether [`inspect`] recognises the key frames of this codec.
    pub fn has_keyframes(self) -> bool {
        match self {
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::H265 => true,
            Self::Opus | Self::Other => false,
        }
    }
}

/// What a payload says about its place in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadInfo {
    /// Decoding can start with this packet.
    pub is_keyframe: bool,
    /// Parameter sets of H.264 or H.265 are in this packet.
    pub has_parameter_sets: bool,
    /// A frame starts with this packet, as far as the codec tells.
    pub is_frame_start: bool,
    /// Temporal layer.
    pub temporal: Option<u8>,
    /// Spatial layer.
    pub spatial: Option<u8>,
    /// Picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// The picture id has 7 bits.
    pub is_picture_id_narrow: bool,
    /// Index of the base layer frame this one depends on.
    pub tl0picidx: Option<u8>,
}

/// Looks into an RTP payload; what cannot be read has no properties.
pub fn inspect(codec: Codec, payload: &[u8]) -> PayloadInfo {
    match codec {
        Codec::Vp8 => Vp8Descriptor::parse(payload).map_or_else(
            |_| PayloadInfo::default(),
            |read| PayloadInfo {
                is_keyframe: read.is_keyframe,
                is_frame_start: read.is_frame_start,
                temporal: read.temporal,
                picture_id: read.picture_id,
                is_picture_id_narrow: !read.is_picture_id_wide,
                tl0picidx: read.tl0picidx,
                ..PayloadInfo::default()
            },
        ),
        Codec::Vp9 => Vp9Descriptor::parse(payload).map_or_else(
            |_| PayloadInfo::default(),
            |read| PayloadInfo {
                is_keyframe: read.is_keyframe,
                is_frame_start: read.is_frame_start,
                temporal: read.temporal,
                spatial: read.spatial,
                picture_id: read.picture_id,
                tl0picidx: read.tl0picidx,
                ..PayloadInfo::default()
            },
        ),
        Codec::H264 => {
            let starts = h264::inspect(payload);
            PayloadInfo {
                is_keyframe: starts.keyframe,
                has_parameter_sets: starts.parameter_sets,
                is_frame_start: starts.frame,
                ..PayloadInfo::default()
            }
        }
        Codec::H265 => {
            let starts = h265::inspect(payload);
            PayloadInfo {
                is_keyframe: starts.keyframe,
                has_parameter_sets: starts.parameter_sets,
                is_frame_start: starts.frame,
                ..PayloadInfo::default()
            }
        }
        Codec::Opus | Codec::Other => PayloadInfo {
            is_frame_start: true,
            ..PayloadInfo::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mime_types_are_known_in_any_case() {
        for (mime_type, codec) in [
            ("video/VP8", Codec::Vp8),
            ("video/vp9", Codec::Vp9),
            ("VIDEO/H264", Codec::H264),
            ("video/H265", Codec::H265),
            ("audio/opus", Codec::Opus),
            ("audio/PCMU", Codec::Other),
            ("", Codec::Other),
        ] {
            assert_eq!(Codec::from_mime_type(mime_type), codec, "{mime_type}");
        }
    }

    #[test]
    fn every_codec_reports_what_it_knows() {
        let vp8 = inspect(Codec::Vp8, &[0x90, 0xE0, 0x81, 0x02, 0x09, 0xA0, 0x10]);
        assert_eq!(
            vp8,
            PayloadInfo {
                is_keyframe: true,
                is_frame_start: true,
                temporal: Some(2),
                picture_id: Some(0x102),
                tl0picidx: Some(9),
                ..PayloadInfo::default()
            }
        );
        let vp9 = inspect(Codec::Vp9, &[0xA8, 0x05, 0x43, 0x07]);
        assert_eq!((vp9.temporal, vp9.spatial), (Some(2), Some(1)));
        assert!(inspect(Codec::H264, &[0x67]).is_keyframe);
        assert!(inspect(Codec::H265, &[0x40, 0x01]).is_keyframe);
        assert!(!inspect(Codec::Opus, &[0x67]).is_keyframe);
        assert_eq!(inspect(Codec::Vp8, &[]), PayloadInfo::default());
    }
}
