//! The worker as a process: start, pinning, channel, signals. Lives here and not in `tests/`
//! because only this package's tests are given the executable.

#![allow(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod crashes;
mod robustness;
mod settings;
mod support;
mod v2;

use std::io::Write;
use std::process::Command;

use broth_ipc::PROTOCOL;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::json;

use support::{Process, WORKER};

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
    let hello = json!({"id": 2, "method": "worker.hello", "data": {"protocol": PROTOCOL}});
    let ready = worker.ask(&hello);
    assert_eq!(ready["data"]["cpus"], json!([first]));
    assert_eq!(ready["data"]["pid"], worker.child.id());
}

#[test]
fn bad_requests_are_answered_or_logged_and_the_worker_goes_on() {
    let hello = json!({"id": 1, "method": "worker.hello", "data": {"protocol": PROTOCOL}});
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
        let other_protocol = format!("this worker speaks protocol {PROTOCOL}, not 99");
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
                &other_protocol,
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
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait().status.code(), Some(0));
}

/// `spec: channel.md` §1.4.
#[test]
fn other_signals_have_no_effect() {
    let mut worker = Process::start(&["test#1"]);
    worker.ask(&json!({"id": 1, "method": "worker.dump"}));
    let without_effect = [
        Signal::SIGHUP,
        Signal::SIGALRM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
    ];
    for signal in without_effect {
        worker.signal(signal);
        let dump = worker.ask(&json!({"id": 2, "method": "worker.dump"}));
        assert_eq!(dump["accepted"], true, "{signal}");
    }
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
fn started_by_hand_it_says_that_it_needs_a_controller() {
    let output = Command::new(WORKER).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("real father"), "{said}");
}
