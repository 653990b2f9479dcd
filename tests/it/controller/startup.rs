//! Servers that cannot start, and rooms that cannot be made: a clear error, and nothing is left.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use broth::{Error, RoomOptions, Server, ServerEvent, Settings, WorkerBin};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::support::{Client, codecs, ports, settings, soon, wait_for};

const WORKER: &str = env!("CARGO_BIN_EXE_broth-test-worker");

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_advice() {
    type Row<'a> = (&'a dyn Fn(&mut Settings), &'a str);
    let rows: [Row<'_>; 5] = [
        (
            &|s| s.listen = vec![std::net::IpAddr::from([192, 0, 2, 1]).into()],
            "cannot listen on 192.0.2.1",
        ),
        (
            &|s| s.worker_bin = WorkerBin::Path("/nonexistent/worker".into()),
            "worker executable /nonexistent/worker does not exist",
        ),
        (
            &|s| s.worker_bin = WorkerBin::Path("/tmp".into()),
            "worker executable /tmp does not exist",
        ),
        (&|s| s.num_workers = Some(0), "num_workers is 0"),
        (
            &|s| s.log_level = "chicken".into(),
            "invalid value 'chicken' for logLevel",
        ),
    ];
    for (change, expected) in rows {
        let mut settings = settings(80, 1);
        change(&mut settings);
        let error = Server::new(settings).await.unwrap_err();
        assert!(matches!(error, Error::Settings(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_worker_that_does_not_become_one_is_told_by_its_last_words() {
    let wrong_cpu = format!(
        "exec taskset -c \"$(nproc --all | awk '{{print \"0-\" $1 - 1}}')\" {WORKER} \"$@\""
    );
    let unexecutable = script("unexecutable", "");
    fs::set_permissions(&unexecutable, fs::Permissions::from_mode(0o644)).unwrap();
    let rows = [
        (PathBuf::from("/bin/true"), "exit status 0"),
        (
            script("complains", "echo no luck >&2; exit 7"),
            "exit status 7: no luck",
        ),
        (
            script("gives-up", "echo bad settings >&2; exit 2"),
            "exit status 2: bad settings",
        ),
        (
            script("babbles", "echo 5:hello, >&3; sleep 60"),
            "not ready",
        ),
        (script("wrong-cpu", &wrong_cpu), "pinned to"),
        (unexecutable, "cannot start"),
    ];
    for (worker, expected) in rows {
        let name = worker.display().to_string();
        let error = start_with(81, worker).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_worker_that_never_says_hello_is_given_five_seconds() {
    let silent = script("silent", "exec sleep 60");
    let error = start_with(82, silent).await.unwrap_err().to_string();
    assert!(error.contains("not ready in time"), "{error}");
}

#[tokio::test]
async fn when_all_workers_give_up_the_server_closes_itself() {
    let flag = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("has-bad-settings");
    let _ = fs::remove_file(&flag);
    let path = flag.display();
    let text = format!("if [ -e {path} ]; then echo spoilt >&2; exit 2; fi\nexec {WORKER} \"$@\"");
    let server = start_with(83, script("spoilt-later", &text)).await.unwrap();
    let room = server
        .room(&codecs(), RoomOptions::default())
        .await
        .unwrap();
    let mut events = server.events();
    fs::write(&flag, "").unwrap();
    for worker in server.workers() {
        kill(Pid::from_raw(worker.pid.cast_signed()), Signal::SIGKILL).unwrap();
    }
    let mut reasons = Vec::new();
    wait_for(&mut events, "the server's close", |event| match event {
        ServerEvent::WorkerDied {
            reason, gave_up, ..
        } => {
            reasons.push((reason.clone(), *gave_up));
            None
        }
        ServerEvent::Close => Some(()),
        ServerEvent::WorkerReady { .. }
        | ServerEvent::WorkerReplaced { .. }
        | ServerEvent::NewRoom(_) => None,
    })
    .await;
    reasons.sort();
    let killed = ("killed by SIGKILL".to_owned(), false);
    let spoilt = (
        "not ready: Channel closed (exit status 2: spoilt)".to_owned(),
        true,
    );
    assert_eq!(reasons, [killed.clone(), killed, spoilt.clone(), spoilt]);
    assert!(server.closed() && room.closed());
    let error = server.room(&codecs(), RoomOptions::default()).await;
    assert_eq!(error.unwrap_err().to_string(), "Server closed");
}

#[tokio::test]
async fn a_server_closes_at_once_while_a_worker_is_being_waited_for() {
    let flag = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("falls-silent");
    let _ = fs::remove_file(&flag);
    let started = flag.with_extension("started");
    let _ = fs::remove_file(&started);
    let text = format!(
        "if [ -e {} ]; then touch {}; exec sleep 60; fi\nexec {WORKER} \"$@\"",
        flag.display(),
        started.display()
    );
    let server = start_with(84, script("silent-later", &text)).await.unwrap();
    fs::write(&flag, "").unwrap();
    let pid = server.workers()[0].pid;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    let silent = async {
        while !started.exists() {
            tokio::task::yield_now().await;
        }
    };
    soon("the second start", silent).await;
    // Well below the five seconds a worker may take to become ready.
    let patience = std::time::Duration::from_secs(4);
    let closed = tokio::time::timeout(patience, server.close()).await;
    assert!(closed.is_ok(), "the close waits for the worker");
}

#[tokio::test]
async fn rooms_are_refused_when_no_port_is_left_and_made_when_one_is_free_again() {
    let first = *ports(85).start();
    let settings = Settings {
        rtc_ports: first..=first + 1,
        ..settings(85, 2)
    };
    let server = Server::new(settings).await.unwrap();
    let mut rooms = Vec::new();
    for _ in 0..2 {
        let room = server
            .room(&codecs(), RoomOptions::default())
            .await
            .unwrap();
        rooms.push(room);
    }
    let expected = "no more available ports for IP '127.0.0.1'";
    for _ in 0..3 {
        let error = server.room(&codecs(), RoomOptions::default()).await;
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
    // The others go on.
    let (alice, _) = Client::join(&rooms[0], json!({ "peerName": "alice" }));
    alice.create_transport(1, "send").await;
    let port = rooms[1].ports()[0].1;
    rooms[1].close(None);
    let again = async {
        loop {
            match server.room(&codecs(), RoomOptions::default()).await {
                Ok(room) => return room,
                Err(error) => assert_eq!(error.to_string(), expected),
            }
            tokio::task::yield_now().await;
        }
    };
    // The worker lets go of its copies when it has read that the room closed.
    let again = soon("a free port", again).await;
    assert_eq!(again.ports()[0].1, port);
    server.close().await;
    for port in first..=first + 1 {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    }
}

#[tokio::test]
async fn rooms_that_cannot_be_are_refused() {
    let server = Server::new(settings(86, 1)).await.unwrap();
    let error = server.room(&[], RoomOptions::default()).await.unwrap_err();
    assert_eq!(error, Error::Type("mediaCodecs cannot be empty".into()));
    let vp10 = [broth::RoomMediaCodec::video("VP10")];
    let error = server.room(&vp10, RoomOptions::default()).await;
    let expected = "RoomMediaCodec not supported [name:VP10]";
    assert_eq!(error.unwrap_err().to_string(), expected);
    let elsewhere = RoomOptions {
        worker_idx: Some(1),
    };
    let error = server.room(&codecs(), elsewhere).await.unwrap_err();
    assert_eq!(error.to_string(), "requested worker idx out of range");
    assert_eq!(server.workers()[0].rooms, 0);
    server.close().await;
    server.close().await;
    let error = server.room(&codecs(), RoomOptions::default()).await;
    assert_eq!(
        error.unwrap_err(),
        Error::InvalidState("Server closed".into())
    );
    assert_eq!(server.num_workers(), 0);
}

/// An executable script in a directory of its own.
pub(super) fn script(name: &str, text: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("worker");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn start_with(test: u16, worker: impl Into<PathBuf>) -> Result<Server, Error> {
    let settings = Settings {
        worker_bin: WorkerBin::Path(worker.into()),
        ..settings(test, 2)
    };
    soon("the outcome of the start", Server::new(settings)).await
}
