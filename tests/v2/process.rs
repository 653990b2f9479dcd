//! A worker process, driven as mediasoup v2's controller drives it: no hello, no descriptors.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use broth_ipc::{CHANNEL_FD_ENV, Fill, Inbox, V2_PAYLOAD_BYTES_MAX, netstring};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};

use crate::script::Payload;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first id of requests that nobody wrote an id into.
const FIRST_ID: u32 = 10_000_000;

/// A worker and the controller's end of its channel.
pub struct V2Worker {
    channel: UnixStream,
    inbox: Inbox,
    child: Child,
    id_last: u32,
}

/// What a worker did with a payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Reaction {
    /// Notifications and answers in order, without log lines.
    pub messages: Vec<Value>,
    /// The worker did not survive it.
    pub is_dead: bool,
}

impl V2Worker {
    /// Starts a worker on the loopback interface with a range of ports.
    ///
    /// # Errors
    /// No socket pair, or the executable cannot be started.
    pub fn start(executable: impl AsRef<OsStr>, ports: (u16, u16)) -> io::Result<Self> {
        let (channel, theirs) = UnixStream::pair()?;
        // Only this end is inherited; the worker is told its number.
        fcntl(theirs.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
        let child = Command::new(executable)
            .arg("replay#1")
            .args(["--logLevel=none", "--rtcIPv4=127.0.0.1", "--rtcIPv6=false"])
            .arg(format!("--rtcMinPort={}", ports.0))
            .arg(format!("--rtcMaxPort={}", ports.1))
            .env_clear()
            .env(CHANNEL_FD_ENV, theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        channel.set_read_timeout(Some(Duration::from_millis(200)))?;
        channel.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            channel,
            inbox: Inbox::new(V2_PAYLOAD_BYTES_MAX),
            child,
            id_last: FIRST_ID,
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request under a fresh id, and collects what comes until a later request is
    /// answered. The answer has no id then, as it is as fresh in every run.
    ///
    /// # Errors
    /// The worker lives, but says nothing any more.
    pub fn ask(&mut self, request: &Value) -> io::Result<Reaction> {
        let mut request = request.clone();
        let id = self.fresh_id();
        request["id"] = id.into();
        let mut reaction = self.tell(request.to_string().as_bytes())?;
        for message in &mut reaction.messages {
            if message["id"] == id
                && let Some(members) = message.as_object_mut()
            {
                members.remove("id");
            }
        }
        Ok(reaction)
    }

    /// Sends payloads at once, and collects all that comes of them.
    ///
    /// # Errors
    /// The worker lives, but says nothing any more.
    pub fn tell_all<'p>(
        &mut self,
        payloads: impl IntoIterator<Item = &'p Payload>,
    ) -> io::Result<Reaction> {
        let mut bytes = Vec::new();
        for payload in payloads {
            match payload {
                Payload::Request(request) => {
                    let mut request = request.clone();
                    request["id"] = self.fresh_id().into();
                    netstring::encode(request.to_string().as_bytes(), &mut bytes);
                }
                Payload::Text(text) => netstring::encode(text.as_bytes(), &mut bytes),
            }
        }
        self.exchange(bytes)
    }

    /// Sends any payload, and collects what comes until a later request is answered.
    ///
    /// # Errors
    /// The worker lives, but says nothing any more.
    pub fn tell(&mut self, payload: &[u8]) -> io::Result<Reaction> {
        let mut bytes = Vec::new();
        netstring::encode(payload, &mut bytes);
        self.exchange(bytes)
    }

    /// Writes messages and one more, and reads until that is answered.
    fn exchange(&mut self, mut bytes: Vec<u8>) -> io::Result<Reaction> {
        let barrier = self.fresh_id();
        let later = json!({ "id": barrier, "method": "worker.updateSettings" });
        netstring::encode(later.to_string().as_bytes(), &mut bytes);
        // A worker that dies meanwhile is noticed on reading.
        let _ = self.channel.write_all(&bytes);
        self.read_until(|message| message["id"] == barrier)
    }

    /// Writes bytes as they are, framed or not.
    ///
    /// # Errors
    /// The worker closed its end, or does not read.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.channel.write_all(bytes)
    }

    /// A second way to write to the channel.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn writer(&self) -> io::Result<UnixStream> {
        self.channel.try_clone()
    }

    /// Lets the worker know that no more comes.
    ///
    /// # Errors
    /// The channel is closed already.
    pub fn hang_up(&self) -> io::Result<()> {
        self.channel.shutdown(Shutdown::Write)
    }

    /// Collects messages until one is `last`, which is not among them, or the worker is dead.
    ///
    /// # Errors
    /// Neither happens in time.
    pub fn read_until(&mut self, last: impl Fn(&Value) -> bool) -> io::Result<Reaction> {
        let deadline = Instant::now() + PATIENCE;
        let mut messages = Vec::new();
        while Instant::now() < deadline {
            while let Some(frame) = self.inbox.next_frame().map_err(io::Error::other)? {
                if frame.first() != Some(&b'{') {
                    continue;
                }
                let message: Value = serde_json::from_slice(&frame)?;
                if last(&message) {
                    let is_dead = false;
                    return Ok(Reaction { messages, is_dead });
                }
                messages.push(message);
            }
            match self.inbox.fill(self.channel.as_fd()) {
                Ok(Fill::Bytes | Fill::Blocked) => {}
                Ok(Fill::Eof) => {
                    let is_dead = true;
                    return Ok(Reaction { messages, is_dead });
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    let is_dead = true;
                    return Ok(Reaction { messages, is_dead });
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the worker is silent after {messages:?}"),
        ))
    }

    /// Waits for the worker's end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn fresh_id(&mut self) -> u32 {
        self.id_last += 1;
        self.id_last
    }
}

impl Drop for V2Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
