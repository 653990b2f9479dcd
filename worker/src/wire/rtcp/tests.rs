use proptest::prelude::*;

use super::*;

const BLOCK: ReportBlock = ReportBlock {
    ssrc: 0x1111_1111,
    fraction_lost: 64,
    lost: -2,
    highest_seq: 0x0001_FFFF,
    jitter: 9,
    lsr: 0x2222_2222,
    dlsr: 0x0001_0000,
};

const REPORT: SenderReport = SenderReport {
    ssrc: 7,
    ntp: 0x0102_0304_0506_0708,
    rtp_ts: 0xFFFF_FFFF,
    packets: 3,
    octets: 300,
};

fn emit(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![];
    write(&mut out);
    out
}

fn read(buf: &[u8]) -> Vec<Result<Packet<'_>, ParseError>> {
    packets(buf).collect()
}

/// Reads a buffer that holds exactly one good packet.
fn read_one(buf: &[u8]) -> Packet<'_> {
    let mut all = read(buf);
    assert_eq!(all.len(), 1);
    all.remove(0).unwrap()
}

#[test]
fn sender_report_is_golden() {
    let out = emit(|out| emit_sender_report(out, &REPORT, &[BLOCK]));
    #[rustfmt::skip]
    assert_eq!(out, [
        0x81, 200, 0, 12, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 0xFF, 0xFF, 0xFF, 0xFF,
        0, 0, 0, 3, 0, 0, 1, 44,
        0x11, 0x11, 0x11, 0x11, 64, 0xFF, 0xFF, 0xFE, 0, 1, 0xFF, 0xFF, 0, 0, 0, 9,
        0x22, 0x22, 0x22, 0x22, 0, 1, 0, 0,
    ]);
    let Packet::Sr(report, blocks) = read_one(&out) else {
        panic!("not a sender report");
    };
    assert_eq!(report, REPORT);
    assert_eq!(blocks.collect::<Vec<_>>(), [BLOCK]);
}

#[test]
fn loss_is_clamped_to_24_bits() {
    for (lost, expected) in [
        (i32::MAX, 0x7F_FFFF),
        (i32::MIN, -0x80_0000),
        (0x7F_FFFF, 0x7F_FFFF),
        (-1, -1),
        (0, 0),
    ] {
        let block = ReportBlock { lost, ..BLOCK };
        let out = emit(|out| emit_receiver_report(out, 0, &[block]));
        let Packet::Rr { mut blocks, .. } = read_one(&out) else {
            panic!("not a receiver report");
        };
        assert_eq!(blocks.next().unwrap().lost, expected);
    }
}

#[test]
fn reports_split_at_31_blocks() {
    for (count, rr, sr_then_rr) in [
        (0, &[0][..], &[0][..]),
        (31, &[31], &[31]),
        (32, &[31, 1], &[31, 1]),
        (63, &[31, 31, 1], &[31, 31, 1]),
    ] {
        let blocks = vec![BLOCK; count];
        let sizes = |buf: &[u8]| -> Vec<usize> {
            packets(buf)
                .map(|packet| match packet.unwrap() {
                    Packet::Sr(_, blocks) => blocks.count(),
                    Packet::Rr { blocks, ssrc: 7 } => blocks.count(),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(
            sizes(&emit(|out| emit_receiver_report(out, 7, &blocks))),
            rr
        );
        assert_eq!(
            sizes(&emit(|out| emit_sender_report(out, &REPORT, &blocks))),
            sr_then_rr
        );
    }
}

#[test]
fn cname_is_always_terminated() {
    for (cname, len) in [
        ("", 12),
        ("a", 12),
        ("ab", 16),
        ("abcde", 16),
        ("abcdef", 20),
    ] {
        let out = emit(|out| emit_sdes_cname(out, 9, cname));
        assert_eq!(out.len(), len, "{cname}");
        assert_eq!(out.last(), Some(&0));
        let Packet::Sdes(mut chunks) = read_one(&out) else {
            panic!("not a source description");
        };
        let chunk = chunks.next().unwrap();
        assert_eq!(chunk.ssrc, 9);
        assert_eq!(chunk.cname, Some(cname.as_bytes()));
        assert_eq!(chunks.next(), None);
    }
    let long = "x".repeat(300);
    let out = emit(|out| emit_sdes_cname(out, 9, &long));
    let Packet::Sdes(mut chunks) = read_one(&out) else {
        panic!("not a source description");
    };
    assert_eq!(chunks.next().unwrap().cname.unwrap().len(), 255);
}

#[test]
fn two_chunks_are_read_even_without_the_last_terminator() {
    let buf = [
        0x82, 202, 0, 5, 0, 0, 0, 1, 1, 1, b'a', 0, 0, 0, 0, 2, 2, 0, 1, 4, b'b', b'c', b'd', b'e',
    ];
    let Packet::Sdes(chunks) = read_one(&buf) else {
        panic!("not a source description");
    };
    let read: Vec<_> = chunks.map(|chunk| (chunk.ssrc, chunk.cname)).collect();
    assert_eq!(read, [(1, Some(&b"a"[..])), (2, Some(&b"bcde"[..]))]);
}

#[test]
fn nacks_are_packed_greedily() {
    for (seqs, items) in [
        (&[5][..], &[(5, 0)][..]),
        (&[5, 6, 21], &[(5, 0x8001)]),
        (&[5, 22], &[(5, 0), (22, 0)]),
        (&[5, 5, 6], &[(5, 1)]),
        (&[65534, 65535, 0, 14, 15], &[(65534, 0x8003), (15, 0)]),
    ] {
        let out = emit(|out| emit_nack(out, 1, 2, seqs));
        let mut expected = vec![0x81, 205, 0, 2 + items.len() as u8, 0, 0, 0, 1, 0, 0, 0, 2];
        for (pid, blp) in items {
            expected.extend_from_slice(&u16::to_be_bytes(*pid));
            expected.extend_from_slice(&u16::to_be_bytes(*blp));
        }
        assert_eq!(out, expected, "{seqs:?}");
        let Packet::Nack {
            sender: 1,
            media: 2,
            seqs: read,
        } = read_one(&out)
        else {
            panic!("not a NACK");
        };
        let mut distinct = seqs.to_vec();
        distinct.dedup();
        assert_eq!(read.collect::<Vec<_>>(), distinct);
    }
    assert!(emit(|out| emit_nack(out, 1, 2, &[])).is_empty());
}

#[test]
fn key_frame_requests_are_golden() {
    let out = emit(|out| emit_pli(out, 0, 0x0102_0304));
    assert_eq!(out, [0x81, 206, 0, 2, 0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(
        read_one(&out),
        Packet::Pli {
            sender: 0,
            media: 0x0102_0304
        }
    );

    let entry = FirEntry {
        ssrc: 0x0102_0304,
        seq: 255,
    };
    let out = emit(|out| emit_fir(out, 5, entry));
    assert_eq!(
        out,
        [
            0x84, 206, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 255, 0, 0, 0
        ]
    );
    let Packet::Fir { sender: 5, entries } = read_one(&out) else {
        panic!("not a FIR");
    };
    assert_eq!(entries.collect::<Vec<_>>(), [entry]);
}

#[test]
fn remb_is_golden() {
    let out = emit(|out| emit_remb(out, 1, 1_000_000, &[7, 8]));
    #[rustfmt::skip]
    assert_eq!(out, [
        0x8F, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B',
        2, 0x0B, 0xD0, 0x90, 0, 0, 0, 7, 0, 0, 0, 8,
    ]);
    for (bitrate_bps, expected) in [
        (0, 0),
        (0x3_FFFF, 0x3_FFFF),
        (0x7_FFFF, 0x7_FFFE),
        (1_000_000, 1_000_000),
        (u64::MAX, 0x3_FFFF << 46),
    ] {
        let out = emit(|out| emit_remb(out, 1, bitrate_bps, &[]));
        let Packet::Remb(remb) = read_one(&out) else {
            panic!("not a REMB");
        };
        assert_eq!(remb.bitrate_bps, expected);
    }
    let mut unlimited = out;
    unlimited[17] = 0xFF;
    let Packet::Remb(remb) = read_one(&unlimited) else {
        panic!("not a REMB");
    };
    assert_eq!(remb.bitrate_bps, u64::MAX);
    assert_eq!(remb.ssrcs.collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn extended_reports_are_golden() {
    let out = emit(|out| emit_xr_rrtr(out, 3, 0x0102_0304_0506_0708));
    assert_eq!(
        out,
        [
            0x80, 207, 0, 4, 0, 0, 0, 3, 4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8
        ]
    );
    let Packet::Xr { ssrc: 3, blocks } = read_one(&out) else {
        panic!("not an extended report");
    };
    let ntp = 0x0102_0304_0506_0708;
    assert_eq!(blocks.collect::<Vec<_>>(), [XrBlock::Rrtr { ntp }]);

    let entry = Dlrr {
        ssrc: 1,
        lrr: 2,
        dlrr: 3,
    };
    let out = emit(|out| emit_xr_dlrr(out, 3, &[entry, entry]));
    assert_eq!(out[..12], [0x80, 207, 0, 8, 0, 0, 0, 3, 5, 0, 0, 6]);
    let Packet::Xr { mut blocks, .. } = read_one(&out) else {
        panic!("not an extended report");
    };
    let Some(XrBlock::Dlrr(entries)) = blocks.next() else {
        panic!("not a DLRR block");
    };
    assert_eq!(entries.collect::<Vec<_>>(), [entry, entry]);
}

#[test]
fn unknown_packets_do_not_hide_the_rest() {
    let mut buf = vec![];
    // Unknown type, unknown RTPFB and PSFB formats, foreign application feedback, APP, XR of an
    // unknown block type, a report whose count lies: each is followed by a PLI.
    for unknown in [
        &[0x80, 222, 0, 0][..],
        &[0x9E, 205, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x9E, 206, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        &[
            0x8F, 206, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, b'G', b'O', b'O', b'G',
        ],
        &[0x81, 204, 0, 2, 0, 0, 0, 0, b'n', b'a', b'm', b'e'],
        &[0x80, 207, 0, 2, 0, 0, 0, 0, 99, 0, 0, 0],
        &[0x85, 201, 0, 1, 0, 0, 0, 0],
    ] {
        buf.extend_from_slice(unknown);
        emit_pli(&mut buf, 0, 1);
    }
    let plis = packets(&buf)
        .filter(|packet| matches!(packet, Ok(Packet::Pli { .. })))
        .count();
    assert_eq!(plis, 7);
    assert_eq!(packets(&buf).filter(Result::is_err).count(), 1);
}

#[test]
fn broken_framing_ends_the_iteration() {
    let pli = emit(|out| emit_pli(out, 0, 1));
    for (tail, error) in [
        (&[0x80][..], ParseError::Truncated),
        (&[0x80, 200, 0, 1], ParseError::Truncated),
        (&[0x40, 200, 0, 0, 0x80, 203, 0, 0], ParseError::Version),
    ] {
        let buf = [&pli, tail].concat();
        let all = read(&buf);
        assert_eq!(all.len(), 2);
        assert_eq!(all[1], Err(error));
    }
}

#[test]
fn padding_is_cut_off_or_refused() {
    let nack = |padding: [u8; 4]| {
        let mut buf = vec![0xA1, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 9, 0, 0];
        buf.extend_from_slice(&padding);
        buf
    };
    let good = nack([0, 0, 0, 4]);
    let Packet::Nack { seqs, .. } = read_one(&good) else {
        panic!("not a NACK");
    };
    assert_eq!(seqs.collect::<Vec<_>>(), [9]);
    for padding in [0, 17, 255] {
        let bad = nack([0, 0, 0, padding]);
        assert_eq!(read(&bad), [Err(ParseError::Padding)]);
    }
}

#[test]
fn goodbyes_list_their_sources() {
    let out = emit(|out| emit_bye(out, 0x0102_0304));
    assert_eq!(out, [0x81, 203, 0, 1, 1, 2, 3, 4]);
    let Packet::Bye(ssrcs) = read_one(&out) else {
        panic!("not a goodbye");
    };
    assert_eq!(ssrcs.collect::<Vec<_>>(), [0x0102_0304]);
    assert_eq!(
        read(&[0x82, 203, 0, 1, 1, 2, 3, 4]),
        [Err(ParseError::Truncated)]
    );
}

#[test]
fn transport_feedback_is_filled_to_a_word() {
    let out = emit(|out| emit_transport_feedback(out, 1, 2, &[9; 9]));
    assert_eq!(out.len(), 24);
    assert!(matches!(read_one(&out), Packet::Twcc { sender: 1, media: 2, fci } if fci.len() == 12));
}

/// Reads everything a packet holds.
fn exhaust(buf: &[u8]) {
    for packet in packets(buf).flatten() {
        match packet {
            Packet::Sr(_, blocks) | Packet::Rr { blocks, .. } => blocks.for_each(drop),
            Packet::Sdes(chunks) => chunks.for_each(drop),
            Packet::Bye(ssrcs) => ssrcs.for_each(drop),
            Packet::Nack { seqs, .. } => seqs.for_each(drop),
            Packet::Fir { entries, .. } => entries.for_each(drop),
            Packet::Remb(remb) => remb.ssrcs.for_each(drop),
            Packet::Xr { blocks, .. } => blocks.for_each(|block| {
                if let XrBlock::Dlrr(entries) = block {
                    entries.for_each(drop);
                }
            }),
            Packet::App { .. }
            | Packet::Pli { .. }
            | Packet::Twcc { .. }
            | Packet::Other { .. } => {}
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(buf: Vec<u8>) {
        exhaust(&buf);
    }

    #[test]
    fn well_framed_noise_never_panics(
        noise in prop::collection::vec((0x80u8..0xC0, 199u8..209, prop::collection::vec(any::<u8>(), 0..80)), 0..5)
    ) {
        let mut buf = vec![];
        for (first, pt, body) in noise {
            let body = &body[..body.len() / 4 * 4];
            buf.extend_from_slice(&[first, pt, 0, (body.len() / 4) as u8]);
            buf.extend_from_slice(body);
        }
        exhaust(&buf);
    }

    #[test]
    fn nacks_read_back(start: u16, gaps in prop::collection::vec(1u16..40, 1..200)) {
        let mut seq = start;
        let seqs: Vec<u16> = gaps.iter().map(|gap| { seq = seq.wrapping_add(*gap); seq }).collect();
        let out = emit(|out| emit_nack(out, 1, 2, &seqs));
        let Packet::Nack { seqs: read, .. } = read_one(&out) else {
            panic!("not a NACK");
        };
        prop_assert_eq!(read.collect::<Vec<_>>(), seqs);
    }
}
