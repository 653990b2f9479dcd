//! Plain RTP transports: RTP in the clear on a socket the controller hands over.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use broth_client::client::PlainPeer;
use broth_client::peer::Peer;
use broth_client::rtp::vp8_packet;
use broth_client::worker::DrivenWorker;
use broth_ipc::body::{
    Empty, PlainRtpTransportDump, PlainRtpTransportOptions, Protocol, RemoteParameters,
    RouterSocket, SetMaxBitrate, WebRtcTransportOptions,
};
use broth_ipc::{Call, Ids, TransportId};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtcp::{self, emit_nack};
use broth_worker::wire::rtp::{RtpHeader, is_rtcp, is_rtp};
use serde_json::json;

use crate::support::{CONSUMER, PRODUCER, RECV_SSRC, ROUTER, SEND_SSRC, drops, receive_rtp};

const SENDER: TransportId = TransportId(1);
const RECEIVER: TransportId = TransportId(2);
const PATIENCE: Duration = Duration::from_secs(5);

fn worker() -> DrivenWorker {
    let mut worker = DrivenWorker::in_thread().unwrap();
    worker.create_router(ROUTER).unwrap();
    worker
}

fn ids(transport: TransportId) -> Ids {
    Ids::router(ROUTER).transport(transport)
}

/// A producer on one transport, a consumer on the other.
fn connect(worker: &mut DrivenWorker) {
    let producer = ids(SENDER).producer(PRODUCER);
    worker.produce_vp8(producer, SEND_SSRC).unwrap();
    let consumer = ids(RECEIVER).producer(PRODUCER).consumer(CONSUMER);
    worker.consume_vp8(consumer, RECV_SSRC).unwrap();
}

fn send(socket: &UdpSocket, seq: u16, is_keyframe: bool) {
    let mut packet = [0; 1500];
    let ts = u32::from(seq) * 3000;
    let len = vp8_packet(&mut packet, SEND_SSRC, seq, ts, is_keyframe, true, 200);
    socket.send(&packet[..len]).unwrap();
}

/// Waits for a datagram that `wanted` makes something of.
fn receive<T>(socket: &UdpSocket, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        match socket.recv(&mut buffer) {
            Ok(len) => {
                if let Some(found) = wanted(&buffer[..len]) {
                    return Some(found);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    None
}

fn receive_plain(socket: &UdpSocket) -> Option<(RtpHeader, Vec<u8>)> {
    receive(socket, |datagram| {
        let is_media = is_rtp(datagram) && !is_rtcp(datagram);
        is_media.then(|| (RtpHeader::parse(datagram).unwrap(), datagram.to_vec()))
    })
}

fn await_pli(socket: &UdpSocket) -> Option<()> {
    receive(socket, |datagram| {
        let mut packets = rtcp::packets(datagram).flatten();
        let is_pli = |p| matches!(p, rtcp::Packet::Pli { media, .. } if media == SEND_SSRC);
        (is_rtcp(datagram) && packets.any(is_pli)).then_some(())
    })
}

#[test]
fn media_crosses_in_the_clear_and_is_repaired() {
    let mut worker = worker();
    let sender = PlainPeer::connect(&mut worker, ROUTER, SENDER).unwrap();
    let receiver = PlainPeer::connect(&mut worker, ROUTER, RECEIVER).unwrap();
    connect(&mut worker);
    send(&sender.socket, 0, false);
    await_pli(&sender.socket).expect("a request for a key frame");
    send(&sender.socket, 1, true);
    send(&sender.socket, 2, false);
    let (first, _) = receive_plain(&receiver.socket).unwrap();
    let (second, original) = receive_plain(&receiver.socket).unwrap();
    assert_eq!((first.ssrc, first.pt), (RECV_SSRC, 101));
    assert_eq!(second.seq, first.seq.wrapping_add(1));

    let mut nack = Vec::new();
    emit_nack(&mut nack, 1, RECV_SSRC, &[second.seq]);
    receiver.socket.send(&nack).unwrap();
    let (again, packet) = receive_plain(&receiver.socket).unwrap();
    assert_eq!((again.ssrc, again.pt), (RECV_SSRC + 1, 102));
    assert_eq!(&again.payload(&packet)[2..], second.payload(&original));

    let report = receive(&receiver.socket, |datagram| {
        let mut packets = rtcp::packets(datagram).flatten();
        let is_report = |p| matches!(p, rtcp::Packet::Sr(sr, _) if sr.ssrc == RECV_SSRC);
        (is_rtcp(datagram) && packets.any(is_report)).then_some(())
    });
    assert!(report.is_some());
}

#[test]
fn media_crosses_between_plain_and_webrtc() {
    let mut worker = worker();
    let sender = PlainPeer::connect(&mut worker, ROUTER, SENDER).unwrap();
    let profile = Profile::AeadAes128Gcm;
    let mut receiver = Peer::connect(&mut worker, ROUTER, RECEIVER, profile).unwrap();
    connect(&mut worker);
    send(&sender.socket, 0, true);
    let (header, _) = receive_rtp(&mut receiver).unwrap();
    assert_eq!(header.ssrc, RECV_SSRC);
}

#[test]
fn any_source_is_taken_and_the_rest_is_counted() {
    let mut worker = worker();
    let sender = PlainPeer::connect(&mut worker, ROUTER, SENDER).unwrap();
    let receiver = PlainPeer::connect(&mut worker, ROUTER, RECEIVER).unwrap();
    connect(&mut worker);
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.connect(sender.socket.peer_addr().unwrap()).unwrap();
    for junk in [&[][..], &[22; 40], &[0; 20], &[0x80], &[0x80, 200, 0]] {
        other.send(junk).unwrap();
    }
    send(&other, 0, true);
    assert!(receive_plain(&receiver.socket).is_some());
    assert!(drops(&mut worker, "unknownProtocol") >= 4);
}

#[test]
fn nothing_leaves_before_the_remote_address_is_told() {
    let mut worker = worker();
    let sender = PlainPeer::connect(&mut worker, ROUTER, SENDER).unwrap();
    let (socket, fd) = bound("127.0.0.1");
    let options = PlainRtpTransportOptions {
        socket: Some(socket.clone()),
        ..PlainRtpTransportOptions::default()
    };
    let create = Call::CreatePlainRtpTransport(options);
    let dump = worker.call_with(ids(RECEIVER), create, vec![fd]).unwrap();
    let tables = json!({ "ssrcTable": {}, "muxIdTable": {}, "ridTable": {} });
    assert_eq!(
        dump,
        json!({ "transportId": RECEIVER.0, "localIP": "127.0.0.1", "localPort": socket.port,
            "rtpListener": tables })
    );
    connect(&mut worker);
    send(&sender.socket, 0, true);
    await_pli(&sender.socket).expect("the first request");

    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let remote = RemoteParameters {
        ip: "127.0.0.1".into(),
        port: receiver.local_addr().unwrap().port(),
    };
    let set = Call::SetRemoteParameters(remote.clone());
    worker.call(ids(RECEIVER), set).unwrap();
    await_pli(&sender.socket).expect("a request for the receiver");
    send(&sender.socket, 1, true);
    let (header, packet) = receive_plain(&receiver).unwrap();
    assert_eq!(header.payload(&packet).len(), 200);

    let dump = worker.call(ids(RECEIVER), Call::DumpTransport(Empty {}));
    let dump: PlainRtpTransportDump = serde_json::from_value(dump.unwrap()).unwrap();
    let tuple = dump.tuple.unwrap();
    assert_eq!(tuple.remote_port, remote.port);
    assert_eq!(
        (tuple.local_port, tuple.protocol),
        (socket.port, Protocol::Udp)
    );
    let stats = worker.call(ids(RECEIVER), Call::GetTransportStats(Empty {}));
    assert_eq!(stats.unwrap(), json!({}));
    let router = worker.call(Ids::router(ROUTER), Call::DumpRouter(Empty {}));
    let transports = router.unwrap()["transports"].clone();
    assert_eq!(transports[1]["localPort"], socket.port);
}

/// A bound socket and its description.
fn bound(ip: &str) -> (RouterSocket, OwnedFd) {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let description = RouterSocket {
        protocol: Protocol::Udp,
        ip: address.ip(),
        port: address.port(),
        announced_ip: None,
    };
    (description, socket.into())
}

#[test]
fn unusable_requests_are_refused_by_name_and_leave_nothing() {
    let mut worker = worker();
    let (udp, _) = bound("127.0.0.1");
    let tcp = RouterSocket {
        protocol: Protocol::Tcp,
        ..udp.clone()
    };
    let options = |socket, ip: Option<&str>, port| PlainRtpTransportOptions {
        socket,
        remote_ip: ip.map(Into::into),
        remote_port: port,
        ..PlainRtpTransportOptions::default()
    };
    let rows = [
        (options(None, None, None), 0, "needs one socket"),
        (
            options(Some(udp.clone()), None, None),
            0,
            "needs one socket",
        ),
        (
            options(Some(udp.clone()), None, None),
            2,
            "needs one socket",
        ),
        (options(Some(tcp), None, None), 1, "needs a UDP socket"),
        (
            options(Some(udp.clone()), Some("zz"), Some(9)),
            1,
            "invalid destination IP 'zz'",
        ),
        (
            options(Some(udp.clone()), Some("127.0.0.1"), None),
            1,
            "missing data.remotePort",
        ),
        (
            options(Some(udp.clone()), Some("127.0.0.1"), Some(0)),
            1,
            "invalid destination port 0",
        ),
        (options(Some(udp), Some("::1"), Some(9)), 1, "IPv6 disabled"),
    ];
    for (options, fds, expected) in rows {
        let fds = (0..fds).map(|_| bound("127.0.0.1").1).collect();
        let create = Call::CreatePlainRtpTransport(options);
        let error = worker.call_with(ids(RECEIVER), create, fds).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}: {expected}");
    }
    let load = worker.call(Ids::NONE, Call::GetLoad(Empty {})).unwrap();
    assert_eq!(load["transports"], 0);
}

#[test]
fn methods_of_the_other_kind_are_refused() {
    let mut worker = worker();
    PlainPeer::connect(&mut worker, ROUTER, SENDER).unwrap();
    let options = WebRtcTransportOptions::default();
    let create = Call::CreateWebRtcTransport(options);
    worker.call(ids(RECEIVER), create).unwrap();
    let remote = RemoteParameters {
        ip: "127.0.0.1".into(),
        port: 9,
    };
    let dtls = serde_json::from_value(json!({ "fingerprints": [] })).unwrap();
    let rows = [
        (RECEIVER, Call::SetRemoteParameters(remote)),
        (SENDER, Call::SetRemoteDtlsParameters(dtls)),
        (SENDER, Call::SetMaxBitrate(SetMaxBitrate { bitrate: 1 })),
        (SENDER, Call::ChangeUfragPwd(Empty {})),
    ];
    for (transport, call) in rows {
        let error = worker.call(ids(transport), call).unwrap_err();
        assert!(
            error.to_string().contains("wrong Transport type"),
            "{error}"
        );
    }
}

#[test]
fn closing_gives_the_port_back() {
    let mut worker = worker();
    let peer = PlainPeer::connect(&mut worker, ROUTER, SENDER).unwrap();
    let address = peer.socket.peer_addr().unwrap();
    assert!(UdpSocket::bind(address).is_err());
    let close = Call::CloseTransport(Empty {});
    worker.call(ids(SENDER), close).unwrap();
    assert!(UdpSocket::bind(address).is_ok());
    PlainPeer::connect(&mut worker, ROUTER, SENDER).unwrap();
}
