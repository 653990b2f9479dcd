//! RTP parameters (`spec: channel.md` §6.6).

use serde_json::Value;

use super::checks::check;
use super::mime::Mime;
use super::{Members, int, missing, refuse, uint};
use crate::error::Rejection;
use crate::rtp::{
    FecParameters, Parameters, Profile, RtcpFeedback, RtcpParameters, RtpCodecParameters,
    RtpEncodingParameters, RtpHeaderExtensionParameters, RtpParameters, RtxParameters,
};

/// Header extensions that are not ignored.
const EXTENSIONS: [&str; 7] = [
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "urn:ietf:params:rtp-hdrext:toffset",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "urn:3gpp:video-orientation",
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    // Not known to mediasoup v2.
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
];

/// Reads RTP parameters: member by member, then what they say about each other.
pub(super) fn parameters(data: Members<'_>) -> Result<RtpParameters, Rejection> {
    let mux_id = data.text("muxId");
    if mux_id == Some("") {
        return refuse("empty rtpParameters.muxId");
    }
    let codecs = all(data, "codecs", codec)?;
    let encodings = all(data, "encodings", encoding)?;
    let extensions = data.list("headerExtensions").unwrap_or_default();
    let extensions: Vec<_> = extensions.iter().map(extension).collect::<Result<_, _>>()?;
    let is_known =
        |extension: &RtpHeaderExtensionParameters| EXTENSIONS.contains(&extension.uri.as_str());
    let rtcp = data.object("rtcp");
    let mut parameters = RtpParameters {
        mux_id: mux_id.map(Into::into),
        codecs,
        header_extensions: extensions.into_iter().filter(is_known).collect(),
        encodings,
        rtcp: rtcp.map(rtcp_parameters).transpose()?.unwrap_or_default(),
        repeated: rtcp.map(repeated_rtcp).unwrap_or_default(),
    };
    check(&mut parameters)?;
    Ok(parameters)
}

/// Reads a list that must not be empty.
fn all<T>(
    data: Members<'_>,
    name: &str,
    read: fn(&Value) -> Result<T, Rejection>,
) -> Result<Vec<T>, Rejection> {
    match data.list(name) {
        None => Err(missing(&format!("rtpParameters.{name}"))),
        Some([]) => refuse(format!("empty rtpParameters.{name}")),
        Some(list) => list.iter().map(read).collect(),
    }
}

fn members_of<'v>(value: &'v Value, what: &str) -> Result<Members<'v>, Rejection> {
    if !value.is_object() {
        return refuse(format!("{what} is not an object"));
    }
    Ok(Members::of(value))
}

fn codec(value: &Value) -> Result<RtpCodecParameters, Rejection> {
    let data = members_of(value, "RtpCodecParameters")?;
    let mime = data.text("mimeType");
    let mime = Mime::parse(mime.ok_or_else(|| missing("RtpCodec.mimeType"))?)?;
    let number = |name: &str| {
        let number = data.uint(name);
        number.ok_or_else(|| missing(&format!("RtpCodecParameters.{name}")))
    };
    let payload_type = number("payloadType")? as u8;
    let clock_rate = number("clockRate")?;
    let feedback = data.list("rtcpFeedback").unwrap_or_default();
    let codec = RtpCodecParameters {
        name: mime.subtype.to_ascii_lowercase(),
        mime_type: mime.text(),
        payload_type,
        clock_rate,
        channels: None,
        parameters: kept(data),
        rtcp_feedback: feedback
            .iter()
            .map(rtcp_feedback)
            .collect::<Result<_, _>>()?,
        repeated: repeated(
            data,
            &[
                ("channels", |value| count(value).filter(|count| *count != 1)),
                ("maxptime", count),
                ("ptime", count),
            ],
        ),
    };
    let is_apt_integer = codec.parameters.get("apt").is_some_and(Value::is_i64);
    if codec.is_rtx() && !is_apt_integer {
        return refuse("missing apt parameter in RTX RtpCodecParameters");
    }
    Ok(codec)
}

fn rtcp_feedback(value: &Value) -> Result<RtcpFeedback, Rejection> {
    let data = members_of(value, "RtcpFeedback")?;
    let kind = data
        .text("type")
        .ok_or_else(|| missing("RtcpFeedback.type"))?;
    Ok(RtcpFeedback {
        kind: kind.into(),
        parameter: data.text("parameter").map(Into::into),
    })
}

fn encoding(value: &Value) -> Result<RtpEncodingParameters, Rejection> {
    let data = members_of(value, "RtpEncodingParameters")?;
    let mut repeated = repeated(
        data,
        &[
            ("resolutionScale", scale),
            ("framerateScale", scale),
            ("maxFramerate", count),
            ("active", |value| value.is_boolean().then(|| value.clone())),
        ],
    );
    let names = data.list("dependencyEncodingIds").unwrap_or_default();
    let names: Vec<Value> = names
        .iter()
        .filter(|name| name.is_string())
        .cloned()
        .collect();
    if !names.is_empty() {
        repeated.insert("dependencyEncodingIds".into(), names.into());
    }
    Ok(RtpEncodingParameters {
        codec_payload_type: data.uint("codecPayloadType").map(|pt| pt as u8),
        ssrc: ssrc(data),
        fec: data.object("fec").map(fec).transpose()?,
        rtx: data
            .object("rtx")
            .map(|rtx| RtxParameters { ssrc: ssrc(rtx) }),
        encoding_id: data
            .text("encodingId")
            .filter(|rid| !rid.is_empty())
            .map(Into::into),
        profile: data.text("profile").map(profile).transpose()?,
        repeated,
    })
}

fn profile(name: &str) -> Result<Profile, Rejection> {
    match Profile::from_name(name) {
        None => refuse("unknown profile"),
        Some(Profile::None | Profile::Default) => refuse("invalid profile"),
        Some(profile) => Ok(profile),
    }
}

fn fec(data: Members<'_>) -> Result<FecParameters, Rejection> {
    let mechanism = data.text("mechanism");
    let mechanism = mechanism.ok_or_else(|| missing("RtpFecParameters.mechanism"))?;
    Ok(FecParameters {
        mechanism: mechanism.into(),
        ssrc: ssrc(data),
    })
}

fn extension(value: &Value) -> Result<RtpHeaderExtensionParameters, Rejection> {
    let data = members_of(value, "RtpHeaderExtensionParameters")?;
    let uri = match data.text("uri") {
        None => return Err(missing("RtpHeaderExtensionParameters.uri")),
        Some("") => return refuse("empty RtpHeaderExtensionParameters.uri"),
        Some(uri) => uri.to_ascii_lowercase(),
    };
    let id = data.uint("id");
    Ok(RtpHeaderExtensionParameters {
        uri,
        id: id.ok_or_else(|| missing("RtpHeaderExtensionParameters.id"))? as u8,
        encrypt: data.flag("encrypt").unwrap_or(false),
        parameters: kept(data),
    })
}

fn rtcp_parameters(data: Members<'_>) -> Result<RtcpParameters, Rejection> {
    let cname = data.text("cname");
    if cname == Some("") {
        return refuse("empty RtcpParameters.cname");
    }
    Ok(RtcpParameters {
        cname: cname.map(Into::into),
        reduced_size: data.flag("reducedSize").unwrap_or(true),
    })
}

/// An SSRC; 0 is none.
fn ssrc(data: Members<'_>) -> Option<u32> {
    data.uint("ssrc").filter(|ssrc| *ssrc != 0)
}

/// Reads what is only repeated in dumps, and leaves out defaults.
type Repeat = fn(&Value) -> Option<Value>;

fn repeated(data: Members<'_>, names: &[(&str, Repeat)]) -> Parameters {
    let members = names.iter().filter_map(|(name, read)| {
        let value = read(data.get(name)?)?;
        Some(((*name).to_owned(), value))
    });
    members.collect()
}

/// That there was `rtcp`, and an SSRC in it.
fn repeated_rtcp(rtcp: Members<'_>) -> Parameters {
    let rtcp = repeated(rtcp, &[("ssrc", count)]);
    Parameters::from_iter([("rtcp".to_owned(), rtcp.into())])
}

fn count(value: &Value) -> Option<Value> {
    uint(value).filter(|count| *count != 0).map(Value::from)
}

fn scale(value: &Value) -> Option<Value> {
    let scale = value.as_f64().filter(|scale| *scale != 1.0);
    scale.map(Value::from)
}

/// The `parameters` that are kept: Booleans, text, numbers, and lists of integers of 32 bits.
fn kept(data: Members<'_>) -> Parameters {
    let Some(Members(Some(parameters))) = data.object("parameters") else {
        return Parameters::new();
    };
    let members = parameters.iter().filter_map(|(name, value)| {
        let value = match value {
            Value::Bool(_) | Value::String(_) => value.clone(),
            Value::Number(number) if number.is_f64() => value.clone(),
            Value::Number(_) => int(value)?.into(),
            Value::Array(items) if !items.is_empty() => {
                items.iter().map(int).collect::<Option<Vec<_>>>()?.into()
            }
            Value::Array(_) | Value::Object(_) | Value::Null => return None,
        };
        Some((name.clone(), value))
    });
    members.collect()
}
