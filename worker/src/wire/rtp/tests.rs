use proptest::prelude::*;

use super::*;

/// Marker, PT 111, one CSRC, one-byte block (id 1 `0xB2`, pad, id 3 of 3 bytes), 2 bytes payload,
/// 2 bytes padding.
const GOLDEN: [u8; 32] = [
    0xB1, 0xEF, 0xFF, 0xFE, 0x00, 0x00, 0x10, 0x00, 0xDE, 0xAD, 0xBE, 0xEF, 0x01, 0x02, 0x03, 0x04,
    0xBE, 0xDE, 0x00, 0x02, 0x10, 0xB2, 0x00, 0x32, 0x0A, 0x0B, 0x0C, 0x00, 0x55, 0x66, 0x00, 0x02,
];

const EMIT: RtpEmit = RtpEmit {
    marker: true,
    pt: 96,
    seq: 65535,
    ts: 0x0102_0304,
    ssrc: 0x1122_3344,
};

#[test]
fn golden_packet_is_read() {
    let header = RtpHeader::parse(&GOLDEN).unwrap();
    assert_eq!(
        header,
        RtpHeader {
            marker: true,
            pt: 111,
            seq: 65534,
            ts: 4096,
            ssrc: 0xDEAD_BEEF,
            ext_profile: 0xBEDE,
            ext_start: 20,
            ext_len: 8,
            payload_start: 28,
            payload_end: 30,
        }
    );
    assert_eq!(header.payload(&GOLDEN), [0x55, 0x66]);
    let elements: Vec<_> = header.extensions(&GOLDEN).collect();
    assert_eq!(elements, [(1, 21..22), (3, 24..27)]);
    assert_eq!(header.extension(&GOLDEN, 3), Some(&[0x0A, 0x0B, 0x0C][..]));
    assert_eq!(header.extension(&GOLDEN, 2), None);
}

#[test]
fn every_prefix_that_cuts_a_header_is_rejected() {
    for len in 0..28 {
        assert_eq!(
            RtpHeader::parse(&GOLDEN[..len]),
            Err(ParseError::Truncated),
            "{len} bytes"
        );
    }
}

#[test]
fn impossible_headers_are_rejected() {
    let edit = |at: usize, value: u8| {
        let mut packet = GOLDEN;
        packet[at] = value;
        RtpHeader::parse(&packet)
    };
    for (name, result, expected) in [
        ("version 1", edit(0, 0x71), ParseError::Version),
        ("csrc list too long", edit(0, 0xBF), ParseError::Truncated),
        ("extension too long", edit(19, 9), ParseError::Truncated),
        ("no padding count", edit(31, 0), ParseError::Padding),
        ("padding eats header", edit(31, 5), ParseError::Padding),
        (
            "jumbo",
            RtpHeader::parse(&vec![0x80; 65536]),
            ParseError::TooLong,
        ),
    ] {
        assert_eq!(result, Err(expected), "{name}");
    }
    assert!(edit(31, 4).is_ok(), "padding may eat the whole payload");
    assert!(RtpHeader::parse(&vec![0x80; 65535]).is_ok());
}

#[test]
fn demultiplexing_follows_rfc_5761() {
    let mut buf = [0u8; 12];
    for (first, second, rtp, rtcp) in [
        (0x80, 96, true, false),
        (0x80, 191, true, false),
        (0x80, 192, false, true),
        (0x80, 200, false, true),
        (0xBF, 223, false, true),
        (0x80, 224, true, false),
        (0x7F, 96, false, false),
        (0xC0, 200, false, false),
    ] {
        (buf[0], buf[1]) = (first, second);
        assert_eq!(
            (is_rtp(&buf), is_rtcp(&buf)),
            (rtp, rtcp),
            "{first} {second}"
        );
    }
    buf[1] = 96;
    assert!(!is_rtp(&buf[..11]));
    assert!(!is_rtcp(&[0x80, 200, 0]));
}

#[test]
fn extension_blocks_stop_where_the_rfc_says() {
    let read = |profile: u16, block: &[u8]| {
        let mut packet = vec![0x90; 12];
        packet.extend_from_slice(&profile.to_be_bytes());
        packet.extend_from_slice(&((block.len() / 4) as u16).to_be_bytes());
        packet.extend_from_slice(block);
        let header = RtpHeader::parse(&packet).unwrap();
        header
            .extensions(&packet)
            .map(|(id, range)| (id, usize::from(range.end - range.start)))
            .collect::<Vec<_>>()
    };
    let none: Vec<(u8, usize)> = vec![];
    assert_eq!(
        read(0xBEDE, &[0x10, 1, 0xF0, 0x20]),
        [(1, 1)],
        "id 15 stops"
    );
    assert_eq!(read(0xBEDE, &[0x02, 0x10, 1, 0]), none, "id 0 with length");
    assert_eq!(read(0xBEDE, &[0x10, 1, 0, 0x23]), [(1, 1)], "overrun");
    assert_eq!(
        read(0x1005, &[15, 0, 0, 200]),
        [(15, 0)],
        "two byte, cut length"
    );
    assert_eq!(read(0x1000, &[1, 3, 0, 0]), none, "two byte overrun");
    assert_eq!(read(0x1234, &[0x10, 1, 0, 0]), none, "unknown profile");
}

#[test]
fn emitted_headers_are_golden() {
    let mut out = [0xFF; 64];
    let none: [(u8, &[u8]); 0] = [];
    assert_eq!(EMIT.emit_header(none.into_iter(), &mut out), Some(12));
    assert_eq!(
        out[..12],
        [0x80, 0xE0, 0xFF, 0xFF, 1, 2, 3, 4, 0x11, 0x22, 0x33, 0x44]
    );

    let one: [(u8, &[u8]); 2] = [(3, &[7, 8, 9]), (5, b"0")];
    assert_eq!(EMIT.emit_header(one.into_iter(), &mut out), Some(24));
    assert_eq!(
        out[12..24],
        [0xBE, 0xDE, 0, 2, 0x32, 7, 8, 9, 0x50, b'0', 0, 0]
    );
    assert_eq!(out[0], 0x90);
    assert_eq!(extension_range(&out[..24], 3), Some(17..20));
    assert_eq!(extension_range(&out[..24], 4), None);

    let two: [(u8, &[u8]); 2] = [(16, &[1]), (2, &[])];
    assert_eq!(EMIT.emit_header(two.into_iter(), &mut out), Some(24));
    assert_eq!(out[12..24], [0x10, 0, 0, 2, 16, 1, 1, 2, 0, 0, 0, 0]);
}

#[test]
fn headers_that_do_not_fit_are_refused() {
    let big = [0; 256];
    for (exts, room, expected) in [
        (&[][..], 11, None),
        (&[(1, &big[..3])], 19, None),
        (&[(1, &big[..3])], 20, Some(20)),
        (&[(1, &big[..2])], 19, None),
        (&[(0, &big[..1])], 64, None),
        (&[(1, &big[..])], 512, None),
    ] {
        let mut out = vec![0; room];
        assert_eq!(
            EMIT.emit_header(exts.iter().copied(), &mut out),
            expected,
            "{exts:?} in {room}"
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(buf: Vec<u8>, other: Vec<u8>, id: u8) {
        is_rtp(&buf);
        is_rtcp(&buf);
        if let Ok(header) = RtpHeader::parse(&buf) {
            prop_assert!(header.payload_start <= header.payload_end);
            for view in [&buf, &other] {
                header.payload(view);
                header.extension(view, id);
                prop_assert!(header.extensions(view).all(|(_, range)| usize::from(range.end) <= view.len()));
            }
        }
    }

    #[test]
    fn almost_rtp_never_panics(tail in prop::collection::vec(any::<u8>(), 11..200), first in 0x80u8..0xC0, two_byte: bool) {
        let mut buf = vec![first];
        buf.extend(tail);
        let at = 12 + 4 * usize::from(first & 15);
        if let Some(profile) = buf.get_mut(at..at + 3) {
            profile.copy_from_slice(if two_byte { &[0x10, 0, 0] } else { &[0xBE, 0xDE, 0] });
        }
        if let Ok(header) = RtpHeader::parse(&buf) {
            header.extensions(&buf).for_each(drop);
            header.payload(&buf);
        }
    }

    #[test]
    fn emitted_headers_read_back(
        marker: bool, pt in 0u8..128, seq: u16, ts: u32, ssrc: u32,
        exts in prop::collection::vec((1u8..=255, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let emit = RtpEmit { marker, pt, seq, ts, ssrc };
        let mut out = [0xFF; 512];
        let items = exts.iter().map(|(id, data)| (*id, &data[..]));
        let len = emit.emit_header(items.clone(), &mut out).unwrap();
        let header = RtpHeader::parse(&out[..len]).unwrap();
        prop_assert_eq!((header.marker, header.pt, header.seq), (marker, pt, seq));
        prop_assert_eq!((header.ts, header.ssrc), (ts, ssrc));
        prop_assert!(header.payload(&out[..len]).is_empty());
        let read: Vec<_> = header.extensions(&out[..len])
            .map(|(id, range)| (id, &out[usize::from(range.start)..usize::from(range.end)]))
            .collect();
        prop_assert_eq!(read, items.collect::<Vec<_>>());
    }
}
