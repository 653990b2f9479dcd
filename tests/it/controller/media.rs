//! Media between real peers, through transports that the protocol's requests made.

use broth::{ConsumerEvent, DtlsState, IceState, TransportEvent};
use broth_client::peer::{Endpoint, Peer};
use broth_client::rtp::vp8_packet;
use broth_ipc::body::DtlsRole;
use broth_worker::srtp::Profile;
use broth_worker::wire::rtcp;
use broth_worker::wire::rtp::RtpEmit;
use serde_json::{Value, json};

use super::support::{Client, House, LEVEL_EXT, opus, pending, simulcast, soon, vp8, wait_for};
use crate::support::{Packet, receive_rtp};

#[tokio::test]
async fn video_crosses_and_everybody_is_told_how_it_goes() {
    let house = House::new(70).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    let consumer = bob.consume(&source, 2).await;
    let mut events = consumer.events();

    for (client, id) in [(&alice, 1), (&bob, 2)] {
        let transport = client.web_rtc(id);
        let mut events = transport.events();
        wait_for(&mut events, "DTLS", |event| {
            matches!(event, TransportEvent::DtlsStateChange(DtlsState::Connected)).then_some(())
        })
        .await;
        assert_eq!(transport.dtls_state(), DtlsState::Connected);
        assert!(matches!(
            transport.ice_state(),
            IceState::Connected | IceState::Completed
        ));
        let cert = transport.dtls_remote_cert().unwrap();
        assert!(cert.starts_with("-----BEGIN CERTIFICATE-----"));
        let tuple = transport.ice_selected_tuple().unwrap();
        assert_eq!(tuple.local_port, house.room.ports()[0].1);
        assert_eq!(transport.get_stats().await.unwrap().len(), 1);
    }

    send_vp8(&sender, 1000, 0, true);
    let (receiver, ssrc, first) = receive(receiver).await;
    let own = consumer.rtp_parameters().encodings[0].clone();
    assert_eq!(Some(ssrc), own.ssrc);
    send_vp8(&sender, 1000, 1, false);
    let (receiver, ssrc, second) = receive(receiver).await;
    assert_eq!((Some(ssrc), second), (own.ssrc, first.wrapping_add(1)));

    let told = bob.hear("consumerEffectiveProfileChanged").await;
    let expected = json!({ "method": "consumerEffectiveProfileChanged", "id": consumer.id(),
        "peerName": "alice", "profile": "default" });
    assert_eq!(told, expected);
    wait_for(&mut events, "the profile", |event| {
        let wanted = broth::Profile::Default;
        matches!(event, ConsumerEvent::EffectiveProfileChange(p) if *p == wanted).then_some(())
    })
    .await;
    assert_eq!(consumer.effective_profile(), Some(broth::Profile::Default));

    let stats = source.get_stats().await.unwrap();
    assert_eq!((stats.len(), stats[0].kind.as_str()), (1, "inbound-rtp"));
    assert_eq!((stats[0].ssrc, stats[0].packet_count), (1000, 2));
    assert_eq!(
        (stats[0].mime_type.as_str(), stats[0].packets_lost),
        ("video/VP8", 0)
    );
    assert_eq!(stats[0].byte_count, 2 * (12 + 200));
    let stats = consumer.get_stats().await.unwrap();
    let kinds: Vec<_> = stats
        .iter()
        .map(|s| (s.kind.as_str(), s.packet_count))
        .collect();
    assert_eq!(kinds, [("inbound-rtp", 2), ("outbound-rtp", 2)]);
    assert_eq!(Some(stats[1].ssrc), own.ssrc);
    let stats = bob.web_rtc(2).get_stats().await.unwrap();
    assert!(stats[0].bytes_sent > Some(2 * 200), "{stats:?}");
    assert!(stats[0].bytes_received > Some(0), "{stats:?}");
    let dump = bob.peer.dump().await.unwrap();
    assert_eq!(dump["peerName"], "bob");
    assert_eq!(dump["consumers"][0]["consumerId"], consumer.id());

    // A pause by the application stops it, the next key frame after it starts it anew.
    source.pause(None);
    house.room.dump().await.unwrap();
    send_vp8(&sender, 1000, 2, false);
    house.counts().await;
    source.resume(None);
    house.counts().await;
    send_vp8(&sender, 1000, 3, true);
    let (_, _, third) = receive(receiver).await;
    assert_eq!(third, second.wrapping_add(1));
    house.server.close().await;
}

#[tokio::test]
async fn states_come_in_order_and_end_with_the_transport() {
    let house = House::new(71).await;
    let alice = house.join("alice");
    let _sender = connect_sender(&alice, 1).await;
    let transport = alice.web_rtc(1);
    let mut events = transport.events();
    let mut seen = Vec::new();
    wait_for(&mut events, "DTLS", |event| {
        seen.push(match event {
            TransportEvent::IceSelectedTupleChange(_) => "tuple".to_owned(),
            TransportEvent::IceStateChange(state) => format!("ICE {state:?}"),
            TransportEvent::DtlsStateChange(state) => format!("DTLS {state:?}"),
            TransportEvent::Implicated { .. } => "implicated".to_owned(),
            TransportEvent::Close { .. } => "close".to_owned(),
        });
        seen.last()
            .is_some_and(|last| last == "DTLS Connected")
            .then_some(())
    })
    .await;
    // One check with USE-CANDIDATE: connected and completed may be one step.
    seen.retain(|line| line != "ICE Connected");
    assert_eq!(
        seen,
        [
            "tuple",
            "ICE Completed",
            "DTLS Connecting",
            "DTLS Connected"
        ]
    );
    transport.close(None);
    let seen = pending(&mut events);
    let ends = |event: &TransportEvent| matches!(event, TransportEvent::Close { .. });
    assert!(seen.last().is_some_and(ends), "{seen:?}");
    assert_eq!(transport.ice_state(), IceState::Closed);
    assert_eq!(transport.dtls_state(), DtlsState::Closed);
    assert_eq!(transport.ice_selected_tuple(), None);
    house.server.close().await;
}

#[tokio::test]
async fn a_consumer_goes_on_over_a_new_transport_of_the_same_id() {
    let house = House::new(72).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    for seq in 0..3 {
        let receiver = connect_receiver(&bob, 2).await;
        let consumer = bob.consume(&source, 2).await;
        send_vp8(&sender, 1000, seq, true);
        let (_, ssrc, _) = receive(receiver).await;
        assert_eq!(Some(ssrc), consumer.rtp_parameters().encodings[0].ssrc);
        bob.notify("closeTransport", json!({ "id": 2 })).await;
        assert!(!consumer.enabled() && !consumer.closed());
    }
    assert_eq!(house.counts().await, [1, 1, 1]);
    house.server.close().await;
}

#[tokio::test]
async fn a_wished_layer_becomes_the_effective_one() {
    let house = House::new(73).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let _receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, simulcast(1000)).await;
    let consumer = bob.consume(&source, 2).await;
    let mut seq = 0;
    for (wish, expected) in [("low", "low"), ("high", "high"), ("medium", "medium")] {
        let members = json!({ "id": consumer.id(), "profile": wish });
        bob.notify("setConsumerPreferredProfile", members).await;
        // Key frames of all layers, until the change is told.
        let told = async {
            loop {
                for ssrc in [1000, 1100, 1200] {
                    send_vp8(&sender, ssrc, seq, true);
                }
                seq += 1;
                let told = bob.told().await;
                let is_it = |m: &&Value| {
                    m["method"] == "consumerEffectiveProfileChanged" && m["profile"] == expected
                };
                if told.iter().any(|m| is_it(&m)) {
                    break;
                }
            }
        };
        soon("the layer", told).await;
        assert_eq!(consumer.effective_profile().unwrap().as_str(), expected);
    }
    let stats = source.get_stats().await.unwrap();
    let ssrcs: Vec<_> = stats.iter().map(|s| s.ssrc).collect();
    assert_eq!(ssrcs.len(), 3, "{ssrcs:?}");
    house.server.close().await;
}

#[tokio::test]
async fn the_loudest_producer_comes_first() {
    let house = House::new(74).await;
    let alice = house.join("alice");
    let sender = connect_sender(&alice, 1).await;
    let quiet = alice.produce(3, 1, opus(1000)).await;
    let loud = alice.produce(4, 1, opus(2000)).await;
    let silent = alice.produce(5, 1, opus(3000)).await;
    let mut levels = house.room.audio_levels();
    let mut seq = 0;
    let heard = async {
        loop {
            for (ssrc, level) in [(1000, 60), (2000, 20)] {
                send_opus(&sender, ssrc, seq, level);
            }
            seq += 1;
            let report = tokio::time::timeout(std::time::Duration::from_millis(20), levels.recv());
            match report.await {
                Ok(Some(report)) if report.len() == 2 => return report,
                Ok(None) => panic!("the reports ended"),
                _ => {}
            }
        }
    };
    let heard = soon("levels", heard).await;
    assert_eq!(heard, [(loud, -20), (quiet, -60)]);
    assert!(!silent.closed());
    house.server.close().await;
}

#[tokio::test]
async fn a_key_frame_is_asked_for_when_the_application_wants_one() {
    let house = House::new(109).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let receiver = connect_receiver(&bob, 2).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    let consumer = bob.consume(&source, 2).await;
    // It begins with a key frame, so none is asked for until then.
    send_vp8(&sender, 1000, 0, true);
    receive(receiver).await;
    consumer.request_key_frame();
    await_pli(sender).await;
    house.server.close().await;
}

/// Waits for a request for a key frame, away from the runtime's threads.
async fn await_pli(mut peer: Peer) -> Peer {
    let receiving = move || {
        let is_pli = |packet| match packet {
            Packet::Rtcp(compound) => rtcp::packets(&compound)
                .flatten()
                .any(|packet| matches!(packet, rtcp::Packet::Pli { media: 1000, .. }))
                .then_some(()),
            Packet::Rtp(..) => None,
        };
        crate::support::receive(&mut peer, is_pli).expect("a request in time");
        peer
    };
    tokio::task::spawn_blocking(receiving).await.unwrap()
}

/// Sends a packet of opus; `level` is how far below the loudest it is, in dB (RFC 6464).
pub(crate) fn send_opus(peer: &Peer, ssrc: u32, seq: u16, level: u8) {
    let emit = RtpEmit {
        marker: false,
        pt: 111,
        seq,
        ts: u32::from(seq) * 960,
        ssrc,
    };
    let mut buffer = [0; 200];
    let level = [0x80 | level];
    let exts = [(LEVEL_EXT, &level[..])];
    let len = emit.emit_header(exts.into_iter(), &mut buffer).unwrap() + 40;
    peer.send_rtp(0, &mut buffer, len).unwrap();
}

/// Connects a client that tells its DTLS parameters with the request, as senders do.
pub(crate) async fn connect_sender(client: &Client, id: u32) -> Peer {
    connect_sender_by(client, id, Profile::AeadAes128Gcm).await
}

pub(crate) async fn connect_sender_by(client: &Client, id: u32, profile: Profile) -> Peer {
    let endpoint = Endpoint::new(DtlsRole::Server).unwrap();
    let members = json!({ "id": id, "direction": "send",
        "dtlsParameters": endpoint.dtls_parameters() });
    let answer = client.request("createTransport", members).await.unwrap();
    shake_hands(endpoint, answer, id, profile).await
}

/// Connects a client that tells its DTLS parameters later, as receivers do.
pub(crate) async fn connect_receiver(client: &Client, id: u32) -> Peer {
    connect_receiver_by(client, id, Profile::AeadAes128Gcm).await
}

pub(crate) async fn connect_receiver_by(client: &Client, id: u32, profile: Profile) -> Peer {
    let endpoint = Endpoint::new(DtlsRole::Client).unwrap();
    let answer = client.create_transport(id, "recv").await;
    let members = json!({ "id": id, "dtlsParameters": endpoint.dtls_parameters() });
    client.notify("updateTransport", members).await;
    shake_hands(endpoint, answer, id, profile).await
}

pub(super) async fn shake_hands(
    endpoint: Endpoint,
    answer: Value,
    id: u32,
    profile: Profile,
) -> Peer {
    let connecting = move || endpoint.connect_to(&answer, id, profile);
    tokio::task::spawn_blocking(connecting)
        .await
        .unwrap()
        .unwrap()
}

/// Sends a packet of VP8.
pub(crate) fn send_vp8(peer: &Peer, ssrc: u32, seq: u16, is_keyframe: bool) {
    let mut buffer = [0; 1500];
    let ts = u32::from(seq) * 3000;
    let len = vp8_packet(&mut buffer, ssrc, seq, ts, is_keyframe, true, 200);
    peer.send_rtp(0, &mut buffer, len).unwrap();
}

/// Receives the next RTP packet away from the runtime's threads, and gives the peer back.
pub(crate) async fn receive(mut peer: Peer) -> (Peer, u32, u16) {
    let receiving = move || {
        let (header, _) = receive_rtp(&mut peer).expect("a packet in time");
        (peer, header.ssrc, header.seq)
    };
    tokio::task::spawn_blocking(receiving).await.unwrap()
}
