//! A sender with its log and a receiver with its gaps, joined by a lossy link on a fake clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::recorder::{self, Counters, StreamRecord};
use crate::wire::codec::PayloadInfo;
use crate::wire::rtcp::ReportBlock;
use crate::wire::rtp::{RtpEmit, RtpHeader};

const PACKETS: u64 = 3000;

/// A small generator with a seed (xorshift), so that every run is the same.
struct Random(u64);

impl Random {
    fn percent(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % 100
    }
}

fn header(seq: u16) -> RtpHeader {
    header_at(seq, 0)
}

fn header_at(seq: u16, ts: u32) -> RtpHeader {
    let emit = RtpEmit {
        marker: false,
        pt: 96,
        seq,
        ts,
        ssrc: 1,
    };
    let mut packet = [0; 100];
    emit.emit_header(std::iter::empty(), &mut packet);
    RtpHeader::parse(&packet).unwrap()
}

fn config() -> RecvConfig {
    RecvConfig {
        ssrc: 1,
        rtx_ssrc: Some(2),
        pt: 96,
        rtx_pt: Some(97),
        clock_rate: 90_000,
        has_nack: true,
    }
}

/// Sends one packet each 5 ms; returns `(delivered, asked, repeated)`.
fn run(loss_percent: u64, rtt_ms: u64) -> (usize, u64, u64) {
    let start = Instant::now();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut log = SentLog::default();
    let mut numbering = Numbering::new(65_000);
    let mut recv = RecvStream::new(config());
    // Arrivals and NACKs on their way, by milliseconds.
    let mut to_receiver: BTreeMap<u64, Vec<(u64, bool)>> = BTreeMap::new();
    let mut to_sender: BTreeMap<u64, Vec<u16>> = BTreeMap::new();
    let mut delivered = std::collections::BTreeSet::new();
    let mut repeated = 0;
    numbering.sync(1 << 16);
    for ms in 0..PACKETS * 5 + 5000 {
        let now = start + Duration::from_millis(ms);
        if ms % 5 == 0 && ms / 5 < PACKETS {
            let out_seq = numbering.forward((1 << 16) + ms / 5).unwrap();
            log.insert(Sent {
                out_seq,
                at_ms: ms as u32,
                ..Sent::default()
            });
            // The last packet must arrive for the gap before it to be seen.
            if random.percent() >= loss_percent || ms / 5 == PACKETS - 1 {
                let arrivals = to_receiver.entry(ms + rtt_ms / 2).or_default();
                arrivals.push((out_seq, false));
            }
        }
        for seq in to_sender.remove(&ms).unwrap_or_default() {
            if let Some(sent) = log.may_resend(seq, ms as u32, rtt_ms as u32) {
                repeated += 1;
                if random.percent() >= loss_percent {
                    let arrivals = to_receiver.entry(ms + rtt_ms / 2).or_default();
                    arrivals.push((sent.out_seq, true));
                }
            }
        }
        for (out_seq, is_repair) in to_receiver.remove(&ms).unwrap_or_default() {
            let header = header(out_seq as u16);
            let info = PayloadInfo::default();
            let accepted = if is_repair {
                recv.handle_restored(now, &header, 100, info)
            } else {
                recv.handle_rtp(now, now, &header, 100, info)
            };
            delivered.extend(accepted);
        }
        if recv.nack.poll_timeout().is_some_and(|at| at <= now) {
            let mut out = Vec::new();
            recv.nack.poll(now, Duration::from_millis(rtt_ms), &mut out);
            recv.nacks += u64::from(!out.is_empty());
            to_sender.entry(ms + rtt_ms / 2).or_default().extend(out);
        }
    }
    (delivered.len(), recv.nacks, repeated)
}

#[test]
fn everything_arrives_in_the_end_at_any_loss_and_delay() {
    for loss in [0, 1, 5, 20] {
        for rtt in [10, 100, 300] {
            let (delivered, asked, repeated) = run(loss, rtt);
            let missing = PACKETS as usize - delivered;
            assert_eq!(missing, 0, "loss {loss} % rtt {rtt} ms");
            assert_eq!(asked == 0, loss == 0, "loss {loss} % rtt {rtt} ms");
            assert!(repeated >= PACKETS * loss / 200, "{repeated}");
            assert!(repeated <= PACKETS * loss / 50, "{repeated}");
        }
    }
}

#[test]
fn a_report_counts_what_is_lost_and_what_was_repaired() {
    let now = Instant::now();
    let mut recv = RecvStream::new(config());
    for seq in [10, 11, 13, 14] {
        recv.handle_rtp(now, now, &header(seq), 100, PayloadInfo::default());
    }
    let block = recv.report_block(now);
    assert_eq!((block.lost, block.fraction_lost), (1, 51));
    assert_eq!(block.highest_seq, 14);
    assert_eq!((block.lsr, block.dlsr), (0, 0));
    let restored = recv.handle_restored(now, &header(12), 100, PayloadInfo::default());
    assert!(restored.is_some());
    assert_eq!(recv.packets_lost(), 0);
    recv.handle_sr(now, 0x0001_0002_0003_0004);
    let block = recv.report_block(now + Duration::from_millis(500));
    assert_eq!((block.lsr, block.dlsr), (0x0002_0003, 32_768));
}

#[test]
fn an_rtx_packet_becomes_the_packet_it_repeats() {
    let recv = RecvStream::new(config());
    let mut packet = vec![
        0xA0,
        0x80 | 97,
        0,
        9,
        1,
        2,
        3,
        4,
        0,
        0,
        0,
        2,
        0x12,
        0x34,
        7,
        8,
        0,
        2,
    ];
    let header = RtpHeader::parse(&packet).unwrap();
    let len = recv.restore_rtx(&header, &mut packet).unwrap();
    assert_eq!(
        packet[..len],
        [0x80, 0x80 | 96, 0x12, 0x34, 1, 2, 3, 4, 0, 0, 0, 1, 7, 8]
    );
    let mut probe = vec![0x80, 97, 0, 9, 1, 2, 3, 4, 0, 0, 0, 2];
    let header = RtpHeader::parse(&probe).unwrap();
    assert_eq!(recv.restore_rtx(&header, &mut probe), None);
}

#[test]
fn round_trip_time_comes_from_a_report_that_answers_ours() {
    let now = Instant::now();
    let mut send = SendStream::new(5, 90_000, 0);
    assert!(send.sender_report(now, 1 << 32).is_none());
    send.handle_sent(now, 1000, 120, 100);
    let later = now + Duration::from_millis(100);
    let report = send.sender_report(later, 10 << 32).unwrap();
    assert_eq!(
        (report.rtp_ts, report.packets, report.octets),
        (10_000, 1, 100)
    );
    let block = |lsr, dlsr| ReportBlock {
        ssrc: 5,
        lsr,
        dlsr,
        ..ReportBlock::default()
    };
    for (lsr, dlsr, expected) in [
        (0, 0, 0.0),
        (10 << 16, 1 << 15, 500.0),
        (12 << 16, 0, 500.0),
    ] {
        send.handle_report_block(11 << 32, &block(lsr, dlsr));
        assert_eq!(send.rtt_ms(), expected, "{lsr} {dlsr}");
    }
}

#[test]
fn late_packets_are_taken_once_with_and_without_nack() {
    let now = Instant::now();
    for has_nack in [true, false] {
        let mut recv = RecvStream::new(RecvConfig {
            has_nack,
            ..config()
        });
        let taken = [65_534, 1, 0, 65_535, 0, 1].map(|seq| {
            recv.handle_rtp(now, now, &header(seq), 100, PayloadInfo::default())
                .is_some()
        });
        let expected = [true, true, true, true, false, false];
        assert_eq!(taken, expected, "nack {has_nack}");
        assert_eq!((recv.packets, recv.discarded), (4, 2), "nack {has_nack}");
        assert_eq!(recv.packets_lost(), 0, "nack {has_nack}");
        assert_eq!(recv.nack.poll_timeout().is_some(), has_nack);
    }
}

#[test]
fn a_sender_that_starts_anew_has_lost_nothing() {
    let now = Instant::now();
    let mut recv = RecvStream::new(config());
    for seq in [10, 11, 13, 40_000, 40_001, 40_002] {
        recv.handle_rtp(now, now, &header(seq), 100, PayloadInfo::default());
    }
    assert_eq!((recv.packets, recv.discarded), (5, 1));
    assert_eq!(recv.packets_lost(), 1);
    let block = recv.report_block(now);
    assert_eq!((block.lost, block.fraction_lost), (1, 42));
    assert_eq!(block.highest_seq, 40_002);
}

#[test]
fn a_key_frame_in_several_packets_counts_as_one() {
    let now = Instant::now();
    let keyframe = PayloadInfo {
        is_keyframe: true,
        ..PayloadInfo::default()
    };
    let mut recv = RecvStream::new(config());
    let delta = PayloadInfo::default();
    recv.handle_rtp(now, now, &header_at(10, 0), 100, keyframe);
    recv.handle_rtp(now, now, &header_at(12, 3000), 100, delta);
    // Parameter sets and slice of the next one: what precedes the first is still wanted.
    recv.handle_rtp(now, now, &header_at(13, 6000), 100, keyframe);
    recv.handle_rtp(now, now, &header_at(14, 6000), 100, keyframe);
    let mut out = Vec::new();
    recv.nack.poll(now, Duration::from_millis(100), &mut out);
    assert_eq!(out, [11]);
}

#[test]
fn a_successor_reports_and_asks_as_if_nothing_had_happened() {
    let now = Instant::now();
    let info = PayloadInfo::default();
    let mut first = RecvStream::new(config());
    for seq in [65_530u16, 65_531, 65_535, 3] {
        first.handle_rtp(now, now, &header(seq), 100, info);
    }
    let block = first.report_block(now);
    let (told, lost) = (block.highest_seq, block.lost);
    assert_eq!(lost, 6);
    let record = StreamRecord {
        ssrc: block.ssrc,
        index: 0,
        encoding: 0,
        fir_seq: 0,
        base_seq: first.base_seq().unwrap(),
        expected_before_base: first.expected_before_base(),
    };
    let mut counters = Counters::default();
    counters[recorder::HIGHEST] = first.highest().unwrap();
    counters[recorder::PACKETS] = first.packets;
    counters[recorder::BYTES] = first.bytes;
    let mut second = RecvStream::new(config());
    second.resume(&record, &counters);
    assert_eq!((second.packets, second.bytes), (4, 400));
    let block = second.report_block(now);
    assert_eq!((block.highest_seq, block.lost), (told, lost));
    assert_eq!(block.fraction_lost, 0);
    assert_eq!(second.handle_rtp(now, now, &header(2), 100, info), None);
    let seq = second.handle_rtp(now, now, &header(7), 100, info).unwrap();
    assert_eq!(Some(seq), first.highest().map(|highest| highest + 4));
    let mut asked = Vec::new();
    second
        .nack
        .poll(now, Duration::from_millis(100), &mut asked);
    assert_eq!(asked, [4, 5, 6]);
    let block = second.report_block(now);
    assert_eq!((block.highest_seq, block.lost), (told + 4, lost + 3));
}

#[test]
fn jitter_is_that_of_the_arrivals_and_not_of_the_turns() {
    let mut streams = [RecvStream::new(config()), RecvStream::new(config())];
    let (begin, ms) = (Instant::now(), Duration::from_millis);
    for n in 0..50_u16 {
        // Every 10 ms a packet, four of which are taken in one turn.
        let arrived = begin + ms(10) * u32::from(n);
        let now = begin + ms(40) * u32::from(n / 4 + 1);
        let header = header_at(n, u32::from(n) * 900);
        for (stream, arrived) in streams.iter_mut().zip([arrived, now]) {
            stream.handle_rtp(now, arrived, &header, 100, PayloadInfo::default());
        }
    }
    assert_eq!(streams[0].jitter(), 0);
    assert!(streams[1].jitter() > 900);
}
