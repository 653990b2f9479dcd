//! Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03 §2.2).

use super::bytes::{Ssrcs, begin, finish, put_u32};
use super::{FMT_AFB, PT_PSFB};
use crate::wire::ParseError;

const UNIQUE_ID: [u8; 4] = *b"REMB";
/// Bits of the mantissa.
const MANTISSA_BITS: u32 = 18;
/// SSRCs one message can count.
const SSRCS_MAX: usize = 255;

/// A bitrate a receiver can take.
#[derive(Clone, Debug, PartialEq)]
pub struct Remb<'a> {
    /// Who estimates.
    pub sender: u32,
    /// The estimate for all streams together.
    pub bitrate_bps: u64,
    /// The streams it is about.
    pub ssrcs: Ssrcs<'a>,
}

impl<'a> Remb<'a> {
    /// Reads application layer feedback; `None` if it is not a REMB.
    pub(super) fn parse(sender: u32, fci: &'a [u8]) -> Result<Option<Self>, ParseError> {
        if !fci.starts_with(&UNIQUE_ID) {
            return Ok(None);
        }
        let Some(&[count, high, mid, low]) = fci[4..].first_chunk() else {
            return Err(ParseError::Truncated);
        };
        let ssrcs = fci[8..].get(..4 * usize::from(count));
        let exponent = u32::from(high >> 2);
        let mantissa = u64::from(u32::from_be_bytes([0, high & 0x03, mid, low]));
        // Senders without a limit write the largest exponent.
        let bitrate_bps = if mantissa != 0 && mantissa.leading_zeros() < exponent {
            u64::MAX
        } else {
            mantissa << exponent
        };
        Ok(Some(Remb {
            sender,
            bitrate_bps,
            ssrcs: Ssrcs::new(ssrcs.ok_or(ParseError::Truncated)?),
        }))
    }
}

/// Appends a REMB; the bitrate is rounded down to 18 significant bits, SSRCs beyond 255 are left out.
pub fn emit_remb(out: &mut Vec<u8>, sender: u32, bitrate_bps: u64, ssrcs: &[u32]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(SSRCS_MAX)];
    let bits = u64::BITS - bitrate_bps.leading_zeros();
    let exponent = bits.saturating_sub(MANTISSA_BITS);
    let mantissa = (bitrate_bps >> exponent) as u32;

    let start = begin(out, FMT_AFB, PT_PSFB);
    put_u32(out, sender);
    put_u32(out, 0);
    out.extend_from_slice(&UNIQUE_ID);
    put_u32(
        out,
        (ssrcs.len() as u32) << 24 | exponent << MANTISSA_BITS | mantissa,
    );
    ssrcs.iter().for_each(|ssrc| put_u32(out, *ssrc));
    finish(out, start);
}
