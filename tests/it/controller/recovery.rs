//! Rooms whose worker dies go on in another one: same ports, same ICE and SRTP sessions, no
//! message to any client.

use std::time::Duration;

use broth::{PeerEvent, Profile, Room, RoomEvent, Settings};
use broth_client::peer::Peer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::media::{connect_receiver, connect_sender, send_vp8};
use super::support::{Client, House, dtls, opus, settings, simulcast, soon, vp8, wait_for};
use crate::support::receive_rtp;

/// Sends a signal to the worker of the house.
pub(super) fn hit(house: &House, signal: Signal) -> u32 {
    let pid = house.server.workers()[0].pid;
    kill(Pid::from_raw(pid as i32), signal).unwrap();
    pid
}

/// Waits until the room goes on with another worker.
pub(super) async fn recovered(room: &Room) -> Duration {
    let mut events = room.events();
    let gap = wait_for(&mut events, "recovery", |event| match event {
        RoomEvent::Recovered(gap) => Some(*gap),
        RoomEvent::Close { reason, .. } => panic!("{reason:?}"),
        _ => None,
    });
    gap.await
}

/// Receives what arrives by now; returns the sequence numbers.
pub(super) async fn received(mut peer: Peer, count: usize) -> (Peer, Vec<u16>) {
    let receiving = move || {
        let seqs = (0..count).map(|_| receive_rtp(&mut peer).expect("a packet in time").0.seq);
        let seqs = seqs.collect();
        (peer, seqs)
    };
    tokio::task::spawn_blocking(receiving).await.unwrap()
}

#[tokio::test]
async fn media_goes_on_over_many_deaths_and_nobody_is_told() {
    let house = House::new(140).await;
    let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let mut receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    let consumer = bob.consume(&source, 2).await;
    let (mut seq, mut last) = (0, None);
    alice.told().await;
    bob.told().await;
    for round in 0..6 {
        let mut told = Vec::new();
        for _ in 0..10 {
            send_vp8(&sender, 1000, seq, seq == 0);
            seq += 1;
        }
        let (peer, seqs) = received(receiver, 10).await;
        receiver = peer;
        for seq in seqs {
            if let Some(last) = last {
                assert_eq!(seq, u16::wrapping_add(last, 1), "round {round}");
            }
            last = Some(seq);
        }
        // What has left is recorded as received before the next answer; a worker that dies between
        // the two is another test's matter (`worker/tests/routing/recovery`).
        source.get_stats().await.unwrap();
        hit(&house, Signal::SIGKILL);
        let gap = recovered(&house.room).await;
        println!("round {round}: {gap:?}");
        told.extend(alice.told().await);
        told.extend(bob.told().await);
        told.retain(|message| message["method"] != "consumerEffectiveProfileChanged");
        assert_eq!(told, [] as [Value; 0], "round {round}");
    }
    assert!(!consumer.closed() && !source.closed());
    assert_eq!(house.counts().await, [2, 1, 1]);
    let sent = &source.get_stats().await.unwrap()[0];
    let got = &consumer.get_stats().await.unwrap()[1];
    assert_eq!(got.packet_count, 60);
    assert_eq!((sent.packet_count, sent.packets_lost), (60, 0), "{sent:?}");
    let stats = bob.web_rtc(2).get_stats().await.unwrap();
    assert!(stats[0].bytes_sent > Some(got.byte_count), "{stats:?}");
    let stats = alice.web_rtc(1).get_stats().await.unwrap();
    assert!(stats[0].bytes_received > Some(sent.byte_count), "{stats:?}");
    house.server.close().await;
}

#[tokio::test]
async fn a_worker_that_stands_still_is_found_and_replaced() {
    let house = House::new(141).await;
    let mut alice = house.join("alice");
    alice.create_transport(1, "send").await;
    alice.settle().await;
    let stopped = hit(&house, Signal::SIGSTOP);
    println!("after its death: {:?}", recovered(&house.room).await);
    let told = alice.settle().await;
    assert!(
        matches!(
            &told[..],
            [PeerEvent::WorkerDied(_), PeerEvent::Recovered(_)]
        ),
        "{told:?}"
    );
    assert_ne!(house.server.workers()[0].pid, stopped);
    assert_eq!(house.counts().await, [1, 0, 0]);
    house.server.close().await;
}

#[tokio::test]
async fn a_pause_that_no_worker_hears_of_is_told_to_receivers() {
    let house = House::new(145).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    let consumer = bob.consume(&source, 2).await;
    bob.told().await;
    for (is_paused, method) in [(true, "consumerPaused"), (false, "consumerResumed")] {
        // It hears nothing any more, and gives no answer.
        hit(&house, Signal::SIGSTOP);
        match is_paused {
            true => source.pause(None),
            false => source.resume(None),
        };
        recovered(&house.room).await;
        assert_eq!(consumer.source_paused(), is_paused);
        let told = bob.told().await;
        assert!(
            told.iter().any(|message| message["method"] == method),
            "{told:?}"
        );
    }
    house.server.close().await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_by_somebody_else_leaves_its_rooms_to_the_next() {
    let house = House::new(146).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let mut receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    bob.consume(&source, 2).await;
    for (round, end) in [Signal::SIGTERM, Signal::SIGINT].into_iter().enumerate() {
        send_vp8(&sender, 1000, 2 * round as u16, true);
        receiver = received(receiver, 1).await.0;
        hit(&house, end);
        recovered(&house.room).await;
        send_vp8(&sender, 1000, 2 * round as u16 + 1, false);
        receiver = received(receiver, 1).await.0;
    }
    house.server.close().await;
}

#[tokio::test]
async fn a_standby_takes_over_and_another_stands_behind_it() {
    let with_standby = Settings {
        standby: true,
        ..settings(142, 1)
    };
    let house = House::with(with_standby).await;
    let alice = house.join("alice");
    let _sender = connect_sender(&alice, 1).await;
    for _ in 0..5 {
        let standby = standby(&house).await;
        hit(&house, Signal::SIGKILL);
        println!("gap: {:?}", recovered(&house.room).await);
        assert_eq!(house.server.workers()[0].pid, standby);
    }
    // A standby that died is no use, and no harm.
    let dead = standby(&house).await;
    kill(Pid::from_raw(dead as i32), Signal::SIGKILL).unwrap();
    hit(&house, Signal::SIGKILL);
    recovered(&house.room).await;
    assert!(!alice.web_rtc(1).closed());
    // Another one stands there soon, without a death in the place.
    let dead = standby(&house).await;
    let serving = house.server.workers()[0].pid;
    kill(Pid::from_raw(dead as i32), Signal::SIGKILL).unwrap();
    let replaced = async {
        while standby(&house).await == dead {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("another standby", replaced).await;
    assert_eq!(house.server.workers()[0].pid, serving);
    house.server.close().await;
}

#[tokio::test]
async fn nothing_is_left_of_dead_workers() {
    let house = House::new(144).await;
    let alice = house.join("alice");
    let _sender = connect_sender(&alice, 1).await;
    alice.produce(3, 1, vp8(1000)).await;
    let descriptors = |pid: u32| {
        let list = std::fs::read_dir(format!("/proc/{pid}/fd"));
        list.unwrap().count()
    };
    let counts = || [std::process::id(), house.server.workers()[0].pid].map(descriptors);
    let mut before = None;
    for _ in 0..10 {
        hit(&house, Signal::SIGKILL);
        recovered(&house.room).await;
        // The first death may open what stays open, such as the runtime's own descriptors; what
        // the dead worker had to say is read until its end.
        let before = *before.get_or_insert_with(counts);
        let cleared = async {
            while counts() > before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("closed descriptors", cleared).await;
    }
    alice.peer.close(None);
    assert_eq!(house.counts().await, [0, 0, 0]);
    house.server.close().await;
}

/// Waits until a standby is ready; returns its process id.
pub(super) async fn standby(house: &House) -> u32 {
    let ready = async {
        loop {
            let workers = house.server.workers();
            match workers.first().and_then(|worker| worker.standby_pid) {
                Some(pid) => return pid,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    soon("a standby", ready).await
}

/// A generator of random numbers that is the same on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end
    }
}

/// Does something that clients and applications do.
async fn act(dice: &mut Dice, house: &House, clients: &[Client], next: &mut u32) {
    *next += 10;
    let id = *next;
    let client = &clients[dice.below(clients.len())];
    let transports = client.peer.transports();
    let transport = (!transports.is_empty()).then(|| &transports[dice.below(transports.len())]);
    let producers = client.peer.producers();
    let producer = (!producers.is_empty()).then(|| &producers[dice.below(producers.len())]);
    let consumers = client.peer.consumers();
    let consumer = (!consumers.is_empty()).then(|| &consumers[dice.below(consumers.len())]);
    let profile = [Profile::Low, Profile::Medium, Profile::High][dice.below(3)];
    match (dice.below(12), transport, producer, consumer) {
        (0, ..) => {
            client
                .create_transport(id, ["send", "recv"][dice.below(2)])
                .await;
        }
        (1, ..) => {
            let members = json!({ "id": id, "plainRtpParameters": {} });
            // The room has few ports.
            let _ = client.request("createTransport", members).await;
        }
        (2 | 3, Some(transport), ..) => {
            let parameters = [opus, vp8, simulcast][dice.below(3)](id * 1000);
            client.produce(id, transport.id(), parameters).await;
        }
        (4, Some(transport), _, Some(consumer)) if !consumer.enabled() => {
            let members = json!({ "id": consumer.id(), "transportId": transport.id() });
            client.request("enableConsumer", members).await.unwrap();
        }
        (5, _, Some(producer), _) => {
            let _ = producer.paused() && producer.resume(None) || producer.pause(None);
            producer.set_preferred_profile(profile);
        }
        (6, _, _, Some(consumer)) => {
            let _ = consumer.paused() && consumer.resume(None) || consumer.pause(None);
            consumer.set_preferred_profile(profile);
        }
        (7, Some(transport), ..) => {
            let members = json!({ "id": transport.id(), "dtlsParameters": dtls("client") });
            client.notify("updateTransport", members).await;
        }
        (8, Some(transport), ..) => {
            let _ = client
                .request("restartTransport", json!({ "id": transport.id() }))
                .await;
        }
        (9, Some(transport), ..) if dice.below(3) == 0 => transport.close(None),
        (10, _, Some(producer), _) if dice.below(3) == 0 => producer.close(None),
        (11, Some(transport), ..) => {
            if let Some(transport) = transport.as_web_rtc() {
                let _ = transport.set_max_bitrate(100_000 + id).await;
            }
        }
        _ => drop(house.room.audio_levels()),
    }
}

#[tokio::test]
async fn whatever_was_done_the_next_worker_says_the_same_of_it() {
    for seed in 0..8 {
        let house = House::new(143).await;
        let clients = ["a", "b", "c"].map(|name| house.join(name));
        let (mut dice, mut next) = (Dice(seed), 0);
        for _ in 0..60 {
            act(&mut dice, &house, &clients, &mut next).await;
        }
        let dump = async || {
            let mut dump = serde_json::to_value(house.room.dump().await.unwrap()).unwrap();
            for (list, id) in [
                ("transports", "transportId"),
                ("producers", "producerId"),
                ("consumers", "consumerId"),
            ] {
                let list = dump[list].as_array_mut().unwrap();
                list.sort_by_key(|object| object[id].as_u64());
            }
            let maps = dump["mapProducerConsumers"].as_object_mut().unwrap();
            for consumers in maps.values_mut() {
                consumers
                    .as_array_mut()
                    .unwrap()
                    .sort_by_key(Value::to_string);
            }
            dump
        };
        let before = dump().await;
        hit(&house, Signal::SIGKILL);
        recovered(&house.room).await;
        assert_eq!(dump().await, before, "seed {seed}");
        house.server.close().await;
    }
}
