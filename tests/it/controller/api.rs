//! Properties and dumps of everything, settings that clients see, and data that only applications
//! understand.

use broth::{
    IceState, ListenAddr, MediaKind, Profile, Protocol, RoomOptions, RtpStreamerOptions, Server,
    Settings, TransportEvent, WorkerSettings,
};
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::{Value, json};

use super::support::{
    Client, House, codecs, identity, merge, opus, pending, producer, settings, simulcast, vp8,
};

/// The ids that a server draws.
const DRAWN: std::ops::RangeInclusive<u32> = 10_000_000..=99_999_999;

#[tokio::test]
async fn ids_and_ssrcs_that_the_server_draws_have_eight_digits() {
    let house = House::new(110).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    assert!(DRAWN.contains(&house.room.id()));
    for id in [json!({}), json!({ "id": 0 })] {
        let mut members = json!({ "direction": "send" });
        merge(&mut members, id.clone());
        let answer = alice.request("createTransport", members).await.unwrap();
        assert_eq!(answer.get("id"), None);
        let transport = alice.peer.transports().pop().unwrap();
        assert!(DRAWN.contains(&transport.id()));
        let mut members = producer(1, transport.id(), vp8(transport.id()));
        members.as_object_mut().unwrap().remove("id");
        merge(&mut members, id);
        let answer = alice.request("createProducer", members).await.unwrap();
        assert_eq!(answer, Value::Null);
        assert!(DRAWN.contains(&alice.peer.producers().pop().unwrap().id()));
    }
    let mut ssrcs = Vec::new();
    for consumer in bob.peer.consumers() {
        assert!(DRAWN.contains(&consumer.id()));
        let encoding = &consumer.rtp_parameters().encodings[0];
        ssrcs.extend([encoding.ssrc, encoding.rtx.and_then(|rtx| rtx.ssrc)]);
    }
    assert!(
        ssrcs
            .iter()
            .all(|ssrc| ssrc.is_some_and(|ssrc| DRAWN.contains(&ssrc)))
    );
    ssrcs.sort();
    ssrcs.dedup();
    assert_eq!(ssrcs.len(), 4);
    house.server.close().await;
}

#[tokio::test]
async fn an_announced_address_is_told_in_candidates_and_nowhere_else() {
    let mut settings = settings(111, 1);
    settings.listen = vec![ListenAddr {
        ip: [127, 0, 0, 1].into(),
        announced: Some("sfu.example".into()),
    }];
    let server = Server::new(settings).await.unwrap();
    let room = server.room(&codecs(), RoomOptions::default()).await;
    let room = room.unwrap();
    let (alice, _) = Client::join(&room, json!({ "peerName": "alice" }));
    let answer = alice.create_transport(1, "send").await;
    let transport = alice.web_rtc(1);
    assert_eq!(
        answer["iceCandidates"],
        serde_json::to_value(transport.ice_local_candidates()).unwrap()
    );
    assert_eq!(transport.ice_selected_tuple(), None);
    let port = room.ports()[0].1;
    for (at, protocol, foundation, tcp_type) in [
        (0, Protocol::Udp, "udpcandidate", None),
        (1, Protocol::Tcp, "tcpcandidate", Some("passive")),
    ] {
        let candidate = &transport.ice_local_candidates()[at];
        assert_eq!(candidate.foundation, foundation);
        assert_eq!(
            (candidate.ip.as_str(), candidate.port),
            ("sfu.example", port)
        );
        assert_eq!(
            (candidate.kind.as_str(), candidate.family.as_str()),
            ("host", "ipv4")
        );
        assert_eq!(candidate.protocol, protocol);
        assert_eq!(candidate.tcp_type.as_deref(), tcp_type);
        assert!(candidate.priority > 0);
    }
    let ice = transport.ice_local_parameters();
    assert_eq!((ice.username_fragment.len(), ice.password.len()), (16, 32));
    assert!(ice.ice_lite);
    let members = json!({ "id": 2, "direction": "send", "plainRtpParameters": {} });
    let answer = alice.request("createTransport", members).await.unwrap();
    assert_eq!(answer["plainRtpParameters"]["ip"], "127.0.0.1");
    server.close().await;
}

#[tokio::test]
async fn the_certificate_of_the_settings_is_that_of_every_transport() {
    let identity = identity();
    let settings = Settings {
        dtls: Some(identity.clone()),
        ..settings(112, 2)
    };
    let server = Server::new(settings).await.unwrap();
    let certificate = X509::from_pem(identity.certificate.as_bytes()).unwrap();
    let hash = |digest: MessageDigest| -> String {
        let bytes = certificate.digest(digest).unwrap();
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        hex.join(":")
    };
    let expected = json!([
        { "algorithm": "sha-1", "value": hash(MessageDigest::sha1()) },
        { "algorithm": "sha-224", "value": hash(MessageDigest::sha224()) },
        { "algorithm": "sha-256", "value": hash(MessageDigest::sha256()) },
        { "algorithm": "sha-384", "value": hash(MessageDigest::sha384()) },
        { "algorithm": "sha-512", "value": hash(MessageDigest::sha512()) },
    ]);
    for worker_idx in [0, 1] {
        let options = RoomOptions {
            worker_idx: Some(worker_idx),
        };
        let room = server.room(&codecs(), options).await.unwrap();
        assert_eq!(room.worker_idx(), worker_idx);
        let (alice, _) = Client::join(&room, json!({ "peerName": "alice" }));
        let answer = alice.create_transport(1, "recv").await;
        assert_eq!(answer["dtlsParameters"]["fingerprints"], expected);
        assert_eq!(answer["dtlsParameters"]["role"], "auto");
    }
    server.close().await;
}

#[tokio::test]
async fn everything_can_be_dumped() {
    let house = House::new(113).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    bob.create_transport(2, "recv").await;
    let source = alice.produce(3, 1, simulcast(1000)).await;
    let consumer = bob.consume(&source, 2).await;
    let _levels = house.room.audio_levels();

    let dump = alice.web_rtc(1).dump().await.unwrap();
    assert_eq!(dump.transport_id.0, 1);
    assert_eq!(dump.ice_role, "controlled");
    assert_eq!(
        (dump.ice_state, dump.ice_selected_tuple),
        (IceState::New, None)
    );
    assert_eq!(
        dump.ice_local_parameters,
        alice.web_rtc(1).ice_local_parameters()
    );
    assert_eq!(dump.rtp_listener.ssrc_table["1000"], "3");
    let dump = source.dump().await.unwrap();
    assert_eq!((dump.producer_id.0, dump.kind), (3, MediaKind::Video));
    assert_eq!(dump.rtp_parameters.encodings.len(), 3);
    assert!(!dump.paused && dump.rtp_stream_infos.is_empty());
    let dump = consumer.dump().await.unwrap();
    assert_eq!(dump.consumer_id.0, consumer.id());
    assert_eq!(dump.source_producer_id.0, 3);
    assert_eq!(
        (dump.preferred_profile, dump.effective_profile),
        (Profile::Default, Profile::None)
    );
    assert!(dump.rtp_parameters.is_some() && !dump.paused && !dump.source_paused);

    let room = house.room.dump().await.unwrap();
    assert_eq!(room.router_id.0, house.room.id());
    assert_eq!(house.counts().await, [2, 1, 1]);
    let id = consumer.id().to_string();
    assert_eq!(room.map_producer_consumers["3"].join(","), id);
    assert_eq!(room.map_consumer_producer[&id], "3");
    assert!(room.audio_levels_event_enabled);
    let server = house.server.dump().await.unwrap();
    assert_eq!((server.len(), server[0].routers.len()), (1, 1));
    assert_eq!(server[0].worker_id, house.server.workers()[0].id);
    let (name, idx) = server[0].worker_id.split_once('#').unwrap();
    assert_eq!((name.len(), idx), (8, "1"));
    let peer = bob.peer.dump().await.unwrap();
    assert_eq!(peer["peerName"], "bob");
    assert_eq!(peer["transports"][0]["transportId"], 2);
    assert_eq!(peer["producers"], json!([]));
    assert_eq!(peer["consumers"][0]["consumerId"], consumer.id());
    house.server.close().await;
}

#[tokio::test]
async fn app_data_is_a_slot_of_every_object() {
    let house = House::new(114).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    let members = json!({ "id": 1, "direction": "send", "appData": "t" });
    alice.request("createTransport", members).await.unwrap();
    let members = json!({ "id": 2, "direction": "send", "appData": "plain",
        "plainRtpParameters": {} });
    alice.request("createTransport", members).await.unwrap();
    let mut members = producer(3, 1, opus(1000));
    members["appData"] = json!({ "p": 1 });
    alice.request("createProducer", members).await.unwrap();
    let source = alice.peer.get_producer_by_id(3).unwrap();
    let transports = alice.peer.transports();
    assert_eq!(transports[0].app_data(), "t");
    assert_eq!(transports[1].app_data(), "plain");
    let first = bob.peer.get_consumer_for_source(&source).unwrap();
    // A consumer takes over what the producer has when it is made, and keeps its own from then on.
    source.set_app_data(json!(2));
    let (carol, answer) = Client::join(&house.room, json!({ "peerName": "carol" }));
    assert_eq!(answer["peers"][0]["consumers"][0]["appData"], 2);
    let second = carol.peer.get_consumer_for_source(&source).unwrap();
    assert_eq!(
        (first.app_data(), second.app_data()),
        (json!({ "p": 1 }), json!(2))
    );
    first.set_app_data(json!([3]));
    for (transport, data) in transports.iter().zip([json!(4), json!(5)]) {
        transport.set_app_data(data.clone());
        assert_eq!(transport.app_data(), data);
    }
    assert_eq!(
        (first.app_data(), source.app_data()),
        (json!([3]), json!(2))
    );
    // What an object closes with is told of that alone.
    bob.told().await;
    let mut events = transports[1].events();
    transports[1].close(Some(json!({ "why": 6 })));
    let seen = pending(&mut events);
    assert!(
        matches!(&seen[..], [TransportEvent::Close { app_data: Some(data), .. }] if *data == json!({ "why": 6 })),
        "{seen:?}"
    );
    assert_eq!(transports[1].app_data(), json!(5));
    // Who sends none has none, and nobody is told of any.
    alice.produce(4, 1, opus(2000)).await;
    let told = bob.told().await;
    assert_eq!(told[0]["method"], "newConsumer");
    assert_eq!(told[0].get("appData"), None);
    house.server.close().await;
}

#[tokio::test]
async fn properties_of_producers_and_consumers_are_what_was_negotiated() {
    let house = House::new(115).await;
    let (alice, bob) = (house.join("alice"), house.join("bob"));
    alice.create_transport(1, "send").await;
    let source = alice.produce(3, 1, simulcast(1000)).await;
    let sent = serde_json::to_value(source.rtp_parameters()).unwrap();
    for member in ["muxId", "rtcp"] {
        assert_eq!(sent[member], simulcast(1000)[member], "{member}");
    }
    assert_eq!(source.peer(), &alice.peer);
    assert_eq!(source.preferred_profile(), Profile::Default);
    assert!(!source.locally_paused() && !source.remotely_paused() && !source.paused());
    let consumable = source.consumable_rtp_parameters();
    assert_eq!(consumable.mux_id, None);
    assert_eq!(consumable.encodings.len(), 3);
    assert_eq!(consumable.rtcp.cname, source.rtp_parameters().rtcp.cname);
    assert!(!source.rtp_mapping().codec_payload_types.is_empty());

    let consumer = bob.peer.get_consumer_for_source(&source).unwrap();
    assert_eq!(
        (consumer.kind(), source.kind()),
        (MediaKind::Video, MediaKind::Video)
    );
    assert_eq!((consumer.peer(), consumer.source()), (&alice.peer, &source));
    assert!(!consumer.enabled() && consumer.transport().is_none());
    assert_eq!(consumer.preferred_profile(), Profile::Default);
    assert_eq!(consumer.effective_profile(), None);
    // One stream whatever the producer sends, under its name, with SSRCs of its own.
    let parameters = consumer.rtp_parameters();
    assert_eq!(parameters.rtcp.cname, consumable.rtcp.cname);
    assert_eq!(parameters.encodings.len(), 1);
    assert_eq!(parameters.encodings[0].profile, None);
    // The transport of a closed producer is still known.
    alice.peer.get_transport_by_id(1).unwrap().close(None);
    assert!(source.closed());
    assert_eq!(source.transport().id(), 1);
    house.server.close().await;
}

#[tokio::test]
async fn members_nobody_knows_are_passed_over() {
    let house = House::new(116).await;
    let extra = json!({ "target": "nowhere", "extra": { "a": [1] }, "x-y": null });
    let mut join = json!({ "peerName": "alice" });
    merge(&mut join, extra.clone());
    let (alice, _) = Client::join(&house.room, join);
    let mut members = json!({ "id": 1, "direction": "send" });
    merge(&mut members, extra.clone());
    alice.request("createTransport", members).await.unwrap();
    let mut parameters = vp8(1000);
    merge(&mut parameters, extra.clone());
    merge(&mut parameters["encodings"][0], extra.clone());
    merge(&mut parameters["codecs"][0], extra.clone());
    let mut members = producer(2, 1, parameters);
    merge(&mut members, extra);
    alice.request("createProducer", members).await.unwrap();
    let dump = alice.peer.dump().await.unwrap().to_string();
    assert!(!dump.contains("extra"), "{dump}");
    house.server.close().await;
}

#[tokio::test]
async fn a_plain_transport_shows_where_it_sends_and_keeps_that_when_refused() {
    let house = House::new(117).await;
    let mut alice = house.join("alice");
    let members = json!({ "id": 1, "direction": "send", "appData": 1, "plainRtpParameters": {} });
    alice.request("createTransport", members).await.unwrap();
    let transport = alice.peer.transports().pop().unwrap();
    let plain = transport.as_plain().unwrap();
    assert_eq!((plain.id(), plain.tuple()), (1, None));
    for port in [5004, 5006] {
        let remote = ([127, 0, 0, 1], port).into();
        plain.set_remote_parameters(remote).await.unwrap();
        let tuple = plain.tuple().unwrap();
        assert_eq!((tuple.remote_ip, tuple.remote_port), (remote.ip(), port));
        assert_eq!(
            (tuple.local_ip, tuple.local_port),
            (plain.local_ip(), plain.local_port())
        );
        assert_eq!(tuple.protocol, Protocol::Udp);
    }
    let v6 = "[::1]:9".parse().unwrap();
    let refused = plain.set_remote_parameters(v6).await.unwrap_err();
    assert_eq!(refused.to_string(), "IPv6 disabled");
    assert_eq!(plain.tuple().unwrap().remote_port, 5006);
    // It has no statistics: asked for them, it sends nothing.
    transport.enable_stats(1000);
    transport.disable_stats();
    assert!(alice.told().await.is_empty());
    let dump = plain.dump().await.unwrap();
    assert_eq!(
        (dump.local_port, dump.transport_id.0),
        (plain.local_port(), 1)
    );
    assert!(transport.as_web_rtc().is_none());
    house.server.close().await;
}

#[tokio::test]
async fn preferences_order_the_candidates() {
    let house = House::new(118).await;
    let alice = house.join("alice");
    for (id, prefer, expected) in [
        (1, "preferUdp", Protocol::Udp),
        (2, "preferTcp", Protocol::Tcp),
    ] {
        let members = json!({ "id": id, "direction": "send", "options": { prefer: true } });
        alice.request("createTransport", members).await.unwrap();
        let transport = alice.web_rtc(id);
        let candidates = transport.ice_local_candidates().iter();
        let best = candidates.max_by_key(|candidate| candidate.priority);
        assert_eq!(best.unwrap().protocol, expected);
        assert!(transport.options().udp && transport.options().tcp);
    }
    let members = json!({ "id": 3, "direction": "send", "options": { "tcp": false } });
    alice.request("createTransport", members).await.unwrap();
    assert_eq!(alice.web_rtc(3).ice_local_candidates().len(), 1);
    house.server.close().await;
}

#[tokio::test]
async fn log_settings_can_be_changed_as_a_whole_or_in_part() {
    let house = House::new(119).await;
    let tags = |tags: &[&str]| Some(tags.iter().map(|tag| (*tag).to_owned()).collect());
    for (log_level, log_tags) in [
        (None, None),
        (Some("DEBUG"), None),
        (None, tags(&["ice", "dtls"])),
        (Some("none"), tags(&["no such tag"])),
        (Some("error"), tags(&[])),
    ] {
        let settings = WorkerSettings {
            log_level: log_level.map(String::from),
            log_tags,
        };
        house.server.update_settings(settings).await.unwrap();
    }
    house.server.close().await;
}

#[tokio::test]
async fn a_streamer_is_in_no_list_and_its_parameters_are_the_rooms() {
    let house = House::new(120).await;
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    let source = alice.produce(2, 1, vp8(1000)).await;
    let options = RtpStreamerOptions {
        remote: ([127, 0, 0, 1], 9).into(),
        local_ip: Some([127, 0, 0, 1].into()),
    };
    let streamer = house.room.create_rtp_streamer(&source, options).await;
    let streamer = streamer.unwrap();
    let parameters = streamer.consumer().rtp_parameters();
    let codecs: Vec<_> = parameters.codecs.iter().map(|c| c.payload_type).collect();
    assert_eq!(codecs, [101, 102]);
    assert!(streamer.consumer().enabled());
    assert_eq!(streamer.transport().tuple().unwrap().remote_port, 9);
    assert!(DRAWN.contains(&streamer.transport().id()));
    // A local address of its own has any port.
    assert_eq!(streamer.transport().local_ip().to_string(), "127.0.0.1");
    assert_eq!(house.room.peers().len(), 1);
    assert_eq!(alice.peer.transports().len(), 1);
    assert!(alice.peer.consumers().is_empty());
    streamer.close();
    house.server.close().await;
}

#[tokio::test]
async fn an_ice_restart_changes_the_credentials_alone() {
    let house = House::new(121).await;
    let alice = house.join("alice");
    alice.create_transport(1, "recv").await;
    let transport = alice.web_rtc(1);
    let set = json!({ "id": 1, "dtlsParameters": super::support::dtls("client") });
    alice.notify("updateTransport", set).await;
    let before = transport.dump().await.unwrap();
    let new = transport.change_ufrag_pwd().await.unwrap();
    assert_eq!(transport.ice_local_parameters(), new);
    let mut after = transport.dump().await.unwrap();
    assert_eq!(after.ice_local_parameters, new);
    assert_ne!(after.ice_local_parameters, before.ice_local_parameters);
    after.ice_local_parameters = before.ice_local_parameters.clone();
    assert_eq!(after, before);
    house.server.close().await;
}

#[tokio::test]
async fn a_rid_is_used_once_on_a_transport() {
    let house = House::new(122).await;
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    alice.create_transport(2, "send").await;
    // Within a MID its RIDs are its own; without one they are the transport's.
    let by_rid = |mux_id: Value| {
        let mut parameters = vp8(1000);
        parameters["muxId"] = mux_id;
        parameters["encodings"] = json!([
            { "encodingId": "low", "profile": "low" }, { "encodingId": "high", "profile": "high" },
        ]);
        parameters
    };
    alice.produce(3, 1, by_rid(json!(null))).await;
    let members = producer(4, 1, by_rid(json!(null)));
    let refused = alice.request("createProducer", members).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "rid already exists in RTP listener [rid:'low']"
    );
    alice.produce(4, 2, by_rid(json!(null))).await;
    alice.produce(5, 1, by_rid(json!("1"))).await;
    let dump = alice.web_rtc(1).dump().await.unwrap().rtp_listener;
    assert_eq!(
        (
            dump.rid_table["high"].as_str(),
            dump.mux_id_table["1"].as_str()
        ),
        ("3", "5")
    );
    house.server.close().await;
}
