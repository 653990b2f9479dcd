//! From the start of a worker to its being ready.

use std::sync::Arc;
use std::time::Duration;

use broth_ipc::body::Ready;
use broth_ipc::{Call, Event, Ids, PROTOCOL, V2_PAYLOAD_BYTES_MAX};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Slot;
use super::life::{END_TIME, End, STOP_TIMEOUT, WORDS_TIME, end, epitaph};
use crate::error::{Error, Result};
use crate::lock;
use crate::memory::BlackBox;
use crate::supervisor::output::{self, LastWords};
use crate::supervisor::process::{ended, signal};
use crate::supervisor::spawn::{Spawner, WorkerSpec};
use crate::supervisor::worker::WorkerKind;
use crate::worker_channel::{ChannelEnd, Requests, WorkerChannel};

/// How long a worker may take from its start to being ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// How mediasoup v2's worker answers what it does not know.
const UNKNOWN_METHOD: &str = "unknown method";

/// A worker that is ready.
pub(in crate::supervisor) struct Started {
    pub(in crate::supervisor) kind: WorkerKind,
    pub(in crate::supervisor) recorder_version: u32,
    /// Of its package, as it says.
    pub(super) version: String,
    pub(super) spec: WorkerSpec,
    pub(super) channel: WorkerChannel,
    pub(super) body: Body,
}

/// The process of a worker, and what is left of it.
pub(super) struct Body {
    pub(super) child: Child,
    pub(super) channel_end: JoinHandle<ChannelEnd>,
    pub(super) black_box: BlackBox,
    pub(super) words: LastWords,
}

/// What a worker says of itself.
struct Greeting {
    kind: WorkerKind,
    recorder_version: u32,
    version: String,
}

impl Slot {
    /// Starts a worker and waits until it is ready.
    pub(in crate::supervisor) async fn start(
        &self,
        spawner: &Spawner,
        spec: WorkerSpec,
    ) -> Result<Started, End> {
        let bin = spec.bin.display();
        let failed =
            |what: &str, error: std::io::Error| End::unready(format!("{what} {bin}: {error}"));
        let black_box = BlackBox::create();
        let black_box = black_box.map_err(|error| failed("no black box for", error))?;
        let spawned = spawner.spawn(spec.clone()).await;
        let spawned = spawned.map_err(|error| failed("cannot start", error))?;
        let words = output::log(&self.id, spawned.stdout, spawned.stderr);
        let mut child = spawned.child;
        let (heard, said) = (Arc::clone(&self.rooms), words.clone());
        let started = WorkerChannel::start(spawned.channel, move |told| match &told.event {
            Event::Log { level, message } => said.note(&format!("{level}: {message}")),
            _ => heard.handle(told),
        });
        let (channel, mut channel_end) = match started {
            Ok(started) => started,
            Err(error) => {
                signal(&child, Signal::SIGKILL);
                ended(&mut child).await;
                return Err(failed("no channel to", error));
            }
        };
        let greeted = tokio::select! {
            greeted = self.greet(&channel, spec.cpu, &black_box) => greeted,
            _ = &mut channel_end => Err(format!("not ready: {}", Error::ChannelClosed)),
            () = self.stopped() => Err("stopped".into()),
        };
        match greeted {
            Ok(greeting) => Ok(Started {
                kind: greeting.kind,
                recorder_version: greeting.recorder_version,
                version: greeting.version,
                spec,
                channel,
                body: Body {
                    child,
                    channel_end,
                    black_box,
                    words,
                },
            }),
            Err(complaint) => {
                let status = end(&mut child, END_TIME).await;
                sleep(WORDS_TIME).await;
                Err(End {
                    code: status.code(),
                    ..End::unready(format!("{complaint} ({})", epitaph(status, &words)))
                })
            }
        }
    }

    /// Finds out what kind of worker the other end is: the original one does not know `hello`.
    /// One of ours must be pinned where it should be.
    ///
    /// Hands over its black box.
    async fn greet(
        &self,
        channel: &WorkerChannel,
        cpu: usize,
        black_box: &BlackBox,
    ) -> Result<Greeting, String> {
        let answer = match self.say_hello(channel, Some(black_box)).await? {
            Err(Error::Refused(refusal)) if refusal.reason == UNKNOWN_METHOD => {
                channel.limit_payloads(V2_PAYLOAD_BYTES_MAX);
                return match self.original_refusal {
                    Some(refusal) => Err(refusal.into()),
                    None => Ok(Greeting {
                        kind: WorkerKind::V2,
                        recorder_version: 0,
                        version: "mediasoup v2".into(),
                    }),
                };
            }
            answer => answer.map_err(|error| format!("not ready: {error}"))?,
        };
        let ready: Ready = crate::parsed(answer).map_err(|error| error.to_string())?;
        if ready.protocol != PROTOCOL {
            return Err(format!(
                "it speaks protocol {}, not {PROTOCOL}",
                ready.protocol
            ));
        }
        if ready.cpus != [cpu] {
            return Err(format!("pinned to {:?}, not {cpu}", ready.cpus));
        }
        if let Some(made) = ready.dtls {
            let is_first = *lock(&self.hello).dtls.get_or_insert_with(|| made.clone()) == made;
            if !is_first {
                // Another one was first meanwhile: with its certificate, then.
                let answer = self.say_hello(channel, None).await?;
                answer.map_err(|error| format!("not ready: {error}"))?;
            }
        }
        let restores = ready.restores;
        Ok(Greeting {
            kind: WorkerKind::Broth { restores },
            recorder_version: ready.recorder_version,
            version: ready.version,
        })
    }

    async fn say_hello(
        &self,
        channel: &WorkerChannel,
        black_box: Option<&BlackBox>,
    ) -> Result<Result<Value>, String> {
        let fd = black_box.map(BlackBox::try_clone_fd).transpose();
        let fd = fd.map_err(|error| format!("no black box: {error}"))?;
        let mut hello = lock(&self.hello).clone();
        hello.black_box = fd.is_some();
        let hello = channel.request(Ids::NONE, Call::Hello(hello), fd.into_iter().collect());
        let answer = timeout(READY_TIMEOUT, hello).await;
        answer.map_err(|_| "not ready in time".to_owned())
    }
}

impl Started {
    /// Ends one that has no rooms.
    pub(in crate::supervisor) async fn dismiss(mut self) {
        signal(&self.body.child, Signal::SIGTERM);
        end(&mut self.body.child, STOP_TIMEOUT).await;
    }
}
