//! Extended reports (RFC 3611): only the two blocks that give receivers a round-trip time.

use super::PT_XR;
use super::bytes::{begin, finish, put_u32};
use crate::wire::{u16_at, u32_at, u64_at};

/// Receiver reference time (RFC 3611 §4.4).
const BLOCK_RRTR: u8 = 4;
/// Delay since the last such report (RFC 3611 §4.5).
const BLOCK_DLRR: u8 = 5;
/// Entries that keep a DLRR block within one datagram.
const DLRR_ENTRIES_MAX: usize = 64;

/// One block of an extended report.
#[derive(Clone, Debug, PartialEq)]
pub enum XrBlock<'a> {
    /// A receiver's wall clock in NTP format.
    Rrtr {
        /// The clock.
        ntp: u64,
    },
    /// Answers to such clocks.
    Dlrr(DlrrEntries<'a>),
    /// A block type that is not read.
    Other(u8),
}

/// The blocks of an extended report; a cut block ends the iteration.
#[derive(Clone, Debug, PartialEq)]
pub struct XrBlocks<'a> {
    rest: &'a [u8],
}

impl<'a> XrBlocks<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        XrBlocks { rest: bytes }
    }
}

impl<'a> Iterator for XrBlocks<'a> {
    type Item = XrBlock<'a>;

    fn next(&mut self) -> Option<XrBlock<'a>> {
        let rest = std::mem::take(&mut self.rest);
        let block_type = *rest.first()?;
        let len = 4 * usize::from(u16_at(rest, 2)?);
        let contents = rest.get(4..4 + len)?;
        self.rest = &rest[4 + len..];
        Some(match block_type {
            BLOCK_RRTR => match u64_at(contents, 0) {
                Some(ntp) => XrBlock::Rrtr { ntp },
                None => XrBlock::Other(block_type),
            },
            BLOCK_DLRR => XrBlock::Dlrr(DlrrEntries {
                entries: contents.as_chunks().0,
            }),
            _ => XrBlock::Other(block_type),
        })
    }
}

/// One answer to a receiver's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dlrr {
    /// The receiver answered.
    pub ssrc: u32,
    /// Middle 32 bits of its NTP time.
    pub lrr: u32,
    /// Time since it arrived in 1/65536 s.
    pub dlrr: u32,
}

/// The answers of one block.
#[derive(Clone, Debug, PartialEq)]
pub struct DlrrEntries<'a> {
    entries: &'a [[u8; 12]],
}

impl Iterator for DlrrEntries<'_> {
    type Item = Dlrr;

    fn next(&mut self) -> Option<Dlrr> {
        let (entry, rest) = self.entries.split_first()?;
        self.entries = rest;
        Some(Dlrr {
            ssrc: u32_at(entry, 0)?,
            lrr: u32_at(entry, 4)?,
            dlrr: u32_at(entry, 8)?,
        })
    }
}

/// Appends a receiver reference time.
pub fn emit_xr_rrtr(out: &mut Vec<u8>, ssrc: u32, ntp: u64) {
    let start = begin(out, 0, PT_XR);
    put_u32(out, ssrc);
    out.extend_from_slice(&[BLOCK_RRTR, 0, 0, 2]);
    out.extend_from_slice(&ntp.to_be_bytes());
    finish(out, start);
}

/// Appends answers to receivers' clocks; those beyond 64 are left out, nothing for none.
pub fn emit_xr_dlrr(out: &mut Vec<u8>, ssrc: u32, entries: &[Dlrr]) {
    if entries.is_empty() {
        return;
    }
    let entries = &entries[..entries.len().min(DLRR_ENTRIES_MAX)];
    let start = begin(out, 0, PT_XR);
    put_u32(out, ssrc);
    out.extend_from_slice(&[BLOCK_DLRR, 0, 0, 3 * entries.len() as u8]);
    for entry in entries {
        put_u32(out, entry.ssrc);
        put_u32(out, entry.lrr);
        put_u32(out, entry.dlrr);
    }
    finish(out, start);
}
