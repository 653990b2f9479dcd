//! What closed objects refuse, by name (`spec: api.md` §1.1).

use std::fmt::Debug;

use broth::{
    DtlsParameters, DtlsRole, EncodingPreferences, Error, MirroringOptions, Profile, RoomOptions,
    RtpStreamerOptions, WorkerSettings,
};
use serde_json::{Value, json};

use super::support::{House, codecs, opus, vp8};

/// That an operation was refused because an object of that class is closed.
#[track_caller]
fn refused<T: Debug>(result: Result<T, Error>, class: &str) {
    let error = result.unwrap_err();
    assert_eq!(error, Error::InvalidState(format!("{class} closed")));
}

#[tokio::test]
async fn every_method_of_a_closed_transport_is_refused() {
    let house = House::new(100).await;
    let mut alice = house.join("alice");
    alice.create_transport(1, "send").await;
    let members = json!({ "id": 2, "direction": "send", "plainRtpParameters": {} });
    alice.request("createTransport", members).await.unwrap();
    let transports = alice.peer.transports();
    let (web_rtc, plain) = (alice.web_rtc(1), transports[1].as_plain().unwrap().clone());
    for transport in &transports {
        assert!(!transport.closed());
        transport.close(None);
        transport.close(None);
        assert!(transport.closed());
    }
    let told = alice.told().await;
    assert_eq!(told.len(), 2, "{told:?}");
    let class = "WebRtcTransport";
    let parameters = DtlsParameters {
        role: DtlsRole::Client,
        fingerprints: vec![],
    };
    let mirroring = MirroringOptions::new(([127, 0, 0, 1], 9).into());
    refused(web_rtc.set_max_bitrate(0).await, class);
    refused(web_rtc.get_stats().await, class);
    refused(web_rtc.start_mirroring(mirroring).await, class);
    refused(web_rtc.stop_mirroring().await, class);
    refused(web_rtc.dump().await, class);
    refused(web_rtc.set_remote_dtls_parameters(parameters).await, class);
    refused(web_rtc.change_ufrag_pwd().await, class);
    web_rtc.enable_stats(1000);
    web_rtc.disable_stats();
    let class = "PlainRtpTransport";
    let remote = ([127, 0, 0, 1], 9).into();
    refused(plain.set_remote_parameters(remote).await, class);
    refused(plain.dump().await, class);
    refused(transports[1].dump().await, class);
    assert!(alice.told().await.is_empty());
    house.server.close().await;
}

#[tokio::test]
async fn every_method_of_a_closed_producer_or_consumer_is_refused_or_does_nothing() {
    let house = House::new(101).await;
    let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    let producer = alice.produce(3, 1, vp8(1000)).await;
    let consumer = bob.consume(&producer, 2).await;
    producer.close(None);
    alice.told().await;
    bob.told().await;
    assert!(producer.closed() && consumer.closed());
    refused(producer.get_stats().await, "Producer");
    refused(producer.dump().await, "Producer");
    refused(consumer.get_stats().await, "Consumer");
    refused(consumer.dump().await, "Consumer");
    assert!(!producer.pause(None) && !producer.resume(None));
    assert!(!consumer.pause(None) && !consumer.resume(None));
    assert!(!producer.paused() && !consumer.paused());
    producer.set_preferred_profile(Profile::Low);
    consumer.set_preferred_profile(Profile::Low);
    consumer.set_encoding_preferences(EncodingPreferences::default());
    consumer.request_key_frame();
    producer.enable_stats(1000);
    consumer.enable_stats(1000);
    producer.close(None);
    consumer.close();
    assert!(alice.told().await.is_empty() && bob.told().await.is_empty());
    assert_eq!(producer.preferred_profile(), Profile::Default);
    assert_eq!(consumer.preferred_profile(), Profile::Default);
    house.server.close().await;
}

#[tokio::test]
async fn every_method_of_a_closed_peer_room_or_server_is_refused() {
    let house = House::new(102).await;
    let (room, server) = (&house.room, &house.server);
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    let producer = alice.produce(2, 1, opus(1000)).await;
    assert!(!alice.peer.closed() && !room.closed() && !server.closed());
    alice.peer.close(None);
    // The texts for clients speak of the room.
    refused(alice.request("createTransport", json!({})).await, "Room");
    let message = json!({ "method": "leave", "notification": true });
    refused(alice.peer.receive_notification(message).await, "Room");
    refused(alice.peer.dump().await, "Peer");

    room.close(None);
    room.close(Some(json!(1)));
    let class = "Room";
    let options = RtpStreamerOptions {
        remote: ([127, 0, 0, 1], 9).into(),
        local_ip: None,
    };
    refused(room.receive_request(json!({})).await, class);
    refused(room.join(json!({})).map(|_| ()), class);
    refused(room.dump().await, class);
    refused(room.create_rtp_streamer(&producer, options).await, class);
    refused(room.create_active_speaker_detector(), class);
    assert_eq!(room.get_peer_by_name("alice"), None);

    server.close().await;
    server.close().await;
    let class = "Server";
    refused(server.room(&codecs(), RoomOptions::default()).await, class);
    refused(
        server.update_settings(WorkerSettings::default()).await,
        class,
    );
    refused(server.dump().await, class);
    assert!(room.closed() && alice.peer.closed() && server.closed());
    assert_eq!((server.num_workers(), server.workers().len()), (0, 0));
    assert_eq!(alice.peer.app_data(), Value::Null);
}
