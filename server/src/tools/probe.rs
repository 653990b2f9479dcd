//! What a file holds, by ffprobe.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::process::Command;

use super::ffmpeg::missing;

/// The tracks of a file that are sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) audio: Option<SourceTrack>,
    pub(super) video: Option<SourceTrack>,
}

/// A track as ffprobe tells.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct SourceTrack {
    /// Place among the file's tracks.
    pub(super) index: usize,
    #[serde(rename = "codec_name", default)]
    pub(super) codec: String,
    #[serde(rename = "codec_type", default)]
    kind: String,
    #[serde(default)]
    pub(super) channels: u32,
    #[serde(default)]
    disposition: Disposition,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Disposition {
    /// A cover, which is no film.
    #[serde(default)]
    attached_pic: u8,
}

/// A file as ffmpeg's programs take it, whatever is in its name.
pub(super) fn file_argument(file: &Path) -> OsString {
    let mut argument = OsString::from("file:");
    argument.push(file);
    argument
}

/// Asks ffprobe about a file.
pub(super) async fn probe(file: &Path) -> anyhow::Result<Source> {
    let shown = file.display();
    std::fs::metadata(file).with_context(|| format!("cannot read {shown}"))?;
    let entries = "stream=index,codec_type,codec_name,channels:stream_disposition=attached_pic";
    let probed = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json", "-show_entries", entries])
        .arg(file_argument(file))
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| missing("ffprobe", error))?;
    if !probed.status.success() {
        let text = String::from_utf8_lossy(&probed.stderr);
        bail!("{shown} is no media file: {}", text.trim());
    }
    let source = parse(&probed.stdout).context("ffprobe's answer is not understood")?;
    if source.audio.is_none() && source.video.is_none() {
        bail!("{shown} has neither sound nor picture");
    }
    Ok(source)
}

fn parse(json: &[u8]) -> serde_json::Result<Source> {
    #[derive(Deserialize)]
    struct Probed {
        #[serde(default)]
        streams: Vec<SourceTrack>,
    }
    let Probed { streams } = serde_json::from_slice(json)?;
    let first = |kind: &str| {
        let mut of_kind = streams
            .iter()
            .filter(|track| track.kind == kind && track.disposition.attached_pic == 0);
        of_kind.next().cloned()
    };
    Ok(Source {
        audio: first("audio"),
        video: first("video"),
    })
}

/// A track as ffprobe would tell.
#[cfg(test)]
pub(super) fn track(index: usize, codec: &str, channels: u32) -> SourceTrack {
    SourceTrack {
        index,
        codec: codec.into(),
        kind: String::new(),
        channels,
        disposition: Disposition::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_is_taken_and_covers_are_not() {
        let json = br#"{ "programs": [], "streams": [
            { "index": 0, "codec_name": "mjpeg", "codec_type": "video",
              "disposition": { "attached_pic": 1 } },
            { "index": 1, "codec_type": "data" },
            { "index": 2, "codec_name": "opus", "codec_type": "audio", "channels": 2 },
            { "index": 3, "codec_name": "aac", "codec_type": "audio", "channels": 6 },
            { "index": 4, "codec_name": "vp8", "codec_type": "video",
              "disposition": { "attached_pic": 0 } } ] }"#;
        let Source { audio, video } = parse(json).unwrap();
        let (audio, video) = (audio.unwrap(), video.unwrap());
        assert_eq!((audio.index, audio.channels), (2, 2));
        assert_eq!((video.index, video.codec.as_str()), (4, "vp8"));
        let nothing = Source {
            audio: None,
            video: None,
        };
        assert_eq!(parse(b"{}").unwrap(), nothing);
        assert!(parse(b"").is_err());
    }
}
