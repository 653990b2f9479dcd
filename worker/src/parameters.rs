//! What RTP parameters mean; the channel refused those that contradict themselves.

use broth_ipc::rtp::{MediaKind, RtpCodecParameters, RtpEncodingParameters, RtpParameters};

/// The media codec of an encoding: the one it names, else the first.
pub(crate) fn codec_of<'p>(
    parameters: &'p RtpParameters,
    encoding: &RtpEncodingParameters,
) -> Option<&'p RtpCodecParameters> {
    parameters
        .codecs
        .iter()
        .filter(|codec| !codec.is_rtx())
        .find(|codec| {
            encoding
                .codec_payload_type
                .is_none_or(|pt| pt == codec.payload_type)
        })
}

/// The kind of media a codec is for.
pub(crate) fn kind_of(codec: &RtpCodecParameters) -> MediaKind {
    match codec.mime_type.get(..6) {
        Some(kind) if kind.eq_ignore_ascii_case("audio/") => MediaKind::Audio,
        _ => MediaKind::Video,
    }
}

/// The RTX codec that repairs `pt`.
pub(crate) fn rtx_of(parameters: &RtpParameters, pt: u8) -> Option<&RtpCodecParameters> {
    parameters
        .codecs
        .iter()
        .find(|codec| codec.is_rtx() && codec.apt() == Some(pt))
}

/// Whether a codec has this feedback.
pub(crate) fn has_feedback(
    codec: &RtpCodecParameters,
    kind: &str,
    parameter: Option<&str>,
) -> bool {
    codec
        .rtcp_feedback
        .iter()
        .any(|feedback| feedback.is(kind, parameter))
}
