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
    fn read_text(&mut self) -> String {
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
    fn read(&mut self) -> Value {
        loop {
            let text = self.read_text();
            if text.starts_with('{') {
                return serde_json::from_str(&text).unwrap();
            }
        }
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
    let hello = json!({"id": 1, "method": "worker.hello", "data": {"protocol": 1}});
    for is_v2 in [true, false] {
        let mut worker = Process::start(&["test#1"]);
        if !is_v2 {
            worker.ask(&hello);
        }
        for garbage in ["null", "[]", "7", r#"{"method":"worker.dump"}"#] {
            worker.write(garbage);
            let logged = worker.read_text();
            match is_v2 {
                true => assert!(logged.starts_with("E[id:test#1] Channel::"), "{logged}"),
                false => assert!(logged.contains(r#""event":"log""#), "{logged}"),
            }
        }
        for garbage in ["", "{"] {
            worker.write(garbage);
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
                json!({"id": 1, "method": "worker.updateSettings",
                    "data": {"logLevel": "chicken"}}),
                "invalid value 'chicken' for logLevel",
            ),
            (
                json!({"id": 1, "method": "worker.hello", "data": {"protocol": 99}}),
                "this worker speaks protocol 1, not 99",
            ),
        ];
        for (request, reason) in rows {
            worker.write(&request.to_string());
            let answer = std::iter::repeat_with(|| worker.read());
            let answer = answer.into_iter().find(|answer| answer["id"] == 1).unwrap();
            let mut expected = json!({"id": 1, "reason": reason, "rejected": true});
            if !is_v2 {
                expected["code"] = answer["code"].clone();
                assert!(answer["code"].is_string());
            }
            assert_eq!(answer, expected);
        }
        let create = json!({"id": 5, "method": "worker.createRouter", "internal": {"routerId": 3}});
        assert_eq!(worker.ask(&create)["accepted"], true);
        assert_eq!(worker.ask(&create)["reason"], "Router already exists");
    }
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
fn bad_settings_are_told_as_v2s_worker_tells_them() {
    let rows = [
        (
            "--logLevel=chicken",
            "Settings::SetLogLevel",
            "invalid value 'chicken' for logLevel",
        ),
        (
            "--rtcMinPort=1",
            "Settings::SetRtcPorts",
            "rtcMinPort must be greater or equal than 1024",
        ),
        (
            "--logLevel",
            "Settings::SetConfiguration",
            "unknown configuration parameter: (null)",
        ),
        (
            "--rtcIPv4=192.0.2.1",
            "Settings::SetRtcIPv4",
            "cannot bind on '192.0.2.1' for rtcIPv4: Cannot assign requested address",
        ),
    ];
    for (argument, place, text) in rows {
        let mut worker = Process::start(&["w#1", argument]);
        let expected = format!("E[id:w#1] {place}() | throwing MediaSoupError | {text}");
        assert_eq!(worker.read_text(), expected);
        let expected = format!("E[id:w#1] main::main() | configuration error: {text}");
        assert_eq!(worker.read_text(), expected);
        assert_eq!(worker.wait().status.code(), Some(1), "{argument}");
    }
}

#[test]
fn started_by_hand_it_says_that_it_needs_a_controller() {
    let output = Command::new(WORKER).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("real father"), "{said}");
}
