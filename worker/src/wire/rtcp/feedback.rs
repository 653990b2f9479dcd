//! Feedback messages: generic NACK (RFC 4585 §6.2.1), PLI (§6.3.1), FIR (RFC 5104 §4.3.1) and the
//! frame around transport-wide feedback, whose contents belong to bandwidth estimation.

use super::bytes::{begin, finish, put_u32};
use super::{FMT_FIR, FMT_NACK, FMT_PLI, FMT_TWCC, PT_PSFB, PT_RTPFB};
use crate::wire::{u16_at, u32_at};

/// Sequence numbers one NACK item covers: the first and 16 that follow.
const NACK_ITEM_SPAN: u16 = 17;

/// The sequence numbers of a NACK.
#[derive(Clone, Debug, PartialEq)]
pub struct NackSeqs<'a> {
    items: &'a [[u8; 4]],
    pid: u16,
    /// Bit n stands for `pid + n`; the first number of an item is bit 0.
    pending: u32,
}

impl<'a> NackSeqs<'a> {
    pub(super) fn new(fci: &'a [u8]) -> Self {
        NackSeqs {
            items: fci.as_chunks().0,
            pid: 0,
            pending: 0,
        }
    }
}

impl Iterator for NackSeqs<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.pending == 0 {
            let (item, rest) = self.items.split_first()?;
            self.items = rest;
            self.pid = u16_at(item, 0)?;
            self.pending = u32::from(u16_at(item, 2)?) << 1 | 1;
        }
        let offset = self.pending.trailing_zeros() as u16;
        self.pending &= self.pending - 1;
        Some(self.pid.wrapping_add(offset))
    }
}

/// Appends a NACK for sequence numbers in ascending order, which may wrap; nothing for none.
///
/// Items are filled greedily, so every number lies in the first item that reaches it.
pub fn emit_nack(out: &mut Vec<u8>, sender: u32, media: u32, seqs: &[u16]) {
    let Some((first, rest)) = seqs.split_first() else {
        return;
    };
    let start = begin_feedback(out, FMT_NACK, PT_RTPFB, sender, media);
    let (mut pid, mut blp) = (*first, 0u16);
    for seq in rest {
        let offset = seq.wrapping_sub(pid);
        if offset >= NACK_ITEM_SPAN {
            put_u32(out, u32::from(pid) << 16 | u32::from(blp));
            (pid, blp) = (*seq, 0);
        } else if offset > 0 {
            blp |= 1 << (offset - 1);
        }
    }
    put_u32(out, u32::from(pid) << 16 | u32::from(blp));
    finish(out, start);
}

/// Appends a picture loss indication.
pub fn emit_pli(out: &mut Vec<u8>, sender: u32, media: u32) {
    let start = begin_feedback(out, FMT_PLI, PT_PSFB, sender, media);
    finish(out, start);
}

/// One stream a full intra request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    /// The stream that needs a key frame.
    pub ssrc: u32,
    /// Counts requests; a repetition keeps its number.
    pub seq: u8,
}

/// The entries of a full intra request.
#[derive(Clone, Debug, PartialEq)]
pub struct FirEntries<'a> {
    entries: &'a [[u8; 8]],
}

impl<'a> FirEntries<'a> {
    pub(super) fn new(fci: &'a [u8]) -> Self {
        FirEntries {
            entries: fci.as_chunks().0,
        }
    }
}

impl Iterator for FirEntries<'_> {
    type Item = FirEntry;

    fn next(&mut self) -> Option<FirEntry> {
        let (entry, rest) = self.entries.split_first()?;
        self.entries = rest;
        Some(FirEntry {
            ssrc: u32_at(entry, 0)?,
            seq: entry[4],
        })
    }
}

/// Appends a full intra request; the media SSRC of its header is 0 (RFC 5104 §4.3.1.2).
pub fn emit_fir(out: &mut Vec<u8>, sender: u32, entry: FirEntry) {
    let start = begin_feedback(out, FMT_FIR, PT_PSFB, sender, 0);
    put_u32(out, entry.ssrc);
    out.extend_from_slice(&[entry.seq, 0, 0, 0]);
    finish(out, start);
}

/// Appends transport-wide feedback around finished control information.
///
/// Zero bytes behind `fci` fill the last word, as the format has them mean "not received".
pub fn emit_transport_feedback(out: &mut Vec<u8>, sender: u32, media: u32, fci: &[u8]) {
    let start = begin_feedback(out, FMT_TWCC, PT_RTPFB, sender, media);
    out.extend_from_slice(fci);
    finish(out, start);
}

fn begin_feedback(out: &mut Vec<u8>, fmt: u8, pt: u8, sender: u32, media: u32) -> usize {
    let start = begin(out, fmt, pt);
    put_u32(out, sender);
    put_u32(out, media);
    start
}
