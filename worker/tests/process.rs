//! The worker as a process: start, pinning, channel, signals. Lives here and not in `tests/`
//! because only this package's tests are given the executable.

#![allow(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const WORKER: &str = env!("CARGO_BIN_EXE_broth-worker");

struct Process {
    child: Child,
    channel: UnixStream,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
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

    fn write(&mut self, payload: &str) {
        let frame = format!("{}:{payload},", payload.len());
        self.channel.write_all(frame.as_bytes()).unwrap();
    }

    /// The next netstring.
    fn read(&mut self) -> Value {
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
        serde_json::from_slice(&payload).unwrap()
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.write(&request.to_string());
        self.read()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn wait(self) -> Output {
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

#[test]
fn it_answers_a_v2_controller_and_says_on_which_cpus_it_runs() {
    let mut worker = Process::start(&["test#1", "--logLevel=warn", "--logTag=ice"]);
    let dump = worker.ask(&json!({"id": 1, "method": "worker.dump"}));
    assert_eq!(dump["id"], 1);
    assert_eq!(dump["data"], json!({"workerId": "test#1", "routers": []}));

    let first = (0..CpuSet::count())
        .find(|&cpu| {
            let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
            allowed.is_set(cpu).unwrap()
        })
        .unwrap();
    let mut pinned = CpuSet::new();
    pinned.set(first).unwrap();
    sched_setaffinity(worker.pid(), &pinned).unwrap();
    let hello = json!({"id": 2, "method": "worker.hello", "data": {"protocol": 1}});
    let ready = worker.ask(&hello);
    assert_eq!(ready["data"]["cpus"], json!([first]));
    assert_eq!(ready["data"]["pid"], worker.child.id());
}

#[test]
fn bad_requests_are_answered_or_logged_and_the_worker_goes_on() {
    let mut worker = Process::start(&["test#1"]);
    for garbage in ["", "null", "[]", "{", "7", r#"{"method":"worker.dump"}"#] {
        worker.write(garbage);
        let logged = worker.read();
        assert_eq!(logged["event"], "log", "{garbage}: {logged}");
    }
    let rows = [
        (json!({"id": 1, "method": "worker.fly"}), "unknown method"),
        (
            json!({"id": 1, "method": "router.dump"}),
            "Request has not numeric internal.routerId",
        ),
        (
            json!({"id": 1, "method": "router.dump", "internal": {"routerId": 3}}),
            "Router does not exist",
        ),
        (
            json!({"id": 1, "method": "worker.updateSettings", "data": {"logLevel": "chicken"}}),
            "invalid value 'chicken' for logLevel",
        ),
        (
            json!({"id": 1, "method": "worker.hello", "data": {"protocol": 99}}),
            "this worker speaks protocol 1, not 99",
        ),
    ];
    for (request, reason) in rows {
        let answer = worker.ask(&request);
        assert_eq!(answer["rejected"], true, "{answer}");
        assert_eq!(answer["reason"], reason);
        assert!(answer["code"].is_string());
    }
    let create = json!({"id": 5, "method": "worker.createRouter", "internal": {"routerId": 3}});
    assert_eq!(worker.ask(&create)["accepted"], true);
    assert_eq!(worker.ask(&create)["reason"], "Router already exists");
}

#[test]
fn a_closed_channel_ends_it_in_order() {
    let mut worker = Process::start(&["test#1"]);
    worker.ask(&json!({"id": 1, "method": "worker.dump"}));
    worker.channel.shutdown(std::net::Shutdown::Both).unwrap();
    let output = worker.wait();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Channel remotely closed"), "{said}");
}

#[test]
fn sigterm_ends_it_in_order() {
    let mut worker = Process::start(&["test#1"]);
    worker.ask(&json!({"id": 1, "method": "worker.dump"}));
    kill(worker.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(worker.wait().status.code(), Some(0));
}

#[test]
fn lost_framing_ends_it_with_an_error() {
    let mut worker = Process::start(&["test#1"]);
    worker.channel.write_all(b"3:{},oops").unwrap();
    let output = worker.wait();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("failure exit"), "{said}");
}

#[test]
fn bad_settings_have_their_own_status_and_say_what_is_wrong() {
    let rows = [
        ("--logLevel=chicken", "invalid value 'chicken' for logLevel"),
        (
            "--rtcMinPort=1",
            "unknown configuration parameter: rtcMinPort",
        ),
        ("--logLevel", "unknown configuration parameter"),
    ];
    for (argument, expected) in rows {
        let output = Process::start(&["test#1", argument]).wait();
        assert_eq!(output.status.code(), Some(2), "{argument}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn started_by_hand_it_says_that_it_needs_a_controller() {
    let output = Command::new(WORKER).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("real father"), "{said}");
}
