//! A sent stream: one consumer's media SSRC with its RTX.

use std::time::Instant;

use super::RateMeter;
use crate::recorder::{
    BYTES, Counters, Entry, FIRS, LOST, NACKS, PACKETS, PAYLOAD_BYTES, PLIS, REPAIRED,
};
use crate::wire::rtcp::{ReportBlock, SenderReport};

/// A sent stream.
#[derive(Debug)]
pub struct SendStream {
    ssrc: u32,
    clock_rate: u32,
    rtx_seq: u64,
    rate: RateMeter,
    /// Bytes that the rate is without.
    unmetered: usize,
    /// The newest timestamp sent, and when.
    newest: Option<(u32, Instant)>,
    payload_bytes: u64,
    rtt_ms: f64,
    /// Packets sent, without retransmissions.
    pub packets: u64,
    /// Bytes of them, headers included.
    pub bytes: u64,
    /// Packets sent again.
    pub repaired: u64,
    /// NACKs received.
    pub nacks: u64,
    /// PLIs received.
    pub plis: u64,
    /// FIRs received.
    pub firs: u64,
    /// Packets lost, as the receiver reports.
    pub packets_lost: u64,
    /// Loss of the last interval in 1/256, as the receiver reports.
    pub fraction_lost: u8,
}

impl SendStream {
    /// A stream that nothing was sent of.
    pub fn new(ssrc: u32, clock_rate: u32, rtx_seq_start: u16) -> Self {
        Self {
            ssrc,
            clock_rate,
            rtx_seq: u64::from(rtx_seq_start),
            rate: RateMeter::default(),
            unmetered: 0,
            newest: None,
            payload_bytes: 0,
            rtt_ms: 0.0,
            packets: 0,
            bytes: 0,
            repaired: 0,
            nacks: 0,
            plis: 0,
            firs: 0,
            packets_lost: 0,
            fraction_lost: 0,
        }
    }

    /// Counts a packet; [`settle`](Self::settle) is to follow.
    pub fn handle_sent(&mut self, now: Instant, ts: u32, packet_len: usize, payload_len: usize) {
        self.packets += 1;
        self.bytes += packet_len as u64;
        self.payload_bytes += payload_len as u64;
        self.unmetered += packet_len;
        let is_newer = |newest: u32| ts.wrapping_sub(newest).cast_signed() > 0;
        if self.newest.is_none_or(|(newest, _)| is_newer(newest)) {
            self.newest = Some((ts, now));
        }
    }

    /// Does what is to be done once for all packets that were sent at a time.
    pub fn settle(&mut self, now: Instant) {
        self.rate.add(now, std::mem::take(&mut self.unmetered));
    }

    /// A report of this instant, its timestamp extrapolated from the newest packet's; `None`
    /// before the first packet.
    pub fn sender_report(&self, now: Instant, ntp: u64) -> Option<SenderReport> {
        let (ts, at) = self.newest?;
        let elapsed_us = now.duration_since(at).as_micros();
        let ticks = elapsed_us * u128::from(self.clock_rate) / 1_000_000;
        Some(SenderReport {
            ssrc: self.ssrc,
            ntp,
            rtp_ts: ts.wrapping_add(ticks as u32),
            packets: self.packets as u32,
            octets: self.payload_bytes as u32,
        })
    }

    /// Takes what the receiver reports; `ntp` is now.
    pub fn handle_report_block(&mut self, ntp: u64, block: &ReportBlock) {
        self.fraction_lost = block.fraction_lost;
        self.packets_lost = u64::try_from(block.lost).unwrap_or(0);
        if block.lsr != 0 {
            let now = (ntp >> 16) as u32;
            let rtt = now.wrapping_sub(block.lsr).wrapping_sub(block.dlsr);
            // Half the range and more is a report from the future.
            if rtt < u32::MAX / 2 {
                self.rtt_ms = f64::from(rtt) * 1000.0 / 65_536.0;
            }
        }
    }

    /// Round-trip time in milliseconds, 0 while unknown.
    pub fn rtt_ms(&self) -> f64 {
        self.rtt_ms
    }

    /// The next extended sequence number of the RTX stream.
    pub fn next_rtx_seq(&mut self) -> u64 {
        self.rtx_seq += 1;
        self.rtx_seq
    }

    /// Goes on with what an earlier stream counted.
    pub fn resume(&mut self, counters: &Counters) {
        self.packets = counters[PACKETS];
        self.bytes = counters[BYTES];
        self.payload_bytes = counters[PAYLOAD_BYTES];
        self.repaired = counters[REPAIRED];
        self.nacks = counters[NACKS];
        self.plis = counters[PLIS];
        self.firs = counters[FIRS];
        self.packets_lost = counters[LOST];
    }

    /// Goes on after a recorded number of the RTX stream.
    pub fn resume_rtx(&mut self, seq: u64) {
        self.rtx_seq = seq;
    }

    /// Records what was sent.
    pub fn note_sent(&self, entry: &Entry) {
        entry.set(PACKETS, self.packets);
        entry.set(BYTES, self.bytes);
        entry.set(PAYLOAD_BYTES, self.payload_bytes);
    }

    /// Records what the receiver said, and got for it.
    pub fn note_feedback(&self, entry: &Entry) {
        entry.set(REPAIRED, self.repaired);
        entry.set(NACKS, self.nacks);
        entry.set(PLIS, self.plis);
        entry.set(FIRS, self.firs);
        entry.set(LOST, self.packets_lost);
    }

    /// The last extended sequence number of the RTX stream.
    pub fn rtx_seq(&self) -> u64 {
        self.rtx_seq
    }

    /// Goes on with RTX numbers below 2^16.
    pub fn forget_rollovers(&mut self) {
        self.rtx_seq &= 0xFFFF;
    }

    /// Bits per second over the last second.
    pub fn bitrate(&self, now: Instant) -> u64 {
        self.rate.bps(now)
    }
}
