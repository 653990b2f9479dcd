//! RTCP: compound packets read without copying, written by appending to a buffer the caller reuses
//! (RFC 3550 §6, RFC 4585 §6.1).
//!
//! A packet type or feedback format that is not known never hides the packets behind it.

mod bytes;
mod feedback;
mod remb;
mod report;
mod sdes;
mod xr;

pub use feedback::{
    FirEntries, FirEntry, NackSeqs, emit_fir, emit_nack, emit_pli, emit_transport_feedback,
};
pub use remb::{Remb, emit_remb};
pub use report::{
    ReportBlock, ReportBlocks, SenderReport, emit_receiver_report, emit_sender_report,
};
pub use sdes::{Sdes, SdesChunk, emit_bye, emit_sdes_cname};
pub use xr::{Dlrr, DlrrEntries, XrBlock, XrBlocks, emit_xr_dlrr, emit_xr_rrtr};

pub use self::bytes::Ssrcs;
use super::{ParseError, u16_at, u32_at};

const PT_SR: u8 = 200;
const PT_RR: u8 = 201;
const PT_SDES: u8 = 202;
const PT_BYE: u8 = 203;
const PT_APP: u8 = 204;
/// Transport layer feedback (RFC 4585 §6.2).
const PT_RTPFB: u8 = 205;
/// Payload-specific feedback (RFC 4585 §6.3).
const PT_PSFB: u8 = 206;
const PT_XR: u8 = 207;

const FMT_NACK: u8 = 1;
const FMT_TWCC: u8 = 15;
const FMT_PLI: u8 = 1;
const FMT_FIR: u8 = 4;
/// Application layer feedback, which REMB is one of.
const FMT_AFB: u8 = 15;

/// One packet of a compound.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet<'a> {
    /// Sender report.
    Sr(SenderReport, ReportBlocks<'a>),
    /// Receiver report.
    Rr {
        /// Who reports.
        ssrc: u32,
        /// What was received.
        blocks: ReportBlocks<'a>,
    },
    /// Source description.
    Sdes(Sdes<'a>),
    /// Sources that leave.
    Bye(Ssrcs<'a>),
    /// Application-defined.
    App {
        /// Who sends.
        ssrc: u32,
    },
    /// Generic NACK.
    Nack {
        /// Who asks.
        sender: u32,
        /// The stream that has gaps.
        media: u32,
        /// What is missing.
        seqs: NackSeqs<'a>,
    },
    /// Picture loss indication.
    Pli {
        /// Who asks.
        sender: u32,
        /// The stream that needs a key frame.
        media: u32,
    },
    /// Full intra request.
    Fir {
        /// Who asks.
        sender: u32,
        /// The streams that need a key frame.
        entries: FirEntries<'a>,
    },
    /// Receiver estimated maximum bitrate.
    Remb(Remb<'a>),
    /// Extended report.
    Xr {
        /// Who reports.
        ssrc: u32,
        /// The report blocks.
        blocks: XrBlocks<'a>,
    },
    /// Transport-wide congestion control feedback.
    Twcc {
        /// Who reports.
        sender: u32,
        /// A stream of the transport.
        media: u32,
        /// The feedback control information.
        fci: &'a [u8],
    },
    /// A packet type or feedback format that is not known.
    Other {
        /// Packet type.
        pt: u8,
        /// Count or feedback format.
        fmt: u8,
    },
}

/// Iterates over the packets of a compound.
///
/// A packet with broken contents is an `Err` and the iteration goes on behind it; broken framing is
/// an `Err` that ends it.
pub fn packets(buf: &[u8]) -> Packets<'_> {
    Packets { rest: buf }
}

/// The packets of a compound.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Some(&[first, pt, ..]) = rest.first_chunk::<4>() else {
            return Some(Err(ParseError::Truncated));
        };
        if first >> 6 != 2 {
            return Some(Err(ParseError::Version));
        }
        let words = u16_at(rest, 2).map_or(0, usize::from);
        let Some((packet, behind)) = rest.split_at_checked(4 * (words + 1)) else {
            return Some(Err(ParseError::Truncated));
        };
        self.rest = behind;
        Some(parse_packet(first, pt, &packet[4..]))
    }
}

/// Reads one packet behind its common header.
fn parse_packet(first: u8, pt: u8, body: &[u8]) -> Result<Packet<'_>, ParseError> {
    let count = first & 0x1F;
    let body = without_padding(first, body)?;
    match pt {
        PT_SR => report::parse_sr(count, body),
        PT_RR => report::parse_rr(count, body),
        PT_SDES => Ok(Packet::Sdes(Sdes::new(count, body))),
        PT_BYE => sdes::parse_bye(count, body),
        PT_APP => Ok(Packet::App {
            ssrc: ssrc_at(body, 0)?,
        }),
        PT_RTPFB | PT_PSFB => parse_feedback(pt, count, body),
        PT_XR => Ok(Packet::Xr {
            ssrc: ssrc_at(body, 0)?,
            blocks: XrBlocks::new(&body[4..]),
        }),
        _ => Ok(Packet::Other { pt, fmt: count }),
    }
}

/// Reads a feedback packet behind its common header (RFC 4585 §6.1).
fn parse_feedback(pt: u8, fmt: u8, body: &[u8]) -> Result<Packet<'_>, ParseError> {
    let sender = ssrc_at(body, 0)?;
    let media = ssrc_at(body, 4)?;
    let fci = &body[8..];
    Ok(match (pt, fmt) {
        (PT_RTPFB, FMT_NACK) => Packet::Nack {
            sender,
            media,
            seqs: NackSeqs::new(fci),
        },
        (PT_RTPFB, FMT_TWCC) => Packet::Twcc { sender, media, fci },
        (PT_PSFB, FMT_PLI) => Packet::Pli { sender, media },
        (PT_PSFB, FMT_FIR) => Packet::Fir {
            sender,
            entries: FirEntries::new(fci),
        },
        (PT_PSFB, FMT_AFB) => match Remb::parse(sender, fci)? {
            Some(remb) => Packet::Remb(remb),
            None => Packet::Other { pt, fmt },
        },
        _ => Packet::Other { pt, fmt },
    })
}

/// Cuts the padding off, whose last byte is its length (RFC 3550 §6.4.1).
fn without_padding(first: u8, body: &[u8]) -> Result<&[u8], ParseError> {
    if first & 0x20 == 0 {
        return Ok(body);
    }
    let padding = usize::from(*body.last().ok_or(ParseError::Padding)?);
    if padding == 0 || padding > body.len() {
        return Err(ParseError::Padding);
    }
    Ok(&body[..body.len() - padding])
}

fn ssrc_at(body: &[u8], at: usize) -> Result<u32, ParseError> {
    u32_at(body, at).ok_or(ParseError::Truncated)
}

#[cfg(test)]
mod tests;
