//! The VP9 payload descriptor (RFC 9628 §4.2), read up to the layer indices.
//!
//! Reference differences and the scalability structure are not read: forwarding does not need them.

use super::ParseError;

/// A parsed VP9 payload descriptor.
///
/// ```text
///  0 1 2 3 4 5 6 7
/// +-+-+-+-+-+-+-+-+
/// |I|P|L|F|B|E|V|Z|
/// |M| PICTURE ID  |  if I, 16 bits if M
/// | TID |U| SID |D|  if L
/// |   TL0PICIDX   |  if L and not F
/// +-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp9Descriptor {
    /// A layer frame starts here.
    pub is_frame_start: bool,
    /// A layer frame ends here.
    pub is_frame_end: bool,
    /// A key frame (its lowest spatial layer) starts here.
    pub is_keyframe: bool,
    /// The frame is predicted from earlier pictures.
    pub is_inter_predicted: bool,
    /// Picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// Index of the base layer frame this one depends on, in non-flexible mode.
    pub tl0picidx: Option<u8>,
    /// Temporal layer.
    pub temporal: Option<u8>,
    /// Spatial layer.
    pub spatial: Option<u8>,
    /// From here a receiver may switch up to this temporal layer.
    pub is_switching_point: bool,
}

impl Vp9Descriptor {
    /// Reads the descriptor at the front of an RTP payload.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let at = |index: usize| payload.get(index).copied().ok_or(ParseError::Truncated);
        let first = at(0)?;
        let has = |bit: u8| first & bit != 0;
        let (is_inter_predicted, is_flexible, is_frame_start) = (has(0x40), has(0x10), has(0x08));
        let mut descriptor = Self {
            is_frame_start,
            is_frame_end: has(0x04),
            is_keyframe: false,
            is_inter_predicted,
            picture_id: None,
            tl0picidx: None,
            temporal: None,
            spatial: None,
            is_switching_point: false,
        };
        let mut len = 1;
        if has(0x80) {
            let high = at(len)?;
            let mut id = u16::from(high & 0x7F);
            len += 1;
            if high & 0x80 != 0 {
                id = id << 8 | u16::from(at(len)?);
                len += 1;
            }
            descriptor.picture_id = Some(id);
        }
        if has(0x20) {
            let layer = at(len)?;
            len += 1;
            descriptor.temporal = Some(layer >> 5);
            descriptor.is_switching_point = layer & 0x10 != 0;
            descriptor.spatial = Some(layer >> 1 & 0x07);
            if !is_flexible {
                descriptor.tl0picidx = Some(at(len)?);
            }
        }
        // Higher spatial layers of a key picture are not inter-predicted either; decoding cannot
        // start with them.
        descriptor.is_keyframe =
            is_frame_start && !is_inter_predicted && descriptor.spatial.unwrap_or(0) == 0;
        Ok(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn descriptors_are_read() {
        for (name, payload, picture_id, layers, tl0, is_keyframe) in [
            ("bare start", &[0x08][..], None, None, None, true),
            ("bare inter", &[0x48], None, None, None, false),
            ("continuation", &[0x00], None, None, None, false),
            ("7 bit id", &[0x88, 0x7F], Some(127), None, None, true),
            (
                "15 bit id",
                &[0x88, 0xFF, 0xFF],
                Some(0x7FFF),
                None,
                None,
                true,
            ),
            (
                "layers",
                &[0xA8, 0x05, 0x40, 0x07],
                Some(5),
                Some((2, 0)),
                Some(7),
                true,
            ),
            (
                "upper layer",
                &[0xA8, 0x05, 0x03, 0x07],
                Some(5),
                Some((0, 1)),
                Some(7),
                false,
            ),
            (
                "flexible key",
                &[0xB8, 0x05, 0x00],
                Some(5),
                Some((0, 0)),
                None,
                true,
            ),
            (
                "flexible inter",
                &[0xF8, 0x05, 0x2E, 0x02],
                Some(5),
                Some((1, 7)),
                None,
                false,
            ),
        ] {
            let read = Vp9Descriptor::parse(payload).unwrap();
            assert_eq!(read.picture_id, picture_id, "{name}");
            assert_eq!(read.temporal.zip(read.spatial), layers, "{name}");
            assert_eq!(read.tl0picidx, tl0, "{name}");
            assert_eq!(read.is_keyframe, is_keyframe, "{name}");
        }
    }

    #[test]
    fn cut_descriptors_are_rejected() {
        let full = [0xA8, 0x85, 0x01, 0x40, 0x07];
        for len in 0..full.len() {
            assert_eq!(
                Vp9Descriptor::parse(&full[..len]),
                Err(ParseError::Truncated)
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(payload: Vec<u8>) {
            if let Ok(read) = Vp9Descriptor::parse(&payload) {
                prop_assert!(!read.is_keyframe || read.is_frame_start);
            }
        }
    }
}
