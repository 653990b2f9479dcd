//! RTP headers: parsed once into a small `Copy` value of offsets, emitted straight into a send slot
//! (RFC 3550 §5.1, RFC 8285).
//!
//! A parsed [`RtpHeader`] never borrows the packet; whoever holds both passes the packet back in.

use std::ops::Range;

use super::{ParseError, u16_at, u32_at};

/// Bytes of an RTP header without CSRC list and extensions.
pub const FIXED_HEADER_LEN: usize = 12;

/// The profile of one-byte extension elements (RFC 8285 §4.2).
const ONE_BYTE_PROFILE: u16 = 0xBEDE;
/// The profile of two-byte extension elements; the low four bits are free (RFC 8285 §4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;
/// The element id that ends a one-byte extension block (RFC 8285 §4.2).
const ONE_BYTE_STOP_ID: u8 = 15;

/// Tells whether a datagram looks like RTP (RFC 7983, RFC 5761 §4).
pub fn is_rtp(buf: &[u8]) -> bool {
    buf.len() >= FIXED_HEADER_LEN && buf[0] >> 6 == 2 && !is_rtcp_type(buf[1])
}

/// Tells whether a datagram looks like RTCP (RFC 7983, RFC 5761 §4).
pub fn is_rtcp(buf: &[u8]) -> bool {
    buf.len() >= 4 && buf[0] >> 6 == 2 && is_rtcp_type(buf[1])
}

/// The range RTCP packet types own in the second byte (RFC 5761 §4).
fn is_rtcp_type(second: u8) -> bool {
    (192..=223).contains(&second)
}

/// Returns the length of everything before the payload: what SRTP leaves in the clear.
///
/// Unlike [`RtpHeader::parse`] it does not look at the padding, which SRTP encrypts.
pub fn header_len(buf: &[u8]) -> Result<usize, ParseError> {
    let first = *buf.first().ok_or(ParseError::Truncated)?;
    let mut len = FIXED_HEADER_LEN + 4 * usize::from(first & 0x0F);
    if first & 0x10 != 0 {
        let words = u16_at(buf, len + 2).ok_or(ParseError::Truncated)?;
        len += 4 + 4 * usize::from(words);
    }
    if len > buf.len() {
        return Err(ParseError::Truncated);
    }
    Ok(len)
}

/// An RTP header as fields and offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// The marker bit.
    pub marker: bool,
    /// Payload type.
    pub pt: u8,
    /// Sequence number as on the wire.
    pub seq: u16,
    /// RTP timestamp.
    pub ts: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// The "defined by profile" word of the extension block, 0 without one.
    pub ext_profile: u16,
    /// Where the extension elements start.
    pub ext_start: u16,
    /// Bytes of extension elements.
    pub ext_len: u16,
    /// Where the payload starts.
    pub payload_start: u16,
    /// Where the payload ends, padding excluded.
    pub payload_end: u16,
}

impl RtpHeader {
    /// Reads the header of a whole RTP packet.
    pub fn parse(buf: &[u8]) -> Result<Self, ParseError> {
        let len = u16::try_from(buf.len()).map_err(|_| ParseError::TooLong)?;
        let Some(fixed) = buf.first_chunk::<FIXED_HEADER_LEN>() else {
            return Err(ParseError::Truncated);
        };
        if fixed[0] >> 6 != 2 {
            return Err(ParseError::Version);
        }
        let csrc_count = usize::from(fixed[0] & 0x0F);
        let mut at = FIXED_HEADER_LEN + 4 * csrc_count;

        let (mut ext_profile, mut ext_start, mut ext_len) = (0, 0, 0);
        if fixed[0] & 0x10 != 0 {
            ext_profile = u16_at(buf, at).ok_or(ParseError::Truncated)?;
            let words = u16_at(buf, at + 2).ok_or(ParseError::Truncated)?;
            ext_start = at + 4;
            ext_len = 4 * usize::from(words);
            at = ext_start + ext_len;
        }
        if at > buf.len() {
            return Err(ParseError::Truncated);
        }

        let mut padding = 0;
        if fixed[0] & 0x20 != 0 {
            padding = u16::from(buf[buf.len() - 1]);
            if padding == 0 || usize::from(padding) > buf.len() - at {
                return Err(ParseError::Padding);
            }
        }
        // All offsets are at most `buf.len()`, which fits 16 bits.
        Ok(Self {
            marker: fixed[1] & 0x80 != 0,
            pt: fixed[1] & 0x7F,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            ts: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            ext_profile,
            ext_start: ext_start as u16,
            ext_len: ext_len as u16,
            payload_start: at as u16,
            payload_end: len - padding,
        })
    }

    /// Iterates over the extension elements: local id and where the data lies in `buf`.
    pub fn extensions<'a>(&self, buf: &'a [u8]) -> Extensions<'a> {
        let form = match self.ext_profile {
            ONE_BYTE_PROFILE => Form::OneByte,
            profile if profile & 0xFFF0 == TWO_BYTE_PROFILE => Form::TwoByte,
            _ => return Extensions::empty(),
        };
        let end = usize::from(self.ext_start) + usize::from(self.ext_len);
        Extensions {
            buf: buf.get(..end).unwrap_or_default(),
            at: usize::from(self.ext_start),
            form,
        }
    }

    /// Returns the data of the first extension element with this id.
    pub fn extension<'a>(&self, buf: &'a [u8], id: u8) -> Option<&'a [u8]> {
        let (_, range) = self.extensions(buf).find(|(found, _)| *found == id)?;
        buf.get(usize::from(range.start)..usize::from(range.end))
    }

    /// Returns the payload without padding; empty if `buf` is not the packet this header is from.
    pub fn payload<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        buf.get(self.payload_range()).unwrap_or_default()
    }

    /// Returns where the payload lies.
    pub fn payload_range(&self) -> Range<usize> {
        usize::from(self.payload_start)..usize::from(self.payload_end)
    }
}

/// How extension elements are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    OneByte,
    TwoByte,
}

/// The extension elements of one packet.
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    buf: &'a [u8],
    at: usize,
    form: Form,
}

impl Extensions<'_> {
    fn empty() -> Self {
        Extensions {
            buf: &[],
            at: 0,
            form: Form::OneByte,
        }
    }

    /// Ends the iteration.
    fn stop(&mut self) -> Option<(u8, Range<u16>)> {
        self.at = self.buf.len();
        None
    }
}

impl Iterator for Extensions<'_> {
    type Item = (u8, Range<u16>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let first = *self.buf.get(self.at)?;
            if first == 0 {
                self.at += 1;
                continue;
            }
            let (id, start, len) = match self.form {
                Form::OneByte => {
                    let id = first >> 4;
                    // Id 0 with a length is neither padding nor an element (RFC 8285 §4.2).
                    if id == ONE_BYTE_STOP_ID || id == 0 {
                        return self.stop();
                    }
                    (id, self.at + 1, usize::from(first & 0x0F) + 1)
                }
                Form::TwoByte => {
                    let Some(len) = self.buf.get(self.at + 1) else {
                        return self.stop();
                    };
                    (first, self.at + 2, usize::from(*len))
                }
            };
            let end = start + len;
            if end > self.buf.len() {
                return self.stop();
            }
            self.at = end;
            return Some((id, start as u16..end as u16));
        }
    }
}

/// Finds the data of one extension element in an emitted packet, to patch it later.
pub fn extension_range(packet: &[u8], id: u8) -> Option<Range<usize>> {
    let header = RtpHeader::parse(packet).ok()?;
    let (_, range) = header.extensions(packet).find(|(found, _)| *found == id)?;
    Some(usize::from(range.start)..usize::from(range.end))
}

/// The fields of an outgoing RTP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpEmit {
    /// The marker bit.
    pub marker: bool,
    /// Payload type.
    pub pt: u8,
    /// Sequence number.
    pub seq: u16,
    /// RTP timestamp.
    pub ts: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl RtpEmit {
    /// Writes the header and its extension block to the front of `out` and returns the length.
    ///
    /// Elements take the one-byte form unless one of them does not fit it. Returns `None` if `out`
    /// is too small or an element can be written in neither form (id 0, more than 255 bytes).
    pub fn emit_header<'a, I>(&self, exts: I, out: &mut [u8]) -> Option<usize>
    where
        I: Iterator<Item = (u8, &'a [u8])> + Clone,
    {
        let fixed = out.first_chunk_mut::<FIXED_HEADER_LEN>()?;
        fixed[0] = 0x80;
        fixed[1] = u8::from(self.marker) << 7 | self.pt & 0x7F;
        fixed[2..4].copy_from_slice(&self.seq.to_be_bytes());
        fixed[4..8].copy_from_slice(&self.ts.to_be_bytes());
        fixed[8..12].copy_from_slice(&self.ssrc.to_be_bytes());

        let mut form = None;
        for (id, data) in exts.clone() {
            let fits_one_byte = id < ONE_BYTE_STOP_ID && (1..=16).contains(&data.len());
            if !fits_one_byte {
                form = Some(Form::TwoByte);
                break;
            }
            form = Some(Form::OneByte);
        }
        match form {
            None => Some(FIXED_HEADER_LEN),
            Some(form) => emit_extensions(form, exts, out),
        }
    }
}

/// Writes the extension block behind the fixed header and returns where it ends.
fn emit_extensions<'a>(
    form: Form,
    exts: impl Iterator<Item = (u8, &'a [u8])>,
    out: &mut [u8],
) -> Option<usize> {
    let start = FIXED_HEADER_LEN + 4;
    let mut at = start;
    for (id, data) in exts {
        if id == 0 {
            return None;
        }
        match form {
            Form::OneByte => {
                *out.get_mut(at)? = id << 4 | (data.len() - 1) as u8;
                at += 1;
            }
            Form::TwoByte => {
                let len = u8::try_from(data.len()).ok()?;
                out.get_mut(at..at + 2)?.copy_from_slice(&[id, len]);
                at += 2;
            }
        }
        out.get_mut(at..at + data.len())?.copy_from_slice(data);
        at += data.len();
    }
    let end = start + (at - start).next_multiple_of(4);
    out.get_mut(at..end)?.fill(0);

    let profile = match form {
        Form::OneByte => ONE_BYTE_PROFILE,
        Form::TwoByte => TWO_BYTE_PROFILE,
    };
    let words = u16::try_from((end - start) / 4).ok()?;
    out[0] |= 0x10;
    out[FIXED_HEADER_LEN..FIXED_HEADER_LEN + 2].copy_from_slice(&profile.to_be_bytes());
    out[FIXED_HEADER_LEN + 2..start].copy_from_slice(&words.to_be_bytes());
    Some(end)
}

/// Reads the SSRC of a packet that [`is_rtp`] accepted, without parsing the rest.
pub fn peek_ssrc(buf: &[u8]) -> Option<u32> {
    u32_at(buf, 8)
}

#[cfg(test)]
mod tests;
