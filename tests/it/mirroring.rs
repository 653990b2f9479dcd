//! Mirroring: clear copies of what a WebRTC transport receives and sends.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use broth_client::client::PlainPeer;
use broth_ipc::body::{Empty, Protocol, RouterSocket, StartMirroring};
use broth_ipc::{Call, Ids, TransportId};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtcp::{self, emit_pli};
use broth_worker::wire::rtp::{RtpHeader, is_rtcp, is_rtp};

use crate::support::{RECV_SSRC, ROUTER, Room, SEND_SSRC, receive_rtp};

const SENDER: TransportId = TransportId(1);
const RECEIVER: TransportId = TransportId(2);
const PATIENCE: Duration = Duration::from_secs(5);

/// Where copies arrive.
struct Recorder {
    socket: UdpSocket,
    request: StartMirroring,
}

impl Recorder {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let request = StartMirroring {
            remote_ip: "127.0.0.1".into(),
            remote_port: socket.local_addr().unwrap().port(),
            local_ip: None,
            socket: None,
            send_rtp: true,
            send_rtcp: true,
            recv_rtp: true,
            recv_rtcp: true,
        };
        Self { socket, request }
    }

    /// Starts to copy a transport through a socket that is handed over.
    fn start(&self, room: &mut Room, transport: TransportId) -> anyhow::Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let described = RouterSocket {
            protocol: Protocol::Udp,
            ip: [127, 0, 0, 1].into(),
            port: socket.local_addr()?.port(),
            announced_ip: None,
        };
        let request = StartMirroring {
            socket: Some(described),
            ..self.request.clone()
        };
        let call = Call::StartMirroring(request);
        room.worker
            .call_with(ids(transport), call, vec![socket.into()])?;
        Ok(())
    }

    /// Waits for a copy that is `wanted`.
    fn await_copy(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        while Instant::now() < deadline {
            if let Ok(len) = self.socket.recv(&mut buffer)
                && wanted(&buffer[..len])
            {
                return Some(buffer[..len].to_vec());
            }
        }
        None
    }

    fn drain(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2048];
        let mut copies = Vec::new();
        while let Ok(len) = self.socket.recv(&mut buffer) {
            copies.push(buffer[..len].to_vec());
        }
        copies
    }
}

fn ids(transport: TransportId) -> Ids {
    Ids::router(ROUTER).transport(transport)
}

fn is_rtp_of(packet: &[u8], ssrc: u32) -> bool {
    is_rtp(packet) && RtpHeader::parse(packet).is_ok_and(|header| header.ssrc == ssrc)
}

fn is_pli_of(packet: &[u8], ssrc: u32) -> bool {
    let mut packets = rtcp::packets(packet).flatten();
    is_rtcp(packet)
        && packets.any(|packet| matches!(packet, rtcp::Packet::Pli { media, .. } if media == ssrc))
}

#[test]
fn clear_packets_of_both_directions_are_copied() {
    for profile in [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80] {
        let mut room = Room::new(profile);
        let (sender, receiver) = (Recorder::new(), Recorder::new());
        sender.start(&mut room, SENDER).unwrap();
        receiver.start(&mut room, RECEIVER).unwrap();

        room.send(0, true);
        room.send(1, false);
        let (header, packet) = receive_rtp(&mut room.receiver).unwrap();
        let sent = receiver.await_copy(|copy| is_rtp_of(copy, RECV_SSRC));
        assert_eq!(
            sent.unwrap(),
            packet,
            "the very packet, before it is sealed"
        );
        let received = sender
            .await_copy(|copy| is_rtp_of(copy, SEND_SSRC))
            .unwrap();
        let copied = RtpHeader::parse(&received).unwrap();
        assert_eq!(copied.payload(&received), header.payload(&packet));

        let mut pli = Vec::new();
        emit_pli(&mut pli, 1, RECV_SSRC);
        let clear = pli.clone();
        room.receiver.srtp.protect_rtcp(&mut pli).unwrap();
        room.receiver.socket.send(&pli).unwrap();
        let copy = receiver.await_copy(|copy| is_pli_of(copy, RECV_SSRC));
        assert_eq!(copy.unwrap(), clear);
        assert!(
            sender
                .await_copy(|copy| is_pli_of(copy, SEND_SSRC))
                .is_some()
        );
    }
}

#[test]
fn only_what_is_wanted_is_copied() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    let (mut sender, mut receiver) = (Recorder::new(), Recorder::new());
    sender.request.recv_rtp = false;
    receiver.request.send_rtp = false;
    receiver.request.send_rtcp = false;
    sender.start(&mut room, SENDER).unwrap();
    receiver.start(&mut room, RECEIVER).unwrap();
    room.send(0, true);
    receive_rtp(&mut room.receiver).unwrap();
    assert!(!sender.drain().iter().any(|copy| is_rtp(copy)));
    assert_eq!(receiver.drain(), Vec::<Vec<u8>>::new());
}

#[test]
fn it_can_be_stopped_and_started_again_and_ends_with_the_transport() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    let recorder = Recorder::new();
    let stop = || Call::StopMirroring(Empty {});
    room.worker.call(ids(RECEIVER), stop()).unwrap();
    for seq in [0, 2, 4] {
        recorder.start(&mut room, RECEIVER).unwrap();
        let again = recorder.start(&mut room, RECEIVER).unwrap_err();
        let expected = "Transport is already mirroring";
        assert!(again.to_string().contains(expected), "{again}");
        room.send(seq, true);
        assert!(
            recorder
                .await_copy(|copy| is_rtp_of(copy, RECV_SSRC))
                .is_some()
        );

        room.worker.call(ids(RECEIVER), stop()).unwrap();
        recorder.drain();
        room.send(seq + 1, true);
        receive_rtp(&mut room.receiver).unwrap();
        assert_eq!(recorder.drain(), Vec::<Vec<u8>>::new());
    }
    recorder.start(&mut room, RECEIVER).unwrap();
    let copy = |recorder: &Recorder| {
        let mut buffer = [0; 2048];
        recorder.socket.recv_from(&mut buffer).ok()
    };
    room.send(6, true);
    receive_rtp(&mut room.receiver).unwrap();
    let (_, from) = std::iter::repeat_with(|| copy(&recorder))
        .take(100)
        .flatten()
        .next()
        .unwrap();
    assert!(UdpSocket::bind(from).is_err());
    let close = Call::CloseTransport(Empty {});
    room.worker.call(ids(RECEIVER), close).unwrap();
    assert!(UdpSocket::bind(from).is_ok());
}

#[test]
fn what_cannot_be_mirrored_is_refused_by_name() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    PlainPeer::connect(&mut room.worker, ROUTER, TransportId(3)).unwrap();
    let refusal = |room: &mut Room, transport, change: &dyn Fn(&mut StartMirroring)| {
        let mut recorder = Recorder::new();
        change(&mut recorder.request);
        let error = recorder.start(room, transport).unwrap_err();
        error.to_string()
    };
    type Row<'r> = (TransportId, &'r dyn Fn(&mut StartMirroring), &'r str);
    let rows: [Row<'_>; 4] = [
        (TransportId(3), &|_| {}, "wrong Transport type"),
        (TransportId(9), &|_| {}, "Transport not found"),
        (
            SENDER,
            &|request| request.remote_ip = "x".into(),
            "invalid destination IP 'x'",
        ),
        (
            SENDER,
            &|request| request.remote_ip = "::1".into(),
            "IPv6 disabled",
        ),
    ];
    for (transport, change, expected) in rows {
        let refused = refusal(&mut room, transport, change);
        assert!(refused.contains(expected), "{refused}");
    }
    let nothing = Call::StartMirroring(Recorder::new().request);
    let refused = room.worker.call(ids(SENDER), nothing).unwrap_err();
    assert!(
        refused.to_string().contains("needs one socket"),
        "{refused}"
    );
}
