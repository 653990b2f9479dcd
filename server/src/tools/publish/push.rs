//! What is sent of a file, and how ffmpeg is told to. Pure but for the choice of SSRCs.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::bail;
use broth::MediaKind;
use serde_json::{Value, json};

use crate::tools::ffmpeg::texts;
use crate::tools::probe::{Source, SourceTrack, file_argument};

/// Largest packet, RTP header included: what fits every path, with room for SRTP.
const PACKET_BYTES: u16 = 1200;

/// A track on its way into a room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    kind: MediaKind,
    /// Place among the file's tracks.
    index: usize,
    ssrc: u32,
}

/// Chooses what to send.
pub(super) fn choose(source: &Source, is_transcoded: bool) -> anyhow::Result<Vec<Sent>> {
    let tracks = [
        (MediaKind::Audio, &source.audio),
        (MediaKind::Video, &source.video),
    ];
    let mut sent = Vec::new();
    for (kind, track) in tracks {
        let Some(track) = track else { continue };
        if !is_transcoded && !is_sendable(kind, track) {
            bail!("the file's {kind} is {}: add --transcode", name(track));
        }
        // ffmpeg reads an SSRC as a signed number.
        let ssrc = rand::random_range(1..=i32::MAX.cast_unsigned());
        sent.push(Sent {
            kind,
            index: track.index,
            ssrc,
        });
    }
    Ok(sent)
}

/// Whether rooms take it as it is.
fn is_sendable(kind: MediaKind, track: &SourceTrack) -> bool {
    match kind {
        MediaKind::Video => track.codec == "vp8",
        // RTP carries opus in one or two channels (RFC 7587).
        MediaKind::Audio => track.codec == "opus" && track.channels <= 2,
    }
}

fn name(track: &SourceTrack) -> String {
    match (track.codec.as_str(), track.channels) {
        ("", _) => "in an unknown format".into(),
        (codec, channels) if channels > 2 => format!("{codec} with {channels} channels"),
        (codec, _) => codec.into(),
    }
}

impl Sent {
    fn payload_type(&self) -> u8 {
        match self.kind {
            MediaKind::Audio => 111,
            MediaKind::Video => 96,
        }
    }

    /// The members of the request that announces it.
    pub(super) fn producer(&self, id: u32, transport: u32) -> Value {
        let (source, mut codec) = match self.kind {
            MediaKind::Audio => (
                "mic",
                json!({ "name": "opus", "mimeType": "audio/opus", "clockRate": 48_000,
                    "channels": 2 }),
            ),
            MediaKind::Video => (
                "camera",
                json!({ "name": "VP8", "mimeType": "video/VP8", "clockRate": 90_000 }),
            ),
        };
        codec["payloadType"] = self.payload_type().into();
        codec["rtcpFeedback"] = json!([]);
        codec["parameters"] = json!({});
        json!({
            "id": id,
            "kind": self.kind,
            "transportId": transport,
            "paused": false,
            "appData": { "source": source },
            "rtpParameters": {
                "codecs": [codec],
                "headerExtensions": [],
                "encodings": [{ "ssrc": self.ssrc }],
                "rtcp": { "cname": "broth-publish", "reducedSize": true, "mux": true },
            },
        })
    }

    fn codec_args(&self, is_transcoded: bool) -> &'static [&'static str] {
        match (is_transcoded, self.kind) {
            (false, _) => &["-c", "copy"],
            (true, MediaKind::Audio) => {
                &["-c:a", "libopus", "-ar", "48000", "-ac", "2", "-b:a", "96k"]
            }
            #[rustfmt::skip]
            (true, MediaKind::Video) => &[
                "-c:v", "libvpx", "-pix_fmt", "yuv420p", "-b:v", "1500k",
                "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0",
                "-auto-alt-ref", "0", "-error-resilient", "1",
                // Nobody can ask ffmpeg for a key frame.
                "-force_key_frames", "expr:gte(t,n_forced*2)",
            ],
        }
    }
}

/// How a file is sent.
pub(super) struct Push<'a> {
    pub(super) file: &'a Path,
    pub(super) is_looped: bool,
    pub(super) is_transcoded: bool,
    pub(super) sent: &'a [Sent],
    pub(super) remote: SocketAddr,
}

impl Push<'_> {
    /// The arguments of ffmpeg. One process sends all tracks, so that they keep in time.
    pub(super) fn args(&self) -> Vec<OsString> {
        let mut args: Vec<_> = texts(["-hide_banner", "-nostdin", "-loglevel", "error"]).collect();
        if self.is_looped {
            args.extend(texts(["-stream_loop", "-1"]));
        }
        args.extend(texts(["-re", "-i"]));
        args.push(file_argument(self.file));
        let (remote, port) = (self.remote, self.remote.port());
        // A connected socket tells ffmpeg that the transport's port is closed: it ends by itself
        // even if nobody is left to end it.
        let to = format!("rtp://{remote}?rtcpport={port}&connect=1&pkt_size={PACKET_BYTES}");
        for sent in self.sent {
            let map = format!("0:{}", sent.index);
            let (ssrc, pt) = (sent.ssrc.to_string(), sent.payload_type().to_string());
            args.extend(texts(["-map", &map]));
            args.extend(texts(sent.codec_args(self.is_transcoded).iter().copied()));
            args.extend(texts(["-f", "rtp", "-ssrc", &ssrc, "-payload_type", &pt]));
            args.extend(texts(["-cname", "broth-publish", &to]));
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::probe::track;

    const REMOTE: &str = "127.0.0.1:40000";

    fn sent() -> [Sent; 2] {
        let (audio, video) = (MediaKind::Audio, MediaKind::Video);
        let of = |kind, index, ssrc| Sent { kind, index, ssrc };
        [of(audio, 1, 7), of(video, 0, 8)]
    }

    fn args(is_looped: bool, is_transcoded: bool) -> String {
        let push = Push {
            file: Path::new("-a b.webm"),
            is_looped,
            is_transcoded,
            sent: &sent(),
            remote: REMOTE.parse().unwrap(),
        };
        push.args().join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn tracks_are_copied_with_the_announced_ids() {
        let to = "rtp://127.0.0.1:40000?rtcpport=40000&connect=1&pkt_size=1200";
        let expected = format!(
            "-hide_banner -nostdin -loglevel error -re -i file:-a b.webm \
             -map 0:1 -c copy -f rtp -ssrc 7 -payload_type 111 -cname broth-publish {to} \
             -map 0:0 -c copy -f rtp -ssrc 8 -payload_type 96 -cname broth-publish {to}"
        );
        assert_eq!(args(false, false), expected);
        let [audio, video] = sent().map(|sent| sent.producer(1, 2));
        for (producer, pt, ssrc) in [(audio, 111, 7), (video, 96, 8)] {
            let parameters = &producer["rtpParameters"];
            assert_eq!(parameters["codecs"][0]["payloadType"], pt);
            assert_eq!(parameters["encodings"], json!([{ "ssrc": ssrc }]));
        }
    }

    #[test]
    fn looping_and_encoding_are_told() {
        let args = args(true, true);
        let has = |part: &str| assert!(args.contains(part), "{part} in {args}");
        has(" -stream_loop -1 -re -i ");
        has("-map 0:1 -c:a libopus");
        has("-map 0:0 -c:v libvpx");
        has("-force_key_frames expr:gte(t,n_forced*2)");
        assert!(!args.contains("copy"), "{args}");
    }

    #[test]
    fn what_rooms_do_not_take_needs_encoding() {
        let rows = [
            (Some(track(1, "opus", 2)), Some(track(0, "vp8", 0)), None),
            (Some(track(1, "opus", 1)), None, None),
            (None, Some(track(0, "vp8", 0)), None),
            (Some(track(1, "aac", 2)), None, Some("audio is aac")),
            (
                Some(track(1, "opus", 6)),
                None,
                Some("audio is opus with 6 channels"),
            ),
            (None, Some(track(0, "h264", 0)), Some("video is h264")),
            (None, Some(track(0, "", 0)), Some("video is in an unknown")),
        ];
        for (audio, video, fault) in rows {
            let count = usize::from(audio.is_some()) + usize::from(video.is_some());
            let source = Source { audio, video };
            assert_eq!(choose(&source, true).unwrap().len(), count);
            match (choose(&source, false), fault) {
                (Ok(sent), None) => assert_eq!(sent.len(), count),
                (Err(error), Some(fault)) => {
                    let text = error.to_string();
                    assert!(
                        text.contains(fault) && text.contains("--transcode"),
                        "{text}"
                    );
                }
                (result, fault) => panic!("{result:?}, expected {fault:?}"),
            }
        }
    }
}
