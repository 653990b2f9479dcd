//! H.265 payloads (RFC 7798 §4.4): which NAL units a packet starts.
//!
//! Decoding order numbers (sprop-max-don-diff above 0) are not understood; WebRTC does not use them.

use super::u16_at;

const FIRST_IRAP: u8 = 16;
const LAST_IRAP: u8 = 21;
const LAST_SLICE: u8 = 31;
const VPS: u8 = 32;
const SPS: u8 = 33;
const AUD: u8 = 35;
const PREFIX_SEI: u8 = 39;
const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;

/// What one H.265 packet starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct H265Starts {
    /// A VPS, SPS or intra random access picture starts in this packet.
    pub keyframe: bool,
    /// A VPS or SPS is in this packet.
    pub parameter_sets: bool,
    /// An access unit starts in this packet: a delimiter, parameter set or first slice segment.
    pub frame: bool,
}

/// Looks at the NAL units that start in an RTP payload.
pub fn inspect(payload: &[u8]) -> H265Starts {
    let mut starts = H265Starts::default();
    let Some(first) = payload.first() else {
        return starts;
    };
    match unit_type(*first) {
        AGGREGATION => {
            let mut units = payload.get(2..).unwrap_or_default();
            while let Some(size) = u16_at(units, 0) {
                let rest = &units[2..];
                let Some(unit) = rest.get(..usize::from(size)) else {
                    break;
                };
                if let Some(header) = unit.first() {
                    add_unit(&mut starts, unit_type(*header), unit.get(2));
                }
                units = &rest[unit.len()..];
            }
        }
        FRAGMENTATION => {
            if let Some(fu_header) = payload.get(2).filter(|header| **header & 0x80 != 0) {
                add_unit(&mut starts, fu_header & 0x3F, payload.get(3));
            }
        }
        single => add_unit(&mut starts, single, payload.get(2)),
    }
    starts
}

fn unit_type(header: u8) -> u8 {
    header >> 1 & 0x3F
}

/// Adds one unit: its type and the first byte behind its header.
fn add_unit(starts: &mut H265Starts, unit_type: u8, body: Option<&u8>) {
    starts.parameter_sets |= matches!(unit_type, VPS | SPS);
    starts.keyframe |= matches!(unit_type, FIRST_IRAP..=LAST_IRAP | VPS | SPS);
    starts.frame |= match unit_type {
        // The first bit is first_slice_segment_in_pic_flag.
        0..=LAST_SLICE => body.is_some_and(|first| first & 0x80 != 0),
        VPS..=AUD | PREFIX_SEI => true,
        _ => false,
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_recognised() {
        for (name, payload, keyframe, parameter_sets, frame) in [
            ("empty", &[][..], false, false, false),
            ("trailing slice", &[0x02, 0x01, 0xD0], false, false, true),
            ("later segment", &[0x02, 0x01, 0x50], false, false, false),
            ("IDR_W_RADL", &[0x26, 0x01, 0xAF], true, false, true),
            ("CRA", &[0x2A, 0x01, 0xAF], true, false, true),
            ("VPS", &[0x40, 0x01, 0x0C], true, true, true),
            (
                "AP with SPS",
                &[0x60, 0x01, 0, 2, 0x44, 1, 0, 2, 0x42, 1],
                true,
                true,
                true,
            ),
            ("FU start IDR", &[0x62, 0x01, 0x93, 0xAF], true, false, true),
            (
                "FU middle IDR",
                &[0x62, 0x01, 0x13, 0xAF],
                false,
                false,
                false,
            ),
        ] {
            let expected = H265Starts {
                keyframe,
                parameter_sets,
                frame,
            };
            assert_eq!(inspect(payload), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(first in prop::sample::select(vec![0x02u8, 0x60, 0x62]), tail: Vec<u8>) {
            let mut payload = vec![first];
            payload.extend(tail);
            inspect(&payload);
        }
    }
}
