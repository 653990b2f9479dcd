//! A worker process and the controller's end of its channel.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_broth-worker");

pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) channel: UnixStream,
}

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let (channel, theirs) = UnixStream::pair().unwrap();
        fcntl(theirs.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let child = Command::new(WORKER)
            .args(arguments)
            .env_clear()
            .env("MEDIASOUP_CHANNEL_FD", theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        channel
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Self { child, channel }
    }

    pub(crate) fn write(&mut self, payload: &str) {
        let frame = format!("{}:{payload},", payload.len());
        self.channel.write_all(frame.as_bytes()).unwrap();
    }

    /// The next netstring.
    pub(crate) fn read_text(&mut self) -> String {
        let mut byte = [0];
        let mut len = 0;
        loop {
            self.channel.read_exact(&mut byte).unwrap();
            match byte[0] {
                b':' => break,
                digit => len = len * 10 + usize::from(digit - b'0'),
            }
        }
        let mut payload = vec![0; len + 1];
        self.channel.read_exact(&mut payload).unwrap();
        assert_eq!(payload.pop(), Some(b','));
        String::from_utf8(payload).unwrap()
    }

    /// The next message, passing over log lines.
    pub(crate) fn read(&mut self) -> Value {
        loop {
            let text = self.read_text();
            if text.starts_with('{') {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.write(&request.to_string());
        self.read()
    }

    /// The answer to a request, and the log lines and notifications before it.
    pub(crate) fn ask_all(&mut self, request: &Value) -> (Vec<String>, Value) {
        self.write(&request.to_string());
        let mut before = Vec::new();
        loop {
            let text = self.read_text();
            let message: Value = serde_json::from_str(&text).unwrap_or_default();
            if message["id"] == request["id"] {
                return (before, message);
            }
            before.push(text);
        }
    }

    /// As [`ask_all`](Self::ask_all), for an answer that accepts.
    pub(crate) fn accepted(&mut self, request: &Value) -> Value {
        let (_, mut answer) = self.ask_all(request);
        assert_eq!(answer["accepted"], true, "{request}: {answer}");
        answer["data"].take()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn wait(self) -> Output {
        let Self { child, channel } = self;
        let deadline = Instant::now() + Duration::from_secs(10);
        let pid = Pid::from_raw(child.id().cast_signed());
        let guard = std::thread::spawn(move || {
            while Instant::now() < deadline {
                if kill(pid, None).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = kill(pid, Signal::SIGKILL);
        });
        let output = child.wait_with_output().unwrap();
        guard.join().unwrap();
        drop(channel);
        output
    }
}
