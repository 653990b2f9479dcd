//! How peers and rooms close: what is told, and in which order (`spec: api.md` §6.5, §7.5).

use broth::{
    ConsumerEvent, Error, Originator, PeerEvent, ProducerEvent, Room, RoomEvent, TransportEvent,
};
use serde_json::json;

use super::support::{Client, House, Recorder, opus, pending};

#[tokio::test]
async fn closing_a_peer_closes_everything_in_order() {
    let house = House::new(7).await;
    let (alice, bob, log) = watched(&house).await;
    alice.peer.close(Some(json!("bye")));
    alice.peer.close(Some(json!("again")));
    let bye = "Some(String(\"bye\"))";
    assert_eq!(
        log.take().await,
        [
            format!("alice closed {bye}"),
            // The client's stream ends here: both are read when its watcher is woken.
            format!("alice close Local {bye}"),
            format!("bob peerClosed {bye}"),
            "producer close Local None".into(),
            "bob's consumer Close".into(),
            "own consumer Close".into(),
            "transport close Local None".into(),
        ]
    );
    assert_only_bob_is_left(&house, &bob).await;
    let nothing: [usize; 3] = [
        alice.peer.transports().len(),
        alice.peer.producers().len(),
        alice.peer.consumers().len(),
    ];
    assert_eq!(nothing, [0; 3]);
    house.server.close().await;
}

#[tokio::test]
async fn leaving_says_remote_and_tells_the_client_nothing() {
    let house = House::new(8).await;
    let (alice, bob, log) = watched(&house).await;
    alice.notify("leave", json!({ "appData": 5 })).await;
    assert_eq!(
        log.take().await,
        [
            "bob peerClosed Some(Number(5))",
            "alice close Remote Some(Number(5))",
            "producer close Remote None",
            "bob's consumer Close",
            "own consumer Close",
            "transport close Remote None",
        ]
    );
    assert!(alice.peer.closed());
    assert_only_bob_is_left(&house, &bob).await;
    house.server.close().await;
}

#[tokio::test]
async fn closing_the_room_closes_the_peers_in_the_order_they_joined() {
    let house = House::new(9).await;
    let room: Room = house.room.clone();
    let log = Recorder::default();
    log.watch(room.events(), |event| match event {
        RoomEvent::NewPeer(peer) => Some(format!("new {}", peer.name())),
        RoomEvent::Close { reason, app_data } => Some(format!("room {reason:?} {app_data:?}")),
        other => Some(format!("{other:?}")),
    });
    let mut told = Vec::new();
    for name in ["a", "b", "c"] {
        told.push(house.join(name));
    }
    assert_eq!(log.take().await, ["new a", "new b", "new c"]);
    room.close(Some(json!(1)));
    assert_eq!(log.take().await, ["room Application Some(Number(1))"]);
    let rows: [&[&str]; 3] = [
        &["newPeer", "newPeer", "closed"],
        &["newPeer", "peerClosed", "closed"],
        &["peerClosed", "peerClosed", "closed"],
    ];
    for (client, expected) in told.iter_mut().zip(rows) {
        let events = pending(&mut client.events);
        let Some(PeerEvent::Close {
            originator,
            app_data,
        }) = events.last()
        else {
            panic!("{events:?}");
        };
        assert_eq!((*originator, app_data), (Originator::Local, &None));
        let methods = events.iter().filter_map(|event| match event {
            PeerEvent::Notify(message) => {
                assert_eq!(message.get("appData"), None);
                message["method"].as_str()
            }
            _ => None,
        });
        assert_eq!(methods.collect::<Vec<_>>(), expected);
    }
    assert!(room.closed() && room.peers().is_empty());
    let refused = room.receive_request(json!({ "method": "queryRoom" })).await;
    assert_eq!(refused, Err(Error::InvalidState("Room closed".into())));
    assert_eq!(house.server.workers()[0].rooms, 0);
    house.server.close().await;
}

/// A room in which alice and bob see each other, everything of alice's being watched.
async fn watched(house: &House) -> (Client, Client, Recorder) {
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    for client in [&alice, &bob] {
        client.create_transport(client_id(client), "send").await;
        let id = client_id(client);
        client.produce(id, id, opus(id * 1000)).await;
    }
    let of_bob = alice.peer.consumers().remove(0);
    let of_alice = bob.peer.consumers().remove(0);
    let source = of_bob.source().clone();
    alice.consume(&source, 1).await;
    let log = Recorder::default();
    for client in [&alice, &bob] {
        let name = client.peer.name().to_owned();
        log.watch(client.peer.events(), move |event| match event {
            PeerEvent::Notify(message) => {
                let (method, data) = (message["method"].as_str()?, message.get("appData"));
                Some(format!("{name} {method} {data:?}"))
            }
            PeerEvent::Close {
                originator,
                app_data,
            } => Some(format!("{name} close {originator:?} {app_data:?}")),
            _ => None,
        });
    }
    let producer = alice.peer.producers().remove(0);
    log.watch(producer.events(), |event| match event {
        ProducerEvent::Close {
            originator,
            app_data,
        } => Some(format!("producer close {originator:?} {app_data:?}")),
        other => Some(format!("{other:?}")),
    });
    let transport = alice.peer.transports().remove(0);
    log.watch(transport.events(), |event| match event {
        TransportEvent::Close {
            originator,
            app_data,
        } => Some(format!("transport close {originator:?} {app_data:?}")),
        other => Some(format!("{other:?}")),
    });
    for (consumer, name) in [(of_bob, "own consumer"), (of_alice, "bob's consumer")] {
        log.watch(consumer.events(), move |event| match event {
            ConsumerEvent::Handled => None,
            other => Some(format!("{name} {other:?}")),
        });
    }
    // What happened up to here.
    log.take().await;
    (alice, bob, log)
}

fn client_id(client: &Client) -> u32 {
    u32::from(client.peer.name() == "bob") + 1
}

/// How the worker is left once alice is gone.
async fn assert_only_bob_is_left(house: &House, bob: &Client) {
    assert_eq!(house.counts().await, [1, 1, 0]);
    assert_eq!(house.room.peers().len(), 1);
    assert!(!bob.peer.closed());
    assert!(bob.peer.consumers().is_empty());
}
