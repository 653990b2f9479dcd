//! The session description (RFC 8866) that tells a receiver of plain RTP what comes where.

use std::fmt::Write;
use std::net::IpAddr;

use serde_json::Value;

use crate::stream::Track;

/// Describes tracks, each with the port it is sent to at `ip`; RTCP comes by the same port.
pub(super) fn describe(ip: IpAddr, tracks: &[(u16, Track)]) -> String {
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    let mut sdp =
        format!("v=0\r\no=- 0 0 IN {family} {ip}\r\ns=broth\r\nc=IN {family} {ip}\r\nt=0 0\r\n");
    for (port, track) in tracks {
        add_media(&mut sdp, *port, track).expect("writing to a string cannot fail");
    }
    sdp
}

fn add_media(sdp: &mut String, port: u16, track: &Track) -> std::fmt::Result {
    let (kind, pt) = (track.kind, track.payload_type);
    write!(sdp, "m={kind} {port} RTP/AVP {pt}\r\n")?;
    write!(sdp, "a=rtpmap:{pt} {}/{}", track.codec, track.clock_rate)?;
    if let Some(channels) = track.channels.filter(|&channels| channels > 1) {
        write!(sdp, "/{channels}")?;
    }
    sdp.push_str("\r\n");
    if !track.parameters.is_empty() {
        let parameters = track.parameters.iter().map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        });
        let parameters: Vec<_> = parameters.collect();
        write!(sdp, "a=fmtp:{pt} {}\r\n", parameters.join(";"))?;
    }
    write!(sdp, "a=ssrc:{} cname:broth\r\n", track.ssrc)?;
    sdp.push_str("a=rtcp-mux\r\na=recvonly\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use broth::MediaKind;
    use serde_json::json;

    use super::*;

    fn track(kind: MediaKind, codec: &str, parameters: Value) -> Track {
        let is_audio = kind == MediaKind::Audio;
        Track {
            kind,
            codec: codec.into(),
            payload_type: if is_audio { 100 } else { 101 },
            clock_rate: if is_audio { 48_000 } else { 90_000 },
            channels: is_audio.then_some(2),
            ssrc: 7,
            parameters: parameters.as_object().cloned().unwrap_or_default(),
        }
    }

    #[test]
    fn both_kinds_are_described_at_their_ports() {
        let tracks = [
            (5004, track(MediaKind::Audio, "opus", json!({}))),
            (5006, track(MediaKind::Video, "VP8", json!({}))),
        ];
        let expected = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=broth\r\nc=IN IP4 127.0.0.1\r\n\
            t=0 0\r\n\
            m=audio 5004 RTP/AVP 100\r\na=rtpmap:100 opus/48000/2\r\na=ssrc:7 cname:broth\r\n\
            a=rtcp-mux\r\na=recvonly\r\n\
            m=video 5006 RTP/AVP 101\r\na=rtpmap:101 VP8/90000\r\na=ssrc:7 cname:broth\r\n\
            a=rtcp-mux\r\na=recvonly\r\n";
        assert_eq!(describe(IpAddr::from([127, 0, 0, 1]), &tracks), expected);
    }

    #[test]
    fn parameters_of_the_codec_are_told() {
        let parameters = json!({ "packetization-mode": 1, "profile-level-id": "42e01f" });
        let tracks = [(5004, track(MediaKind::Video, "H264", parameters))];
        let sdp = describe("::1".parse().unwrap(), &tracks);
        assert!(sdp.contains("c=IN IP6 ::1\r\n"), "{sdp}");
        let fmtp = "a=fmtp:101 packetization-mode=1;profile-level-id=42e01f\r\n";
        assert!(sdp.contains(fmtp), "{sdp}");
    }
}
