//! Worker processes: where they run, what they inherit, how they end, and who is told.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use broth::{RoomEvent, RoomOptions, Server, ServerEvent, WorkerSettings};
use broth_ipc::ALLOCATOR_ENV;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::media::{connect_receiver, connect_sender, receive, send_vp8};
use super::support::{Client, House, codecs, pending, ports, settings, soon, vp8, wait_for};

const WORKER: &str = env!("CARGO_BIN_EXE_broth-test-worker");

#[tokio::test]
async fn every_worker_runs_on_a_core_of_its_own() {
    let server = Server::new(settings(90, 2)).await.unwrap();
    let workers = server.workers();
    assert_eq!(workers.len(), 2);
    for worker in &workers {
        assert_eq!(allowed_cpus(worker.pid), worker.cpu.to_string());
    }
    assert_ne!(workers[0].pid, workers[1].pid);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(workers[0].cpu == workers[1].cpu, cores == 1);
    server.close().await;
}

#[tokio::test]
async fn a_worker_inherits_nothing_but_its_channel() {
    // As if the controller had been started with something open.
    let leaked = nix::fcntl::open("/dev/zero", OFlag::O_RDONLY, Mode::empty()).unwrap();
    let house = House::new(91).await;
    let pid = house.server.workers()[0].pid;
    let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let mut names: Vec<_> = environ.split_terminator('\0').collect();
    names.retain(|line| !line.starts_with("RUST_BACKTRACE="));
    // The C library cuts its variable up where it lies.
    let (name, value) = ALLOCATOR_ENV;
    let allocator = format!("{name}={value}");
    let (first, second) = allocator.split_once(':').unwrap();
    let expected = [
        "BROTH_CONTROLLER=1",
        "BROTH_RUN_WORKER=1",
        first,
        second,
        "MEDIASOUP_CHANNEL_FD=3",
    ];
    assert_eq!(names, expected);
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(arguments.starts_with("broth-worker\0"), "{arguments}");

    let open = descriptors(pid);
    let standard: Vec<_> = (0..=3).map(|number| open[&number].as_str()).collect();
    assert_eq!(standard, ["/dev/null", "pipe", "pipe", "socket"]);
    let mut rest: Vec<_> = open.range(4..).map(|(_, kind)| kind.as_str()).collect();
    // Its own epoll and timer descriptors, what tells its memory, and the room's two sockets.
    rest.retain(|kind| !kind.starts_with("anon_inode") && !kind.ends_with("/statm"));
    assert_eq!(rest, ["socket"; 2], "{open:?}");

    // What came with a room goes with it.
    let before = descriptors(pid);
    for _ in 0..5 {
        let room = house
            .server
            .room(&codecs(), RoomOptions::default())
            .await
            .unwrap();
        assert_eq!(descriptors(pid).len(), before.len() + 2);
        room.close(None);
        house.room.dump().await.unwrap();
        assert_eq!(descriptors(pid), before);
    }
    drop(leaked);
    house.server.close().await;
}

#[tokio::test]
async fn settings_reach_all_workers_and_their_load_is_known() {
    let house = House::new(92).await;
    let level = |level: &str| WorkerSettings {
        log_level: Some(level.into()),
        log_tags: None,
    };
    house.server.update_settings(level("warn")).await.unwrap();
    house
        .server
        .update_settings(WorkerSettings::default())
        .await
        .unwrap();
    let error = house.server.update_settings(level("chicken")).await;
    let expected = "invalid value 'chicken' for logLevel";
    assert_eq!(error.unwrap_err().to_string(), expected);
    let known = async {
        while house.server.workers()[0].load.routers != 1 {
            tokio::task::yield_now().await;
        }
    };
    soon("the load", known).await;
    let dump = house.server.dump().await.unwrap();
    assert_eq!((dump.len(), dump[0].routers.len()), (1, 1));
    assert_eq!(dump[0].routers[0].router_id.0, house.room.id());
    house.server.close().await;
    assert!(house.server.dump().await.is_err());
    assert!(house.server.update_settings(level("warn")).await.is_err());
}

#[tokio::test]
async fn a_killed_worker_is_replaced_on_its_core_and_the_others_notice_nothing() {
    let server = Server::new(settings(93, 2)).await.unwrap();
    let mut events = server.events();
    let on = |idx| RoomOptions {
        worker_idx: Some(idx),
    };
    let hit = server.room(&codecs(), on(0)).await.unwrap();
    let other = server.room(&codecs(), on(1)).await.unwrap();
    let (alice, _) = Client::join(&other, json!({ "peerName": "alice" }));
    let (bob, _) = Client::join(&other, json!({ "peerName": "bob" }));
    let other_sender = connect_sender(&alice, 1).await;
    let receiver = connect_receiver(&bob, 2).await;
    let other_source = alice.produce(3, 1, vp8(1000)).await;
    bob.consume(&other_source, 2).await;
    let mut room_events = hit.events();

    let pid = server.workers()[0].pid;
    signal(pid, Signal::SIGKILL);
    let reason = wait_for(
        &mut room_events,
        "the worker's death",
        |event| match event {
            RoomEvent::WorkerDied(reason) => Some(reason.clone()),
            _ => None,
        },
    );
    assert_eq!(reason.await, "killed by SIGKILL");
    let died = wait_for(&mut events, "the worker's death", |event| match event {
        ServerEvent::WorkerDied {
            idx,
            reason,
            gave_up,
        } => Some((*idx, reason.clone(), *gave_up)),
        _ => None,
    });
    assert_eq!(died.await, (0, "killed by SIGKILL".to_owned(), false));

    // The other worker has not noticed.
    assert!(!other.closed());
    send_vp8(&other_sender, 1000, 0, true);
    receive(receiver).await;

    let new = wait_for(&mut events, "another worker", |event| match event {
        ServerEvent::WorkerReady { idx: 0, pid: new } if *new != pid => Some(*new),
        _ => None,
    });
    let new = new.await;
    assert_eq!(server.num_workers(), 2);
    assert_eq!(allowed_cpus(new), server.workers()[0].cpu.to_string());
    wait_for(&mut room_events, "recovery", |event| {
        matches!(event, RoomEvent::Recovered(_)).then_some(())
    })
    .await;
    let room = server.room(&codecs(), on(0)).await.unwrap();
    let (victim, _) = Client::join(&room, json!({ "peerName": "victim" }));
    connect_sender(&victim, 1).await;
    server.close().await;
    assert!(!is_alive(new));
}

#[tokio::test]
async fn rooms_are_made_while_workers_die() {
    let server = Server::new(settings(94, 2)).await.unwrap();
    let mut events = server.events();
    for _ in 0..10 {
        let victim = server.workers()[0].pid;
        signal(victim, Signal::SIGKILL);
        // The dead worker is the least loaded one until its death is known.
        for _ in 0..3 {
            let room = server
                .room(&codecs(), RoomOptions::default())
                .await
                .unwrap();
            room.close(None);
        }
        wait_for(&mut events, "another worker", |event| {
            matches!(event, ServerEvent::WorkerReady { pid, .. } if *pid != victim).then_some(())
        })
        .await;
        let all = async {
            while server.num_workers() < 2 {
                tokio::task::yield_now().await;
            }
        };
        soon("both workers", all).await;
    }
    server.close().await;
}

#[tokio::test]
async fn a_ready_worker_takes_rooms_at_once() {
    let server = Server::new(settings(95, 1)).await.unwrap();
    let mut events = server.events();
    for _ in 0..10 {
        let pid = server.workers()[0].pid;
        signal(pid, Signal::SIGKILL);
        wait_for(&mut events, "another worker", |event| {
            matches!(event, ServerEvent::WorkerReady { pid: new, .. } if *new != pid).then_some(())
        })
        .await;
        let room = server
            .room(&codecs(), RoomOptions::default())
            .await
            .unwrap();
        room.close(None);
        pending(&mut events);
    }
    server.close().await;
}

#[tokio::test]
async fn a_worker_that_stands_still_is_ended_with_the_server() {
    let house = House::new(96).await;
    let alice = house.join("alice");
    let pid = house.server.workers()[0].pid;
    signal(pid, Signal::SIGSTOP);
    let waiting = alice.request("createTransport", json!({ "id": 1 }));
    let close = async {
        tokio::task::yield_now().await;
        soon("the close", house.server.close()).await;
    };
    let (answer, ()) = tokio::join!(waiting, close);
    assert!(answer.is_err());
    assert!(!is_alive(pid));
    assert!(alice.peer.closed());
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_by_somebody_else_is_replaced() {
    let server = Server::new(settings(97, 1)).await.unwrap();
    let mut events = server.events();
    let pid = server.workers()[0].pid;
    signal(pid, Signal::SIGTERM);
    let reason = wait_for(&mut events, "the worker's death", |event| match event {
        ServerEvent::WorkerDied { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.await, "exit status 0");
    wait_for(&mut events, "another worker", |event| {
        matches!(event, ServerEvent::WorkerReady { .. }).then_some(())
    })
    .await;
    server.close().await;
}

#[tokio::test]
async fn a_worker_ends_in_order_at_an_interrupt_and_passes_over_other_signals() {
    let house = House::new(129).await;
    let pid = house.server.workers()[0].pid;
    let ignored = [
        Signal::SIGPIPE,
        Signal::SIGHUP,
        Signal::SIGALRM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ];
    for ignored in ignored {
        signal(pid, ignored);
        assert_eq!(house.counts().await, [0, 0, 0], "{ignored}");
    }
    assert_eq!(house.server.workers()[0].pid, pid);
    let mut events = house.server.events();
    signal(pid, Signal::SIGINT);
    let reason = wait_for(&mut events, "the worker's death", |event| match event {
        ServerEvent::WorkerDied { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.await, "exit status 0");
    house.server.close().await;
}

#[tokio::test]
async fn workers_end_with_their_controller_however_it_ends() {
    for end in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut controller = Controller::start(98);
        let pids = controller.pids();
        assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)));
        signal(controller.process.id(), end);
        controller.process.wait().unwrap();
        for pid in pids {
            end_of(pid).await;
        }
    }
}

#[tokio::test]
async fn a_closed_server_leaves_no_process_and_no_descriptor() {
    let mut controller = Controller::start(99);
    let mut after = Vec::new();
    for _ in 0..2 {
        let pids = controller.pids();
        controller.go_on();
        after.push(controller.read());
        assert!(
            pids.iter()
                .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        );
    }
    assert_eq!(after[0]["children"], 0);
    assert_eq!(after[0], after[1]);
    assert!(controller.process.wait().unwrap().success());
}

/// The CPUs a process may run on.
fn allowed_cpus(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

/// What a process has open, by number.
fn descriptors(pid: u32) -> BTreeMap<u32, String> {
    let directory = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let described = directory.map(|entry| {
        let number = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let kind = target.display().to_string();
        // Inode numbers differ.
        (
            number,
            kind.split(":[").next().unwrap_or_default().to_owned(),
        )
    });
    described.collect()
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// Whether there is such a process that is more than a memory of one.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

async fn end_of(pid: u32) {
    let gone = async {
        while is_alive(pid) {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of a process", gone).await;
}

/// A controller in a process of its own.
struct Controller {
    process: std::process::Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Controller {
    fn start(test: u16) -> Self {
        let mut process = Command::new(WORKER)
            .env("BROTH_TEST_CONTROLLER", ports(test).start().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn go_on(&mut self) {
        self.process
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"\n")
            .unwrap();
    }

    fn pids(&mut self) -> Vec<u32> {
        serde_json::from_value(self.read()["pids"].clone()).unwrap()
    }
}
