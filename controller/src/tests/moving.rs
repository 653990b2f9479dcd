//! What two workers are asked when a room is moved from one to the other, and what becomes of it when
//! either dies meanwhile.

use broth_ipc::{Call, Request};
use futures_util::FutureExt;
use serde_json::json;
use tokio::task::JoinHandle;

use super::played_worker::PlayedWorker;
use super::recovery::{RESTORES, Scene, described, scene};
use super::{TRANSPORT, pending};
use crate::supervisor::worker::WorkerKind;
use crate::{CloseReason, PeerEvent, Room, RoomEvent};

const SUSPEND: &str = "router.suspend";

/// Lets a move begin.
fn move_to(room: &Room, place: usize) -> JoinHandle<crate::Result<()>> {
    let room = room.clone();
    tokio::spawn(async move { room.move_to(place).await })
}

/// Whether a room was made again, once.
fn is_rebuilt(asked: &[Request]) -> bool {
    let made = |request: &&Request| matches!(request.call, Call::CreateRouter(_));
    let last = asked.last().map(|request| request.call.method());
    asked.iter().filter(made).count() == 1 && last == Some("router.resume")
}

/// Both workers, and a room that the first was asked to let go of and did not yet.
async fn suspended() -> (
    PlayedWorker,
    PlayedWorker,
    Scene,
    JoinHandle<crate::Result<()>>,
) {
    let (from, scene) = scene().await;
    let to = from.beside(1);
    from.hold();
    let moving = move_to(&scene.room, 1);
    from.is_asked(SUSPEND).await;
    (from, to, scene, moving)
}

#[tokio::test]
async fn one_worker_lets_go_then_the_other_is_asked_for_everything_then_for_what_came_meanwhile() {
    let (from, to, scene, moving) = suspended().await;
    let mut told = (scene.room.events(), scene.alice.events());
    let _ = (pending(&mut told.0), pending(&mut told.1));
    scene.consumer.pause(None);
    assert_eq!(to.methods().await, [] as [&str; 0]);
    from.release();
    moving.await.unwrap().unwrap();
    let asked = described(&to.asked().await);
    let id = scene.consumer.id();
    let expected = [
        "worker.createRouter".to_owned(),
        "router.createWebRtcTransport 1".into(),
        "router.createWebRtcTransport 3".into(),
        "router.createProducer 12".into(),
        format!("router.createConsumer {id}"),
        format!("consumer.pause {id}"),
        format!("consumer.enable {id}"),
        "router.resume".into(),
        // Asked for when no worker had the room.
        format!("consumer.pause {id}"),
    ];
    assert_eq!(asked, expected);
    assert_eq!(scene.room.worker_idx(), 1);
    let (room, peer) = (pending(&mut told.0), pending(&mut told.1));
    assert!(
        matches!(&room[..], [RoomEvent::Moved { worker_idx: 1, .. }]),
        "{room:?}"
    );
    assert!(matches!(&peer[..], [PeerEvent::Moved(_)]), "{peer:?}");
    // It is heard and asked there from now on, and nothing more of it is with the first.
    to.tell(
        TRANSPORT,
        "icestatechange",
        json!({ "iceState": "completed" }),
    )
    .await;
    let transport = scene.bob.get_transport_by_id(TRANSPORT).unwrap();
    let state = transport.as_web_rtc().unwrap().ice_state();
    assert_eq!(state, crate::IceState::Completed);
    scene.room.close(None);
    assert_eq!(to.methods().await, ["router.close"]);
    assert_eq!(from.methods().await, [SUSPEND]);
}

#[tokio::test]
async fn a_move_to_where_it_is_or_cannot_be_changes_nothing() {
    let (from, scene) = scene().await;
    assert_eq!(scene.room.move_to(0).await, Ok(()));
    let _other = from.beside_of_version(1, 7);
    for (place, expected) in [
        (1, "cannot go on with what worker 0 does"),
        (2, "out of range"),
    ] {
        let error = scene.room.move_to(place).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(from.methods().await.is_empty());
    scene.room.close(None);
    let error = scene.room.move_to(1).await.unwrap_err();
    assert_eq!(error.to_string(), "Room closed");
}

#[tokio::test]
async fn a_place_without_a_worker_and_the_original_worker_take_no_rooms() {
    let (_from, scene) = scene().await;
    let error = scene.room.move_to(1).await.unwrap_err();
    assert_eq!(error.to_string(), "worker 1 is dead");
    let (original, room) = PlayedWorker::with_room_in(WorkerKind::V2).await;
    let _other = original.beside(1);
    let error = room.move_to(1).await.unwrap_err();
    assert!(error.to_string().contains("cannot go on"), "{error}");
}

#[tokio::test]
async fn a_worker_that_does_not_let_go_keeps_the_room_and_is_asked_what_came_meanwhile() {
    let (from, to, scene, moving) = suspended().await;
    from.refuse(SUSPEND);
    scene.consumer.pause(None);
    from.release();
    let error = moving.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no");
    assert_eq!(from.methods().await, [SUSPEND, "consumer.pause"]);
    assert!(to.methods().await.is_empty());
    assert_eq!(scene.room.worker_idx(), 0);
}

#[tokio::test]
async fn a_worker_that_dies_before_it_let_go_is_followed_as_after_any_death() {
    let (from, to, scene, moving) = suspended().await;
    let grave = from.die().await;
    let error = moving.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("died while"), "{error}");
    let next = grave.successor(&[]);
    let asked = next.asked().await;
    // It is nobody else's business to let go.
    assert!(is_rebuilt(&asked), "{:?}", described(&asked));
    assert!(to.methods().await.is_empty());
    assert!(scene.room.worker_idx() == 0 && !scene.room.closed());
    // And it can be moved now.
    let moving = move_to(&scene.room, 1);
    moving.await.unwrap().unwrap();
    assert!(is_rebuilt(&to.asked().await));
}

#[tokio::test]
async fn a_room_whose_target_is_gone_by_then_goes_back() {
    let (from, to, scene, moving) = suspended().await;
    to.die().await;
    from.release();
    let error = moving.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the room is back"), "{error}");
    let asked = from.asked().await;
    assert_eq!(asked[0].call.method(), SUSPEND);
    assert!(is_rebuilt(&asked[1..]), "{:?}", described(&asked));
    assert!(scene.room.worker_idx() == 0 && !scene.room.closed());
}

#[tokio::test]
async fn a_target_that_dies_while_it_takes_the_room_is_followed_there() {
    let (from, to, scene, moving) = suspended().await;
    to.hold();
    from.release();
    to.is_asked("worker.createRouter").await;
    let mut told = scene.room.events();
    pending(&mut told);
    let grave = to.die().await;
    assert!(moving.await.unwrap().is_err());
    let next = grave.successor(&[]);
    assert!(is_rebuilt(&next.asked().await));
    let told = pending(&mut told);
    let is_recovery = matches!(
        &told[..],
        [RoomEvent::WorkerDied(_), RoomEvent::Recovered(_)]
    );
    assert!(is_recovery, "{told:?}");
    assert_eq!(scene.room.worker_idx(), 1);
    assert_eq!(from.methods().await, [SUSPEND]);
}

#[tokio::test]
async fn a_room_closed_on_its_way_is_nowhere() {
    for is_let_go in [true, false] {
        let (from, to, scene, moving) = suspended().await;
        if !is_let_go {
            from.refuse(SUSPEND);
        }
        scene.room.close(None);
        let error = moving.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "Room closed");
        from.release();
        let mut expected = vec![SUSPEND];
        if !is_let_go {
            // It is still there.
            expected.push("router.close");
        }
        from.settle().await;
        assert_eq!(from.methods().await, expected);
        assert!(to.methods().await.is_empty());
    }
}

#[tokio::test]
async fn a_room_closed_while_it_is_made_again_is_closed_there() {
    let (from, to, scene, moving) = suspended().await;
    to.hold();
    from.release();
    to.is_asked("worker.createRouter").await;
    scene.room.close(None);
    assert!(moving.await.unwrap().is_err());
    to.release();
    let methods = to.methods().await;
    assert_eq!(methods.last(), Some(&"router.close"));
    assert_eq!(from.methods().await, [SUSPEND]);
}

#[tokio::test]
async fn a_room_is_moved_once_at_a_time() {
    let (from, to, scene, there) = suspended().await;
    let back = move_to(&scene.room, 0);
    tokio::task::yield_now().await;
    from.release();
    assert_eq!(there.await.unwrap(), Ok(()));
    assert_eq!(back.await.unwrap(), Ok(()));
    assert_eq!(scene.room.worker_idx(), 0);
    assert_eq!(to.methods().await.last(), Some(&SUSPEND));
    let asked = from.asked().await;
    assert!(is_rebuilt(&asked[1..]), "{:?}", described(&asked));
}

#[tokio::test]
async fn an_answer_read_just_before_the_end_is_known_to_the_other_worker() {
    let (from, scene) = scene().await;
    let to = from.beside(1);
    from.hold();
    let transport = scene.alice.get_transport_by_id(1).unwrap();
    let transport = transport.as_web_rtc().unwrap().clone();
    // Asked for, and nobody looks at the answer before the room is moved.
    let mut limiting = Box::pin(transport.set_max_bitrate(300_000));
    assert!(limiting.as_mut().now_or_never().is_none());
    let moving = move_to(&scene.room, 1);
    from.is_asked("transport.setMaxBitrate").await;
    from.release();
    moving.await.unwrap().unwrap();
    let asked = described(&to.asked().await);
    assert!(
        asked.contains(&"transport.setMaxBitrate 1".into()),
        "{asked:?}"
    );
    assert_eq!(limiting.await, Ok(()));
}

#[tokio::test]
async fn rooms_of_a_worker_that_is_replaced_go_on_in_either_when_one_dies() {
    let (old, scene) = scene().await;
    // It takes the rooms of the same place.
    let new = old.beside(0);
    assert!(
        new.methods().await.is_empty(),
        "the room is with the other one"
    );
    old.die().await;
    assert!(is_rebuilt(&new.asked().await));
    assert!(scene.room.worker_idx() == 0 && !scene.room.closed());

    let (old, room) = PlayedWorker::with_room_in(RESTORES).await;
    let mut told = room.events();
    old.asked().await;
    let new = old.beside(0);
    let grave = new.die().await;
    grave.successor(&[]);
    assert!(old.methods().await.is_empty());
    assert!(pending(&mut told).is_empty(), "nothing happened to it");
    room.close_for(CloseReason::Server, None);
}
