//! The RTP header extensions that are known, and the contents of those that are read or written here.
//!
//! Where elements lie in a packet is [`rtp`](super::rtp)'s business.

use std::time::Duration;

/// A header extension known by its URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtensionUri {
    /// Client-to-mixer audio level (RFC 6464).
    SsrcAudioLevel,
    /// Transmission time offset (RFC 5450).
    TimestampOffset,
    /// 24-bit send time for receive-side bandwidth estimation.
    AbsSendTime,
    /// Coordination of video orientation (3GPP TS 26.114).
    VideoOrientation,
    /// Media identification (RFC 9143).
    Mid,
    /// Restriction identifier of a stream (RFC 8852).
    Rid,
    /// Restriction identifier of the stream an RTX stream repairs (RFC 8852).
    RepairedRid,
    /// Transport-wide sequence number.
    TransportWideCc,
    /// AV1 dependency descriptor.
    DependencyDescriptor,
    /// Absolute capture time.
    AbsCaptureTime,
    /// Playout delay limits.
    PlayoutDelay,
}

impl ExtensionUri {
    /// Every known extension.
    pub const ALL: [Self; 11] = [
        Self::SsrcAudioLevel,
        Self::TimestampOffset,
        Self::AbsSendTime,
        Self::VideoOrientation,
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::TransportWideCc,
        Self::DependencyDescriptor,
        Self::AbsCaptureTime,
        Self::PlayoutDelay,
    ];

    /// Finds an extension by its URI, ignoring case.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|known| known.uri().eq_ignore_ascii_case(uri))
    }

    /// Returns the URI as it stands in session descriptions.
    pub const fn uri(self) -> &'static str {
        match self {
            Self::SsrcAudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::TimestampOffset => "urn:ietf:params:rtp-hdrext:toffset",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::TransportWideCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        }
    }
}

/// Returns the abs-send-time of an instant: 6.18 fixed-point seconds, wrapping every 64 s.
///
/// The epoch is free, as receivers only use differences.
pub fn abs_send_time(since_epoch: Duration) -> [u8; 3] {
    let seconds = since_epoch.as_secs() % 64;
    let fraction = (u64::from(since_epoch.subsec_nanos()) << 18) / 1_000_000_000;
    let [.., high, mid, low] = (seconds << 18 | fraction).to_be_bytes();
    [high, mid, low]
}

/// Reads an audio level element: voice activity and the level in -dBov, 0 loudest and 127 silence.
pub fn audio_level(data: &[u8]) -> Option<(bool, u8)> {
    let [value] = *data else {
        return None;
    };
    Some((value & 0x80 != 0, value & 0x7F))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_found_in_any_case() {
        for known in ExtensionUri::ALL {
            assert_eq!(ExtensionUri::from_uri(known.uri()), Some(known));
            let shouted = known.uri().to_ascii_uppercase();
            assert_eq!(ExtensionUri::from_uri(&shouted), Some(known));
        }
        assert_eq!(ExtensionUri::from_uri("urn:unknown"), None);
    }

    #[test]
    fn send_time_is_fixed_point_and_wraps() {
        for (nanos, expected) in [
            (0, [0x00, 0x00, 0x00]),
            (3_814, [0x00, 0x00, 0x00]),
            (3_815, [0x00, 0x00, 0x01]),
            (500_000_000, [0x02, 0x00, 0x00]),
            (1_000_000_000, [0x04, 0x00, 0x00]),
            (63_999_999_999, [0xFF, 0xFF, 0xFF]),
            (64_000_000_000, [0x00, 0x00, 0x00]),
        ] {
            assert_eq!(
                abs_send_time(Duration::from_nanos(nanos)),
                expected,
                "{nanos}"
            );
        }
    }

    #[test]
    fn audio_level_needs_exactly_one_byte() {
        assert_eq!(audio_level(&[0xFF]), Some((true, 127)));
        assert_eq!(audio_level(&[0x05]), Some((false, 5)));
        assert_eq!(audio_level(&[]), None);
        assert_eq!(audio_level(&[0x05, 0]), None);
    }
}
