//! What a hostile or clumsy other side sends: each gets one clear error or a counted drop, and
//! the room goes on.

use std::net::UdpSocket;

use broth_ipc::body::{Empty, WebRtcTransportOptions};
use broth_ipc::{Call, Ids, ProducerId, RouterId, TransportId};
use broth_worker::srtp::Profile;

use crate::support::{CONSUMER, ROUTER, Room, SEND_SSRC, receive_rtp};

#[test]
fn unknown_and_repeated_ids_are_refused_by_name() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    let create = Call::CreateWebRtcTransport(WebRtcTransportOptions::default());
    let nothing = WebRtcTransportOptions {
        udp: false,
        tcp: false,
        ..WebRtcTransportOptions::default()
    };
    let own = Ids::router(ROUTER);
    let rows = [
        (
            Ids::NONE,
            Call::DumpRouter(Empty {}),
            "Request has not numeric internal.routerId",
        ),
        (
            Ids::router(RouterId(9)),
            Call::DumpRouter(Empty {}),
            "Router does not exist",
        ),
        (
            own.transport(TransportId(9)),
            Call::DumpTransport(Empty {}),
            "Transport not found",
        ),
        (
            own.producer(ProducerId(9)),
            Call::DumpProducer(Empty {}),
            "Producer not found",
        ),
        (
            own,
            Call::DumpConsumer(Empty {}),
            "Request has not numeric internal.consumerId",
        ),
        (
            own.transport(TransportId(1)),
            create,
            "a Transport with same transportId already exists",
        ),
        (
            own.transport(TransportId(3)),
            Call::CreateWebRtcTransport(nothing),
            "could not open any IP:port",
        ),
        (
            own.consumer(CONSUMER),
            Call::StopMirroring(Empty {}),
            "Request has not numeric internal.transportId",
        ),
    ];
    for (ids, call, expected) in rows {
        let error = room.worker.call(ids, call).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should say {expected}");
    }
    let error = room.create_producer(ProducerId(11), SEND_SSRC).unwrap_err();
    let expected = "ssrc already exists in RTP listener [ssrc:1000]";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(room.create_producer(ProducerId(11), 3000).is_ok());
}

#[test]
fn datagrams_of_any_bytes_are_counted_and_do_no_harm() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let room_address = room.sender.socket.peer_addr().unwrap();
    let mut state = 1u32;
    for round in 0..2000usize {
        let mut datagram: Vec<u8> = (0..round % 300)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        // Every kind of first byte, from a stranger and from an authenticated peer.
        if let Some(first) = datagram.first_mut() {
            *first = [0, 1, 20, 22, 63, 128, 144, 191, 255][round % 9];
        }
        // Half of what looks like STUN has the magic cookie, too.
        if round % 2 == 0 && datagram.len() >= 20 && datagram[0] < 3 {
            datagram[4..8].copy_from_slice(&0x2112_A442u32.to_be_bytes());
        }
        stranger.send_to(&datagram, room_address).unwrap();
        // 20…63 from the peer itself would be its DTLS: an alert of the peer may close it.
        if !matches!(datagram.first(), Some(20..=63)) {
            room.receiver.socket.send(&datagram).unwrap();
        }
    }
    room.send(0, true);
    assert!(receive_rtp(&mut room.receiver).is_some());
    let load = room
        .worker
        .call(Ids::NONE, Call::GetLoad(Empty {}))
        .unwrap();
    for reason in ["stun", "unknownAddress", "srtp"] {
        assert!(
            load["drops"][reason].as_u64() > Some(0),
            "{reason} in {load}"
        );
    }
}

#[test]
fn rtp_of_an_unknown_ssrc_and_replayed_rtp_are_named() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    let mut buffer = [0; 1500];
    let len = broth_client::rtp::vp8_packet(&mut buffer, 77, 1, 1, true, true, 100);
    let header_len = broth_worker::wire::rtp::header_len(&buffer[..len]).unwrap();
    let seal = &room.sender.srtp.seal;
    let len = seal.protect_rtp(0, &mut buffer, header_len, len).unwrap();
    room.sender.socket.send(&buffer[..len]).unwrap();
    room.sender.socket.send(&buffer[..len]).unwrap();
    room.send(0, true);
    receive_rtp(&mut room.receiver).unwrap();
    let load = room
        .worker
        .call(Ids::NONE, Call::GetLoad(Empty {}))
        .unwrap();
    assert_eq!(load["drops"]["noProducer"], 1);
    assert_eq!(load["drops"]["replayed"], 1);
}
