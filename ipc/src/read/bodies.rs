//! The bodies without RTP parameters, and those around them.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Members, Read, missing, refuse, rtp, uint};
use crate::body::{
    CreateConsumer, CreateProducer, CreateRouter, DtlsParameters, DtlsRole, Empty, EnableConsumer,
    EncodingPreferences, Fingerprint, Hello, Misbehave, PlainRtpTransportOptions, RemoteParameters,
    RouterSocket, SetAudioLevelsEvent, SetMaxBitrate, SetPreferredProfile, StartMirroring,
    WebRtcTransportOptions, WorkerSettings,
};
use crate::error::Rejection;
use crate::rtp::{MediaKind, Profile, RtpMapping};

/// What only broth's controller sends has no words of mediasoup v2.
fn own<T: DeserializeOwned>(value: Value) -> Result<T, Rejection> {
    serde_json::from_value(value)
        .map_err(|error| Rejection::invalid(format!("invalid data: {error}")))
}

/// The description of a descriptor that broth's controller hands over.
fn socket(data: Members<'_>) -> Result<Option<RouterSocket>, Rejection> {
    data.get("socket").cloned().map(own).transpose()
}

fn own_members<T: DeserializeOwned>(data: Members<'_>) -> Result<T, Rejection> {
    own(Value::Object(data.0.cloned().unwrap_or_default()))
}

impl Read for Empty {
    fn read(_: Members<'_>) -> Result<Self, Rejection> {
        Ok(Self {})
    }
}

impl Read for Hello {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        own_members(data)
    }
}

impl Read for Misbehave {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        own_members(data)
    }
}

impl Read for CreateRouter {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        own_members(data)
    }
}

impl Read for WorkerSettings {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let tags = data.list("logTags");
        Ok(Self {
            log_level: data.text("logLevel").map(Into::into),
            log_tags: tags.map(|tags| {
                let tags = tags.iter().filter_map(Value::as_str);
                tags.map(Into::into).collect()
            }),
        })
    }
}

impl Read for WebRtcTransportOptions {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let default = Self::default();
        Ok(Self {
            udp: data.flag("udp").unwrap_or(default.udp),
            tcp: data.flag("tcp").unwrap_or(default.tcp),
            prefer_ipv4: data.flag("preferIPv4").unwrap_or(default.prefer_ipv4),
            prefer_ipv6: data.flag("preferIPv6").unwrap_or(default.prefer_ipv6),
            prefer_udp: data.flag("preferUdp").unwrap_or(default.prefer_udp),
            prefer_tcp: data.flag("preferTcp").unwrap_or(default.prefer_tcp),
            restore: data.get("restore").cloned().map(own).transpose()?,
        })
    }
}

impl Read for PlainRtpTransportOptions {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        // An empty address is none.
        let text = |name| data.text(name).filter(|text| !text.is_empty());
        let remote_ip = text("remoteIP");
        let remote_port = match remote_ip {
            Some(_) => Some(port(data, "remotePort", "data.remotePort")?),
            None => None,
        };
        Ok(Self {
            remote_ip: remote_ip.map(Into::into),
            remote_port,
            local_ip: text("localIP").map(Into::into),
            socket: socket(data)?,
            prefer_ipv4: data.flag("preferIPv4").unwrap_or(false),
            prefer_ipv6: data.flag("preferIPv6").unwrap_or(false),
        })
    }
}

impl Read for RemoteParameters {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        Ok(Self {
            ip: data.text("ip").ok_or_else(|| missing("data.ip"))?.into(),
            port: port(data, "port", "data.port")?,
        })
    }
}

impl Read for StartMirroring {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let remote_ip = data.text("remoteIP").ok_or_else(|| missing("remoteIP"))?;
        let flag = |name| data.flag(name).unwrap_or(true);
        let local_ip = data.text("localIP").filter(|ip| !ip.is_empty());
        Ok(Self {
            remote_ip: remote_ip.into(),
            remote_port: port(data, "remotePort", "remotePort")?,
            local_ip: local_ip.map(Into::into),
            socket: socket(data)?,
            send_rtp: flag("sendRtp"),
            send_rtcp: flag("sendRtcp"),
            recv_rtp: flag("recvRtp"),
            recv_rtcp: flag("recvRtcp"),
        })
    }
}

impl Read for CreateProducer {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let kind = data.text("kind").ok_or_else(|| missing("data.kind"))?;
        let parameters = data.object("rtpParameters");
        let parameters = parameters.ok_or_else(|| missing("data.rtpParameters"))?;
        let mapping = data.object("rtpMapping");
        let mapping = mapping.ok_or_else(|| missing("data.rtpMapping"))?;
        Ok(Self {
            kind: media_kind(kind)?,
            rtp_parameters: rtp::parameters(parameters)?,
            rtp_mapping: rtp_mapping(mapping)?,
            paused: data.flag("paused").unwrap_or(false),
        })
    }
}

impl Read for CreateConsumer {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let kind = data.text("kind").ok_or_else(|| missing("data.kind"))?;
        media_kind(kind).map(|kind| Self { kind })
    }
}

impl Read for EnableConsumer {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let parameters = data.object("rtpParameters");
        let parameters = parameters.ok_or_else(|| missing("data.rtpParameters"))?;
        let rtp_parameters = rtp::parameters(parameters)?;
        Ok(Self { rtp_parameters })
    }
}

impl Read for SetPreferredProfile {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let name = data
            .text("profile")
            .ok_or_else(|| missing("data.profile"))?;
        match Profile::from_name(name) {
            None => refuse("unknown profile"),
            Some(Profile::None) => refuse("invalid profile"),
            Some(profile) => Ok(Self { profile }),
        }
    }
}

impl Read for EncodingPreferences {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let temporal_layer = data.uint("temporalLayer").map(|layer| layer as u8);
        Ok(Self { temporal_layer })
    }
}

impl Read for SetAudioLevelsEvent {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        match data.flag("enabled") {
            Some(enabled) => Ok(Self { enabled }),
            None => refuse("Request has invalid data.enabled"),
        }
    }
}

impl Read for SetMaxBitrate {
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let bitrate = data
            .uint("bitrate")
            .ok_or_else(|| missing("data.bitrate"))?;
        Ok(Self { bitrate })
    }
}

impl Read for DtlsParameters {
    /// Keeps the one fingerprint that counts: the last of a known algorithm.
    fn read(data: Members<'_>) -> Result<Self, Rejection> {
        let list = data.list("fingerprints");
        let list = list.ok_or_else(|| missing("data.fingerprints"))?;
        let mut known = None;
        for value in list.iter().rev() {
            let fingerprint = fingerprint(value)?;
            if fingerprint.is_known() {
                known = Some(fingerprint);
                break;
            }
        }
        let role = match data.text("role") {
            None | Some("auto") => DtlsRole::Auto,
            Some("client") => DtlsRole::Client,
            Some("server") => DtlsRole::Server,
            // The lack of a fingerprint is told first.
            Some(_) if known.is_none() => DtlsRole::Auto,
            Some(_) => return refuse("invalid remote role"),
        };
        Ok(Self {
            role,
            fingerprints: known.into_iter().collect(),
        })
    }
}

fn fingerprint(value: &Value) -> Result<Fingerprint, Rejection> {
    if !value.is_object() {
        return refuse("wrong fingerprint");
    }
    let members = Members::of(value);
    match (members.text("algorithm"), members.text("value")) {
        (Some(algorithm), Some(value)) => Ok(Fingerprint {
            algorithm: algorithm.into(),
            value: value.into(),
        }),
        _ => refuse("missing data.fingerprint.algorithm and/or data.fingerprint.value"),
    }
}

fn media_kind(name: &str) -> Result<MediaKind, Rejection> {
    match name.to_ascii_lowercase().as_str() {
        "audio" => Ok(MediaKind::Audio),
        "video" => Ok(MediaKind::Video),
        "" => refuse("invalid empty kind"),
        other => refuse(format!("invalid media kind [kind:{other}]")),
    }
}

/// A port that can be sent to.
fn port(data: Members<'_>, name: &str, full_name: &str) -> Result<u16, Rejection> {
    let number = data.uint(name).ok_or_else(|| missing(full_name))?;
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => refuse(format!("invalid destination port {number}")),
    }
}

fn rtp_mapping(data: Members<'_>) -> Result<RtpMapping, Rejection> {
    let list = |name: &str| {
        let list = data.list(name);
        list.ok_or_else(|| missing(&format!("rtpMapping.{name}")))
    };
    let codecs = list("codecPayloadTypes")?;
    let extensions = list("headerExtensionIds")?;
    Ok(RtpMapping {
        codec_payload_types: pairs(codecs, "wrong rtpMapping.codecPayloadTypes entry")?,
        header_extension_ids: pairs(extensions, "wrong rtpMapping entry")?,
    })
}

/// Pairs of numbers modulo 256.
fn pairs(list: &[Value], wrong: &str) -> Result<Vec<(u8, u8)>, Rejection> {
    let pair = |value: &Value| match value.as_array()?.as_slice() {
        [from, to] => Some((uint(from)? as u8, uint(to)? as u8)),
        _ => None,
    };
    let pairs: Option<Vec<_>> = list.iter().map(pair).collect();
    pairs.ok_or_else(|| Rejection::invalid(wrong))
}
