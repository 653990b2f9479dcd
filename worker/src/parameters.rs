//! Checks of RTP parameters beyond their types (`spec: channel.md` §6.6).

use broth_ipc::Rejection;
use broth_ipc::rtp::{Profile, RtpCodecParameters, RtpEncodingParameters, RtpParameters};

/// Encodings one producer may have.
const ENCODINGS_MAX: usize = 8;

/// Refuses parameters that contradict themselves.
pub(crate) fn check(parameters: &RtpParameters) -> Result<(), Rejection> {
    let RtpParameters {
        codecs, encodings, ..
    } = parameters;
    let refuse = |reason: &str| Err(Rejection::invalid(reason));
    if parameters.mux_id.as_deref() == Some("") {
        return refuse("empty rtpParameters.muxId");
    }
    if codecs.is_empty() {
        return refuse("empty rtpParameters.codecs");
    }
    if encodings.is_empty() {
        return refuse("empty rtpParameters.encodings");
    }
    if encodings.len() > ENCODINGS_MAX {
        return refuse("too many rtpParameters.encodings");
    }
    for (at, codec) in codecs.iter().enumerate() {
        let is_repeated = codecs[..at]
            .iter()
            .any(|other| other.payload_type == codec.payload_type);
        if is_repeated {
            return refuse("duplicated codec.payloadType");
        }
        if codec.is_rtx() && codec.apt().is_none() {
            return refuse("missing apt parameter in RTX RtpCodecParameters");
        }
        if codec.clock_rate == 0 {
            return refuse("invalid RtpCodecParameters.clockRate");
        }
    }
    if codecs.iter().all(RtpCodecParameters::is_rtx) {
        return refuse("no media codecs found");
    }
    if parameters
        .header_extensions
        .iter()
        .any(|extension| extension.id == 0)
    {
        return refuse("invalid RtpHeaderExtensionParameters.id");
    }
    check_encodings(parameters)
}

fn check_encodings(parameters: &RtpParameters) -> Result<(), Rejection> {
    let encodings = &parameters.encodings;
    let refuse = |reason: &str| Err(Rejection::invalid(reason));
    for (at, encoding) in encodings.iter().enumerate() {
        if codec_of(parameters, encoding).is_none() {
            return refuse("unknown encoding.codecPayloadType");
        }
        match encoding.profile {
            Some(Profile::None | Profile::Default) => return refuse("invalid profile"),
            Some(_) if encodings.len() == 1 => {
                return refuse("invalid single encoding with non default profile");
            }
            None if encodings.len() > 1 => return refuse("invalid encoding.profile"),
            Some(_) | None => {}
        }
        if encodings[..at]
            .iter()
            .any(|other| other.profile == encoding.profile)
        {
            return refuse("duplicated encoding.profile");
        }
    }
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parameters(codecs: Value, encodings: Value) -> RtpParameters {
        serde_json::from_value(json!({ "codecs": codecs, "encodings": encodings })).unwrap()
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let vp8 = json!({"mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000});
        let rtx = |apt: Value| {
            json!({"mimeType": "video/rtx", "payloadType": 97, "clockRate": 90000,
                "parameters": {"apt": apt}})
        };
        let rows = [
            (json!([]), json!([{}]), Some("empty rtpParameters.codecs")),
            (
                json!([vp8]),
                json!([]),
                Some("empty rtpParameters.encodings"),
            ),
            (json!([vp8]), json!([{"ssrc": 1}]), None),
            (json!([vp8, rtx(json!(96))]), json!([{"ssrc": 1}]), None),
            (
                json!([vp8, vp8]),
                json!([{}]),
                Some("duplicated codec.payloadType"),
            ),
            (
                json!([vp8, rtx(json!("x"))]),
                json!([{}]),
                Some("missing apt parameter in RTX RtpCodecParameters"),
            ),
            (
                json!([rtx(json!(96))]),
                json!([{}]),
                Some("no media codecs found"),
            ),
            (
                json!([vp8]),
                json!([{"codecPayloadType": 99}]),
                Some("unknown encoding.codecPayloadType"),
            ),
            (
                json!([vp8]),
                json!([{"profile": "low"}]),
                Some("invalid single encoding with non default profile"),
            ),
            (
                json!([vp8]),
                json!([{"profile": "low"}, {}]),
                Some("invalid encoding.profile"),
            ),
            (
                json!([vp8]),
                json!([{"profile": "low"}, {"profile": "low"}]),
                Some("duplicated encoding.profile"),
            ),
            (
                json!([vp8]),
                json!([{"profile": "low"}, {"profile": "high"}]),
                None,
            ),
        ];
        for (codecs, encodings, expected) in rows {
            let result = check(&parameters(codecs.clone(), encodings.clone()));
            let reason = result.err().map(|rejection| rejection.reason);
            assert_eq!(reason.as_deref(), expected, "{codecs} {encodings}");
        }
    }
}
