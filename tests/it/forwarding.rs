//! Media from one peer to another, through ICE, DTLS and SRTP on real sockets.

use broth_ipc::body::{Empty, RouterDump, RtpStreamStats};
use broth_ipc::rtp::Profile as Layer;
use broth_ipc::{Call, Event, Ids};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtcp::{self, emit_nack, emit_pli};

use crate::support::{
    CONSUMER, PRODUCER, Packet, RECV_SSRC, ROUTER, Room, SEND_SSRC, receive, receive_rtp,
};

fn consumer_ids() -> Ids {
    Ids::router(ROUTER).consumer(CONSUMER)
}

#[test]
fn video_crosses_with_every_srtp_profile_and_is_renumbered() {
    for profile in Profile::ALL {
        let mut room = Room::new(profile);
        for seq in 0..50 {
            room.send(seq, seq == 0);
        }
        let mut numbers = Vec::new();
        while numbers.len() < 50 {
            let (header, packet) = receive_rtp(&mut room.receiver).expect("50 packets");
            assert_eq!((header.ssrc, header.pt), (RECV_SSRC, 101));
            assert_eq!(header.payload(&packet).len(), 200);
            numbers.push(header.seq);
        }
        let expected: Vec<u16> = (0..50).map(|n| numbers[0].wrapping_add(n)).collect();
        assert_eq!(numbers, expected, "{profile:?}");
    }
}

#[test]
fn nothing_is_forwarded_before_a_key_frame_which_is_asked_for() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    room.send(0, false);
    let asked = receive(&mut room.sender, |packet| match packet {
        Packet::Rtcp(compound) => rtcp::packets(&compound)
            .flatten()
            .any(|p| {
                matches!(
                    p,
                    rtcp::Packet::Pli {
                        media: SEND_SSRC,
                        ..
                    }
                )
            })
            .then_some(()),
        Packet::Rtp(..) => None,
    });
    assert!(asked.is_some());
    room.send(1, true);
    room.send(2, false);
    let (first, _) = receive_rtp(&mut room.receiver).unwrap();
    let (second, _) = receive_rtp(&mut room.receiver).unwrap();
    assert_eq!(second.seq, first.seq.wrapping_add(1));
    room.worker
        .call(Ids::NONE, Call::DumpWorker(Empty {}))
        .unwrap();
    let profiles: Vec<Layer> = room
        .worker
        .notes
        .iter()
        .filter_map(|note| match note.event {
            Event::EffectiveProfileChange { profile } => Some(profile),
            _ => None,
        })
        .collect();
    assert_eq!(profiles, [Layer::Default]);
}

#[test]
fn a_lost_packet_is_sent_again_as_rtx() {
    let mut room = Room::new(Profile::AeadAes256Gcm);
    room.send(0, true);
    room.send(1, false);
    let (_, _) = receive_rtp(&mut room.receiver).unwrap();
    let (lost, original) = receive_rtp(&mut room.receiver).unwrap();
    let mut nack = Vec::new();
    emit_nack(&mut nack, 1, RECV_SSRC, &[lost.seq]);
    room.receiver.srtp.protect_rtcp(&mut nack).unwrap();
    room.receiver.socket.send(&nack).unwrap();
    let (header, packet) = receive_rtp(&mut room.receiver).expect("the retransmission");
    assert_eq!((header.ssrc, header.pt), (RECV_SSRC + 1, 102));
    let payload = header.payload(&packet);
    assert_eq!(payload[..2], lost.seq.to_be_bytes());
    assert_eq!(&payload[2..], lost.payload(&original));
}

#[test]
fn a_gap_is_asked_for() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    room.send(0, true);
    room.send(3, false);
    let missing = receive(&mut room.sender, |packet| match packet {
        Packet::Rtcp(compound) => rtcp::packets(&compound).flatten().find_map(|p| match p {
            rtcp::Packet::Nack {
                media: SEND_SSRC,
                seqs,
                ..
            } => Some(seqs.collect::<Vec<_>>()),
            _ => None,
        }),
        Packet::Rtp(..) => None,
    });
    assert_eq!(missing, Some(vec![1, 2]));
}

#[test]
fn reports_go_to_both_sides() {
    let mut room = Room::new(Profile::Aes128CmSha1_80);
    room.send(0, true);
    room.send(1, false);
    let has = |compound: &[u8], wanted: fn(&rtcp::Packet<'_>) -> bool| {
        rtcp::packets(compound)
            .flatten()
            .any(|p| wanted(&p))
            .then_some(())
    };
    let receiver_report = receive(&mut room.sender, |packet| match packet {
        Packet::Rtcp(compound) => has(&compound, |p| matches!(p, rtcp::Packet::Rr { .. })),
        Packet::Rtp(..) => None,
    });
    assert!(receiver_report.is_some());
    let sender_report = receive(&mut room.receiver, |packet| match packet {
        Packet::Rtcp(compound) => has(
            &compound,
            |p| matches!(p, rtcp::Packet::Sr(report, _) if report.ssrc == RECV_SSRC && report.packets == 2),
        ),
        Packet::Rtp(..) => None,
    });
    assert!(sender_report.is_some());
}

#[test]
fn a_pause_stops_and_a_resume_waits_for_a_key_frame() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    room.send(0, true);
    let (first, _) = receive_rtp(&mut room.receiver).unwrap();
    room.worker
        .call(consumer_ids(), Call::PauseConsumer(Empty {}))
        .unwrap();
    room.send(1, false);
    room.worker
        .call(consumer_ids(), Call::DumpConsumer(Empty {}))
        .unwrap();
    room.worker
        .call(consumer_ids(), Call::ResumeConsumer(Empty {}))
        .unwrap();
    room.send(2, false);
    room.send(3, true);
    let (next, _) = receive_rtp(&mut room.receiver).unwrap();
    assert_eq!(next.seq, first.seq.wrapping_add(1));
    assert_ne!(next.ts, first.ts);
}

#[test]
fn a_receivers_pli_reaches_the_sender() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    room.send(0, true);
    receive_rtp(&mut room.receiver).unwrap();
    let mut pli = Vec::new();
    emit_pli(&mut pli, 1, RECV_SSRC);
    room.receiver.srtp.protect_rtcp(&mut pli).unwrap();
    room.receiver.socket.send(&pli).unwrap();
    let mut asked = 0;
    receive(&mut room.sender, |packet| match packet {
        Packet::Rtcp(compound) => {
            asked += rtcp::packets(&compound)
                .flatten()
                .filter(|p| matches!(p, rtcp::Packet::Pli { .. }))
                .count();
            // One for the new stream, one for the receiver, a second later at most.
            (asked == 2).then_some(())
        }
        Packet::Rtp(..) => None,
    })
    .expect("two requests");
}

#[test]
fn closing_gives_everything_back() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    for seq in 0..20 {
        room.send(seq, seq == 0);
    }
    receive_rtp(&mut room.receiver).unwrap();
    let stats = room
        .worker
        .call(consumer_ids(), Call::GetConsumerStats(Empty {}))
        .unwrap();
    let stats: Vec<RtpStreamStats> = serde_json::from_value(stats).unwrap();
    let kinds: Vec<&str> = stats.iter().map(|s| s.kind.as_str()).collect();
    assert_eq!(kinds, ["inbound-rtp", "outbound-rtp"]);

    let ids = Ids::router(ROUTER).producer(PRODUCER);
    room.worker
        .call(ids, Call::CloseProducer(Empty {}))
        .unwrap();
    let dump = room
        .worker
        .call(Ids::router(ROUTER), Call::DumpRouter(Empty {}))
        .unwrap();
    let dump: RouterDump = serde_json::from_value(dump).unwrap();
    assert_eq!((dump.producers.len(), dump.consumers.len()), (0, 0));
    assert_eq!(dump.transports.len(), 2);
    assert!(
        room.worker
            .notes
            .iter()
            .any(|note| note.event == Event::Close)
    );
    room.worker
        .call(Ids::router(ROUTER), Call::CloseRouter(Empty {}))
        .unwrap();
    let load = room
        .worker
        .call(Ids::NONE, Call::GetLoad(Empty {}))
        .unwrap();
    assert_eq!(load["routers"], 0);
    assert_eq!(load["transports"], 0);
}
