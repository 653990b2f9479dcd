//! The VP8 payload descriptor (RFC 7741 §4.2) and the key-frame bit behind it (§4.3).
//!
//! Fields are rewritten in place and keep their width; the descriptor is never grown.

use super::ParseError;

/// A parsed VP8 payload descriptor.
///
/// ```text
///  0 1 2 3 4 5 6 7
/// +-+-+-+-+-+-+-+-+
/// |X|R|N|S|R| PID |
/// |I|L|T|K| RSV   |  if X
/// |M| PictureID   |  if I, 16 bits if M
/// |   TL0PICIDX   |  if L
/// |TID|Y| KEYIDX  |  if T or K
/// +-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Descriptor {
    /// First packet of the first partition: a frame starts here.
    pub is_frame_start: bool,
    /// A key frame starts here.
    pub is_keyframe: bool,
    /// Picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// The picture id takes 15 bits.
    pub is_picture_id_wide: bool,
    /// Index of the base layer frame this one depends on.
    pub tl0picidx: Option<u8>,
    /// Temporal layer.
    pub temporal: Option<u8>,
    /// The frame depends on the base layer only.
    pub is_layer_sync: bool,
    /// Bytes of the descriptor.
    pub len: u8,
}

/// Where the optional fields lie; the descriptor has at most six bytes.
const FIXED: usize = 1;

impl Vp8Descriptor {
    /// Reads the descriptor at the front of an RTP payload.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let at = |index: usize| payload.get(index).copied().ok_or(ParseError::Truncated);
        let first = at(0)?;
        let is_frame_start = first & 0x10 != 0 && first & 0x07 == 0;
        let mut descriptor = Self {
            is_frame_start,
            is_keyframe: false,
            picture_id: None,
            is_picture_id_wide: false,
            tl0picidx: None,
            temporal: None,
            is_layer_sync: false,
            len: 0,
        };
        let mut len = FIXED;
        if first & 0x80 != 0 {
            let flags = at(FIXED)?;
            len += 1;
            if flags & 0x80 != 0 {
                let high = at(len)?;
                descriptor.is_picture_id_wide = high & 0x80 != 0;
                let mut id = u16::from(high & 0x7F);
                len += 1;
                if descriptor.is_picture_id_wide {
                    id = id << 8 | u16::from(at(len)?);
                    len += 1;
                }
                descriptor.picture_id = Some(id);
            }
            if flags & 0x40 != 0 {
                descriptor.tl0picidx = Some(at(len)?);
                len += 1;
            }
            if flags & 0x30 != 0 {
                let layer = at(len)?;
                if flags & 0x20 != 0 {
                    descriptor.temporal = Some(layer >> 6);
                    descriptor.is_layer_sync = layer & 0x20 != 0;
                }
                len += 1;
            }
        }
        descriptor.len = len as u8;
        descriptor.is_keyframe =
            is_frame_start && payload.get(len).is_some_and(|frame| frame & 0x01 == 0);
        Ok(descriptor)
    }
}

/// Replaces picture id and TL0PICIDX where the payload has them; fields keep their width.
pub fn rewrite(payload: &mut [u8], picture_id: u16, tl0picidx: u8) {
    let Ok(descriptor) = Vp8Descriptor::parse(payload) else {
        return;
    };
    let mut at = FIXED + 1;
    if descriptor.picture_id.is_some() {
        let [high, low] = picture_id.to_be_bytes();
        if descriptor.is_picture_id_wide {
            payload[at] = 0x80 | high;
            payload[at + 1] = low;
            at += 2;
        } else {
            payload[at] = low & 0x7F;
            at += 1;
        }
    }
    if descriptor.tl0picidx.is_some() {
        payload[at] = tl0picidx;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn descriptors_are_read() {
        let key = 0x10;
        for (name, payload, picture_id, tl0, tid, is_keyframe, len) in [
            ("no X bit", &[0x10, key][..], None, None, None, true, 1),
            ("no X, delta", &[0x10, 0x11], None, None, None, false, 1),
            ("continuation", &[0x00, key], None, None, None, false, 1),
            ("second partition", &[0x11, key], None, None, None, false, 1),
            (
                "7 bit id",
                &[0x90, 0x80, 0x7F, key],
                Some(127),
                None,
                None,
                true,
                3,
            ),
            (
                "15 bit id",
                &[0x90, 0x80, 0xFF, 0xFE, key],
                Some(0x7FFE),
                None,
                None,
                true,
                4,
            ),
            (
                "all fields",
                &[0x90, 0xE0, 0x81, 0x02, 0x09, 0xA0, 0x11],
                Some(0x102),
                Some(9),
                Some(2),
                false,
                6,
            ),
            (
                "key index only",
                &[0x90, 0x10, 0xC5, key],
                None,
                None,
                None,
                true,
                3,
            ),
            (
                "empty frame",
                &[0x90, 0x80, 0x01],
                Some(1),
                None,
                None,
                false,
                3,
            ),
        ] {
            let read = Vp8Descriptor::parse(payload).unwrap();
            assert_eq!(read.picture_id, picture_id, "{name}");
            assert_eq!(read.tl0picidx, tl0, "{name}");
            assert_eq!(read.temporal, tid, "{name}");
            assert_eq!(read.is_keyframe, is_keyframe, "{name}");
            assert_eq!(read.len, len, "{name}");
        }
    }

    #[test]
    fn cut_descriptors_are_rejected() {
        let full = [0x90, 0xE0, 0x81, 0x02, 0x09, 0xA0];
        for len in 0..full.len() {
            assert_eq!(
                Vp8Descriptor::parse(&full[..len]),
                Err(ParseError::Truncated)
            );
        }
    }

    #[test]
    fn rewriting_keeps_widths_and_everything_else() {
        for (before, after) in [
            (
                &[0x90, 0xE0, 0x81, 0x02, 0x09, 0xA0, 0x11][..],
                &[0x90, 0xE0, 0xFF, 0xFF, 0x42, 0xA0, 0x11][..],
            ),
            (
                &[0x90, 0xC0, 0x05, 0x09, 0x11],
                &[0x90, 0xC0, 0x7F, 0x42, 0x11],
            ),
            (&[0x90, 0x40, 0x09, 0x11], &[0x90, 0x40, 0x42, 0x11]),
            (&[0x10, 0x11], &[0x10, 0x11]),
            (&[0x90, 0xC0, 0x85], &[0x90, 0xC0, 0x85]),
        ] {
            let mut payload = before.to_vec();
            rewrite(&mut payload, 0x7FFF, 0x42);
            assert_eq!(payload, after);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut payload: Vec<u8>, picture_id in 0u16..0x8000, tl0: u8) {
            let before = Vp8Descriptor::parse(&payload);
            rewrite(&mut payload, picture_id, tl0);
            if let Ok(before) = before {
                let after = Vp8Descriptor::parse(&payload).unwrap();
                prop_assert_eq!(after.len, before.len);
                prop_assert_eq!(after.temporal, before.temporal);
                prop_assert_eq!(after.is_keyframe, before.is_keyframe);
                prop_assert_eq!(after.tl0picidx, before.tl0picidx.map(|_| tl0));
                let mask = if before.is_picture_id_wide { 0x7FFF } else { 0x7F };
                prop_assert_eq!(after.picture_id, before.picture_id.map(|_| picture_id & mask));
            }
        }
    }
}
