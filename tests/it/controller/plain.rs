//! Plain RTP: transports that clients ask for, and streamers.

use std::net::UdpSocket;
use std::time::Duration;

use broth::{
    ConsumerEvent, Error, ErrorCode, PeerEvent, Producer, RoomOptions, RtpStreamer,
    RtpStreamerEvent, RtpStreamerOptions, Transport, TransportEvent,
};
use broth_client::rtp::{VP8_PT, vp8_packet};
use broth_worker::wire::rtp::{RtpHeader, is_rtcp};
use serde_json::{Value, json};

use super::media::{connect_sender, send_vp8};
use super::support::{Client, House, PATIENCE, Recorder, codecs, dtls, opus, soon, vp8};

/// A program that speaks plain RTP.
struct Tool(UdpSocket);

impl Tool {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn address(&self) -> Value {
        json!({ "ip": "127.0.0.1", "port": self.port() })
    }

    fn options(&self) -> RtpStreamerOptions {
        RtpStreamerOptions {
            remote: self.0.local_addr().unwrap(),
            local_ip: None,
        }
    }

    /// Sends a packet of VP8 to what a client was answered.
    fn send(&self, answer: &Value, ssrc: u32, seq: u16) {
        let port = answer["plainRtpParameters"]["port"].as_u64().unwrap();
        let mut packet = [0; 1500];
        let ts = u32::from(seq) * 3000;
        let len = vp8_packet(&mut packet, ssrc, seq, ts, true, true, 200);
        let to = ("127.0.0.1", port as u16);
        self.0.send_to(&packet[..len], to).unwrap();
    }

    /// The next RTP packet, received away from the runtime's threads.
    async fn receive(&self) -> RtpHeader {
        let socket = self.0.try_clone().unwrap();
        let receiving = move || {
            let mut packet = [0; 2048];
            loop {
                let len = socket.recv(&mut packet).expect("a packet in time");
                if !is_rtcp(&packet[..len]) {
                    return RtpHeader::parse(&packet[..len]).unwrap();
                }
            }
        };
        tokio::task::spawn_blocking(receiving).await.unwrap()
    }
}

async fn create_plain(client: &Client, id: u32, remote: Value) -> Result<Value, Error> {
    let members = json!({ "id": id, "direction": "send", "plainRtpParameters": remote });
    client.request("createTransport", members).await
}

fn first_ssrc(parameters: &broth::RtpParameters) -> u32 {
    parameters.encodings[0].ssrc.unwrap()
}

#[tokio::test]
async fn media_crosses_between_plain_transports_of_clients() {
    let house = House::new(75).await;
    let (mut alice, bob) = (house.join("alice"), house.join("bob"));
    let (sender, receiver) = (Tool::new(), Tool::new());
    let answer = create_plain(&alice, 1, json!({})).await.unwrap();
    assert_eq!(answer["plainRtpParameters"]["ip"], "127.0.0.1");
    let events = alice.settle().await;
    let Some(PeerEvent::NewTransport(Transport::Plain(transport))) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(
        json!(transport.local_port()),
        answer["plainRtpParameters"]["port"]
    );
    assert_eq!((transport.id(), transport.tuple()), (1, None));
    let source = alice.produce(3, 1, vp8(1000)).await;
    assert_eq!(source.transport().as_plain(), Some(transport));

    let told = create_plain(&bob, 2, receiver.address()).await.unwrap();
    let consumer = bob.consume(&source, 2).await;
    sender.send(&answer, 1000, 7);
    let header = receiver.receive().await;
    assert_eq!(
        (header.ssrc, header.pt),
        (first_ssrc(consumer.rtp_parameters()), VP8_PT)
    );
    let tuple = bob.peer.transports()[0]
        .as_plain()
        .unwrap()
        .tuple()
        .unwrap();
    assert_eq!(tuple.remote_port, receiver.port());
    assert_eq!(json!(tuple.local_port), told["plainRtpParameters"]["port"]);

    // Another program takes over.
    let other = Tool::new();
    let members = json!({ "id": 2, "plainRtpParameters": other.address() });
    bob.notify("updateTransport", members).await;
    sender.send(&answer, 1000, 8);
    assert_eq!(other.receive().await.seq, header.seq.wrapping_add(1));
    let dump = bob.peer.dump().await.unwrap();
    assert_eq!(dump["transports"][0]["tuple"]["remotePort"], other.port());

    // Its port is free once it is closed.
    let port = transport.local_port();
    let mut events = transport.events();
    alice
        .notify("closeTransport", json!({ "id": 1, "appData": 5 }))
        .await;
    let end = soon("the end", events.recv()).await;
    assert!(
        matches!(
            end,
            Some(TransportEvent::Close {
                app_data: Some(_),
                ..
            })
        ),
        "{end:?}"
    );
    assert!(source.closed() && consumer.closed());
    assert_eq!(house.counts().await, [1, 0, 0]);
    UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let closed = transport.dump().await.unwrap_err();
    assert_eq!(closed.to_string(), "PlainRtpTransport closed");
    house.server.close().await;
}

#[tokio::test]
async fn a_transport_is_not_taken_for_one_of_the_other_kind() {
    let house = House::new(76).await;
    let mut alice = house.join("alice");
    create_plain(&alice, 1, json!({})).await.unwrap();
    alice.create_transport(2, "recv").await;
    alice.settle().await;
    let restart = alice.request("restartTransport", json!({ "id": 1 })).await;
    assert_eq!(restart, Err(Error::Type("wrong Transport type".into())));
    let members = json!({ "id": 1, "dtlsParameters": dtls("client") });
    alice.notify("updateTransport", members).await;
    let members = json!({ "id": 2, "plainRtpParameters": { "ip": "127.0.0.1", "port": 9 } });
    alice.notify("updateTransport", members).await;
    alice
        .notify("enableTransportStats", json!({ "id": 1 }))
        .await;
    alice
        .notify("disableTransportStats", json!({ "id": 1 }))
        .await;
    assert_eq!(alice.told().await, [] as [Value; 0]);
    assert_eq!(house.counts().await, [2, 0, 0]);
    // An address it cannot use closes it, as bad DTLS parameters do.
    let members = json!({ "id": 1, "plainRtpParameters": { "ip": "::1", "port": 9 } });
    alice.notify("updateTransport", members).await;
    let told = [json!({ "method": "transportClosed", "id": 1 })];
    assert_eq!(alice.told().await, told);
    assert_eq!(house.counts().await, [1, 0, 0]);
    house.server.close().await;
}

#[tokio::test]
async fn bad_remote_addresses_are_refused_by_name() {
    let house = House::new(77).await;
    let alice = house.join("alice");
    let rows = [
        (json!(true), "plainRtpParameters must be an object"),
        (
            json!({ "ip": "zz", "port": 9 }),
            "invalid destination IP 'zz'",
        ),
        (json!({ "ip": "127.0.0.1" }), "missing data.port"),
        (json!({ "ip": "127.0.0.1", "port": 0 }), "missing data.port"),
        (json!({ "ip": 5, "port": 9 }), "missing data.ip"),
        (json!({ "ip": "::1", "port": 9 }), "IPv6 disabled"),
    ];
    for (remote, expected) in rows {
        let error = create_plain(&alice, 1, remote.clone()).await.unwrap_err();
        assert_eq!(error.to_string(), expected, "{remote}");
        assert_eq!(house.counts().await, [0, 0, 0]);
    }
    create_plain(&alice, 1, json!({})).await.unwrap();
    let error = create_plain(&alice, 1, json!({})).await.unwrap_err();
    let Error::Refused(refusal) = error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.code, ErrorCode::AlreadyExists);
    assert_eq!(
        refusal.reason,
        "a Transport with same transportId already exists"
    );
    // Nothing of a refused one stays: the range has 20 ports.
    for _ in 0..30 {
        create_plain(&alice, 1, json!({})).await.unwrap_err();
    }
    create_plain(&alice, 2, json!({})).await.unwrap();
    house.server.close().await;
}

/// A room whose alice sends VP8, and a streamer of that to a tool.
async fn streaming(test: u16) -> (House, Client, Producer, Tool, RtpStreamer) {
    let house = House::new(test).await;
    let alice = house.join("alice");
    alice.create_transport(1, "send").await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    let tool = Tool::new();
    let streamer = house.room.create_rtp_streamer(&source, tool.options());
    let streamer = streamer.await.unwrap();
    (house, alice, source, tool, streamer)
}

#[tokio::test]
async fn a_streamer_sends_what_its_producer_sends() {
    let house = House::new(78).await;
    let (alice, mut bob) = (house.join("alice"), house.join("bob"));
    let sender = connect_sender(&alice, 1).await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    bob.settle().await;
    let tool = Tool::new();
    let streamer = house.room.create_rtp_streamer(&source, tool.options());
    let streamer = streamer.await.unwrap();
    let consumer = streamer.consumer();
    assert_eq!((consumer.owner(), consumer.peer()), (None, &alice.peer));
    assert_eq!(
        consumer.transport(),
        Some(streamer.transport().clone().into())
    );
    assert_eq!(
        (consumer.source(), consumer.app_data()),
        (&source, Value::Null)
    );
    assert_eq!(streamer.transport().peer(), None);
    for seq in 0..3 {
        send_vp8(&sender, 1000, seq, true);
        assert_eq!(
            tool.receive().await.ssrc,
            first_ssrc(consumer.rtp_parameters())
        );
    }
    assert!(consumer.pause(None) && consumer.resume(None));
    // Nobody in the room hears of it.
    assert_eq!(bob.told().await, [] as [Value; 0]);
    assert_eq!(bob.peer.consumers().len(), 1);
    streamer.close();
    assert_eq!(house.counts().await, [1, 1, 1]);
    house.server.close().await;
}

#[tokio::test]
async fn a_streamer_ends_with_whatever_it_is_made_of() {
    for (test, how) in [(79, 0), (80, 1), (81, 2), (82, 3), (83, 4)] {
        let (house, alice, source, _tool, streamer) = streaming(test).await;
        let log = Recorder::default();
        log.watch(streamer.consumer().events(), |event| match event {
            ConsumerEvent::Close => Some("consumer".into()),
            _ => None,
        });
        log.watch(streamer.transport().events(), |event| match event {
            TransportEvent::Close { originator, .. } => Some(format!("transport {originator:?}")),
            _ => None,
        });
        log.watch(streamer.events(), |event| match event {
            RtpStreamerEvent::Close => Some("streamer".into()),
        });
        match how {
            0 => streamer.close(),
            1 => source.close(None),
            2 => alice.notify("leave", json!({})).await,
            3 => house.room.close(None),
            _ => streamer.consumer().close(),
        }
        let expected = ["consumer", "transport Local", "streamer"];
        assert_eq!(log.take().await, expected, "{how}");
        streamer.close();
        assert_eq!(log.take().await, [] as [&str; 0]);
        if how != 3 {
            let left = house.counts().await;
            assert_eq!((left[0] <= 1, left[2]), (true, 0), "{how}");
        }
        house.server.close().await;
    }
}

#[tokio::test]
async fn a_streamer_that_cannot_be_leaves_nothing_behind() {
    let (house, alice, source, tool, streamer) = streaming(84).await;
    let codecs = codecs();
    let other = house.server.room(&codecs, RoomOptions::default());
    let other = other.await.unwrap();
    let refused = other.create_rtp_streamer(&source, tool.options()).await;
    assert_eq!(refused.unwrap_err().to_string(), "Producer not found");
    let v6 = RtpStreamerOptions {
        remote: "[::1]:9".parse().unwrap(),
        local_ip: None,
    };
    let refused = house.room.create_rtp_streamer(&source, v6).await;
    assert_eq!(refused.unwrap_err().to_string(), "IPv6 disabled");
    let foreign = RtpStreamerOptions {
        local_ip: Some("192.0.2.1".parse().unwrap()),
        ..tool.options()
    };
    let refused = house.room.create_rtp_streamer(&source, foreign).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.starts_with("cannot open 192.0.2.1"), "{text}");
    assert_eq!(house.counts().await, [2, 1, 1]);
    // Who gives up waiting gets none, and none is left.
    let hasty = house.room.create_rtp_streamer(&source, tool.options());
    let hasty = tokio::time::timeout(Duration::ZERO, hasty).await;
    if let Ok(streamer) = hasty {
        streamer.unwrap().close();
    }
    let cleared = async {
        while house.counts().await != [2, 1, 1] {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of what nobody waited for", cleared).await;
    let transport = streamer.transport().clone();
    transport.close(None);
    assert!(streamer.consumer().closed());
    alice.produce(4, 1, opus(2000)).await;
    source.close(None);
    let refused = house
        .room
        .create_rtp_streamer(&source, tool.options())
        .await;
    assert_eq!(refused.unwrap_err().to_string(), "Producer not found");
    house.room.close(None);
    let refused = house
        .room
        .create_rtp_streamer(&source, tool.options())
        .await;
    assert_eq!(refused.unwrap_err().to_string(), "Room closed");
    house.server.close().await;
}
