//! Packets of death: who sends them is closed, and nobody else loses anything. Needs a worker that
//! dies over them: `cargo nextest run -p broth-tests --features poison black_box`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use broth::{EventStream, Room, RoomEvent, RoomOptions, Settings, Transport, TransportEvent};
use broth_client::peer::Peer;
use broth_worker::poison::POISON;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::media::{connect_receiver, connect_sender, send_vp8};
use super::planned::gaps;
use super::recovery::received;
use super::support::{Client, House, codecs, pending, settings, soon, vp8, wait_for};
use crate::support::receive_rtp;

/// The first place of a quarantine worker.
const QUARANTINE: usize = 10_000;

fn poison(attacker: &Peer, how: &str) -> Vec<u8> {
    let datagram = [POISON, how.as_bytes()].concat();
    attacker.socket.send(&datagram).unwrap();
    datagram
}

/// Waits until the room is told of an implication; returns of what, and of how many deaths.
async fn implicated(events: &mut EventStream<RoomEvent>) -> (Option<Transport>, u32) {
    let wanted = |event: &RoomEvent| match event {
        RoomEvent::Implicated { transport, deaths } => Some((transport.clone(), *deaths)),
        RoomEvent::Close { reason, .. } => panic!("{reason:?}"),
        _ => None,
    };
    wait_for(events, "an implication", wanted).await
}

async fn recovered(events: &mut EventStream<RoomEvent>) {
    let wanted = |event: &RoomEvent| match event {
        RoomEvent::Recovered(_) => Some(()),
        RoomEvent::Close { reason, .. } => panic!("{reason:?}"),
        _ => None,
    };
    wait_for(events, "recovery", wanted).await;
}

fn deaths(events: &mut EventStream<RoomEvent>) -> usize {
    let events = pending(events);
    let died = |event: &&RoomEvent| matches!(event, RoomEvent::WorkerDied(_));
    events.iter().filter(died).count()
}

/// A directory for the crash reports of one scenario.
struct Crashes(PathBuf);

impl Crashes {
    fn new(name: &str) -> Self {
        let name = format!("broth-crashes-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// Waits for that many reports; the oldest is the first.
    async fn reports(&self, count: usize) -> Vec<PathBuf> {
        let written = async {
            loop {
                let mut reports: Vec<_> = fs::read_dir(&self.0)
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .filter(|path| path.file_name().is_some_and(|name| !is_unfinished(name)))
                    .collect();
                reports.sort();
                if reports.len() >= count {
                    return reports;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("crash reports", written).await
    }
}

impl Drop for Crashes {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn is_unfinished(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path.join("report.json")).unwrap()).unwrap()
}

/// Alice sends and bob receives; checks that nothing is lost from one time to the next.
struct Call {
    sender: Peer,
    receiver: Option<Peer>,
    seq: u16,
    last: Option<u16>,
}

impl Call {
    async fn new(house: &House) -> Self {
        let (alice, bob) = (house.join("alice"), house.join("bob"));
        let sender = connect_sender(&alice, 1).await;
        let receiver = connect_receiver(&bob, 2).await;
        let source = alice.produce(3, 1, vp8(1000)).await;
        bob.consume(&source, 2).await;
        Self {
            sender,
            receiver: Some(receiver),
            seq: 0,
            last: None,
        }
    }

    fn send(&mut self) {
        for _ in 0..10 {
            send_vp8(&self.sender, 1000, self.seq, self.seq == 0);
            self.seq += 1;
        }
    }

    async fn receive(&mut self) {
        let (peer, seqs) = received(self.receiver.take().unwrap(), 10).await;
        self.receiver = Some(peer);
        for seq in seqs {
            if let Some(last) = self.last.replace(seq) {
                assert_eq!(seq, last.wrapping_add(1));
            }
        }
    }
}

async fn room(house: &House, worker_idx: usize) -> Room {
    let options = RoomOptions {
        worker_idx: Some(worker_idx),
    };
    house.server.room(&codecs(), options).await.unwrap()
}

/// Two workers, with a room for the attack on the first.
async fn house(test: u16, crashes: &Crashes) -> House {
    let house = House::with(Settings {
        crash_dir: Some(crashes.0.clone()),
        ..settings(test, 2)
    });
    let mut house = house.await;
    house.room.close(None);
    house.room = room(&house, 0).await;
    house
}

/// One kind of death: what its report says.
struct Death {
    how: &'static str,
    signal: Option<&'static str>,
    exit_status: Option<i32>,
    last_words: &'static str,
    stood_still: bool,
}

async fn attack(test: u16, death: Death) {
    let crashes = Crashes::new(death.how);
    let house = house(test, &crashes).await;
    let (neighbour, far) = (room(&house, 0).await, room(&house, 1).await);
    let mut call = Call::new(&house).await;
    let mallory = house.join("mallory");
    let attacker = connect_sender(&mallory, 7).await;
    let transport = mallory.peer.get_transport_by_id(7).unwrap();
    let mut events = house.room.events();
    let [mut near_events, mut far_events] = [neighbour.events(), far.events()];
    let mut told = transport.events();
    call.send();
    call.receive().await;

    // The first time may be an accident: the room goes on by itself.
    let datagram = poison(&attacker, death.how);
    let suspect = implicated(&mut events).await;
    assert_eq!(suspect, (Some(transport.clone()), 1));
    call.send();
    recovered(&mut events).await;
    call.receive().await;
    recovered(&mut near_events).await;
    assert_eq!(
        (house.room.worker_idx(), neighbour.worker_idx()),
        (QUARANTINE, 0)
    );
    assert!(!transport.closed());
    let pids = || {
        house
            .server
            .workers()
            .iter()
            .map(|w| (w.idx, w.pid))
            .collect::<Vec<_>>()
    };
    let before = pids();
    assert_eq!(before.len(), 3);

    // The second time it is closed, and nobody but its room loses a worker.
    poison(&attacker, death.how);
    let suspect = implicated(&mut events).await;
    assert_eq!(suspect, (Some(transport.clone()), 2));
    call.send();
    recovered(&mut events).await;
    call.receive().await;
    let mut ends = Vec::new();
    wait_for(&mut told, "the end of the transport", |event| {
        match event {
            TransportEvent::Implicated { deaths } => ends.push(*deaths),
            TransportEvent::Close { .. } => return Some(()),
            _ => {}
        }
        None
    })
    .await;
    assert_eq!(ends, [1, 2]);
    assert!(!mallory.peer.closed() && house.room.peers().len() == 3);
    assert_eq!((deaths(&mut near_events), deaths(&mut far_events)), (0, 0));
    assert_eq!(pids()[..2], before[..2]);

    // Nobody listens to it any more.
    poison(&attacker, death.how);
    call.send();
    call.receive().await;
    assert_eq!(deaths(&mut events), 0);

    let reports = crashes.reports(2).await;
    for (path, consequence) in reports.iter().zip(["room isolated", "transport closed"]) {
        assert_eq!(fs::read(path.join("datagram.bin")).unwrap(), datagram);
        let report = report(path);
        let end = &report["end"];
        assert_eq!(end["signal"].as_str(), death.signal);
        assert_eq!(
            end["exitStatus"].as_i64(),
            death.exit_status.map(Into::into)
        );
        assert_eq!(end["stoodStill"], death.stood_still);
        let in_hand = &report["inHand"];
        assert_eq!(in_hand["work"], "datagram");
        assert_eq!(in_hand["room"], house.room.id());
        assert_eq!(
            (&in_hand["transport"], &in_hand["peer"]),
            (&7.into(), &"mallory".into())
        );
        let remote = attacker.socket.local_addr().unwrap().to_string();
        assert_eq!(in_hand["remote"], remote);
        assert_eq!(in_hand["bytes"], datagram.len());
        assert_eq!(report["consequence"], consequence);
        assert!(report["lastLines"].to_string().contains(death.last_words));
        let frames = report["backtrace"].as_array().unwrap();
        assert!(
            frames
                .iter()
                .any(|frame| frame.as_str().unwrap().contains("(+0x"))
        );
    }

    // Its worker ends with the room.
    house.room.close(None);
    let left = async {
        while house.server.workers().len() > 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end of the quarantine", left).await;
    house.server.close().await;
}

#[tokio::test]
async fn who_makes_workers_abort_is_closed() {
    let death = Death {
        how: "abort",
        signal: Some("SIGABRT"),
        exit_status: None,
        last_words: "aborted (SIGABRT)",
        stood_still: false,
    };
    attack(160, death).await;
}

#[tokio::test]
async fn who_makes_workers_panic_is_closed() {
    let death = Death {
        how: "panic",
        signal: None,
        exit_status: Some(101),
        last_words: "poisoned",
        stood_still: false,
    };
    attack(161, death).await;
}

#[tokio::test]
async fn who_makes_workers_overflow_their_stack_is_closed() {
    let death = Death {
        how: "overflow",
        signal: Some("SIGSEGV"),
        exit_status: None,
        last_words: "crashed (SIGSEGV at 0x",
        stood_still: false,
    };
    attack(162, death).await;
}

#[tokio::test]
async fn who_makes_workers_spin_is_closed() {
    let death = Death {
        how: "spin",
        signal: Some("SIGABRT"),
        exit_status: None,
        last_words: "aborted (SIGABRT)",
        stood_still: true,
    };
    attack(163, death).await;
}

/// A room on the first worker, and somebody in it who makes that worker abort. One who
/// `flees` closes the transport before its answer can be known.
async fn attacked_room(house: &House, flees: bool) -> (Room, Client) {
    let attacked = room(house, 0).await;
    let mut events = attacked.events();
    let members = serde_json::json!({ "peerName": "mallory" });
    let (mallory, _) = Client::join(&attacked, members);
    let attacker = connect_sender(&mallory, 7).await;
    poison(&attacker, "abort");
    if flees {
        mallory.web_rtc(7).close(None);
    }
    implicated(&mut events).await;
    recovered(&mut events).await;
    (attacked, mallory)
}

#[tokio::test]
async fn attacks_on_many_rooms_do_not_use_up_the_restarts_of_others() {
    let crashes = Crashes::new("many");
    let house = house(164, &crashes).await;
    let mut events = house.room.events();
    // More than a worker may die young in a row.
    for _ in 0..12 {
        let (attacked, _mallory) = attacked_room(&house, false).await;
        assert!(attacked.worker_idx() >= QUARANTINE);
        attacked.close(None);
        recovered(&mut events).await;
    }
    assert_eq!(house.room.worker_idx(), 0);
    assert_eq!(house.counts().await, [0, 0, 0]);
    house.server.close().await;
}

#[tokio::test]
async fn with_the_quarantine_full_who_attacks_is_closed_at_once() {
    let crashes = Crashes::new("full");
    let house = house(167, &crashes).await;
    let mut events = house.room.events();
    let mut isolated = Vec::new();
    for _ in 0..8 {
        let (attacked, mallory) = attacked_room(&house, false).await;
        recovered(&mut events).await;
        assert!(attacked.worker_idx() >= QUARANTINE && mallory.peer.transports().len() == 1);
        isolated.push(attacked);
    }
    // These stay where they are, and count as little.
    for flees in [false, true].repeat(6) {
        let (attacked, mallory) = attacked_room(&house, flees).await;
        recovered(&mut events).await;
        assert_eq!(attacked.worker_idx(), 0);
        assert_eq!(mallory.peer.transports(), []);
        attacked.close(None);
    }
    assert_eq!(house.room.worker_idx(), 0);
    assert!(isolated.iter().all(|room| !room.closed()));
    house.server.close().await;
}

/// Media that is sent and received until it is told to stop, and when it came.
struct Media {
    is_over: Arc<AtomicBool>,
    threads: [JoinHandle<()>; 2],
    came: Arc<Mutex<Vec<Instant>>>,
}

impl Media {
    fn start(sender: Peer, mut receiver: Peer) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let came = Arc::new(Mutex::new(Vec::new()));
        let (told, has_come) = (Arc::clone(&is_over), Arc::clone(&came));
        let sending = std::thread::spawn(move || {
            for seq in (0..u16::MAX).cycle() {
                // One more, which the receiver waits for.
                let is_last = told.load(Ordering::Relaxed);
                send_vp8(&sender, 1000, seq, seq < 20);
                if is_last {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let told = Arc::clone(&is_over);
        let receiving = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                receive_rtp(&mut receiver).expect("media goes on");
                has_come.lock().unwrap().push(Instant::now());
            }
        });
        Self {
            is_over,
            threads: [sending, receiving],
            came,
        }
    }

    /// The longest time without a packet that ended in a while.
    fn gap(&self, from: Instant, to: Instant) -> Duration {
        let came = self.came.lock().unwrap();
        let pairs = came.windows(2).filter(|pair| (from..to).contains(&pair[1]));
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// `BROTH_ATTACKS` says how many attackers there are. The first one is forgiven once; those who
/// come when the room is in quarantine are not.
#[tokio::test(flavor = "multi_thread")]
async fn the_others_in_the_room_notice_a_gap() {
    let crashes = Crashes::new("gap");
    let house = house(168, &crashes).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    bob.consume(&source, 2).await;
    let media = Media::start(sender, receiver);
    let mut events = house.room.events();
    let attackers = std::env::var("BROTH_ATTACKS").map_or(2, |count| count.parse().unwrap());
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for attacker in 0..attackers {
        let mallory = house.join(&format!("mallory {attacker}"));
        let attacker = connect_sender(&mallory, 10 + attacker).await;
        while !mallory.peer.transports().is_empty() {
            let window = Duration::from_millis(500);
            tokio::time::sleep(window).await;
            let at = Instant::now();
            without.push(media.gap(at - window, at));
            poison(&attacker, "abort");
            recovered(&mut events).await;
            tokio::time::sleep(window).await;
            with.push(media.gap(at, Instant::now()));
        }
    }
    media.end();
    assert_eq!(with.len(), attackers as usize + 1);
    println!("{}\n{}", gaps("deaths", with), gaps("without", without));
    assert!(!source.closed() && house.room.peers().len() == 2 + attackers as usize);
    house.server.close().await;
}

#[tokio::test]
async fn a_room_that_behaves_leaves_the_quarantine() {
    let house = House::with(Settings {
        quarantine: Duration::from_secs(2),
        ..settings(165, 2)
    });
    let house = house.await;
    let mut call = Call::new(&house).await;
    let mallory = house.join("mallory");
    let attacker = connect_sender(&mallory, 7).await;
    let mut events = house.room.events();
    poison(&attacker, "abort");
    recovered(&mut events).await;
    assert_eq!(house.room.worker_idx(), QUARANTINE);
    call.send();
    call.receive().await;
    wait_for(&mut events, "the way back", |event| {
        matches!(event, RoomEvent::Moved { worker_idx, .. } if *worker_idx < 2).then_some(())
    })
    .await;
    call.send();
    call.receive().await;
    let left = async {
        while house.server.workers().len() > 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end of the quarantine", left).await;
    house.server.close().await;
}

#[tokio::test]
async fn deaths_from_outside_and_on_purpose_implicate_nobody() {
    let crashes = Crashes::new("outside");
    let house = house(166, &crashes).await;
    let mut events = house.room.events();
    let faults = [broth::chaos::Fault::Abort, broth::chaos::Fault::Stop];
    for fault in faults {
        house.server.inject(0, fault).await.unwrap();
        recovered(&mut events).await;
    }
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSTOP] {
        let pid = house.server.workers()[0].pid;
        kill(Pid::from_raw(pid as i32), signal).unwrap();
        recovered(&mut events).await;
    }
    assert_eq!(house.room.worker_idx(), 0);
    let reports = crashes.reports(3).await;
    let ends: Vec<_> = reports
        .iter()
        .map(|path| report(path)["end"].clone())
        .collect();
    let signals: Vec<_> = ends.iter().map(|end| end["signal"].as_str()).collect();
    assert_eq!(signals, [Some("SIGKILL"), None, Some("SIGKILL")]);
    assert_eq!(ends[2]["stoodStill"], true);
    for path in &reports {
        assert_eq!(report(path)["consequence"], "none");
        assert!(!path.join("datagram.bin").exists());
    }
    house.server.close().await;
}
