//! ICE over TCP (RFC 6544): framed checks on the room's listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use broth_client::worker::DrivenWorker;
use broth_ipc::body::{
    Empty, IceParameters, IceState, Protocol, WebRtcTransportDump, WebRtcTransportOptions,
};
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

#[test]
fn who_says_nothing_keeps_nobody_away() {
    let mut worker = worker_with_own_ports(21_490);
    let created = create_transport(&mut worker);
    let mut known = connect(&created);
    known
        .write_all(&framed_check(&created.ice_local_parameters))
        .unwrap();
    read_frame(&mut known);
    // More than a transport's own listener has room for.
    let idle: Vec<_> = (0..15).map(|_| connect(&created)).collect();
    let mut late = connect(&created);
    for stream in [&mut late, &mut known] {
        stream
            .write_all(&framed_check(&created.ice_local_parameters))
            .unwrap();
        read_frame(stream);
    }
    let mut gone = 0;
    for mut stream in idle {
        let patience = Some(Duration::from_millis(20));
        stream.set_read_timeout(patience).unwrap();
        gone += usize::from(matches!(stream.read(&mut [0]), Ok(0)));
    }
    assert_eq!(gone, 7);
}

fn create_transport(worker: &mut DrivenWorker) -> WebRtcTransportDump {
    let ids = Ids::router(ROUTER).transport(TransportId(1));
    let options = WebRtcTransportOptions {
        udp: false,
        ..WebRtcTransportOptions::default()
    };
    let created = worker
        .call(ids, Call::CreateWebRtcTransport(options))
        .unwrap();
    serde_json::from_value(created).unwrap()
}

fn connect(created: &WebRtcTransportDump) -> TcpStream {
    let [candidate] = &created.ice_local_candidates[..] else {
        panic!("{:?}", created.ice_local_candidates);
    };
    assert_eq!(candidate.protocol, Protocol::Tcp);
    assert_eq!(candidate.tcp_type.as_deref(), Some("passive"));
    let address = SocketAddr::new(candidate.ip.parse().unwrap(), candidate.port);
    let stream = TcpStream::connect(address).unwrap();
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).unwrap();
    stream
}

pub(crate) fn framed_check(ice: &IceParameters) -> Vec<u8> {
    let mut check = Vec::new();
    let username = format!("{}:peer", ice.username_fragment);
    let password = ice.password.as_bytes();
    write_binding_request(&mut check, [3; 12], &username, 100, true, 1, password);
    let mut framed = Vec::new();
    write_frame(&mut framed, &check).unwrap();
    framed
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut frame = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut frame).unwrap();
    frame
}

fn check_over_tcp(mut worker: DrivenWorker) {
    let ids = Ids::router(ROUTER).transport(TransportId(1));
    let created = create_transport(&mut worker);
    let mut stream = connect(&created);
    let framed = framed_check(&created.ice_local_parameters);
    // In two pieces, as TCP may deliver them.
    let (first, second) = framed.split_at(7);
    stream.write_all(first).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(second).unwrap();

    let reply = read_frame(&mut stream);
    let message = Message::parse(&reply).unwrap();
    assert_eq!(message.transaction_id(), [3; 12]);
    let password = created.ice_local_parameters.password.as_bytes();
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
