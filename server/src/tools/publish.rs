//! `broth publish`: a file becomes a participant. Joins by the ordinary signalling, asks for a
//! plain RTP transport and lets ffmpeg send to it.

mod push;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::Client;
use super::ffmpeg::Ffmpeg;
use super::{SERVER, probe};
use crate::asked_to_stop;

use push::{Push, Sent};

/// Longest name of a participant.
const NAME_CHARS_MAX: usize = 64;

/// How long the server's word on why it takes no more media may follow behind.
const WORD_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// What to send: a file with VP8 and/or opus, or any with --transcode.
    file: PathBuf,
    /// The room to join.
    #[arg(long)]
    room: String,
    /// Who to join as [default: the file's name].
    #[arg(long)]
    name: Option<String>,
    /// The server.
    #[arg(long, default_value = SERVER)]
    server: String,
    /// Begins again whenever the file ends.
    #[arg(long = "loop")]
    is_looped: bool,
    /// Encodes to VP8, with a key frame every 2 s, and opus; takes about a core for 720p.
    #[arg(long)]
    transcode: bool,
}

/// Sends the file; returns when it has ended or Ctrl-C was pressed.
pub(crate) async fn run(args: Publish) -> anyhow::Result<()> {
    let mut stop = pin!(asked_to_stop()?);
    let source = probe::probe(&args.file).await?;
    let sent = push::choose(&source, args.transcode)?;
    let name = args.name.unwrap_or_else(|| {
        let stem = args.file.file_stem().unwrap_or_default();
        stem.to_string_lossy()
            .chars()
            .take(NAME_CHARS_MAX)
            .collect()
    });

    let query = [("room", args.room.as_str()), ("name", &name)];
    let mut client = Client::connect(&args.server, "/ws", &query).await?;
    let remote = open(&mut client, &name, &sent).await?;
    let push = Push {
        file: &args.file,
        is_looped: args.is_looped,
        is_transcoded: args.transcode,
        sent: &sent,
        remote,
    };
    let mut ffmpeg = Ffmpeg::start(&push.args(), None).await?;
    tracing::info!(room = args.room, name, %remote, "publishing {}", args.file.display());

    let end = tokio::select! {
        ended = ffmpeg.wait() => match ended? {
            status if status.success() => Ok("the file ended"),
            // A transport that closes fails ffmpeg, too: the server's word says more.
            status => match timeout(WORD_TIME, closed(&mut client)).await {
                Ok(lost) => Err(lost),
                Err(_) => bail!("ffmpeg failed ({status}): see above"),
            },
        },
        reason = &mut stop => Ok(reason),
        lost = closed(&mut client) => Err(lost),
    };
    ffmpeg.end().await?;
    let reason = end?;
    client.notify("peer", "leave").await?;
    client.close().await;
    tracing::info!(reason, "left");
    Ok(())
}

/// Joins and announces what will be sent; returns where to.
async fn open(client: &mut Client, name: &str, sent: &[Sent]) -> anyhow::Result<SocketAddr> {
    client.request("room", "queryRoom", json!({})).await?;
    // Nothing is received: no codecs.
    let join = json!({
        "peerName": name,
        "rtpCapabilities": { "codecs": [], "headerExtensions": [], "fecMechanisms": [] },
    });
    client.request("room", "join", join).await?;
    let id: u32 = rand::random();
    let transport = json!({
        "id": id, "direction": "send", "options": {}, "plainRtpParameters": {},
    });
    let answer = client.request("peer", "createTransport", transport).await?;
    for track in sent {
        let producer = track.producer(rand::random(), id);
        client.request("peer", "createProducer", producer).await?;
    }
    address(&answer).context("the server answers no address to send to")
}

fn address(answer: &Value) -> Option<SocketAddr> {
    let parameters = &answer["plainRtpParameters"];
    let ip: IpAddr = parameters["ip"].as_str()?.parse().ok()?;
    let port = u16::try_from(parameters["port"].as_u64()?).ok()?;
    Some(SocketAddr::new(ip, port))
}

/// Waits until nothing can be sent any more; says why.
async fn closed(client: &mut Client) -> anyhow::Error {
    loop {
        match client.notification().await {
            Ok(told)
                if told["method"] == "transportClosed" || told["method"] == "producerClosed" =>
            {
                return anyhow::anyhow!("the server takes no more media");
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}
