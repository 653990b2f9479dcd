//! ICE over TCP (RFC 6544): framed checks on the room's listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use broth_client::worker::DrivenWorker;
use broth_ipc::body::{Empty, IceState, Protocol, WebRtcTransportDump, WebRtcTransportOptions};
use broth_ipc::{Call, Ids, TransportId};
use broth_worker::net::tcp_frame::write_frame;
use broth_worker::wire::stun::{Message, write_binding_request};

use crate::own_ports::worker_with_own_ports;
use crate::support::ROUTER;

#[test]
fn a_check_over_tcp_is_answered_and_a_closed_connection_is_noticed() {
    let mut worker = DrivenWorker::in_thread().unwrap();
    worker.create_router(ROUTER).unwrap();
    check_over_tcp(worker);
}

#[test]
fn a_transport_has_its_own_listener_where_no_sockets_are_handed_over() {
    check_over_tcp(worker_with_own_ports(21_470));
}

fn check_over_tcp(mut worker: DrivenWorker) {
    let ids = Ids::router(ROUTER).transport(TransportId(1));
    let options = WebRtcTransportOptions {
        udp: false,
        ..WebRtcTransportOptions::default()
    };
    let created = worker
        .call(ids, Call::CreateWebRtcTransport(options))
        .unwrap();
    let created: WebRtcTransportDump = serde_json::from_value(created).unwrap();
    let [candidate] = &created.ice_local_candidates[..] else {
        panic!("{:?}", created.ice_local_candidates);
    };
    assert_eq!(candidate.protocol, Protocol::Tcp);
    assert_eq!(candidate.tcp_type.as_deref(), Some("passive"));

    let address = SocketAddr::new(candidate.ip.parse().unwrap(), candidate.port);
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let ice = &created.ice_local_parameters;
    let mut check = Vec::new();
    let username = format!("{}:peer", ice.username_fragment);
    let password = ice.password.as_bytes();
    write_binding_request(&mut check, [3; 12], &username, 100, true, 1, password);
    let mut framed = Vec::new();
    write_frame(&mut framed, &check).unwrap();
    // In two pieces, as TCP may deliver them.
    let (first, second) = framed.split_at(7);
    stream.write_all(first).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(second).unwrap();

    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut reply).unwrap();
    let message = Message::parse(&reply).unwrap();
    assert_eq!(message.transaction_id(), [3; 12]);
    assert!(message.verify_integrity(password));
    assert_eq!(
        message.xor_mapped_address(),
        Some(stream.local_addr().unwrap())
    );

    let mut dump = || -> WebRtcTransportDump {
        let dump = worker.call(ids, Call::DumpTransport(Empty {})).unwrap();
        serde_json::from_value(dump).unwrap()
    };
    let connected = dump();
    assert_eq!(connected.ice_state, IceState::Completed);
    let tuple = connected.ice_selected_tuple.unwrap();
    assert_eq!(tuple.protocol, Protocol::Tcp);
    assert_eq!(tuple.remote_port, stream.local_addr().unwrap().port());

    drop(stream);
    for _ in 0..100 {
        if dump().ice_state == IceState::Disconnected {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("still {:?}", dump().ice_state);
}
