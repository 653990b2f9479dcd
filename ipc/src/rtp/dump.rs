//! RTP parameters as dumps show them (`spec: channel.md` §7.4): what was understood of them,
//! with all defaults.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{
    Parameters, Profile, RtcpParameters, RtpCodecParameters, RtpEncodingParameters, RtpParameters,
};

/// Serializes what a producer sends.
pub(crate) fn serialize<S: Serializer>(
    parameters: &RtpParameters,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    dump(parameters).serialize(serializer)
}

/// Serializes what a consumer is sent, once it is enabled.
pub(crate) fn serialize_some<S: Serializer>(
    parameters: &Option<RtpParameters>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    parameters.as_ref().map(dump).serialize(serializer)
}

fn dump(parameters: &RtpParameters) -> Value {
    let extensions = parameters.header_extensions.iter().map(|extension| {
        json!({
            "uri": extension.uri,
            "id": extension.id,
            "encrypt": extension.encrypt,
            "parameters": extension.parameters,
        })
    });
    let mut members = Map::new();
    let codecs = parameters.codecs.iter().map(codec).collect();
    let encodings = parameters.encodings.iter().map(encoding).collect();
    members.insert("codecs".into(), codecs);
    members.insert("encodings".into(), encodings);
    members.insert("headerExtensions".into(), extensions.collect());
    add(&mut members, "muxId", parameters.mux_id.as_deref());
    let given = parameters.repeated.get("rtcp").and_then(Value::as_object);
    add(
        &mut members,
        "rtcp",
        given.map(|given| rtcp(&parameters.rtcp, given)),
    );
    members.into()
}

fn codec(codec: &RtpCodecParameters) -> Value {
    let feedback = codec.rtcp_feedback.iter().map(|feedback| {
        let parameter = feedback.parameter.as_deref();
        json!({ "type": feedback.kind, "parameter": parameter.filter(|text| !text.is_empty()) })
    });
    let mut members = codec.repeated.clone();
    members.insert("mimeType".into(), codec.mime_type.as_str().into());
    members.insert("name".into(), codec.name.as_str().into());
    members.insert("payloadType".into(), codec.payload_type.into());
    members.insert("clockRate".into(), codec.clock_rate.into());
    members.insert("parameters".into(), codec.parameters.clone().into());
    members.insert("rtcpFeedback".into(), feedback.collect());
    members.into()
}

fn encoding(encoding: &RtpEncodingParameters) -> Value {
    let mut members = encoding.repeated.clone();
    let profile = encoding.profile.unwrap_or(Profile::Default);
    members.insert("profile".into(), profile.as_str().into());
    members.entry("active").or_insert(true.into());
    add(
        &mut members,
        "codecPayloadType",
        encoding.codec_payload_type,
    );
    add(&mut members, "ssrc", encoding.ssrc);
    add(
        &mut members,
        "fec",
        encoding.fec.as_ref().map(|fec| json!(fec)),
    );
    add(&mut members, "rtx", encoding.rtx.map(|rtx| json!(rtx)));
    add(&mut members, "encodingId", encoding.encoding_id.as_deref());
    members.into()
}

fn rtcp(rtcp: &RtcpParameters, repeated: &Parameters) -> Value {
    let mut members = repeated.clone();
    add(&mut members, "cname", rtcp.cname.as_deref());
    members.insert("reducedSize".into(), rtcp.reduced_size.into());
    members.into()
}

/// Adds a member that may be absent.
fn add<V: Into<Value>>(members: &mut Map<String, Value>, name: &str, value: Option<V>) {
    if let Some(value) = value {
        members.insert(name.into(), value.into());
    }
}
