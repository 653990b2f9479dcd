//! Faults on purpose: rooms go on however many there are.

use std::time::Duration;

use broth::chaos::{Direction, Fault, Order, Plan};
use broth::{RoomEvent, RoomOptions, Settings};
use broth_client::peer::Peer;

use super::media::{connect_receiver, connect_sender, send_vp8};
use super::recovery::{received, recovered};
use super::support::{House, codecs, pending, settings, vp8};

const DEADLY: [Fault; 7] = [
    Fault::Kill,
    Fault::Stop,
    Fault::Abort,
    Fault::MemoryHog { bytes: 8 << 20 },
    Fault::Garbage(Direction::ToWorker),
    Fault::Garbage(Direction::FromWorker),
    // The watchdog does not tell a slow answer from none.
    Fault::SlowChannel {
        delay: Duration::from_millis(400),
        duration: Duration::from_secs(30),
    },
];

/// Whether the far end said goodbye, or anything else, in DTLS.
fn heard_dtls(peer: &Peer) -> bool {
    let mut buffer = [0; 2048];
    peer.socket.set_nonblocking(true).unwrap();
    let first = || peer.socket.recv(&mut buffer).ok().map(|_| buffer[0]);
    std::iter::from_fn(first).any(|first| (20..64).contains(&first))
}

#[tokio::test]
async fn rooms_go_on_after_every_fault_and_no_client_hears_of_it() {
    let obedient = Settings {
        chaos: true,
        ..settings(150, 1)
    };
    let house = House::with(obedient).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let mut receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    bob.consume(&source, 2).await;
    for (seq, fault) in (0..).zip(DEADLY) {
        house.server.inject(0, fault).await.unwrap();
        println!("{fault:?}: {:?}", recovered(&house.room).await);
        send_vp8(&sender, 1000, seq, seq == 0);
        receiver = received(receiver, 1).await.0;
    }
    assert!(!heard_dtls(&sender) && !heard_dtls(&receiver));
    assert_eq!(house.counts().await, [2, 1, 1]);
    house.server.close().await;
}

#[tokio::test]
async fn deaths_on_purpose_do_not_count() {
    let house = House::new(151).await;
    for _ in 0..25 {
        house.server.inject(0, Fault::Kill).await.unwrap();
        recovered(&house.room).await;
    }
    house.server.close().await;
}

#[tokio::test]
async fn a_slow_channel_is_no_death() {
    let house = House::new(152).await;
    let mut events = house.room.events();
    let slow = Fault::SlowChannel {
        delay: Duration::from_millis(5),
        duration: Duration::from_secs(1),
    };
    house.server.inject(0, slow).await.unwrap();
    for _ in 0..20 {
        assert_eq!(house.counts().await, [0, 0, 0]);
    }
    let died = |event: &RoomEvent| matches!(event, RoomEvent::WorkerDied(_));
    assert!(!pending(&mut events).iter().any(died));
    house.server.close().await;
}

#[tokio::test]
async fn what_is_planned_is_followed_like_faults() {
    let house = House::with(settings(155, 2)).await;
    let other = RoomOptions {
        worker_idx: Some(1 - house.room.worker_idx()),
    };
    house.server.room(&codecs(), other).await.unwrap();
    let plan = Plan {
        faults: vec![Fault::Replace, Fault::Move],
        order: Order::InTurn,
        count: 6,
        every: Duration::from_millis(50),
        seed: 1,
    };
    let report = plan.run(&house.server).await.unwrap();
    let total = report.total();
    println!("{report}");
    assert_eq!((report.outcomes.len(), total.recovered), (6, 0));
    // A worker without rooms may have been chosen, but not in the beginning.
    assert!(total.moved >= 1 && total.moved == total.faults, "{report}");
    assert!(report.is_clean());
    assert_eq!(house.counts().await, [0, 0, 0]);
    house.server.close().await;
}

#[tokio::test]
async fn rooms_are_moved_only_where_there_is_another_worker() {
    let house = House::new(156).await;
    let refused = house.server.inject(0, Fault::Move).await.unwrap_err();
    assert!(
        refused.to_string().contains("have two at least"),
        "{refused}"
    );
    house.server.close().await;
}

#[tokio::test]
async fn workers_misbehave_only_where_chaos_is_wanted() {
    let house = House::new(153).await;
    for (worker, fault, expected) in [
        (0, DEADLY[3], "set Settings::chaos"),
        (0, DEADLY[5], "set Settings::chaos"),
        (1, Fault::Kill, "requested worker idx out of range"),
    ] {
        let refused = house.server.inject(worker, fault).await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    house.server.close().await;
    let closed = house.server.inject(0, Fault::Kill).await.unwrap_err();
    assert_eq!(closed.to_string(), "Server closed");
}
