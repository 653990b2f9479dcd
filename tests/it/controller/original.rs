//! The controller on mediasoup v2's own worker, which knows no `hello`.
//!
//! Ignored unless asked for: `./scripts/v2-worker` builds that worker, and
//! `BROTH_ORIGINAL_WORKER` names it.

use std::net::UdpSocket;

use broth::{
    CloseReason, DtlsState, Error, IceState, MirroringOptions, RoomEvent, RoomOptions,
    RtpStreamerOptions, Server, ServerEvent, Settings, TransportEvent, WorkerBin,
};
use broth_client::peer::Peer;
use broth_worker::srtp::Profile;
use serde_json::json;

use super::media::{connect_receiver_by, connect_sender_by, receive, send_opus, send_vp8};
use super::support::{
    Client, House, PATIENCE, codecs, dtls, identity, opus, settings, soon, vp8, wait_for,
};

/// The profile that the original negotiates with everybody.
const PROFILE: Profile = Profile::Aes128CmSha1_80;

fn original_settings(test: u16, num_workers: usize) -> Settings {
    let path = std::env::var_os("BROTH_ORIGINAL_WORKER");
    let path = path.expect("BROTH_ORIGINAL_WORKER names the original worker");
    Settings {
        worker_bin: WorkerBin::Path(path.into()),
        ..settings(test, num_workers)
    }
}

async fn house(test: u16) -> House {
    let server = Server::new(original_settings(test, 1)).await.unwrap();
    let room = server.room(&codecs(), RoomOptions::default()).await;
    House {
        server,
        room: room.unwrap(),
    }
}

#[tokio::test]
#[ignore = "needs the original worker"]
async fn what_the_original_cannot_do_is_not_offered() {
    let house = house(90).await;
    let offered = serde_json::to_value(house.room.rtp_capabilities()).unwrap();
    let text = offered.to_string();
    assert!(
        !text.contains("transport-cc") && !text.contains("transport-wide-cc"),
        "{text}"
    );
    assert!(house.room.ports().is_empty());
    let alice = house.join("alice");
    let answer = alice.create_transport(1, "send").await;
    assert_eq!(answer["iceCandidates"][0]["ip"], "127.0.0.1");
    let refused = alice.web_rtc(1).set_max_bitrate(0).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the original worker cannot remove a limit"
    );
    alice.web_rtc(1).set_max_bitrate(300_000).await.unwrap();
    house.server.close().await;
}

#[tokio::test]
#[ignore = "needs the original worker"]
async fn ids_of_one_worker_are_kept_apart() {
    let house = house(91).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    let source = alice.produce(2, 1, vp8(1000)).await;
    let consumer = bob.peer.get_consumer_for_source(&source).unwrap();
    let codecs = codecs();
    let other = house.server.room(&codecs, RoomOptions::default());
    let other = Client::join(&other.await.unwrap(), json!({ "peerName": "eve" })).0;
    for taken in [1, consumer.id(), house.room.id()] {
        let members = json!({ "id": taken, "direction": "send" });
        let refused = other.request("createTransport", members).await.unwrap_err();
        let text = "a Transport with same transportId already exists";
        assert_eq!(refused.to_string(), text);
    }
    house.server.close().await;
}

#[tokio::test]
#[ignore = "needs the original worker"]
async fn media_crosses_and_events_find_their_objects() {
    let house = house(92).await;
    let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender_by(&alice, 1, PROFILE).await;
    let transport = alice.web_rtc(1);
    let mut events = transport.events();
    wait_for(&mut events, "DTLS", |event| {
        matches!(event, TransportEvent::DtlsStateChange(DtlsState::Connected)).then_some(())
    })
    .await;
    let state = transport.ice_state();
    assert!(
        matches!(state, IceState::Connected | IceState::Completed),
        "{state:?}"
    );
    assert!(transport.ice_selected_tuple().is_some() && transport.dtls_remote_cert().is_some());

    let source = alice.produce(3, 1, vp8(1000)).await;
    let receiver = connect_receiver_by(&bob, 2, PROFILE).await;
    let consumer = bob.consume(&source, 2).await;
    send_until_received(
        &sender,
        receiver,
        consumer.rtp_parameters().encodings[0].ssrc,
    )
    .await;
    assert_eq!(
        bob.hear("consumerEffectiveProfileChanged").await["profile"],
        "default"
    );
    assert_eq!(consumer.get_stats().await.unwrap().len(), 2);
    assert_eq!(source.get_stats().await.unwrap()[0].ssrc, 1000);
    assert_eq!(transport.get_stats().await.unwrap().len(), 1);

    source.pause(None);
    assert_eq!(bob.hear("consumerPaused").await["id"], consumer.id());
    source.resume(None);
    assert_eq!(bob.hear("consumerResumed").await["id"], consumer.id());
    let restarted = alice
        .request("restartTransport", json!({ "id": 1 }))
        .await
        .unwrap();
    assert_eq!(restarted["iceParameters"]["iceLite"], true);
    let dump = alice.peer.dump().await.unwrap();
    assert_eq!(dump["producers"][0]["producerId"], 3);
    assert_eq!(house.server.dump().await.unwrap()[0].routers.len(), 1);

    alice.notify("closeProducer", json!({ "id": 3 })).await;
    assert_eq!(bob.hear("consumerClosed").await["id"], consumer.id());
    alice.told().await;
    let members = json!({ "id": 1, "dtlsParameters": dtls("server") });
    alice.notify("updateTransport", members).await;
    assert_eq!(
        alice.told().await,
        [json!({ "method": "transportClosed", "id": 1 })]
    );
    assert_eq!(house.counts().await, [1, 0, 0]);
    house.server.close().await;
}

/// Sends key frames until one arrives: the original forwards nothing while it connects.
async fn send_until_received(sender: &Peer, receiver: Peer, ssrc: Option<u32>) {
    let mut received = Box::pin(receive(receiver));
    let arrived = async {
        for seq in 0.. {
            send_vp8(sender, 1000, seq, true);
            let pause = std::time::Duration::from_millis(20);
            if let Ok((_, received, _)) = tokio::time::timeout(pause, &mut received).await {
                return received;
            }
        }
        unreachable!("the sequence has no end");
    };
    assert_eq!(Some(soon("a packet", arrived).await), ssrc);
}

#[tokio::test]
#[ignore = "needs the original worker"]
async fn a_streamer_and_a_mirror_are_bound_by_the_worker() {
    let house = house(93).await;
    let alice = house.join("alice");
    let sender = connect_sender_by(&alice, 1, PROFILE).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    let tool = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let remote = socket.local_addr().unwrap();
        (socket, remote)
    };
    let (streamed, remote) = tool();
    let options = RtpStreamerOptions {
        remote,
        local_ip: None,
    };
    let streamer = house
        .room
        .create_rtp_streamer(&source, options)
        .await
        .unwrap();
    let (mirrored, remote) = tool();
    let transport = alice.web_rtc(1);
    let mirroring = MirroringOptions::new(remote);
    transport.start_mirroring(mirroring).await.unwrap();
    let refused = transport.start_mirroring(mirroring).await.unwrap_err();
    assert_eq!(refused.to_string(), "Transport is already mirroring");
    for seq in 0..20 {
        send_vp8(&sender, 1000, seq, true);
    }
    for socket in [streamed, mirrored] {
        let receiving = move || socket.recv(&mut [0; 2048]).unwrap();
        assert!(tokio::task::spawn_blocking(receiving).await.unwrap() > 0);
    }
    transport.stop_mirroring().await.unwrap();
    streamer.close();
    assert_eq!(house.counts().await, [1, 1, 0]);
    house.server.close().await;
}

#[tokio::test]
#[ignore = "needs the original worker"]
async fn audio_levels_are_told_by_room() {
    let house = house(94).await;
    let alice = house.join("alice");
    let sender = connect_sender_by(&alice, 1, PROFILE).await;
    let source = alice.produce(3, 1, opus(1000)).await;
    let mut levels = house.room.audio_levels();
    let heard = async {
        for seq in 0.. {
            send_opus(&sender, 1000, seq, 30);
            let pause = std::time::Duration::from_millis(20);
            if let Ok(Some(report)) = tokio::time::timeout(pause, levels.recv()).await
                && !report.is_empty()
            {
                return report;
            }
        }
        unreachable!("the sequence has no end");
    };
    let heard = soon("levels", heard).await;
    assert_eq!((&heard[0].0, heard.len()), (&source, 1));
    drop(levels);
    house.server.close().await;
}

#[tokio::test]
#[ignore = "needs the original worker"]
async fn its_death_closes_its_rooms_and_another_takes_its_place() {
    let house = house(95).await;
    let mut events = house.room.events();
    let mut of_server = house.server.events();
    let pid = house.server.workers()[0].pid;
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let reason = wait_for(&mut events, "the close event", |event| match event {
        RoomEvent::Close { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    let reason = reason.await;
    assert!(matches!(reason, CloseReason::WorkerDied(_)), "{reason:?}");
    wait_for(&mut of_server, "another worker", |event| match event {
        ServerEvent::WorkerReady { pid: other, .. } => {
            (*other != pid.as_raw() as u32).then_some(())
        }
        _ => None,
    })
    .await;
    house
        .server
        .room(&codecs(), RoomOptions::default())
        .await
        .unwrap();
    house.server.close().await;
}

#[tokio::test]
#[ignore = "needs the original worker"]
async fn settings_it_cannot_serve_are_refused_with_a_reason() {
    let key = Settings {
        dtls: Some(identity()),
        ..original_settings(96, 1)
    };
    let refused = Server::new(key).await.unwrap_err().to_string();
    assert!(
        refused.contains("reads its DTLS certificate from files"),
        "{refused}"
    );
    let crowded = Settings {
        listen: vec![
            std::net::IpAddr::from([127, 0, 0, 1]).into(),
            std::net::IpAddr::from([127, 0, 0, 2]).into(),
        ],
        ..original_settings(96, 1)
    };
    let refused = Server::new(crowded).await.unwrap_err().to_string();
    assert!(refused.contains("one address per family"), "{refused}");
    let narrow = Settings {
        rtc_ports: 22_000..=22_001,
        ..original_settings(96, 2)
    };
    let refused = Server::new(narrow).await.unwrap_err();
    assert!(!matches!(refused, Error::Timeout), "{refused}");
}
