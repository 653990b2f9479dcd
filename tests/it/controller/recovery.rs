//! Rooms whose worker dies go on in another one: same ports, same ICE and SRTP sessions, no
//! message to any client.

use std::time::Duration;

use broth::{Room, RoomEvent};
use broth_bench::peer::Peer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::media::{connect_receiver, connect_sender, send_vp8};
use super::support::{House, vp8, wait_for};
use crate::support::receive_rtp;

/// Sends a signal to the worker of the house.
fn hit(house: &House, signal: Signal) -> u32 {
    let pid = house.server.workers()[0].pid;
    kill(Pid::from_raw(pid as i32), signal).unwrap();
    pid
}

/// Waits until the room goes on with another worker.
async fn recovered(room: &Room) -> Duration {
    let mut events = room.events();
    let gap = wait_for(&mut events, "recovery", |event| match event {
        RoomEvent::Recovered(gap) => Some(*gap),
        RoomEvent::Close { reason, .. } => panic!("{reason:?}"),
        _ => None,
    });
    gap.await
}

/// Receives what arrives by now; returns the sequence numbers.
async fn received(mut peer: Peer, count: usize) -> (Peer, Vec<u16>) {
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
    house.server.close().await;
}
