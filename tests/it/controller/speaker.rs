//! The active speaker.

use std::time::Duration;

use broth::{ActiveSpeakerEvent, EventStream, Producer};
use broth_client::peer::Peer;

use super::media::{connect_sender, send_opus};
use super::support::{House, opus, soon};

/// Lets clients speak, each at a level, until the detector tells something.
async fn speak(
    sender: &Peer,
    seq: &mut u16,
    speakers: &[(u32, u8)],
    events: &mut EventStream<ActiveSpeakerEvent>,
) -> Option<Producer> {
    let told = async {
        loop {
            for (ssrc, level) in speakers {
                send_opus(sender, *ssrc, *seq, *level);
            }
            *seq += 1;
            match tokio::time::timeout(Duration::from_millis(20), events.recv()).await {
                Ok(Some(ActiveSpeakerEvent::Change(producer))) => return producer,
                Ok(other) => panic!("{other:?}"),
                Err(_) => {}
            }
        }
    };
    soon("another speaker", told).await
}

#[tokio::test]
async fn the_turn_goes_from_speaker_to_speaker_and_ends_with_a_pause() {
    let house = House::new(85).await;
    let alice = house.join("alice");
    let sender = connect_sender(&alice, 1).await;
    let first = alice.produce(3, 1, opus(1000)).await;
    let second = alice.produce(4, 1, opus(2000)).await;
    let detector = house.room.create_active_speaker_detector().unwrap();
    let mut events = detector.events();
    let mut seq = 0;
    let active = speak(&sender, &mut seq, &[(1000, 30), (2000, 50)], &mut events).await;
    assert_eq!(active, Some(first));
    let active = speak(&sender, &mut seq, &[(1000, 50), (2000, 30)], &mut events).await;
    assert_eq!(active.as_ref(), Some(&second));
    second.pause(None);
    let active = speak(&sender, &mut seq, &[], &mut events).await;
    assert_eq!(active, None);

    let other = house.room.create_active_speaker_detector().unwrap();
    detector.close();
    detector.close();
    assert!(detector.closed() && !other.closed());
    let end = soon("the end", events.recv()).await;
    assert!(matches!(end, Some(ActiveSpeakerEvent::Close)), "{end:?}");
    // The room takes the others along.
    let mut events = other.events();
    house.room.close(None);
    let end = soon("the end", events.recv()).await;
    assert!(matches!(end, Some(ActiveSpeakerEvent::Close)), "{end:?}");
    assert!(other.closed());
    let refused = house.room.create_active_speaker_detector().unwrap_err();
    assert_eq!(refused.to_string(), "Room closed");
    house.server.close().await;
}
