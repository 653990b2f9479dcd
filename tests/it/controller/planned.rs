//! Rooms go to other workers as planned: nothing that is sent is lost, and no client is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use broth::{
    EventStream, Rebalance, Recycle, RoomEvent, RoomOptions, Server, ServerEvent, Settings,
};
use broth_client::peer::Peer;
use broth_worker::wire::rtcp;
use broth_worker::wire::rtp::is_rtcp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::media::{connect_receiver, connect_sender, send_vp8};
use super::recovery::{received, recovered, standby};
use super::startup::script;
use super::support::{Client, House, codecs, pending, settings, vp8, wait_for};
use crate::support::receive_rtp;

const WORKER: &str = env!("CARGO_BIN_EXE_broth-test-worker");

/// Between two packets.
const PACE: Duration = Duration::from_millis(1);

/// A sender that sends and a receiver that receives until they are told to stop.
struct Flow {
    is_over: Arc<AtomicBool>,
    sending: JoinHandle<(Peer, u16)>,
    receiving: JoinHandle<Vec<(Instant, u16)>>,
}

impl Flow {
    fn start(sender: Peer, mut receiver: Peer) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (told, sent) = (Arc::clone(&is_over), Arc::new(AtomicU16::new(0)));
        let all = Arc::clone(&sent);
        let sending = std::thread::spawn(move || {
            let mut seq = 0;
            while !told.load(Ordering::Relaxed) {
                // The first are key frames, as a stream begins with a request for one.
                send_vp8(&sender, 1000, seq, seq < 20);
                seq += 1;
                std::thread::sleep(PACE);
            }
            all.store(seq + 1, Ordering::Relaxed);
            send_vp8(&sender, 1000, seq, false);
            (sender, seq + 1)
        });
        let receiving = std::thread::spawn(move || {
            let mut seen: Vec<(Instant, u16)> = Vec::new();
            while seen.len() != usize::from(sent.load(Ordering::Relaxed)) || seen.is_empty() {
                let (header, _) = receive_rtp(&mut receiver).expect("every packet comes");
                seen.push((Instant::now(), header.seq));
            }
            seen
        });
        Self {
            is_over,
            sending,
            receiving,
        }
    }

    /// Everything that was sent has come, in order; no key frame was asked for.
    async fn check(self) -> String {
        self.is_over.store(true, Ordering::Relaxed);
        let checking = move || {
            let (mut sender, sent) = self.sending.join().unwrap();
            let seen = self.receiving.join().unwrap();
            let first = seen[0].1;
            let expected = (0..sent).map(|n| first.wrapping_add(n));
            assert!(
                seen.iter().map(|(_, seq)| *seq).eq(expected),
                "{sent} sent, {} came",
                seen.len()
            );
            let pauses = seen.windows(2).map(|pair| pair[1].0 - pair[0].0);
            let summary = format!("{sent} packets, the longest pause {:?}", pauses.max());
            // A stream begins with one.
            let plis = plis(&mut sender);
            assert!(
                plis <= 1,
                "{plis} key frames were asked for, and nothing was lost"
            );
            summary
        };
        tokio::task::spawn_blocking(checking).await.unwrap()
    }
}

/// How often a sender has been asked for a key frame.
fn plis(sender: &mut Peer) -> usize {
    let mut buffer = [0; 2048];
    let mut plis = 0;
    while let Ok(len) = sender.socket.recv(&mut buffer) {
        let datagram = &mut buffer[..len];
        if is_rtcp(datagram) {
            let len = sender.srtp.inbound.unprotect_rtcp(datagram).unwrap();
            let is_pli = |packet: &rtcp::Packet<'_>| matches!(packet, rtcp::Packet::Pli { .. });
            plis += rtcp::packets(&datagram[..len])
                .flatten()
                .filter(is_pli)
                .count();
        }
    }
    plis
}

/// How often things are repeated.
fn rounds(default: usize) -> usize {
    let rounds = std::env::var("BROTH_MOVES").ok();
    rounds.map_or(default, |rounds| rounds.parse().unwrap())
}

pub(super) fn gaps(what: &str, mut gaps: Vec<Duration>) -> String {
    gaps.sort();
    if gaps.is_empty() {
        return format!("no {what}");
    }
    let at = |share: f64| gaps[((gaps.len() - 1) as f64 * share) as usize];
    format!(
        "{what}: {} gaps, p50 {:?}, p95 {:?}, max {:?}",
        gaps.len(),
        at(0.5),
        at(0.95),
        at(1.0)
    )
}

fn moved(events: &mut EventStream<RoomEvent>) -> Vec<Duration> {
    let gap = |event| match event {
        RoomEvent::Moved { gap, .. } => Some(gap),
        _ => None,
    };
    pending(events).into_iter().filter_map(gap).collect()
}

#[tokio::test]
async fn nothing_is_lost_over_moves_and_replacements() {
    let house = House::with(settings(160, 2)).await;
    let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    let consumer = bob.consume(&source, 2).await;
    let mut replaced = house.server.events();
    alice.told().await;
    bob.told().await;
    let rounds = rounds(12);
    let flow = Flow::start(sender, receiver);
    for round in 0..rounds {
        let idx = house.room.worker_idx();
        if round % 3 == 2 {
            let before = house.server.workers()[idx].pid;
            house.server.replace_worker(idx).await.unwrap();
            assert_ne!(house.server.workers()[idx].pid, before);
        } else {
            house.room.move_to(1 - idx).await.unwrap();
            assert_eq!(house.room.worker_idx(), 1 - idx);
        }
        tokio::time::sleep(PACE * 20).await;
    }
    println!("{}", flow.check().await);
    println!("{}", gaps("moves", moved(&mut house.room.events())));
    let mut told = alice.told().await;
    told.extend(bob.told().await);
    told.retain(|message| message["method"] != "consumerEffectiveProfileChanged");
    assert_eq!(told, [] as [Value; 0]);
    assert!(!consumer.closed() && !source.closed());
    assert_eq!(house.counts().await, [2, 1, 1]);
    let is_it = |event: &ServerEvent| matches!(event, ServerEvent::WorkerReplaced { .. });
    let died = |event: &ServerEvent| matches!(event, ServerEvent::WorkerDied { .. });
    let events = pending(&mut replaced);
    assert_eq!(
        events.iter().filter(|event| is_it(event)).count(),
        rounds / 3
    );
    assert!(!events.iter().any(died), "{events:?}");
    house.server.close().await;
}

#[tokio::test]
async fn a_client_that_connects_after_a_move_finds_who_it_was_told_of() {
    let house = House::with(settings(161, 2)).await;
    let alice = house.join("alice");
    let endpoint = broth_client::peer::Endpoint::new(broth_ipc::body::DtlsRole::Client).unwrap();
    let answer = alice.create_transport(1, "send").await;
    house
        .room
        .move_to(1 - house.room.worker_idx())
        .await
        .unwrap();
    let members = json!({ "id": 1, "dtlsParameters": endpoint.dtls_parameters() });
    alice.notify("updateTransport", members).await;
    let profile = broth_worker::srtp::Profile::AeadAes128Gcm;
    let connecting = move || endpoint.connect_to(&answer, 1, profile).map(drop);
    tokio::task::spawn_blocking(connecting)
        .await
        .unwrap()
        .unwrap();
    let dumps = house.server.dump().await.unwrap();
    let rooms: Vec<_> = dumps.iter().map(|dump| dump.routers.len()).collect();
    assert_eq!(rooms.iter().sum::<usize>(), 1, "{rooms:?}");
    assert_eq!(rooms[house.room.worker_idx()], 1);
    house.server.close().await;
}

/// The executable of a process.
fn executable(pid: u32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

/// The worker under another path.
fn other_worker(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    std::fs::copy(WORKER, &path).unwrap();
    path
}

#[tokio::test]
async fn an_upgrade_replaces_workers_and_standbys_under_the_media() {
    let with_standby = Settings {
        standby: true,
        ..settings(162, 2)
    };
    let house = House::with(with_standby).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    bob.consume(&source, 2).await;
    let old_standby = standby(&house).await;
    let flow = Flow::start(sender, receiver);
    let new = other_worker("upgraded-worker");
    house.server.upgrade(&new).await.unwrap();
    let workers = house.server.workers();
    assert_eq!(workers.len(), 2);
    for worker in &workers {
        assert_eq!(executable(worker.pid), new);
    }
    let fresh = async {
        loop {
            let pid = standby(&house).await;
            if pid != old_standby {
                return pid;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let fresh = super::support::soon("another standby", fresh).await;
    assert_eq!(executable(fresh), new);
    println!("{}", flow.check().await);
    let idx = house.room.worker_idx();
    kill(Pid::from_raw(workers[idx].pid as i32), Signal::SIGKILL).unwrap();
    recovered(&house.room).await;
    assert_eq!(executable(house.server.workers()[idx].pid), new);
    house.server.close().await;
}

/// A worker that says of itself what `ready` is, in the shell's words.
fn pretender(name: &str, ready: &str) -> PathBuf {
    let text = format!(
        r#"id=$(dd bs=1048576 count=1 <&3 2>/dev/null | sed 's/.*"id":\([0-9]*\).*/\1/')
cpu=$(taskset -cp $$ | sed 's/.*: //')
answer="{{\"id\":$id,\"accepted\":true,\"data\":{{\"version\":\"9\",\"pid\":$$,\"cpus\":[$cpu],{ready}}}}}"
printf '%d:%s,' ${{#answer}} "$answer" >&3
sleep 60"#
    );
    script(name, &text)
}

#[tokio::test]
async fn an_executable_that_cannot_go_on_is_refused_before_anything_is_touched() {
    let house = House::with(settings(163, 2)).await;
    let mut events = house.room.events();
    let before: Vec<_> = house
        .server
        .workers()
        .iter()
        .map(|worker| worker.pid)
        .collect();
    let own = |protocol: u32, restores, version| {
        format!(r#"\"protocol\":{protocol},\"restores\":{restores},\"recorderVersion\":{version}"#)
    };
    let protocol = broth_ipc::PROTOCOL;
    for (bin, expected) in [
        (PathBuf::from("/nonexistent"), "cannot start"),
        (PathBuf::from("/bin/true"), "not ready"),
        (
            pretender("stranger", &own(protocol + 1, true, 0)),
            "speaks protocol",
        ),
        (
            pretender("forgetful", &own(protocol, false, 0)),
            "cannot go on with rooms",
        ),
        (
            pretender("scribbler", &own(protocol, true, 999)),
            "flight recorders of version 999",
        ),
    ] {
        let error = house.server.upgrade(&bin).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{}: {error}", bin.display());
    }
    let error = house.server.replace_worker(2).await.unwrap_err();
    assert_eq!(error.to_string(), "requested worker idx out of range");
    let after: Vec<_> = house
        .server
        .workers()
        .iter()
        .map(|worker| worker.pid)
        .collect();
    assert_eq!(before, after);
    assert!(pending(&mut events).is_empty());
    // Workers to come are of the old kind, too.
    kill(Pid::from_raw(before[0] as i32), Signal::SIGKILL).unwrap();
    let mut events = house.server.events();
    let next = wait_for(&mut events, "another worker", |event| match event {
        ServerEvent::WorkerReady { idx: 0, pid } if !before.contains(pid) => Some(*pid),
        _ => None,
    });
    assert_eq!(
        executable(next.await),
        Path::new(WORKER).canonicalize().unwrap()
    );
    house.server.close().await;
    let error = house.server.upgrade(WORKER).await.unwrap_err();
    assert_eq!(error.to_string(), "Server closed");
}

#[tokio::test]
async fn workers_that_die_while_they_are_replaced_lose_no_room() {
    let house = House::with(settings(164, 1)).await;
    let server = house.server.clone();
    let mut rooms = vec![house.room.clone()];
    for _ in 0..6 {
        let room = server
            .room(&codecs(), RoomOptions::default())
            .await
            .unwrap();
        let (client, _) = Client::join(&room, json!({ "peerName": "alice" }));
        client.create_transport(1, "send").await;
        rooms.push(room);
    }
    for round in 0..8 {
        let (old, replaced) = (server.workers()[0].pid, server.clone());
        let mut events = server.events();
        let replacing = tokio::spawn(async move { replaced.replace_worker(0).await });
        let new = wait_for(&mut events, "another worker", |event| match event {
            ServerEvent::WorkerReady { pid, .. } if *pid != old => Some(*pid),
            _ => None,
        });
        let new = new.await;
        let victim = if round % 2 == 0 { old } else { new };
        // It may be gone already, as it was to be.
        let _ = kill(Pid::from_raw(victim as i32), Signal::SIGKILL);
        replacing.await.unwrap().unwrap();
        for room in &rooms {
            // Answered by whichever worker has it in the end.
            room.dump().await.unwrap();
            assert!(!room.closed());
        }
    }
    let dump = server.dump().await.unwrap();
    assert_eq!(dump[0].routers.len(), rooms.len());
    server.close().await;
}

#[tokio::test]
async fn old_workers_are_replaced_under_the_media_again_and_again() {
    let recycling = Settings {
        recycle: Recycle {
            age: Some(Duration::from_secs(1)),
            ..Recycle::default()
        },
        ..settings(167, 1)
    };
    let house = House::with(recycling).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    bob.consume(&source, 2).await;
    let mut events = house.server.events();
    let flow = Flow::start(sender, receiver);
    for _ in 0..2 {
        wait_for(&mut events, "a replacement", |event| match event {
            ServerEvent::WorkerReplaced { .. } => Some(()),
            ServerEvent::WorkerDied { reason, .. } => panic!("{reason}"),
            _ => None,
        })
        .await;
    }
    println!("{}", flow.check().await);
    house.server.close().await;
}

#[tokio::test]
async fn a_room_goes_from_a_worker_with_work_to_one_without() {
    let balanced = Settings {
        rebalance: Some(Rebalance {
            difference: 0.001,
            looks: 1,
        }),
        ..settings(168, 2)
    };
    let house = House::with(balanced).await;
    let idx = house.room.worker_idx();
    let beside = RoomOptions {
        worker_idx: Some(idx),
    };
    let other = house.server.room(&codecs(), beside).await.unwrap();
    let (carol, _) = Client::join(&other, json!({ "peerName": "carol" }));
    carol.create_transport(1, "send").await;
    for id in [3, 4, 5, 6] {
        carol.produce(id, 1, vp8(1000 * id)).await;
    }
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    bob.consume(&source, 2).await;
    let flow = Flow::start(sender, receiver);
    // The smaller of the two, by what is in it.
    let mut events = house.room.events();
    let moved = wait_for(&mut events, "the move", |event| match event {
        RoomEvent::Moved { worker_idx, .. } => Some(*worker_idx),
        _ => None,
    });
    assert_eq!(moved.await, 1 - idx);
    assert_eq!(other.worker_idx(), idx);
    println!("{}", flow.check().await);
    house.server.close().await;
}

/// `BROTH_ROOMS` says how many.
#[tokio::test]
async fn many_rooms_recover_side_by_side_and_move_one_after_the_other() {
    let count = std::env::var("BROTH_ROOMS").map_or(20, |count| count.parse().unwrap());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let roomy = Settings {
        rtc_ports: 27_000..=28_999,
        ..settings(165, 1)
    };
    let server = Server::new(roomy).await.unwrap();
    let mut houses = Vec::new();
    for _ in 0..count {
        let (server, room) = (
            server.clone(),
            server.room(&codecs(), RoomOptions::default()).await,
        );
        let house = House {
            server,
            room: room.unwrap(),
        };
        let clients = ["a", "b", "c", "d"].map(|name| house.join(name));
        let mut sources = Vec::new();
        for (client, id) in clients.iter().zip(1..) {
            client.create_transport(id * 10, "send").await;
            client.create_transport(id * 10 + 1, "recv").await;
            sources.push(client.produce(id, id * 10, vp8(1000 * id)).await);
        }
        for (client, id) in clients.iter().zip(1..) {
            let own = client.peer.name();
            for source in sources.iter().filter(|source| source.peer().name() != own) {
                client.consume(source, id * 10 + 1).await;
            }
        }
        houses.push(house);
    }
    let house = &houses[count / 2];
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let mut receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(9, 1, vp8(9000)).await;
    bob.consume(&source, 2).await;
    send_vp8(&sender, 9000, 0, true);
    receiver = received(receiver, 1).await.0;

    let mut events: Vec<_> = houses.iter().map(|house| house.room.events()).collect();
    let mut told = server.events();
    let killed = Instant::now();
    kill(
        Pid::from_raw(server.workers()[0].pid as i32),
        Signal::SIGKILL,
    )
    .unwrap();
    let mut recoveries = Vec::new();
    for events in &mut events {
        let gap = wait_for(events, "recovery", |event| match event {
            RoomEvent::Recovered(gap) => Some(*gap),
            RoomEvent::Close { reason, .. } => panic!("{reason:?}"),
            _ => None,
        });
        recoveries.push(gap.await);
    }
    println!("{count} rooms recovered within {:?}", killed.elapsed());
    println!("{}", gaps("recoveries", recoveries));
    send_vp8(&sender, 9000, 1, false);
    receiver = received(receiver, 1).await.0;
    let replaced = Instant::now();
    server.replace_worker(0).await.unwrap();
    println!("{count} rooms moved within {:?}", replaced.elapsed());
    let mut moves = Vec::new();
    for events in &mut events {
        let gap = wait_for(events, "the move", |event| match event {
            RoomEvent::Moved { gap, .. } => Some(*gap),
            _ => None,
        });
        moves.push(gap.await);
    }
    println!("{}", gaps("moves", moves));
    send_vp8(&sender, 9000, 2, false);
    received(receiver, 1).await;
    for house in &houses {
        let extra = usize::from(house.room == houses[count / 2].room);
        assert_eq!(
            house.counts().await,
            [8 + 2 * extra, 4 + extra, 12 + extra * 13]
        );
    }
    // None died over it but the one that was killed.
    let mut deaths = 0;
    wait_for(&mut told, "the replacement", |event| {
        deaths += usize::from(matches!(event, ServerEvent::WorkerDied { .. }));
        matches!(event, ServerEvent::WorkerReplaced { .. }).then_some(())
    })
    .await;
    assert_eq!(deaths, 1);
    server.close().await;
}
