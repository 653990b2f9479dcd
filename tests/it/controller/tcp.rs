//! Clients that reach the room by ICE-TCP alone keep their connections over their worker's death.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use broth::{IceState, Settings, TransportEvent};
use broth_client::peer::{Endpoint, Peer};
use broth_ipc::body::{DtlsRole, IceParameters, Protocol};
use broth_worker::net::tcp_frame::write_frame;
use broth_worker::srtp::Profile;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::media::{send_vp8, shake_hands};
use super::recovery::{hit, received, recovered};
use super::support::{Client, House, settings, vp8, wait_for};
use crate::ice_tcp::framed_check;

/// How long a relay lives at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Turns the TCP candidate of an answer into the UDP address of a relay that frames what it gets.
fn relayed(mut answer: Value) -> (Value, TcpStream) {
    let candidate = &mut answer["iceCandidates"][0];
    assert_eq!(candidate["protocol"], json!(Protocol::Tcp));
    let port = candidate["port"].as_u64().unwrap() as u16;
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    candidate["protocol"] = json!(Protocol::Udp);
    candidate["port"] = socket.local_addr().unwrap().port().into();
    let relayed = stream.try_clone().unwrap();
    thread::spawn(move || relay(&socket, &relayed));
    (answer, stream)
}

fn relay(socket: &UdpSocket, stream: &TcpStream) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut datagram = [0; 2048];
    let mut peer = None;
    while let Ok((len, from)) = socket.recv_from(&mut datagram) {
        if peer.replace(from).is_none() {
            let (socket, stream) = (socket.try_clone().unwrap(), stream.try_clone().unwrap());
            thread::spawn(move || unframe(stream, &socket, from));
        }
        let mut framed = Vec::new();
        write_frame(&mut framed, &datagram[..len]).unwrap();
        let mut stream = stream;
        if stream.write_all(&framed).is_err() {
            return;
        }
    }
}

fn unframe(mut stream: TcpStream, socket: &UdpSocket, peer: SocketAddr) {
    let mut len = [0; 2];
    while stream.read_exact(&mut len).is_ok() {
        let mut datagram = vec![0; usize::from(u16::from_be_bytes(len))];
        if stream.read_exact(&mut datagram).is_err() || socket.send_to(&datagram, peer).is_err() {
            return;
        }
    }
}

/// Connects a client by TCP alone; returns the connection, too.
async fn connect(client: &Client, id: u32, direction: &str) -> (Peer, TcpStream) {
    let endpoint = Endpoint::new(DtlsRole::Server).unwrap();
    let members = json!({ "id": id, "direction": direction, "options": { "udp": false },
        "dtlsParameters": endpoint.dtls_parameters() });
    let answer = client.request("createTransport", members).await.unwrap();
    let (answer, stream) = relayed(answer);
    let peer = shake_hands(endpoint, answer, id, Profile::AeadAes128Gcm).await;
    (peer, stream)
}

#[tokio::test]
async fn connections_go_on_over_deaths() {
    for standby in [false, true] {
        let settings = Settings {
            standby,
            ..settings(147, 1)
        };
        let house = House::with(settings).await;
        let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
        let (sender, _) = connect(&alice, 1, "send").await;
        let (mut receiver, _) = connect(&bob, 2, "recv").await;
        let source = alice.produce(3, 1, vp8(1000)).await;
        bob.consume(&source, 2).await;
        let tuple = bob.web_rtc(2).ice_selected_tuple().unwrap();
        assert_eq!(tuple.protocol, Protocol::Tcp);
        let (mut seq, mut last) = (0, None);
        alice.told().await;
        bob.told().await;
        for round in 0..5 {
            for _ in 0..20 {
                send_vp8(&sender, 1000, seq, seq == 0);
                seq += 1;
            }
            let (peer, seqs) = received(receiver, 20).await;
            receiver = peer;
            for seq in seqs {
                if let Some(last) = last {
                    assert_eq!(seq, u16::wrapping_add(last, 1), "round {round}");
                }
                last = Some(seq);
            }
            hit(&house, Signal::SIGKILL);
            println!("round {round}: {:?}", recovered(&house.room).await);
        }
        assert_eq!(bob.web_rtc(2).ice_selected_tuple(), Some(tuple));
        assert_eq!(house.counts().await, [2, 1, 1]);
        house.server.close().await;
    }
}

#[tokio::test]
async fn connections_go_on_over_planned_moves() {
    let house = House::with(settings(149, 2)).await;
    let (mut alice, mut bob) = (house.join("alice"), house.join("bob"));
    let (sender, _) = connect(&alice, 1, "send").await;
    let (mut receiver, _) = connect(&bob, 2, "recv").await;
    let source = alice.produce(3, 1, vp8(1000)).await;
    bob.consume(&source, 2).await;
    let (mut seq, mut last) = (0, None);
    for round in 0..6 {
        for _ in 0..20 {
            send_vp8(&sender, 1000, seq, seq == 0);
            seq += 1;
        }
        house
            .room
            .move_to((house.room.worker_idx() + 1) % 2)
            .await
            .unwrap();
        let (peer, seqs) = received(receiver, 20).await;
        receiver = peer;
        for seq in seqs {
            if let Some(last) = last {
                assert_eq!(seq, u16::wrapping_add(last, 1), "round {round}");
            }
            last = Some(seq);
        }
    }
    alice.told().await;
    bob.told().await;
    assert_eq!(house.counts().await, [2, 1, 1]);
    house.server.close().await;
}

#[tokio::test]
async fn a_connection_without_keys_ends_with_its_worker() {
    let house = House::new(169).await;
    let alice = house.join("alice");
    let members = json!({ "id": 1, "direction": "send", "options": { "udp": false } });
    let answer = alice.request("createTransport", members).await.unwrap();
    let port = answer["iceCandidates"][0]["port"].as_u64().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port as u16)).unwrap();
    let ice: IceParameters = serde_json::from_value(answer["iceParameters"].clone()).unwrap();
    stream.write_all(&framed_check(&ice)).unwrap();
    let mut events = alice.web_rtc(1).events();
    let ice_state = |event: &TransportEvent| match event {
        TransportEvent::IceStateChange(state) => Some(*state),
        _ => None,
    };
    let told = wait_for(&mut events, "a check", ice_state).await;
    assert_eq!(told, IceState::Completed);
    hit(&house, Signal::SIGKILL);
    let told = wait_for(&mut events, "another beginning", ice_state).await;
    assert_eq!(told, IceState::New);
    assert_eq!(alice.web_rtc(1).ice_selected_tuple(), None);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    house.server.close().await;
}

#[tokio::test]
async fn a_connection_that_ends_while_nobody_serves_it_is_noticed_by_the_next_worker() {
    let house = House::new(148).await;
    let alice = house.join("alice");
    let (_peer, stream) = connect(&alice, 1, "send").await;
    let mut events = alice.web_rtc(1).events();
    alice.web_rtc(1).dump().await.unwrap();
    hit(&house, Signal::SIGKILL);
    stream.shutdown(Shutdown::Both).unwrap();
    recovered(&house.room).await;
    wait_for(&mut events, "the end of the path", |event| {
        matches!(
            event,
            TransportEvent::IceStateChange(IceState::Disconnected)
        )
        .then_some(())
    })
    .await;
    house.server.close().await;
}
