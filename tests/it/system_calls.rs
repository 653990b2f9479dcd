//! How many system calls forwarding takes, by the worker's own count.

use broth_client::burst::Burst;
use broth_client::peer::Peer;
use broth_client::rtp::vp8_packet;
use broth_client::worker::DrivenWorker;
use broth_ipc::body::Load;
use broth_ipc::{ConsumerId, Ids, TransportId};
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
    let ids = Ids::router(ROUTER).transport(SENDER).producer(PRODUCER);
    worker.produce_vp8(ids, SEND_SSRC).unwrap();
    let viewers = (0..VIEWERS as u32).map(|n| connect_viewer(&mut worker, 100 + n));
    let viewers: Vec<Peer> = viewers.collect();

    let connected = worker.load().unwrap().datagrams_received;
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
    worker.consume_vp8(ids, 10_000 + 2 * id).unwrap();
    peer
}

/// The packets of one frame, handed to the kernel at once; the first frame is a key frame.
fn send_burst(sender: &Peer, frame: u64) {
    let mut burst = Burst::default();
    for n in 0..PACKETS {
        let seq = (frame * PACKETS + n) as u16;
        let (is_start, ts) = (n == 0, frame as u32 * 3000);
        let mut packet = [0; 1500];
        let is_keyframe = is_start && frame == 0;
        let len = vp8_packet(&mut packet, SEND_SSRC, seq, ts, is_keyframe, is_start, 1000);
        let len = sender.seal(0, &mut packet, FIXED_HEADER_LEN, len).unwrap();
        burst.push(&packet[..len]);
    }
    let remote = sender.socket.peer_addr().unwrap();
    assert_eq!(burst.send(&sender.socket, remote).unwrap(), 1);
}

/// What the worker cost once it has received so many datagrams and forwarded them.
fn load_after(worker: &mut DrivenWorker, received: u64) -> Load {
    for _ in 0..1000 {
        if worker.load().unwrap().datagrams_received >= received {
            // It answers before it forwards what came in the same turn.
            return worker.load().unwrap();
        }
    }
    panic!("what was sent arrives");
}
