//! What a worker is asked, and what follows from what it answers and tells.

mod moving;
mod played_worker;
mod recovery;

use broth_ipc::Call;
use broth_ipc::body::EncodingPreferences;
use serde_json::{Value, json};

use self::played_worker::PlayedWorker;
use crate::{
    CloseReason, Consumer, ConsumerEvent, EventStream, Originator, Peer, PeerEvent, Producer,
    Profile, Room, RtpStreamerOptions, TransportEvent,
};

/// Alice sends video and audio; bob has a transport and has enabled the video.
struct Scene {
    worker: PlayedWorker,
    room: Room,
    alice: Peer,
    bob: Peer,
    audio: Producer,
    video: Producer,
    consumer: Consumer,
    heard: EventStream<PeerEvent>,
}

const TRANSPORT: u32 = 3;

async fn scene() -> Scene {
    let (worker, room) = PlayedWorker::with_room().await;
    let (alice, bob) = (join(&room, "alice"), join(&room, "bob"));
    let transport = json!({ "id": 1, "direction": "send" });
    ask(&alice, "createTransport", transport).await;
    let transport = json!({ "id": TRANSPORT, "direction": "recv" });
    ask(&bob, "createTransport", transport).await;
    let audio = produce(&alice, 11, "audio").await;
    let video = produce(&alice, 12, "video").await;
    let consumer = bob.get_consumer_for_source(&video).unwrap();
    let members = json!({ "id": consumer.id(), "transportId": TRANSPORT });
    ask(&bob, "enableConsumer", members).await;
    let heard = bob.events();
    let mut scene = Scene {
        worker,
        room,
        alice,
        bob,
        audio,
        video,
        consumer,
        heard,
    };
    scene.worker.asked().await;
    scene.told();
    scene
}

fn join(room: &Room, name: &str) -> Peer {
    let request = json!({ "method": "join", "peerName": name,
        "rtpCapabilities": room.rtp_capabilities() });
    room.join(request).unwrap().0
}

async fn ask(peer: &Peer, method: &str, mut members: Value) -> Value {
    members["method"] = method.into();
    peer.receive_request(members).await.unwrap()
}

async fn notify(peer: &Peer, method: &str, mut members: Value) {
    members["method"] = method.into();
    members["notification"] = true.into();
    peer.receive_notification(members).await.unwrap();
}

async fn produce(peer: &Peer, id: u32, kind: &str) -> Producer {
    let codec = match kind {
        "audio" => json!({ "name": "opus", "mimeType": "audio/opus", "payloadType": 111,
            "clockRate": 48000, "channels": 2 }),
        _ => json!({ "name": "VP8", "mimeType": "video/VP8", "payloadType": 96,
            "clockRate": 90000 }),
    };
    let parameters = json!({ "codecs": [codec], "encodings": [{ "ssrc": id }], "rtcp": {} });
    let members = json!({ "id": id, "kind": kind, "transportId": 1, "rtpParameters": parameters });
    ask(peer, "createProducer", members).await;
    peer.get_producer_by_id(id).unwrap()
}

fn pending<E>(events: &mut EventStream<E>) -> Vec<E> {
    let next = || futures_util::FutureExt::now_or_never(events.recv()).flatten();
    std::iter::from_fn(next).collect()
}

impl Scene {
    /// What bob has been told: method and the members that matter here.
    fn told(&mut self) -> Vec<Value> {
        let told = pending(&mut self.heard).into_iter();
        let told = told.filter_map(|event| match event {
            PeerEvent::Notify(mut message) => {
                let members = message.as_object_mut().unwrap();
                members.remove("target");
                members.remove("notification");
                Some(message)
            }
            _ => None,
        });
        told.collect()
    }

    /// What is asked once a transport's statistics are, which were enabled last; sorted.
    async fn stats_asked(&self) -> Vec<&'static str> {
        let mut asked = Vec::new();
        while !asked.contains(&"transport.getStats") {
            asked.extend(self.worker.methods().await);
        }
        asked.extend(self.worker.methods().await);
        asked.sort_unstable();
        asked
    }

    /// A message about bob's consumer, as he is told it.
    fn about_consumer(&self, method: &str, members: Value) -> Value {
        let mut message = json!({ "method": method, "id": self.consumer.id(),
            "peerName": "alice" });
        message
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        message
    }
}

#[tokio::test]
async fn a_room_closes_with_one_request_and_without_any_if_the_worker_is_gone() {
    for (reason, expected) in [
        (CloseReason::Application, &["router.close"][..]),
        (CloseReason::Server, &["router.close"]),
        (CloseReason::WorkerDied("why".into()), &[]),
    ] {
        let mut scene = scene().await;
        scene.room.close_for(reason.clone(), None);
        assert!(scene.consumer.closed() && scene.bob.closed());
        assert_eq!(scene.worker.methods().await, expected, "{reason:?}");
        scene.told();
        // What the worker said before it heard of that finds nothing.
        scene.worker.tell(TRANSPORT, "close", json!(null)).await;
        let id = scene.consumer.id();
        scene.worker.tell(id, "sourcepaused", json!(null)).await;
        assert!(scene.told().is_empty() && !scene.consumer.source_paused());
    }
}

#[tokio::test]
async fn a_peer_closes_its_producers_then_its_consumers_then_its_transports() {
    let scene = scene().await;
    scene.alice.close(None);
    let expected = ["producer.close", "producer.close", "transport.close"];
    assert_eq!(scene.worker.methods().await, expected);
    let carol = join(&scene.room, "carol");
    let of_bob = scene.bob.clone();
    let transport = json!({ "id": 1, "direction": "send" });
    ask(&carol, "createTransport", transport).await;
    produce(&carol, 12, "video").await;
    scene.worker.asked().await;
    of_bob.close(None);
    let expected = ["consumer.close", "transport.close"];
    assert_eq!(scene.worker.methods().await, expected);
}

#[tokio::test]
async fn the_worker_hears_of_the_sum_of_two_pauses() {
    let scene = scene().await;
    let (video, consumer) = (&scene.video, &scene.consumer);
    for (kind, id, peer) in [
        ("Producer", video.id(), &scene.alice),
        ("Consumer", consumer.id(), &scene.bob),
    ] {
        let pause = |paused| match (kind, paused) {
            ("Producer", true) => video.pause(None),
            ("Producer", false) => video.resume(None),
            (_, true) => consumer.pause(None),
            (_, false) => consumer.resume(None),
        };
        let told = |method: &str| {
            let method = format!("{method}{kind}");
            async move { notify(peer, &method, json!({ "id": id })).await }
        };
        let asked = async |expected: &[&str]| {
            let expected: Vec<_> = expected.iter().map(|m| kind.to_lowercase() + m).collect();
            assert_eq!(scene.worker.methods().await, expected, "{kind}");
        };
        assert!(pause(true));
        asked(&[".pause"]).await;
        told("pause").await;
        assert!(pause(true));
        assert!(!pause(false));
        asked(&[]).await;
        // Nothing is left to take back on this side.
        assert!(pause(false));
        told("resume").await;
        asked(&[".resume"]).await;
        told("resume").await;
        asked(&[]).await;
    }
}

#[tokio::test]
async fn a_refusal_of_what_nobody_waits_for_changes_nothing_here() {
    let mut scene = scene().await;
    let refused = [
        "producer.pause",
        "consumer.pause",
        "consumer.close",
        "transport.close",
    ];
    for method in refused {
        scene.worker.refuse(method);
    }
    assert!(scene.video.pause(None) && scene.consumer.pause(None));
    scene.worker.settle().await;
    assert!(scene.video.locally_paused() && scene.consumer.locally_paused());
    scene.consumer.close();
    let transport = scene.bob.get_transport_by_id(TRANSPORT).unwrap();
    transport.close(None);
    assert_eq!(scene.worker.methods().await, refused);
    assert!(scene.consumer.closed() && transport.closed());
    let told = scene.told();
    let told: Vec<_> = told.iter().map(|message| &message["method"]).collect();
    assert_eq!(
        told,
        ["consumerPaused", "consumerClosed", "transportClosed"]
    );
}

#[tokio::test]
async fn key_frames_are_asked_for_while_video_is_being_sent_alone() {
    let scene = scene().await;
    let consumer = &scene.consumer;
    let of_audio = scene.bob.get_consumer_for_source(&scene.audio).unwrap();
    of_audio.request_key_frame();
    let members = json!({ "id": of_audio.id(), "transportId": TRANSPORT });
    ask(&scene.bob, "enableConsumer", members).await;
    scene.worker.asked().await;
    of_audio.request_key_frame();
    assert!(scene.worker.methods().await.is_empty());
    consumer.request_key_frame();
    assert_eq!(scene.worker.methods().await, ["consumer.requestKeyFrame"]);
    consumer.pause(None);
    scene.worker.asked().await;
    consumer.request_key_frame();
    assert!(scene.worker.methods().await.is_empty());
    consumer.resume(None);
    scene
        .bob
        .get_transport_by_id(TRANSPORT)
        .unwrap()
        .close(None);
    scene.worker.asked().await;
    assert!(!consumer.enabled());
    consumer.request_key_frame();
    consumer.close();
    consumer.request_key_frame();
    assert_eq!(scene.worker.methods().await, ["consumer.close"]);
}

#[tokio::test]
async fn encoding_preferences_are_passed_on_while_it_is_open() {
    let scene = scene().await;
    let preferences = EncodingPreferences {
        temporal_layer: Some(1),
    };
    scene.consumer.set_encoding_preferences(preferences);
    let [request] = &scene.worker.asked().await[..] else {
        panic!("one request");
    };
    assert_eq!(request.call, Call::SetEncodingPreferences(preferences));
    assert_eq!(
        request.ids.consumer_id.map(|id| id.0),
        Some(scene.consumer.id())
    );
    scene.consumer.close();
    scene.worker.asked().await;
    scene.consumer.set_encoding_preferences(preferences);
    assert!(scene.worker.asked().await.is_empty());
}

#[tokio::test]
async fn a_preferred_profile_counts_once_the_worker_has_accepted_it() {
    let mut scene = scene().await;
    let (video, consumer) = (scene.video.clone(), scene.consumer.clone());
    video.set_preferred_profile(Profile::Low);
    consumer.set_preferred_profile(Profile::High);
    let now = |video: &Producer, consumer: &Consumer| {
        (video.preferred_profile(), consumer.preferred_profile())
    };
    assert_eq!(now(&video, &consumer), (Profile::Default, Profile::Default));
    let expected = [
        "producer.setPreferredProfile",
        "consumer.setPreferredProfile",
    ];
    assert_eq!(scene.worker.methods().await, expected);
    assert_eq!(now(&video, &consumer), (Profile::Low, Profile::High));
    let told = scene.about_consumer("consumerPreferredProfileSet", json!({ "profile": "high" }));
    assert_eq!(scene.told(), [told]);
    for method in expected {
        scene.worker.refuse(method);
    }
    video.set_preferred_profile(Profile::Medium);
    consumer.set_preferred_profile(Profile::Medium);
    let members = json!({ "id": consumer.id(), "profile": "medium" });
    notify(&scene.bob, "setConsumerPreferredProfile", members).await;
    scene.worker.settle().await;
    assert_eq!(now(&video, &consumer), (Profile::Low, Profile::High));
    assert!(scene.told().is_empty());
}

#[tokio::test]
async fn a_consumer_that_the_worker_refuses_closes_and_its_client_is_told() {
    let mut scene = scene().await;
    scene.worker.refuse("router.createConsumer");
    let source = produce(&scene.alice, 13, "video").await;
    let consumer = scene.bob.get_consumer_for_source(&source).unwrap();
    scene.worker.settle().await;
    assert!(consumer.closed() && !source.closed());
    assert_eq!(scene.bob.get_consumer_for_source(&source), None);
    let told: Vec<_> = scene
        .told()
        .into_iter()
        .map(|m| m["method"].clone())
        .collect();
    assert_eq!(told, ["newConsumer", "consumerClosed"]);
    assert_eq!(
        scene.worker.methods().await,
        ["router.createProducer", "router.createConsumer"]
    );
}

#[tokio::test]
async fn a_transport_that_the_worker_closes_closes_as_the_applications_doing() {
    let mut scene = scene().await;
    let transport = scene.bob.get_transport_by_id(TRANSPORT).unwrap();
    let mut events = transport.events();
    scene.worker.tell(TRANSPORT, "close", json!(null)).await;
    let seen = pending(&mut events);
    let [
        TransportEvent::Close {
            originator,
            app_data,
        },
    ] = &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_eq!((*originator, app_data), (Originator::Local, &None));
    let told = json!({ "method": "transportClosed", "id": TRANSPORT });
    assert_eq!(scene.told(), [told]);
    assert!(transport.closed() && !scene.consumer.enabled() && !scene.consumer.closed());
    assert!(scene.worker.methods().await.is_empty());
}

#[tokio::test]
async fn a_consumer_that_the_worker_closes_is_not_closed_there_again() {
    let mut scene = scene().await;
    let mut events = scene.consumer.events();
    pending(&mut events);
    let id = scene.consumer.id();
    scene.worker.tell(id, "close", json!(null)).await;
    assert!(matches!(pending(&mut events)[..], [ConsumerEvent::Close]));
    let told = scene.about_consumer("consumerClosed", json!({}));
    assert_eq!(scene.told(), [told]);
    assert!(scene.worker.methods().await.is_empty());
    // The echo of a request of ours finds nothing any more.
    scene.worker.tell(id, "close", json!(null)).await;
    assert!(scene.told().is_empty());
}

#[tokio::test]
async fn an_effective_profile_is_told_when_it_changes() {
    let mut scene = scene().await;
    let consumer = scene.consumer.clone();
    let mut events = consumer.events();
    pending(&mut events);
    assert_eq!(consumer.effective_profile(), None);
    for (profile, is_new) in [
        ("low", true),
        ("low", false),
        ("high", true),
        ("none", true),
    ] {
        let data = json!({ "profile": profile });
        let event = "effectiveprofilechange";
        scene.worker.tell(consumer.id(), event, data.clone()).await;
        assert_eq!(consumer.effective_profile().unwrap().as_str(), profile);
        let seen = pending(&mut events);
        let is_it = |event: &ConsumerEvent| matches!(event, ConsumerEvent::EffectiveProfileChange(p) if p.as_str() == profile);
        assert_eq!(seen.len(), usize::from(is_new), "{seen:?}");
        assert!(seen.iter().all(is_it), "{seen:?}");
        let told = scene.about_consumer("consumerEffectiveProfileChanged", data);
        assert_eq!(scene.told(), Vec::from_iter(is_new.then_some(told)));
    }
    // One that is not enabled tells the application alone.
    let other = scene.bob.get_consumer_for_source(&scene.audio).unwrap();
    let data = json!({ "profile": "default" });
    let event = "effectiveprofilechange";
    scene.worker.tell(other.id(), event, data).await;
    assert_eq!(other.effective_profile(), Some(Profile::Default));
    assert!(scene.told().is_empty());
}

#[tokio::test]
async fn levels_are_sorted_and_those_of_unknown_producers_left_out() {
    let scene = scene().await;
    let mut levels = scene.room.audio_levels();
    let set = |asked: Vec<broth_ipc::Request>| -> Vec<bool> {
        let enabled = |request: broth_ipc::Request| match request.call {
            Call::SetAudioLevelsEvent(request) => Some(request.enabled),
            _ => None,
        };
        asked.into_iter().filter_map(enabled).collect()
    };
    assert_eq!(set(scene.worker.asked().await), [true]);
    let other = scene.room.audio_levels();
    assert!(scene.worker.asked().await.is_empty());
    let entries = json!({ "entries": [[12, -60], [99, -1], [11, -20]] });
    scene
        .worker
        .tell(scene.room.id(), "audiolevels", entries)
        .await;
    let heard = pending(&mut levels);
    let expected = vec![(scene.audio.clone(), -20), (scene.video.clone(), -60)];
    assert_eq!(heard, [expected]);
    drop((levels, other));
    let entries = json!({ "entries": [] });
    scene
        .worker
        .tell(scene.room.id(), "audiolevels", entries)
        .await;
    assert_eq!(set(scene.worker.asked().await), [false]);
}

#[tokio::test]
async fn a_streamer_has_no_client_to_send_statistics_to() {
    let scene = scene().await;
    let options = RtpStreamerOptions {
        remote: ([127, 0, 0, 1], 9).into(),
        local_ip: None,
    };
    let streamer = scene.room.create_rtp_streamer(&scene.video, options).await;
    let streamer = streamer.unwrap();
    assert_eq!(
        scene.worker.methods().await,
        [
            "router.createPlainRtpTransport",
            "router.createConsumer",
            "consumer.enable"
        ]
    );
    streamer.consumer().enable_stats(1000);
    let transport = scene.bob.get_transport_by_id(TRANSPORT).unwrap();
    transport.enable_stats(1000);
    assert_eq!(scene.stats_asked().await, ["transport.getStats"]);
    // Closed while enabled: closing says the last of it.
    let mut events = streamer.consumer().events();
    pending(&mut events);
    streamer.close();
    assert!(matches!(pending(&mut events)[..], [ConsumerEvent::Close]));
    assert_eq!(
        scene.worker.methods().await,
        ["consumer.close", "transport.close"]
    );
}

#[tokio::test]
async fn a_streamer_that_cannot_be_enabled_closes_what_was_made() {
    let scene = scene().await;
    scene.worker.refuse("consumer.enable");
    let options = RtpStreamerOptions {
        remote: ([127, 0, 0, 1], 9).into(),
        local_ip: None,
    };
    let refused = scene.room.create_rtp_streamer(&scene.video, options).await;
    assert_eq!(refused.unwrap_err().to_string(), "no");
    assert_eq!(
        scene.worker.methods().await[3..],
        ["consumer.close", "transport.close"]
    );
}

#[tokio::test]
async fn statistics_are_asked_for_only_while_they_are_sent() {
    let mut scene = scene().await;
    let (video, consumer) = (scene.video.clone(), scene.consumer.clone());
    let transport = scene.bob.get_transport_by_id(TRANSPORT).unwrap();
    // Twice is once.
    for _ in 0..2 {
        video.enable_stats(1000);
        consumer.enable_stats(1000);
        transport.enable_stats(1000);
    }
    let expected = ["consumer", "producer", "transport"].map(|kind| format!("{kind}.getStats"));
    assert_eq!(scene.stats_asked().await, expected);
    let told = [
        scene.about_consumer("consumerStats", json!({ "stats": [] })),
        json!({ "method": "transportStats", "id": TRANSPORT, "stats": [] }),
    ];
    let mut heard = scene.told();
    heard.sort_by_key(|message| message["method"].to_string());
    assert_eq!(heard, told);
    video.disable_stats();
    consumer.disable_stats();
    transport.disable_stats();
    video.pause(None);
    consumer.pause(None);
    scene.worker.asked().await;
    video.enable_stats(1000);
    consumer.enable_stats(1000);
    // This one is not enabled.
    let of_audio = scene.bob.get_consumer_for_source(&scene.audio).unwrap();
    of_audio.enable_stats(1000);
    transport.enable_stats(1000);
    assert_eq!(scene.stats_asked().await, ["transport.getStats"]);
    // Closed ones have none.
    let other = scene.alice.get_transport_by_id(1).unwrap();
    of_audio.disable_stats();
    transport.close(None);
    consumer.close();
    video.close(None);
    scene.worker.asked().await;
    video.enable_stats(1000);
    consumer.enable_stats(1000);
    transport.enable_stats(1000);
    other.enable_stats(1000);
    assert_eq!(scene.stats_asked().await, ["transport.getStats"]);
}
