//! An ffmpeg process: started, waited for and ended.

use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long ffmpeg may take after each signal. The first ends it in order, at its next packet; the
/// second breaks off what it reads and writes.
const PATIENCE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(2)];

/// A running ffmpeg; killed if dropped.
pub(super) struct Ffmpeg(Child);

impl Ffmpeg {
    /// Starts it with `input` as its standard input.
    pub(super) async fn start(args: &[OsString], input: Option<&str>) -> anyhow::Result<Self> {
        let stdin = if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let mut child = Command::new("ffmpeg")
            .args(args)
            .stdin(stdin)
            .stdout(Stdio::null())
            // Ctrl-C is for this process, which ends it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| missing("ffmpeg", error))?;
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            let written = stdin.write_all(text.as_bytes()).await;
            written.context("ffmpeg does not read")?;
        }
        Ok(Self(child))
    }

    /// Waits for its own end. May be given up and called again.
    pub(super) async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.0.wait().await.context("cannot wait for ffmpeg")
    }

    /// Ends it, by force if it must be.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        for patience in PATIENCE {
            // An id is there until the end has been waited for.
            let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()) else {
                return Ok(());
            };
            kill(Pid::from_raw(pid), Signal::SIGINT).context("cannot signal ffmpeg")?;
            if let Ok(ended) = timeout(patience, self.wait()).await {
                ended?;
                return Ok(());
            }
        }
        self.0.kill().await.context("cannot kill ffmpeg")?;
        anyhow::bail!("ffmpeg did not end when asked and was killed")
    }
}

/// Says what to do about a program that cannot be started.
pub(super) fn missing(program: &str, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        anyhow::anyhow!("{program} is not installed: on Debian, `apt install ffmpeg`")
    } else {
        anyhow::Error::new(error).context(format!("cannot start {program}"))
    }
}

/// Arguments from text.
pub(super) fn texts<'a>(args: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = OsString> {
    args.into_iter().map(OsString::from)
}
