//! How many system calls forwarding takes, by the worker's own count.

use std::os::fd::AsFd;

use broth_client::peer::Peer;
use broth_client::rtp::{identity_mapping, vp8_packet, vp8_parameters};
use broth_client::worker::DrivenWorker;
use broth_ipc::body::{CreateConsumer, CreateProducer, Empty, EnableConsumer, Load};
use broth_ipc::rtp::MediaKind;
use broth_ipc::{Call, ConsumerId, Ids, TransportId};
use broth_worker::net::sys::{Message, send};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtp::FIXED_HEADER_LEN;

use crate::support::{PRODUCER, ROUTER, SEND_SSRC};

const PROFILE: Profile = Profile::AeadAes128Gcm;
const SENDER: TransportId = TransportId(1);
/// Fewer than the messages of one call.
const VIEWERS: u64 = 50;
const BURSTS: u64 = 50;
/// Packets of a burst.
const PACKETS: u64 = 10;

#[test]
fn a_burst_takes_one_call_to_receive_and_one_to_send() {
    let mut worker = DrivenWorker::in_thread().unwrap();
    worker.create_router(ROUTER).unwrap();
    let sender = Peer::connect(&mut worker, ROUTER, SENDER, PROFILE).unwrap();
    let request = CreateProducer {
        kind: MediaKind::Video,
        rtp_parameters: vp8_parameters(SEND_SSRC),
        rtp_mapping: identity_mapping(),
        paused: false,
    };
    let ids = Ids::router(ROUTER).transport(SENDER).producer(PRODUCER);
    worker.call(ids, Call::CreateProducer(request)).unwrap();
    let viewers = (0..VIEWERS as u32).map(|n| connect_viewer(&mut worker, 100 + n));
    let viewers: Vec<Peer> = viewers.collect();

    let connected = load(&mut worker).datagrams_received;
    send_burst(&sender, 0);
    let before = load_after(&mut worker, connected + PACKETS);
    for burst in 1..=BURSTS {
        send_burst(&sender, burst);
    }
    let after = load_after(&mut worker, before.datagrams_received + BURSTS * PACKETS);

    let received = after.datagrams_received - before.datagrams_received;
    assert_eq!(received, BURSTS * PACKETS);
    let recv_calls = after.recv_calls - before.recv_calls;
    assert!(recv_calls <= BURSTS, "{recv_calls}");
    let sent = after.datagrams_sent - before.datagrams_sent;
    let reports = sent - BURSTS * PACKETS * VIEWERS;
    let send_calls = after.send_calls - before.send_calls;
    // Every report may leave in a call of its own, no other packet does.
    assert!(send_calls <= BURSTS + reports, "{send_calls} {reports}");
    drop(viewers);
}

fn connect_viewer(worker: &mut DrivenWorker, id: u32) -> Peer {
    let peer = Peer::connect(worker, ROUTER, TransportId(id), PROFILE).unwrap();
    let ids = Ids::router(ROUTER)
        .transport(peer.transport)
        .producer(PRODUCER)
        .consumer(ConsumerId(id));
    let kind = MediaKind::Video;
    let create = Call::CreateConsumer(CreateConsumer { kind });
    worker.call(ids, create).unwrap();
    let rtp_parameters = vp8_parameters(10_000 + 2 * id);
    let enable = Call::EnableConsumer(EnableConsumer { rtp_parameters });
    worker.call(ids, enable).unwrap();
    peer
}

/// The packets of one frame, handed to the kernel at once; the first frame is a key frame.
fn send_burst(sender: &Peer, frame: u64) {
    let (mut arena, mut slices) = (Vec::new(), Vec::new());
    for n in 0..PACKETS {
        let seq = (frame * PACKETS + n) as u16;
        let (is_start, ts) = (n == 0, frame as u32 * 3000);
        let mut packet = [0; 1500];
        let is_keyframe = is_start && frame == 0;
        let len = vp8_packet(&mut packet, SEND_SSRC, seq, ts, is_keyframe, is_start, 1000);
        let len = sender.seal(0, &mut packet, FIXED_HEADER_LEN, len).unwrap();
        slices.push((arena.len() as u32, len as u32));
        arena.extend_from_slice(&packet[..len]);
    }
    let message = Message {
        remote: sender.socket.peer_addr().unwrap(),
        slices: slices.len(),
        segment_len: slices[0].1 as u16,
    };
    let sent = send(sender.socket.as_fd(), &arena, &slices, &[message]);
    assert_eq!(sent.unwrap(), 1);
}

/// What the worker cost once it has received so many datagrams and forwarded them.
fn load_after(worker: &mut DrivenWorker, received: u64) -> Load {
    for _ in 0..1000 {
        if load(worker).datagrams_received >= received {
            // It answers before it forwards what came in the same turn.
            return load(worker);
        }
    }
    panic!("what was sent arrives");
}

fn load(worker: &mut DrivenWorker) -> Load {
    let answer = worker.call(Ids::NONE, Call::GetLoad(Empty {})).unwrap();
    serde_json::from_value(answer).unwrap()
}
