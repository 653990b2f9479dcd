//! What the next worker is asked when one dies, and what becomes of what it refuses.

use std::time::Duration;

use broth_ipc::body::{DtlsState, EncodingPreferences, IceState};
use broth_ipc::{Call, Ids, Request, TransportId};
use serde_json::{Value, json};

use super::played_worker::PlayedWorker;
use super::{TRANSPORT, join, notify, produce};
use crate::error::Error;
use crate::room::implication::Outcome;
use crate::supervisor::worker::WorkerKind;
use crate::{CloseReason, Consumer, Peer, Producer, Profile, Room, RoomEvent, TransportEvent};

pub(super) const RESTORES: WorkerKind = WorkerKind::Broth { restores: true };

/// Alice sends video; bob has enabled it.
pub(super) struct Scene {
    pub(super) room: Room,
    pub(super) alice: Peer,
    pub(super) bob: Peer,
    video: Producer,
    pub(super) consumer: Consumer,
}

pub(super) async fn scene() -> (PlayedWorker, Scene) {
    let (worker, room) = PlayedWorker::with_room_in(RESTORES).await;
    let (alice, bob) = (join(&room, "alice"), join(&room, "bob"));
    super::ask(
        &alice,
        "createTransport",
        json!({ "id": 1, "direction": "send" }),
    )
    .await;
    super::ask(
        &bob,
        "createTransport",
        json!({ "id": TRANSPORT, "direction": "recv" }),
    )
    .await;
    let video = produce(&alice, 12, "video").await;
    let consumer = bob.get_consumer_for_source(&video).unwrap();
    let members = json!({ "id": consumer.id(), "transportId": TRANSPORT });
    super::ask(&bob, "enableConsumer", members).await;
    worker.asked().await;
    let scene = Scene {
        room,
        alice,
        bob,
        video,
        consumer,
    };
    (worker, scene)
}

/// The methods with the id of what they are about.
pub(super) fn described(asked: &[Request]) -> Vec<String> {
    let describe = |request: &Request| {
        let Ids {
            transport_id,
            producer_id,
            consumer_id,
            ..
        } = request.ids;
        let (consumer, producer) = (consumer_id.map(|id| id.0), producer_id.map(|id| id.0));
        let transport = transport_id.map(|id| id.0);
        match consumer.or(producer).or(transport) {
            Some(id) => format!("{} {id}", request.call.method()),
            None => request.call.method().into(),
        }
    };
    asked.iter().map(describe).collect()
}

#[tokio::test]
async fn the_next_worker_is_asked_for_everything_as_it_is() {
    let (worker, scene) = scene().await;
    let fingerprints = json!([{ "algorithm": "sha-256", "value": "AB" }]);
    let remote = json!({ "id": TRANSPORT, "dtlsParameters": { "fingerprints": fingerprints } });
    notify(&scene.bob, "updateTransport", remote).await;
    let transport = scene.alice.get_transport_by_id(1).unwrap();
    let transport = transport.as_web_rtc().unwrap();
    transport.set_max_bitrate(300_000).await.unwrap();
    scene.video.pause(None);
    scene.video.set_preferred_profile(Profile::Low);
    scene.consumer.pause(None);
    scene.consumer.set_preferred_profile(Profile::High);
    let preferences = EncodingPreferences {
        temporal_layer: Some(1),
    };
    scene.consumer.set_encoding_preferences(preferences);
    let levels = scene.room.audio_levels();
    worker.settle().await;

    let mut events = scene.room.events();
    let worker = worker.die().await.successor(&[]);
    let asked = worker.asked().await;
    let id = scene.consumer.id();
    let expected = [
        "worker.createRouter".to_owned(),
        "router.createWebRtcTransport 1".into(),
        "transport.setMaxBitrate 1".into(),
        "router.createWebRtcTransport 3".into(),
        "transport.setRemoteDtlsParameters 3".into(),
        "router.createProducer 12".into(),
        "producer.setPreferredProfile 12".into(),
        format!("router.createConsumer {id}"),
        format!("consumer.pause {id}"),
        format!("consumer.setPreferredProfile {id}"),
        format!("consumer.setEncodingPreferences {id}"),
        format!("consumer.enable {id}"),
        "router.setAudioLevelsEvent".into(),
        "router.resume".into(),
    ];
    assert_eq!(described(&asked), expected);
    let Call::CreateWebRtcTransport(options) = &asked[1].call else {
        panic!("{asked:?}");
    };
    assert_eq!(options.restore, Some(transport.ice_local_parameters()));
    let Call::CreateProducer(request) = &asked[5].call else {
        panic!("{asked:?}");
    };
    assert!(request.paused);
    let mut told = Vec::new();
    while let Some(event) = events.recv().await {
        let is_last = matches!(event, RoomEvent::Recovered(_));
        told.push(event);
        if is_last {
            break;
        }
    }
    let last = &told[told.len() - 2..];
    assert!(matches!(last[0], RoomEvent::WorkerDied(_)), "{told:?}");
    drop(levels);
}

#[tokio::test]
async fn what_was_asked_of_a_dying_worker_is_asked_once_more() {
    let (worker, scene) = scene().await;
    let grave = worker.die().await;
    // Nobody notices that there is no worker.
    let closing = scene.bob.clone();
    let members = json!({ "id": 7, "direction": "send", "method": "createTransport" });
    let asking = tokio::spawn(async move { closing.receive_request(members).await });
    tokio::task::yield_now().await;
    scene.consumer.pause(None);
    let late = join(&scene.room, "late");
    let consumer = late.get_consumer_for_source(&scene.video).unwrap();

    let worker = grave.successor(&[]);
    let asked = described(&worker.asked().await);
    let at = |what: &str| {
        let found = asked.iter().filter(|asked| **asked == what).count();
        assert_eq!(found, 1, "{what}: {asked:?}");
        asked.iter().position(|asked| asked == what)
    };
    let resumed = at("router.resume");
    // It is known here already, but no worker has confirmed it.
    assert!(at(&format!("router.createConsumer {}", consumer.id())) > resumed);
    assert!(at("router.createWebRtcTransport 7") > resumed);
    assert!(asking.await.unwrap().is_ok());
    assert!(!consumer.closed() && scene.bob.get_transport_by_id(7).is_some());
}

#[tokio::test]
async fn what_cannot_be_made_again_is_closed_and_the_rest_goes_on() {
    let rows = [
        ("router.createConsumer", [false, false, true]),
        ("consumer.enable", [false, false, true]),
        ("router.createProducer", [false, true, true]),
        // A producer without a transport closes with it.
        ("router.createWebRtcTransport", [true, true, true]),
    ];
    for (refused, expected) in rows {
        let (worker, scene) = scene().await;
        let transport = scene.alice.get_transport_by_id(1).unwrap();
        let mut events = transport.events();
        let worker = worker.die().await.successor(&[refused]);
        worker.settle().await;
        let closed = [
            transport.closed(),
            scene.video.closed(),
            scene.consumer.closed(),
        ];
        assert_eq!(closed, expected, "{refused}");
        assert!(!scene.room.closed() && !scene.alice.closed());
        if closed[0] {
            assert!(matches!(
                events.recv().await,
                Some(TransportEvent::Close { .. })
            ));
        }
    }
}

#[tokio::test]
async fn what_a_dying_worker_could_not_tell_of_a_transport_is_taken_over() {
    let (_worker, scene) = scene().await;
    let transport = scene.alice.get_transport_by_id(1).unwrap();
    let mut events = transport.events();
    let dump = |ice_state: &str, dtls_state: &str, tuple: Value| {
        json!({
            "transportId": 1, "iceRole": "controlled", "iceLocalCandidates": [],
            "iceLocalParameters": { "usernameFragment": "u", "password": "p" },
            "dtlsLocalParameters": { "role": "auto", "fingerprints": [] },
            "iceState": ice_state, "iceSelectedTuple": tuple, "dtlsState": dtls_state,
        })
    };
    let tuple = json!({ "protocol": "udp", "localIP": "192.0.2.1", "localPort": 1,
        "remoteIP": "192.0.2.2", "remotePort": 2 });
    let connected = dump("completed", "connected", tuple);
    // What is known already is not told again.
    for _ in 0..2 {
        transport.check_restored(connected.clone()).unwrap();
    }
    let mut told = super::pending(&mut events);
    assert!(matches!(
        told.remove(0),
        TransportEvent::IceSelectedTupleChange(tuple) if tuple.remote_port == 2
    ));
    assert!(matches!(
        told[..],
        [
            TransportEvent::IceStateChange(IceState::Completed),
            TransportEvent::DtlsStateChange(DtlsState::Connected)
        ]
    ));
    // What was connected has to be.
    let lost = transport.check_restored(dump("new", "new", Value::Null));
    assert_eq!(lost, Err(Error::other("the transport's keys are lost")));
}

#[tokio::test]
async fn a_room_that_cannot_be_made_again_is_closed_with_a_reason() {
    for refused in ["worker.createRouter", "router.resume"] {
        let (worker, scene) = scene().await;
        let mut events = scene.room.events();
        let worker = worker.die().await.successor(&[refused]);
        worker.settle().await;
        let end = loop {
            match events.recv().await {
                Some(RoomEvent::Close { reason, .. }) => break reason,
                Some(_) => {}
                None => panic!("the events ended"),
            }
        };
        assert_eq!(end, CloseReason::WorkerDied("no".into()));
        assert!(scene.alice.closed() && scene.consumer.closed());
    }
}

#[tokio::test]
async fn a_worker_that_dies_while_it_takes_over_is_followed_by_another() {
    let (worker, scene) = scene().await;
    let worker = worker.die().await.successor(&[]).die().await.successor(&[]);
    let asked = described(&worker.asked().await);
    assert_eq!(
        asked.first().map(String::as_str),
        Some("worker.createRouter")
    );
    assert_eq!(asked.last().map(String::as_str), Some("router.resume"));
    assert!(!scene.room.closed() && !scene.consumer.closed());
}

#[tokio::test]
async fn a_room_closed_meanwhile_is_not_made_again() {
    let (worker, scene) = scene().await;
    let grave = worker.die().await;
    scene.room.close(None);
    let worker = grave.successor(&[]);
    assert_eq!(worker.methods().await, [] as [&str; 0]);
    assert_eq!(scene.bob.app_data(), Value::Null);
}

/// How long deaths belong together.
const WINDOW: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_transport_over_which_two_workers_die_is_not_made_again() {
    let (worker, scene) = scene().await;
    let mut events = scene.room.events();
    let transport = scene.alice.get_transport_by_id(1).unwrap();
    let mut told = transport.events();
    let suspect = Some(TransportId(1));
    let grave = worker.die().await;
    let implication = scene.room.implicate(suspect, "killed", WINDOW).unwrap();
    assert_eq!(implication.peer(), Some("alice"));
    assert_eq!(implication.outcome, Outcome::Isolate);
    let worker = grave.successor(&[]);
    let asked = described(&worker.asked().await);
    assert!(
        asked.contains(&"router.createWebRtcTransport 1".into()),
        "{asked:?}"
    );

    let grave = worker.die().await;
    let implication = scene.room.implicate(suspect, "killed", WINDOW).unwrap();
    assert_eq!(implication.outcome, Outcome::TransportClosed);
    assert!(transport.closed() && scene.video.closed() && scene.consumer.closed());
    let worker = grave.successor(&[]);
    let expected = [
        "worker.createRouter",
        "router.createWebRtcTransport 3",
        "router.resume",
    ];
    assert_eq!(described(&worker.asked().await), expected);
    assert!(!scene.room.closed() && !scene.alice.closed());
    for deaths in [1, 2] {
        let event = told.recv().await;
        let is_it = matches!(event, Some(TransportEvent::Implicated { deaths: d }) if d == deaths);
        assert!(is_it, "{event:?}");
    }
    assert!(matches!(
        told.recv().await,
        Some(TransportEvent::Close { .. })
    ));
    let mut implicated = Vec::new();
    while implicated.len() < 2 {
        if let Some(RoomEvent::Implicated { transport, deaths }) = events.recv().await {
            implicated.push((transport.map(|transport| transport.id()), deaths));
        }
    }
    assert_eq!(implicated, [(Some(1), 1), (Some(1), 2)]);
}

/// A worker dies over a transport, and another one goes on.
async fn die_over(worker: PlayedWorker, room: &Room, id: u32) -> (PlayedWorker, Outcome) {
    let grave = worker.die().await;
    let implication = room.implicate(Some(TransportId(id)), "killed", WINDOW);
    let implication = implication.unwrap();
    assert_eq!(implication.peer(), Some("alice"));
    let worker = grave.successor(&[]);
    worker.settle().await;
    (worker, implication.outcome)
}

async fn renew_transport(peer: &Peer, old: u32, new: u32) {
    peer.get_transport_by_id(old).unwrap().close(None);
    let members = json!({ "id": new, "direction": "send" });
    super::ask(peer, "createTransport", members).await;
}

#[tokio::test]
async fn a_transport_that_is_renewed_before_each_death_does_not_clear_its_peer() {
    let (worker, scene) = scene().await;
    let (worker, outcome) = die_over(worker, &scene.room, 1).await;
    assert_eq!(outcome, Outcome::Isolate);
    renew_transport(&scene.alice, 1, 21).await;
    let (worker, outcome) = die_over(worker, &scene.room, 21).await;
    assert_eq!(outcome, Outcome::TransportClosed);
    let members = json!({ "id": 22, "direction": "send" });
    super::ask(&scene.alice, "createTransport", members).await;
    let (_worker, outcome) = die_over(worker, &scene.room, 22).await;
    assert_eq!(outcome, Outcome::PeerClosed);
    assert!(scene.alice.closed() && !scene.bob.closed() && !scene.room.closed());
}

#[tokio::test]
async fn a_transport_that_closes_before_the_death_is_looked_at_is_known_by_its_peer() {
    let (worker, scene) = scene().await;
    scene.alice.get_transport_by_id(1).unwrap().close(None);
    let (worker, outcome) = die_over(worker, &scene.room, 1).await;
    assert_eq!(outcome, Outcome::Isolate);
    // A client may use an id again.
    super::ask(
        &scene.alice,
        "createTransport",
        json!({ "id": 1, "direction": "send" }),
    )
    .await;
    scene.alice.get_transport_by_id(1).unwrap().close(None);
    let (worker, outcome) = die_over(worker, &scene.room, 1).await;
    assert_eq!(outcome, Outcome::PeerClosed);
    assert!(scene.alice.closed() && !scene.bob.closed());
    // Nothing is left of it.
    let (_worker, outcome) = die_over(worker, &scene.room, 1).await;
    assert_eq!(outcome, Outcome::Nothing);
}

#[tokio::test]
async fn a_room_over_which_two_workers_die_is_closed_with_a_reason() {
    let (worker, scene) = scene().await;
    let mut events = scene.room.events();
    let grave = worker.die().await;
    scene.room.implicate(None, "killed", WINDOW).unwrap();
    assert!(!scene.room.closed() && scene.room.implicated_at().is_some());
    let grave = grave.successor(&[]).die().await;
    // What is not in the room any more is not the room's fault.
    let gone = Some(TransportId(99));
    for outcome in [Outcome::Isolate, Outcome::Nothing] {
        let implication = scene.room.implicate(gone, "killed", WINDOW).unwrap();
        assert_eq!((implication.peer(), implication.outcome), (None, outcome));
        assert!(!scene.room.closed());
    }
    scene.room.implicate(None, "killed again", WINDOW).unwrap();
    assert!(scene.room.closed() && scene.alice.closed());
    assert_eq!(scene.room.implicate(None, "killed", WINDOW), None);
    let end = loop {
        match events.recv().await {
            Some(RoomEvent::Close { reason, .. }) => break reason,
            Some(_) => {}
            None => panic!("the events ended"),
        }
    };
    assert_eq!(end, CloseReason::Implicated("killed again".into()));
    assert_eq!(grave.successor(&[]).methods().await, [] as [&str; 0]);
}
