//! A worker process is killed, and another one goes on with its room: same sockets, same ICE and
//! SRTP sessions, no handshake.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use broth_client::peer::{Endpoint, Peer};
use broth_client::rtp::vp8_packet;
use broth_client::worker::{DrivenWorker, recorder};
use broth_ipc::body::{
    CreateRouter, DtlsParameters, DtlsRole, DtlsState, Empty, IceParameters, IceState, Protocol,
    RouterSocket, WebRtcTransportDump, WebRtcTransportOptions,
};
use broth_ipc::{Call, Event, Ids, RECORDER_BYTES, TransportId};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtcp;
use broth_worker::wire::rtp::{RtpHeader, header_len, is_rtcp, is_rtp};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use crate::support::{CONSUMER, PRODUCER, RECV_SSRC, ROUTER, SEND_SSRC};

const WORKER: &str = env!("CARGO_BIN_EXE_broth-test-worker");
const SENDER: TransportId = TransportId(1);
const RECEIVER: TransportId = TransportId(2);
/// How long what was sent may take to arrive.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a controller keeps of a room, and the worker that has it.
struct Room {
    worker: DrivenWorker,
    socket: UdpSocket,
    recorder: OwnedFd,
    transports: Vec<(TransportId, IceParameters, DtlsParameters)>,
    seq: u16,
}

#[test]
fn media_goes_on_through_the_death_of_its_worker() {
    for profile in Profile::ALL {
        let (mut room, mut sender, mut receiver) = Room::new(profile);
        let mut seqs = room.send_and_receive(&mut sender, &mut receiver, 50);
        for _ in 0..3 {
            room.settle();
            room.worker.kill().unwrap();
            while was_asked_for_keyframe(&mut sender) {}
            // Nobody reads the socket now; the kernel keeps what comes.
            let waiting = room.send(&sender, 20);
            room.go_on();
            seqs.extend(receive(&mut receiver, waiting));
            seqs.extend(room.send_and_receive(&mut sender, &mut receiver, 30));
            assert!(!was_asked_for_keyframe(&mut sender), "nothing was lost");
        }
        let first = seqs[0];
        let expected: Vec<u16> = (0..seqs.len() as u16)
            .map(|n| first.wrapping_add(n))
            .collect();
        assert_eq!(seqs, expected, "{profile:?}");
        // Both directions of SRTCP go on, too: the receiver is still heard.
        let mut pli = Vec::new();
        rtcp::emit_pli(&mut pli, 1, RECV_SSRC);
        receiver.srtp.protect_rtcp(&mut pli).unwrap();
        receiver.socket.send(&pli).unwrap();
        assert!(was_asked_for_keyframe(&mut sender));
        room.check_silence();
    }
}

#[test]
fn a_death_in_the_midst_of_work_uses_no_index_twice() {
    let (mut room, mut sender, mut receiver) = Room::new(Profile::AeadAes128Gcm);
    room.send_and_receive(&mut sender, &mut receiver, 10);
    let mut total = 0;
    for round in 0..10 {
        room.send(&sender, 300);
        std::thread::sleep(Duration::from_micros(300 * round));
        room.worker.kill().unwrap();
        room.send(&sender, 20);
        room.go_on();
        // Each is opened by a receiver that refuses what it has seen before.
        total += receive_all(&mut receiver).len();
        was_asked_for_keyframe(&mut sender);
    }
    assert!(total > 1000, "{total} of 3200 arrived");
    let seqs = room.send_and_receive(&mut sender, &mut receiver, 30);
    assert!(
        seqs.windows(2)
            .all(|pair| pair[1] == pair[0].wrapping_add(1))
    );
}

#[test]
fn a_recorder_that_can_shrink_is_refused() {
    let mut worker = DrivenWorker::of_program(Path::new(WORKER)).unwrap();
    let memory = memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    ftruncate(&memory, RECORDER_BYTES as i64).unwrap();
    let request = CreateRouter {
        recorder: true,
        ..CreateRouter::default()
    };
    let call = Call::CreateRouter(request);
    let refused = worker.call_with(Ids::router(ROUTER), call, vec![memory]);
    assert!(refused.unwrap_err().to_string().contains("sealed"));
}

#[test]
fn a_transport_that_was_not_connected_begins_anew_under_its_credentials() {
    let (mut room, mut sender, mut receiver) = Room::new(Profile::AeadAes128Gcm);
    let id = TransportId(3);
    let ids = Ids::router(ROUTER).transport(id);
    let create = Call::CreateWebRtcTransport(WebRtcTransportOptions::default());
    let created = room.worker.call(ids, create).unwrap();
    let before: WebRtcTransportDump = serde_json::from_value(created).unwrap();
    room.worker.kill().unwrap();
    room.go_on();
    let options = WebRtcTransportOptions {
        restore: Some(before.ice_local_parameters.clone()),
        ..WebRtcTransportOptions::default()
    };
    let create = Call::CreateWebRtcTransport(options);
    let created = room.worker.call(ids, create).unwrap();
    let after: WebRtcTransportDump = serde_json::from_value(created).unwrap();
    assert_eq!(after.ice_local_parameters, before.ice_local_parameters);
    assert_eq!(after.ice_local_candidates, before.ice_local_candidates);
    assert_eq!(
        (after.ice_state, after.dtls_state),
        (IceState::New, DtlsState::New)
    );
    let endpoint = Endpoint::new(DtlsRole::Client).unwrap();
    let remote = Call::SetRemoteDtlsParameters(endpoint.dtls_parameters());
    room.worker.call(ids, remote).unwrap();
    endpoint
        .connect(&after.into(), id, Profile::AeadAes128Gcm)
        .unwrap();
    room.send_and_receive(&mut sender, &mut receiver, 10);
}

impl Room {
    fn new(profile: Profile) -> (Self, Peer, Peer) {
        let mut room = Self {
            worker: DrivenWorker::of_program(Path::new(WORKER)).unwrap(),
            socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
            recorder: recorder().unwrap(),
            transports: Vec::new(),
            seq: 65_500,
        };
        room.create_router(false);
        let sender = room.connect(SENDER, profile);
        let receiver = room.connect(RECEIVER, profile);
        room.create_media();
        (room, sender, receiver)
    }

    fn create_router(&mut self, restore: bool) {
        let local = self.socket.local_addr().unwrap();
        let request = CreateRouter {
            sockets: vec![RouterSocket {
                protocol: Protocol::Udp,
                ip: local.ip(),
                port: local.port(),
                announced_ip: None,
            }],
            recorder: true,
            restore,
        };
        let fds = vec![
            self.socket.try_clone().unwrap().into(),
            self.recorder.try_clone().unwrap(),
        ];
        let call = Call::CreateRouter(request);
        self.worker
            .call_with(Ids::router(ROUTER), call, fds)
            .unwrap();
    }

    fn connect(&mut self, id: TransportId, profile: Profile) -> Peer {
        let ids = Ids::router(ROUTER).transport(id);
        let create = Call::CreateWebRtcTransport(WebRtcTransportOptions::default());
        let created = self.worker.call(ids, create).unwrap();
        let dump: WebRtcTransportDump = serde_json::from_value(created).unwrap();
        let endpoint = Endpoint::new(DtlsRole::Client).unwrap();
        let remote = endpoint.dtls_parameters();
        let ice = dump.ice_local_parameters.clone();
        self.transports.push((id, ice, remote.clone()));
        let remote = Call::SetRemoteDtlsParameters(remote);
        self.worker.call(ids, remote).unwrap();
        endpoint.connect(&dump.into(), id, profile).unwrap()
    }

    fn create_media(&mut self) {
        let ids = Ids::router(ROUTER).transport(SENDER).producer(PRODUCER);
        self.worker.produce_vp8(ids, SEND_SSRC).unwrap();
        let ids = ids.transport(RECEIVER).consumer(CONSUMER);
        self.worker.consume_vp8(ids, RECV_SSRC).unwrap();
    }

    /// Another worker takes the room.
    fn go_on(&mut self) {
        self.worker = DrivenWorker::of_program(Path::new(WORKER)).unwrap();
        self.create_router(true);
        for (id, ice, remote) in self.transports.clone() {
            let ids = Ids::router(ROUTER).transport(id);
            let options = WebRtcTransportOptions {
                restore: Some(ice),
                ..WebRtcTransportOptions::default()
            };
            let create = Call::CreateWebRtcTransport(options);
            let created = self.worker.call(ids, create).unwrap();
            let dump: WebRtcTransportDump = serde_json::from_value(created).unwrap();
            let states = (dump.ice_state, dump.dtls_state);
            assert_eq!(states, (IceState::Completed, DtlsState::Connected));
            assert!(dump.ice_selected_tuple.is_some());
            let remote = Call::SetRemoteDtlsParameters(remote);
            let role = self.worker.call(ids, remote).unwrap();
            assert_eq!(role["role"], "server");
        }
        self.create_media();
        let resume = Call::ResumeRouter(Empty {});
        self.worker.call(Ids::router(ROUTER), resume).unwrap();
    }

    /// Sends packets, the first ever of which is a key frame.
    fn send(&mut self, sender: &Peer, count: usize) -> usize {
        for _ in 0..count {
            let mut buffer = [0; 1500];
            let is_keyframe = self.seq == 65_500;
            let index = u64::from(self.seq.wrapping_sub(65_500)) + 65_500;
            let ts = self.seq.wrapping_sub(65_500);
            let ts = u32::from(ts) * 3000;
            let len = vp8_packet(&mut buffer, SEND_SSRC, self.seq, ts, is_keyframe, true, 200);
            sender
                .send_rtp((index >> 16) as u32, &mut buffer, len)
                .unwrap();
            self.seq = self.seq.wrapping_add(1);
        }
        count
    }

    fn send_and_receive(
        &mut self,
        sender: &mut Peer,
        receiver: &mut Peer,
        count: usize,
    ) -> Vec<u16> {
        self.send(sender, count);
        receive(receiver, count)
    }

    /// An answer shows that the turn that sent the last packets is over.
    fn settle(&mut self) {
        let dump = Call::DumpWorker(Empty {});
        self.worker.call(Ids::NONE, dump).unwrap();
    }

    /// The worker told nothing that the controller knows already.
    fn check_silence(&mut self) {
        self.settle();
        let is_news = |event: &Event| {
            matches!(
                event,
                Event::IceStateChange { .. }
                    | Event::IceSelectedTupleChange { .. }
                    | Event::DtlsStateChange { .. }
                    | Event::EffectiveProfileChange { .. }
            )
        };
        let mut notes = self.worker.notes.iter();
        assert!(notes.all(|note| !is_news(&note.event)));
    }
}

/// Sequence numbers of the next `count` packets.
fn receive(peer: &mut Peer, count: usize) -> Vec<u16> {
    let deadline = Instant::now() + PATIENCE;
    let mut seqs = Vec::new();
    while seqs.len() < count && Instant::now() < deadline {
        seqs.extend(receive_one(peer).flatten());
    }
    assert_eq!(seqs.len(), count, "{seqs:?}");
    seqs
}

/// Sequence numbers of everything that comes until nothing does any more.
fn receive_all(peer: &mut Peer) -> Vec<u16> {
    let mut seqs = Vec::new();
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_millis(200) {
        if let Some(seq) = receive_one(peer).flatten() {
            seqs.push(seq);
            quiet_since = Instant::now();
        }
    }
    seqs
}

/// Takes one datagram; the number of a media packet.
fn receive_one(peer: &mut Peer) -> Option<Option<u16>> {
    let mut buffer = [0; 2048];
    let len = match peer.socket.recv(&mut buffer) {
        Ok(len) => len,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
        Err(error) => panic!("{error}"),
    };
    let datagram = &mut buffer[..len];
    assert!(!matches!(datagram[0], 20..=63), "no handshake");
    if is_rtcp(datagram) {
        peer.srtp.inbound.unprotect_rtcp(datagram).unwrap();
        return Some(None);
    }
    if !is_rtp(datagram) {
        return Some(None);
    }
    let header_len = header_len(datagram).unwrap();
    let len = peer
        .srtp
        .inbound
        .unprotect_rtp(datagram, header_len)
        .unwrap();
    let header = RtpHeader::parse(&datagram[..len]).unwrap();
    Some((header.ssrc == RECV_SSRC).then_some(header.seq))
}

/// Whether a PLI is waiting, or comes within a moment.
fn was_asked_for_keyframe(sender: &mut Peer) -> bool {
    let deadline = Instant::now() + Duration::from_millis(100);
    let mut was_asked = false;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline && !was_asked {
        let Ok(len) = sender.socket.recv(&mut buffer) else {
            continue;
        };
        if !is_rtcp(&buffer[..len]) {
            continue;
        }
        let len = sender
            .srtp
            .inbound
            .unprotect_rtcp(&mut buffer[..len])
            .unwrap();
        was_asked = rtcp::packets(&buffer[..len])
            .flatten()
            .any(|packet| matches!(packet, rtcp::Packet::Pli { .. }));
    }
    was_asked
}
