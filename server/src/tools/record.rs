//! `broth record`: what a participant sends becomes a file. The server streams it to this
//! machine's own address as plain RTP, ffmpeg writes it down.

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use broth::MediaKind;
use clap::Args;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::ffmpeg::{Ffmpeg, texts};
use super::ports::{self, PortPair};
use super::probe::file_argument;
use super::{SERVER, sdp};
use crate::asked_to_stop;
use crate::stream::Track;

/// How long ffmpeg may take to start.
const START_TIME: Duration = Duration::from_secs(10);

/// How long ffmpeg may take to finish the file.
const FINISH_TIME: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Record {
    /// The file to write: a new .mkv, or .webm for VP8, VP9 and opus.
    out: PathBuf,
    /// The room the participant is in.
    #[arg(long)]
    room: String,
    /// Who to record.
    #[arg(long)]
    peer: String,
    /// The server, on this machine.
    #[arg(long, default_value = SERVER)]
    server: String,
    /// Stops after so long.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
}

/// Records until the time is over, Ctrl-C is pressed or the participant sends no more.
pub(crate) async fn run(args: Record) -> anyhow::Result<()> {
    let mut stop = pin!(asked_to_stop()?);
    let out = args.out.display();
    check_name(&args.out)?;
    if args.out.exists() {
        bail!("{out} is there already");
    }
    let query = [("room", args.room.as_str()), ("peer", &args.peer)];
    let mut client = Client::connect(&args.server, "/ws/stream", &query).await?;
    let ip = client.local_ip()?;
    let tracks = open(&mut client, ip).await?;
    check_codecs(&args.out, &tracks)?;

    let sdp = sdp::describe(ip, &tracks);
    let mut ffmpeg = Ffmpeg::start(&write_args(ip, &args.out), Some(&sdp)).await?;
    let ports: Vec<_> = tracks.iter().map(|(port, _)| *port).collect();
    tokio::select! {
        bound = ports::bound(&ports, START_TIME) => bound.context("ffmpeg does not start")?,
        ended = ffmpeg.wait() => bail!("ffmpeg failed ({}): see above", ended?),
        _ = &mut stop => return ffmpeg.end().await,
    }
    client.request("stream", "start", json!({})).await?;
    let kinds: Vec<_> = tracks
        .iter()
        .map(|(_, track)| track.kind.as_str())
        .collect();
    tracing::info!(
        room = args.room,
        peer = args.peer,
        ?kinds,
        "recording {out}"
    );

    let reason = tokio::select! {
        ended = ffmpeg.wait() => bail!("ffmpeg failed ({}): see above", ended?),
        () = time_is_over(args.seconds) => "the time is over",
        reason = &mut stop => reason,
        reason = ended(&mut client, &tracks) => reason,
    };
    say_goodbye(ip, &tracks).context("cannot tell ffmpeg that nothing follows")?;
    match timeout(FINISH_TIME, ffmpeg.wait()).await {
        Ok(ended) => match ended? {
            status if status.success() => {}
            status => bail!("ffmpeg failed ({status}): see above"),
        },
        Err(_) => ffmpeg.end().await?,
    }
    client.close().await;
    if std::fs::metadata(&args.out).map_or(0, |file| file.len()) == 0 {
        bail!("nothing came from {:?}: {out} is empty", args.peer);
    }
    tracing::info!(reason, "recorded {out}");
    Ok(())
}

/// Asks for both kinds; returns what comes to which port.
async fn open(client: &mut Client, ip: IpAddr) -> anyhow::Result<Vec<(u16, Track)>> {
    let (audio, video) = (PortPair::reserve(ip)?, PortPair::reserve(ip)?);
    let ports = json!({ "audio": audio.port, "video": video.port });
    let mut answer = client.request("stream", "open", ports).await?;
    let tracks: Vec<Track> = serde_json::from_value(answer["tracks"].take())
        .context("the server's answer is not understood")?;
    let (audio, video) = (audio.release(), video.release());
    let with_port = tracks.into_iter().map(|track| match track.kind {
        MediaKind::Audio => (audio, track),
        MediaKind::Video => (video, track),
    });
    Ok(with_port.collect())
}

/// Tells ffmpeg at each port that nothing follows (RTCP BYE, RFC 3550 §6.6): it finishes the file
/// as at the end of any other. A signal alone it heeds at the next packet, which may never come;
/// a second one breaks off what it writes as well.
fn say_goodbye(ip: IpAddr, tracks: &[(u16, Track)]) -> std::io::Result<()> {
    let socket = UdpSocket::bind((ip, 0))?;
    for (port, track) in tracks {
        socket.send_to(&goodbye(track.ssrc), (ip, *port))?;
    }
    Ok(())
}

/// An empty receiver report and the BYE of a sender: compound RTCP packets begin with a report
/// (RFC 3550 §6.1).
fn goodbye(ssrc: u32) -> [u8; 16] {
    let [a, b, c, d] = ssrc.to_be_bytes();
    #[rustfmt::skip]
    let packet = [
        0x80, 201, 0, 1, a, b, c, d,
        0x81, 203, 0, 1, a, b, c, d,
    ];
    packet
}

async fn time_is_over(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

/// Waits until the participant sends none of the tracks any more.
async fn ended(client: &mut Client, tracks: &[(u16, Track)]) -> &'static str {
    let mut live: HashSet<_> = tracks
        .iter()
        .map(|(_, track)| track.kind.as_str())
        .collect();
    while !live.is_empty() {
        match client.notification().await {
            Ok(told) if told["method"] == "ended" => {
                live.remove(told["kind"].as_str().unwrap_or_default());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the stream is lost");
                return "the stream is lost";
            }
        }
    }
    "the participant sends no more"
}

fn extension(out: &Path) -> String {
    let extension = out.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}

fn check_name(out: &Path) -> anyhow::Result<()> {
    match extension(out).as_str() {
        "mkv" | "webm" => Ok(()),
        _ => bail!("{}: give a name that ends in .mkv or .webm", out.display()),
    }
}

fn check_codecs(out: &Path, tracks: &[(u16, Track)]) -> anyhow::Result<()> {
    let is_webm = |codec: &str| {
        let known = ["opus", "VP8", "VP9"];
        known.iter().any(|known| known.eq_ignore_ascii_case(codec))
    };
    let odd = tracks.iter().find(|(_, track)| !is_webm(&track.codec));
    match odd {
        Some((_, track)) if extension(out) == "webm" => {
            bail!(
                "WebM takes no {}: give a name that ends in .mkv",
                track.codec
            )
        }
        _ => Ok(()),
    }
}

/// The arguments of ffmpeg, which reads the description from its standard input.
fn write_args(ip: IpAddr, out: &Path) -> Vec<OsString> {
    let ip = ip.to_string();
    let mut args: Vec<_> = texts([
        "-hide_banner",
        "-nostdin",
        "-loglevel",
        "error",
        "-protocol_whitelist",
        "pipe,udp,rtp",
        // Packets from elsewhere do not reach this address.
        "-localaddr",
        &ip,
        // A key frame comes in one burst.
        "-buffer_size",
        "2097152",
        // The file begins with the first key frame, not when the frame rate is known for sure.
        "-fpsprobesize",
        "0",
        "-f",
        "sdp",
        "-i",
        "pipe:0",
        "-map",
        "0",
        "-c",
        "copy",
    ])
    .collect();
    args.push(file_argument(out));
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(codec: &str) -> Vec<(u16, Track)> {
        let track = Track {
            kind: MediaKind::Video,
            codec: codec.into(),
            payload_type: 101,
            clock_rate: 90_000,
            channels: None,
            ssrc: 1,
            parameters: Default::default(),
        };
        vec![(5004, track)]
    }

    #[test]
    fn files_must_be_able_to_hold_what_comes() {
        for (name, is_good) in [
            ("a.mkv", true),
            ("a.WEBM", true),
            ("a.mp4", false),
            ("mkv", false),
        ] {
            assert_eq!(check_name(Path::new(name)).is_ok(), is_good, "{name}");
        }
        let rows = [
            ("VP8", true),
            ("vp9", true),
            ("opus", true),
            ("H264", false),
        ];
        for (codec, is_webm) in rows {
            assert!(
                check_codecs(Path::new("a.mkv"), &video(codec)).is_ok(),
                "{codec}"
            );
            let webm = check_codecs(Path::new("a.webm"), &video(codec));
            assert_eq!(webm.is_ok(), is_webm, "{codec}");
        }
    }

    #[test]
    fn ffmpeg_listens_at_the_clients_address_only() {
        let args = write_args(IpAddr::from([127, 0, 0, 1]), Path::new("a b.mkv"));
        let args = args.join(" ".as_ref()).into_string().unwrap();
        assert_eq!(
            args,
            "-hide_banner -nostdin -loglevel error -protocol_whitelist pipe,udp,rtp \
             -localaddr 127.0.0.1 -buffer_size 2097152 -fpsprobesize 0 -f sdp -i pipe:0 -map 0 -c copy \
             file:a b.mkv"
        );
    }
}
