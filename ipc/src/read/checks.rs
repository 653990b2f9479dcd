//! What RTP parameters say about each other (`spec: channel.md` §6.6).

use super::mime::{Mime, Role};
use super::refuse;
use crate::error::Rejection;
use crate::rtp::{RtpCodecParameters, RtpEncodingParameters, RtpParameters};

/// Refuses parameters that contradict themselves, and gives every encoding its codec.
pub(super) fn check(parameters: &mut RtpParameters) -> Result<(), Rejection> {
    check_codecs(&parameters.codecs)?;
    let media = parameters
        .codecs
        .iter()
        .find(|codec| has_role(codec, Role::Media));
    let Some(media) = media.map(|codec| codec.payload_type) else {
        return refuse("no media codecs found");
    };
    for encoding in &mut parameters.encodings {
        let pt = *encoding.codec_payload_type.get_or_insert(media);
        let named = parameters
            .codecs
            .iter()
            .find(|codec| codec.payload_type == pt);
        match named {
            None => return refuse("unknown encoding.codecPayloadType"),
            Some(codec) if has_role(codec, Role::Media) => {}
            Some(_) => return refuse("invalid encoding.codecPayloadType"),
        }
    }
    check_profiles(&parameters.encodings)
}

fn check_codecs(codecs: &[RtpCodecParameters]) -> Result<(), Rejection> {
    for (at, codec) in codecs.iter().enumerate() {
        if codecs[..at]
            .iter()
            .any(|other| other.payload_type == codec.payload_type)
        {
            return refuse("duplicated codec.payloadType");
        }
        if codec.clock_rate == 0 {
            return refuse("invalid RtpCodecParameters.clockRate");
        }
        let repaired = codecs
            .iter()
            .find(|other| codec.apt() == Some(other.payload_type));
        if let Some(repaired) = repaired.filter(|_| codec.is_rtx())
            && ["rtx", "ulpfec", "flexfec"].contains(&repaired.name.as_str())
        {
            let name = repaired.name.to_ascii_uppercase();
            return refuse(format!("apt in RTX codec points to a {name} codec"));
        }
    }
    Ok(())
}

fn check_profiles(encodings: &[RtpEncodingParameters]) -> Result<(), Rejection> {
    for (at, encoding) in encodings.iter().enumerate() {
        if encodings[..at]
            .iter()
            .any(|other| other.profile == encoding.profile)
        {
            return refuse("duplicated encoding.profile");
        }
    }
    match encodings {
        [only] if only.profile.is_some() => {
            refuse("invalid single encoding with non default profile")
        }
        // The original worker aborts when both are received.
        [_, _, ..] if encodings.iter().any(|encoding| encoding.profile.is_none()) => {
            refuse("invalid encoding.profile")
        }
        _ => Ok(()),
    }
}

fn has_role(codec: &RtpCodecParameters, role: Role) -> bool {
    Mime::parse(&codec.mime_type).is_ok_and(|mime| mime.role == role)
}
