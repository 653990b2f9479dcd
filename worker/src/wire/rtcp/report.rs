//! Sender and receiver reports (RFC 3550 §6.4).

use super::bytes::{begin, finish, put_u32};
use super::{PT_RR, PT_SR, Packet, ssrc_at};
use crate::wire::{ParseError, u32_at, u64_at};

/// Bytes of one report block.
const BLOCK_LEN: usize = 24;
/// Blocks one report can count in its five bits.
const BLOCKS_MAX: usize = 31;
/// Bounds of the 24-bit two's complement loss count.
const LOST_MIN: i32 = -(1 << 23);
const LOST_MAX: i32 = (1 << 23) - 1;

/// The sender information of a sender report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderReport {
    /// Who sends.
    pub ssrc: u32,
    /// Wall clock in NTP format, 32.32 seconds since 1900.
    pub ntp: u64,
    /// The same instant on the stream's RTP clock.
    pub rtp_ts: u32,
    /// Packets sent so far.
    pub packets: u32,
    /// Payload bytes sent so far.
    pub octets: u32,
}

/// What one receiver got from one sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream reported about.
    pub ssrc: u32,
    /// Share of packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all; written clamped to 24 bits, negative if duplicates outnumber losses.
    pub lost: i32,
    /// Highest sequence number received, with its cycles in the upper half.
    pub highest_seq: u32,
    /// Interarrival jitter in RTP clock units.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time, 0 if there was none.
    pub lsr: u32,
    /// Time since that report in 1/65536 s.
    pub dlsr: u32,
}

impl ReportBlock {
    fn parse(bytes: &[u8; BLOCK_LEN]) -> Self {
        let word = |at| u32_at(bytes, at).unwrap_or_default();
        // Shifting left drops the fraction, shifting back extends the sign.
        let lost = (word(4) << 8) as i32 >> 8;
        Self {
            ssrc: word(0),
            fraction_lost: bytes[4],
            lost,
            highest_seq: word(8),
            jitter: word(12),
            lsr: word(16),
            dlsr: word(20),
        }
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let lost = self.lost.clamp(LOST_MIN, LOST_MAX) as u32 & 0x00FF_FFFF;
        for word in [
            self.ssrc,
            u32::from(self.fraction_lost) << 24 | lost,
            self.highest_seq,
            self.jitter,
            self.lsr,
            self.dlsr,
        ] {
            put_u32(out, word);
        }
    }
}

/// The report blocks of one packet.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportBlocks<'a> {
    blocks: &'a [[u8; BLOCK_LEN]],
}

impl<'a> ReportBlocks<'a> {
    /// Takes as many blocks as counted; profile-specific extensions behind them are ignored.
    fn new(count: u8, bytes: &'a [u8]) -> Result<Self, ParseError> {
        let len = BLOCK_LEN * usize::from(count);
        let counted = bytes.get(..len).ok_or(ParseError::Truncated)?;
        Ok(ReportBlocks {
            blocks: counted.as_chunks().0,
        })
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.blocks.split_first()?;
        self.blocks = rest;
        Some(ReportBlock::parse(block))
    }
}

pub(super) fn parse_sr(count: u8, body: &[u8]) -> Result<Packet<'_>, ParseError> {
    let sender = SenderReport {
        ssrc: ssrc_at(body, 0)?,
        ntp: u64_at(body, 4).ok_or(ParseError::Truncated)?,
        rtp_ts: u32_at(body, 12).ok_or(ParseError::Truncated)?,
        packets: u32_at(body, 16).ok_or(ParseError::Truncated)?,
        octets: u32_at(body, 20).ok_or(ParseError::Truncated)?,
    };
    Ok(Packet::Sr(sender, ReportBlocks::new(count, &body[24..])?))
}

pub(super) fn parse_rr(count: u8, body: &[u8]) -> Result<Packet<'_>, ParseError> {
    Ok(Packet::Rr {
        ssrc: ssrc_at(body, 0)?,
        blocks: ReportBlocks::new(count, &body[4..])?,
    })
}

/// Appends a sender report; blocks beyond 31 follow in receiver reports.
pub fn emit_sender_report(out: &mut Vec<u8>, report: &SenderReport, blocks: &[ReportBlock]) {
    let (first, rest) = blocks.split_at(blocks.len().min(BLOCKS_MAX));
    let start = begin(out, first.len() as u8, PT_SR);
    put_u32(out, report.ssrc);
    out.extend_from_slice(&report.ntp.to_be_bytes());
    put_u32(out, report.rtp_ts);
    put_u32(out, report.packets);
    put_u32(out, report.octets);
    first.iter().for_each(|block| block.emit(out));
    finish(out, start);
    if !rest.is_empty() {
        emit_receiver_report(out, report.ssrc, rest);
    }
}

/// Appends a receiver report, or several if there are more than 31 blocks.
pub fn emit_receiver_report(out: &mut Vec<u8>, ssrc: u32, blocks: &[ReportBlock]) {
    let (first, mut rest) = blocks.split_at(blocks.len().min(BLOCKS_MAX));
    let mut counted = first;
    loop {
        let start = begin(out, counted.len() as u8, PT_RR);
        put_u32(out, ssrc);
        counted.iter().for_each(|block| block.emit(out));
        finish(out, start);
        if rest.is_empty() {
            return;
        }
        (counted, rest) = rest.split_at(rest.len().min(BLOCKS_MAX));
    }
}
