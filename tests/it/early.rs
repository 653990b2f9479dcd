//! What comes before its time, or never: each counted, none of it in the way of the room.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use broth_client::peer::Peer;
use broth_client::rtp::{VP8_PT, vp8_packet, vp8_parameters};
use broth_ipc::body::{
    DtlsParameters, DtlsRole, DtlsState, Empty, WebRtcTransportDump, WebRtcTransportOptions,
};
use broth_ipc::rtp::MediaKind;
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, TransportId};
use broth_worker::dtls::{Certificate, Dtls, DtlsContext};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtp::RtpEmit;
use broth_worker::wire::stun::{is_stun, write_binding_request};

use crate::support::{RECV_SSRC, ROUTER, Room, SEND_SSRC, receive_rtp};

#[test]
fn an_rtx_probe_before_the_first_packet_is_dropped() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    let probe = RtpEmit {
        marker: false,
        pt: 102,
        seq: 7,
        ts: 1,
        ssrc: SEND_SSRC + 1,
    };
    room.send_packet(&probe, &[], &[]);
    room.send_packet(&RtpEmit { seq: 8, ..probe }, &[], &[0, 1, 2, 3, 4]);
    room.send(0, true);
    assert!(receive_rtp(&mut room.receiver).is_some());
    assert_eq!(room.drops("noStream"), 2);
}

#[test]
fn rtp_before_its_producer_is_dropped_until_there_is_one() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    let early = |seq| RtpEmit {
        marker: false,
        pt: VP8_PT,
        seq,
        ts: 0,
        ssrc: 5000,
    };
    room.send_packet(&early(1), &[], &[0x10, 0x00, 1]);
    room.send(0, true);
    assert!(receive_rtp(&mut room.receiver).is_some());
    assert_eq!(room.drops("noProducer"), 1);
    room.create_producer(ProducerId(11), 5000).unwrap();
    room.send_packet(&early(2), &[], &[0x10, 0x00, 1]);
    room.await_pli(5000).expect("the stream is known now");
    assert_eq!(room.drops("noProducer"), 1);
}

#[test]
fn a_late_joiners_key_frame_is_asked_for_within_the_window() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    room.send(0, true);
    receive_rtp(&mut room.receiver).unwrap();
    room.await_pli(SEND_SSRC).expect("one for the new stream");
    let profile = Profile::AeadAes128Gcm;
    let mut late = Peer::connect(&mut room.worker, ROUTER, TransportId(3), profile).unwrap();
    let (id, ssrc) = (ConsumerId(21), RECV_SSRC + 100);
    room.consume(id, TransportId(3), MediaKind::Video, vp8_parameters(ssrc));
    room.send(1, false);
    room.await_pli(SEND_SSRC).expect("one for the late joiner");
    room.send(2, true);
    let (header, _) = receive_rtp(&mut late).unwrap();
    assert_eq!(header.ssrc, ssrc);
}

#[test]
fn a_sender_that_starts_anew_does_not_move_the_clock_of_its_receivers() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    room.send(10, true);
    let (before, _) = receive_rtp(&mut room.receiver).unwrap();
    // Two consecutive numbers far away; timestamps go with them.
    room.send(30_000, false);
    room.send(30_001, true);
    let (after, _) = receive_rtp(&mut room.receiver).unwrap();
    assert_eq!(after.seq, before.seq.wrapping_add(1));
    let moved = after.ts.wrapping_sub(before.ts);
    assert!((1..90_000 * 10).contains(&moved), "{moved}");
}

#[test]
fn a_client_that_never_finishes_dtls_only_waits() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    let ids = Ids::router(ROUTER).transport(TransportId(9));
    let options = WebRtcTransportOptions::default();
    let create = Call::CreateWebRtcTransport(options);
    let dump = room.worker.call(ids, create).unwrap();
    let dump: WebRtcTransportDump = serde_json::from_value(dump).unwrap();
    let certificate = Certificate::generate().unwrap();
    let parameters = DtlsParameters {
        role: DtlsRole::Client,
        fingerprints: certificate.fingerprints(),
    };
    let set = Call::SetRemoteDtlsParameters(parameters);
    room.worker.call(ids, set).unwrap();
    let socket = checked_socket(&dump);

    let mut rtp = [0; 300];
    let len = vp8_packet(&mut rtp, 77, 1, 1, true, true, 100);
    socket.send(&rtp[..len]).unwrap();
    let context = DtlsContext::new(&certificate, &Profile::ALL).unwrap();
    let mut dtls = Dtls::new(&context).unwrap();
    let fingerprints = &dump.dtls_local_parameters.fingerprints;
    let now = Instant::now();
    dtls.set_remote(now, DtlsRole::Server, fingerprints)
        .unwrap();
    dtls.handle_ice_connected(now);
    let hello = dtls.poll_transmit().unwrap();
    socket.send(&hello).unwrap();
    let mut reply = [0; 2048];
    socket.recv(&mut reply).expect("the answer to the hello");

    room.send(0, true);
    assert!(receive_rtp(&mut room.receiver).is_some());
    assert_eq!(room.drops("noKeys"), 1);
    let dump = room.worker.call(ids, Call::DumpTransport(Empty {}));
    let dump: WebRtcTransportDump = serde_json::from_value(dump.unwrap()).unwrap();
    assert_eq!(dump.dtls_state, DtlsState::Connecting);
    let close = Call::CloseTransport(Empty {});
    room.worker.call(ids, close).unwrap();
    room.send(1, false);
    assert!(receive_rtp(&mut room.receiver).is_some());
}

/// A socket whose check the transport has answered.
fn checked_socket(dump: &WebRtcTransportDump) -> UdpSocket {
    let candidate = &dump.ice_local_candidates[0];
    let address = SocketAddr::new(candidate.ip.parse().unwrap(), candidate.port);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let ice = &dump.ice_local_parameters;
    let mut check = Vec::new();
    let username = format!("{}:peer", ice.username_fragment);
    let password = ice.password.as_bytes();
    write_binding_request(&mut check, [5; 12], &username, 100, true, 1, password);
    socket.send(&check).unwrap();
    let mut reply = [0; 2048];
    let len = socket.recv(&mut reply).unwrap();
    assert!(is_stun(&reply[..len]));
    socket
}
