//! H.264 payloads (RFC 6184 §5): which NAL units a packet starts.
//!
//! Both parameter sets (SPS) and IDR slices count as key frames, as some senders never repeat the
//! former in band; `stream::ParameterSets` knows with which of them a receiver begins.

use super::u16_at;

const SLICE: u8 = 1;
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const AUD: u8 = 9;
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// What one H.264 packet starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct H264Starts {
    /// An SPS or IDR slice starts in this packet.
    pub keyframe: bool,
    /// An SPS is in this packet.
    pub parameter_sets: bool,
    /// An access unit starts in this packet: a delimiter, parameter set or first slice.
    pub frame: bool,
}

/// Looks at the NAL units that start in an RTP payload.
pub fn inspect(payload: &[u8]) -> H264Starts {
    let mut starts = H264Starts::default();
    let Some(first) = payload.first() else {
        return starts;
    };
    match first & 0x1F {
        STAP_A => add_aggregate(&mut starts, &payload[1..]),
        // A decoding order number precedes the units (RFC 6184 §5.7.1).
        STAP_B => add_aggregate(&mut starts, payload.get(3..).unwrap_or_default()),
        unit_type @ (FU_A | FU_B) => {
            let Some(fu_header) = payload.get(1).filter(|header| **header & 0x80 != 0) else {
                return starts;
            };
            let body = if unit_type == FU_A { 2 } else { 4 };
            add_unit(&mut starts, fu_header & 0x1F, payload.get(body));
        }
        unit_type => add_unit(&mut starts, unit_type, payload.get(1)),
    }
    starts
}

/// Adds the units of an aggregation packet, each behind its 16-bit size.
fn add_aggregate(starts: &mut H264Starts, mut units: &[u8]) {
    while let Some(size) = u16_at(units, 0) {
        let rest = &units[2..];
        let Some(unit) = rest.get(..usize::from(size)) else {
            return;
        };
        if let Some(header) = unit.first() {
            add_unit(starts, header & 0x1F, unit.get(1));
        }
        units = &rest[unit.len()..];
    }
}

/// Adds one unit: its type and the first byte behind its header.
fn add_unit(starts: &mut H264Starts, unit_type: u8, body: Option<&u8>) {
    match unit_type {
        SLICE | IDR => {
            // A leading one bit is the Exp-Golomb code of first_mb_in_slice 0.
            starts.frame |= body.is_some_and(|first| first & 0x80 != 0);
            starts.keyframe |= unit_type == IDR;
        }
        SPS => {
            starts.frame = true;
            starts.keyframe = true;
            starts.parameter_sets = true;
        }
        SEI..=AUD => starts.frame = true,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_recognised() {
        for (name, payload, keyframe, parameter_sets, frame) in [
            ("empty", &[][..], false, false, false),
            ("single slice", &[0x41, 0x9A], false, false, true),
            ("later slice", &[0x41, 0x1A], false, false, false),
            ("single IDR", &[0x65, 0x88], true, false, true),
            ("single SPS", &[0x67, 0x42], true, true, true),
            ("single PPS", &[0x68], false, false, true),
            (
                "STAP-A, SPS second",
                &[0x78, 0, 1, 0x68, 0, 2, 0x67, 0x42],
                true,
                true,
                true,
            ),
            ("STAP-A, cut unit", &[0x78, 0, 9, 0x67], false, false, false),
            (
                "STAP-A, empty unit",
                &[0x78, 0, 0, 0, 1, 0x65],
                true,
                false,
                false,
            ),
            ("STAP-B", &[0x79, 0, 7, 0, 1, 0x67], true, true, true),
            ("FU-A start IDR", &[0x7C, 0x85, 0x88], true, false, true),
            ("FU-A middle IDR", &[0x7C, 0x05, 0x88], false, false, false),
            ("FU-A start slice", &[0x5C, 0x81, 0x9A], false, false, true),
            (
                "FU-B start IDR",
                &[0x7D, 0x85, 0, 0, 0x88],
                true,
                false,
                true,
            ),
            ("FU-A without header", &[0x7C], false, false, false),
        ] {
            let expected = H264Starts {
                keyframe,
                parameter_sets,
                frame,
            };
            assert_eq!(inspect(payload), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(first: u8, tail: Vec<u8>) {
            let mut payload = vec![first];
            payload.extend(tail);
            inspect(&payload);
        }
    }
}
