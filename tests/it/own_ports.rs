//! Routers that are handed no sockets: each transport has ports of its own.

use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use broth_client::client::PlainPeer;
use broth_client::peer::Peer;
use broth_client::worker::DrivenWorker;
use broth_ipc::body::{CreateRouter, Empty, WebRtcTransportDump, WebRtcTransportOptions};
use broth_ipc::{Call, Ids, TransportId};
use broth_worker::settings::{FamilySettings, Listen, RtcSettings};
use broth_worker::srtp::Profile;
use broth_worker::wire::stun::{Message, write_binding_request};

use crate::support::{Media, ROUTER, Room, drops, receive_rtp};

const PROFILE: Profile = Profile::AeadAes128Gcm;
const SENDER: TransportId = TransportId(1);
const RECEIVER: TransportId = TransportId(2);

/// A worker with a router that opens its own ports on 127.0.0.1, ten of them.
pub(crate) fn worker_with_own_ports(first: u16) -> DrivenWorker {
    let settings = RtcSettings {
        ipv4: FamilySettings {
            listen: Listen::On(Ipv4Addr::LOCALHOST.into()),
            announced: None,
        },
        ipv6: FamilySettings {
            listen: Listen::Off,
            announced: None,
        },
        ports: first..=first + 9,
    };
    let mut worker = DrivenWorker::in_thread_with(settings).unwrap();
    let create = Call::CreateRouter(CreateRouter::default());
    worker.call(Ids::router(ROUTER), create).unwrap();
    worker
}

fn ids(transport: TransportId) -> Ids {
    Ids::router(ROUTER).transport(transport)
}

fn dump(worker: &mut DrivenWorker, transport: TransportId) -> WebRtcTransportDump {
    let dump = worker.call(ids(transport), Call::DumpTransport(Empty {}));
    serde_json::from_value(dump.unwrap()).unwrap()
}

#[test]
fn media_crosses_and_closing_one_leaves_the_other() {
    let mut room = Room::on(worker_with_own_ports(21_450), PROFILE, Media::vp8());
    room.send(0, true);
    receive_rtp(&mut room.receiver).unwrap();
    let ports = [SENDER, RECEIVER].map(|transport| {
        let candidates = dump(&mut room.worker, transport).ice_local_candidates;
        let ports: Vec<u16> = candidates.iter().map(|candidate| candidate.port).collect();
        assert_eq!(ports.len(), 2);
        ports
    });
    assert_ne!(ports[0][0], ports[1][0]);

    let tcp = TcpStream::connect(("127.0.0.1", ports[0][1])).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let close = Call::CloseTransport(Empty {});
    room.worker.call(ids(SENDER), close).unwrap();
    assert!(UdpSocket::bind(("127.0.0.1", ports[0][0])).is_ok());
    let left = std::io::Read::read(&mut &tcp, &mut [0; 1]);
    assert!(!matches!(left, Ok(1..)), "connections go with the listener");
    assert!(TcpStream::connect(("127.0.0.1", ports[0][1])).is_err());
    assert!(UdpSocket::bind(("127.0.0.1", ports[1][0])).is_err());

    // The peer is told before its port is closed.
    let mut buffer = [0; 2048];
    let is_alert = |len: usize, buffer: &[u8]| len > 0 && buffer[0] == 21;
    let told = (0..100).any(|_| {
        let received = room.sender.socket.recv(&mut buffer);
        received.is_ok_and(|len| is_alert(len, &buffer))
    });
    assert!(told, "close_notify");
}

#[test]
fn a_check_for_another_transport_is_not_answered() {
    let mut worker = worker_with_own_ports(21_460);
    let options = WebRtcTransportOptions {
        tcp: false,
        ..WebRtcTransportOptions::default()
    };
    for transport in [SENDER, RECEIVER] {
        let create = Call::CreateWebRtcTransport(options.clone());
        worker.call(ids(transport), create).unwrap();
    }
    let (one, other) = (dump(&mut worker, SENDER), dump(&mut worker, RECEIVER));
    let check = |ice: &broth_ipc::body::IceParameters, id: u8| {
        let mut check = Vec::new();
        let username = format!("{}:peer", ice.username_fragment);
        let password = ice.password.as_bytes();
        write_binding_request(&mut check, [id; 12], &username, 100, true, 1, password);
        check
    };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let port = one.ice_local_candidates[0].port;
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.send(&check(&other.ice_local_parameters, 1)).unwrap();
    socket.send(&check(&one.ice_local_parameters, 2)).unwrap();
    let mut buffer = [0; 1500];
    let len = socket.recv(&mut buffer).unwrap();
    let reply = Message::parse(&buffer[..len]).unwrap();
    assert_eq!(reply.transaction_id(), [2; 12]);
    assert_eq!(drops(&mut worker, "stun"), 1);
}

#[test]
fn plain_and_webrtc_transports_live_side_by_side() {
    let mut worker = worker_with_own_ports(21_480);
    for round in 0..3 {
        Peer::connect(&mut worker, ROUTER, SENDER, PROFILE).unwrap();
        PlainPeer::connect(&mut worker, ROUTER, RECEIVER).unwrap();
        let router = Ids::router(ROUTER);
        let dump = worker.call(router, Call::DumpRouter(Empty {})).unwrap();
        assert_eq!(dump["transports"].as_array().unwrap().len(), 2, "{round}");
        worker.call(router, Call::CloseRouter(Empty {})).unwrap();
        let create = Call::CreateRouter(CreateRouter::default());
        worker.call(router, create).unwrap();
    }
}
