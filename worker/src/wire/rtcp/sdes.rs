//! Source descriptions and goodbyes (RFC 3550 §6.5, §6.6).

use super::bytes::{Ssrcs, begin, finish, put_u32};
use super::{PT_BYE, PT_SDES, Packet};
use crate::wire::{ParseError, u32_at};

const ITEM_END: u8 = 0;
const ITEM_CNAME: u8 = 1;

/// The chunks of a source description.
#[derive(Clone, Debug, PartialEq)]
pub struct Sdes<'a> {
    left: u8,
    bytes: &'a [u8],
}

/// One source and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdesChunk<'a> {
    /// The source.
    pub ssrc: u32,
    /// Its canonical name, if the chunk has one.
    pub cname: Option<&'a [u8]>,
}

impl<'a> Sdes<'a> {
    pub(super) fn new(count: u8, bytes: &'a [u8]) -> Self {
        Sdes { left: count, bytes }
    }
}

impl<'a> Iterator for Sdes<'a> {
    type Item = SdesChunk<'a>;

    fn next(&mut self) -> Option<SdesChunk<'a>> {
        self.left = self.left.checked_sub(1)?;
        let ssrc = u32_at(self.bytes, 0)?;
        let mut cname = None;
        let mut at = 4;
        loop {
            match self.bytes.get(at) {
                // Some senders forget the terminator when the items end on a word.
                None => break,
                Some(&ITEM_END) => {
                    at = (at + 1).next_multiple_of(4);
                    break;
                }
                Some(&item) => {
                    let len = usize::from(*self.bytes.get(at + 1)?);
                    let text = self.bytes.get(at + 2..at + 2 + len)?;
                    if item == ITEM_CNAME {
                        cname = Some(text);
                    }
                    at += 2 + len;
                }
            }
        }
        self.bytes = self.bytes.get(at..).unwrap_or_default();
        Some(SdesChunk { ssrc, cname })
    }
}

pub(super) fn parse_bye(count: u8, body: &[u8]) -> Result<Packet<'_>, ParseError> {
    let ssrcs = body.get(..4 * usize::from(count));
    Ok(Packet::Bye(Ssrcs::new(ssrcs.ok_or(ParseError::Truncated)?)))
}

/// Appends a source description with one CNAME, cut to the 255 bytes an item can hold.
pub fn emit_sdes_cname(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let cname = &cname.as_bytes()[..cname.len().min(255)];
    let start = begin(out, 1, PT_SDES);
    put_u32(out, ssrc);
    out.extend_from_slice(&[ITEM_CNAME, cname.len() as u8]);
    out.extend_from_slice(cname);
    out.push(ITEM_END);
    finish(out, start);
}

/// Appends a goodbye of one source.
pub fn emit_bye(out: &mut Vec<u8>, ssrc: u32) {
    let start = begin(out, 1, PT_BYE);
    put_u32(out, ssrc);
    finish(out, start);
}
