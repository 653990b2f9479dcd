//! `broth chaos` as a process, against workers that are processes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn chaos(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broth"));
    command
        .arg("chaos")
        .args(args.split_whitespace())
        .env_remove("BROTH_WORKER")
        .env_remove("RUST_LOG");
    command
}

#[test]
fn rooms_outlive_three_kills_with_nothing_reused_and_nothing_left() {
    let args = "--rooms 2 --count 3 --every 0.5 --verify --json --rtc-ports 29000-29099";
    let ended = chaos(args).output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    let report: Value = serde_json::from_slice(&ended.stdout).expect(&errors);
    assert!(ended.status.success(), "{errors}{report:#}");
    assert_eq!(report["faults"], 3);
    assert_eq!(report["byFault"]["kill"]["recovered"], 6);
    assert_eq!(report["byRoom"]["1"]["recovered"], 3);
    let verified = &report["verified"];
    for count in [
        "indicesReused",
        "indicesUsedLongAfter",
        "unopened",
        "alerts",
    ] {
        assert_eq!(verified[count], 0, "{report:#}");
    }
    for around in ["aroundFaults", "aroundAll"] {
        let held = &verified[around];
        assert_eq!(held["before"], held["after"], "{report:#}");
    }
    // Two senders for three receivers, none of whom was left out.
    let count = |of: &str| report["packets"][of].as_u64().unwrap();
    assert!(count("received") > 2 * count("sent"), "{report:#}");
    assert_eq!(report["complaints"], json!([]));
}

#[test]
fn whoever_interrupts_gets_the_report_so_far() {
    let args = "--rooms 1 --count 1000 --json --rtc-ports 29100-29199";
    let mut command = chaos(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let flows = lines.find(|line| line.as_ref().unwrap().contains("everything flows"));
    assert!(flows.is_some(), "it ended first");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let ended = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert!(ended.status.success(), "{report:#}");
    assert_eq!(report["isInterrupted"], true);
    assert!(report["faults"].as_u64().unwrap() < 1000);
}

#[test]
fn what_cannot_begin_is_a_failure_in_clear_words() {
    // One port is not enough for three rooms.
    let ended = chaos("--rooms 3 --rtc-ports 29200-29200").output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{errors}");
    assert!(errors.contains("port"), "{errors}");
}
