//! The framing all RTCP writers share, and lists of SSRCs.

/// Starts a packet: writes its common header and returns where it begins, for [`finish`].
pub(super) fn begin(out: &mut Vec<u8>, count: u8, pt: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0x80 | count & 0x1F, pt, 0, 0]);
    start
}

/// Ends a packet: pads it to whole words with zeros and fills in its length.
pub(super) fn finish(out: &mut Vec<u8>, start: usize) {
    let len = (out.len() - start).next_multiple_of(4);
    out.resize(start + len, 0);
    // No writer exceeds the 65536 words a length can tell; see their bounds.
    let words = (len / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// A list of SSRCs inside a packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Ssrcs<'a> {
    words: &'a [[u8; 4]],
}

impl<'a> Ssrcs<'a> {
    /// Takes whole words; a cut one at the end is ignored.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Ssrcs {
            words: bytes.as_chunks().0,
        }
    }
}

impl Iterator for Ssrcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (word, rest) = self.words.split_first()?;
        self.words = rest;
        Some(u32::from_be_bytes(*word))
    }
}
