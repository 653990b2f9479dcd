//! A received stream: one media SSRC with its RTX.

use std::time::Instant;

use super::seq::DROPOUT_MAX;
use super::{NackGenerator, RateMeter, RetransmitRing, Seen, Unwrapper};
use crate::recorder::{
    BYTES, Counters, DISCARDED, FIRS, HIGHEST, NACKS, PACKETS, PLIS, REPAIRED, StreamRecord,
};
use crate::wire::codec::PayloadInfo;
use crate::wire::rtcp::ReportBlock;
use crate::wire::rtp::RtpHeader;

/// Bytes of the original sequence number in front of an RTX payload (RFC 4588 §4).
const OSN_LEN: usize = 2;

/// What a stream is.
#[derive(Clone, Copy, Debug)]
pub struct RecvConfig {
    /// Media SSRC.
    pub ssrc: u32,
    /// RTX SSRC.
    pub rtx_ssrc: Option<u32>,
    /// Media payload type.
    pub pt: u8,
    /// RTX payload type.
    pub rtx_pt: Option<u8>,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// Whether lost packets are asked for.
    pub has_nack: bool,
}

/// A received stream.
#[derive(Debug)]
pub struct RecvStream {
    config: RecvConfig,
    seq: Unwrapper,
    /// What is missing.
    pub nack: NackGenerator,
    /// What was received last.
    pub ring: RetransmitRing,
    rate: RateMeter,
    jitter: Jitter,
    base_seq: Option<u64>,
    /// Packets expected before the sender started anew at `base_seq`.
    expected_before_base: u64,
    /// Timestamp of the last key frame; its packets are marked one by one.
    keyframe_ts: Option<u32>,
    /// Newest sender report: middle bits of its NTP time, and when it came.
    sender_report: Option<(u32, Instant)>,
    /// Expected and received at the last report.
    reported: (u64, u64),
    fraction_lost: u8,
    /// Packets received, without retransmissions.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets that could not belong to the stream, or came twice.
    pub discarded: u64,
    /// Missing packets that came by retransmission.
    pub repaired: u64,
    /// NACKs sent.
    pub nacks: u64,
    /// PLIs sent.
    pub plis: u64,
    /// FIRs sent.
    pub firs: u64,
}

/// Interarrival jitter (RFC 3550 §6.4.1, A.8), in 1/16 timestamp units.
#[derive(Clone, Copy, Debug, Default)]
struct Jitter {
    last: Option<(Instant, u32)>,
    scaled: u32,
}

impl RecvStream {
    /// A stream that nothing was received of.
    pub fn new(config: RecvConfig) -> Self {
        Self {
            config,
            seq: Unwrapper::default(),
            nack: NackGenerator::default(),
            ring: RetransmitRing::default(),
            rate: RateMeter::default(),
            jitter: Jitter::default(),
            base_seq: None,
            expected_before_base: 0,
            keyframe_ts: None,
            sender_report: None,
            reported: (0, 0),
            fraction_lost: 0,
            packets: 0,
            bytes: 0,
            discarded: 0,
            repaired: 0,
            nacks: 0,
            plis: 0,
            firs: 0,
        }
    }

    /// Goes on where an earlier stream stopped: at its highest number, with what it counted.
    pub fn resume(&mut self, record: &StreamRecord, counters: &Counters) {
        let highest = counters[HIGHEST];
        self.seq = Unwrapper::resumed(highest);
        self.nack = NackGenerator::resumed(highest);
        self.base_seq = Some(record.base_seq.min(highest));
        self.expected_before_base = record.expected_before_base;
        self.packets = match counters[PACKETS] {
            // It died in the turn of the first packet.
            0 => self.expected(),
            packets => packets,
        };
        self.bytes = counters[BYTES];
        self.repaired = counters[REPAIRED];
        self.discarded = counters[DISCARDED];
        self.nacks = counters[NACKS];
        self.plis = counters[PLIS];
        self.firs = counters[FIRS];
        self.reported = (self.expected(), self.packets + self.repaired);
    }

    /// The highest extended number so far.
    pub fn highest(&self) -> Option<u64> {
        self.seq.highest()
    }

    /// Whether its sender repeats what is lost.
    pub fn repeats(&self) -> bool {
        self.config.has_nack
    }

    /// The number that counting began with.
    pub fn base_seq(&self) -> Option<u64> {
        self.base_seq
    }

    /// Packets expected before that.
    pub fn expected_before_base(&self) -> u64 {
        self.expected_before_base
    }

    /// Takes a media packet of `len` bytes, which `arrived` a little before; `None` if it is to be
    /// discarded.
    pub fn handle_rtp(
        &mut self,
        now: Instant,
        arrived: Instant,
        header: &RtpHeader,
        len: usize,
        info: PayloadInfo,
    ) -> Option<u64> {
        let (expected, highest) = (self.expected(), self.seq.highest());
        let Some(seq) = self.seq.unwrap(header.seq) else {
            self.discarded += 1;
            return None;
        };
        let is_keyframe = info.is_keyframe && self.keyframe_ts != Some(header.ts);
        if self.nack.handle_seq(now, seq, is_keyframe) == Seen::Duplicate {
            self.discarded += 1;
            return None;
        }
        if is_keyframe {
            self.keyframe_ts = Some(header.ts);
        }
        if highest.is_none_or(|highest| seq >= highest + u64::from(DROPOUT_MAX)) {
            // What lies between the old numbers and the new ones was never sent.
            self.base_seq = Some(seq);
            self.expected_before_base = expected;
        }
        self.packets += 1;
        self.bytes += len as u64;
        self.rate.add(now, len);
        self.jitter
            .update(arrived, header.ts, self.config.clock_rate);
        if !self.config.has_nack {
            self.nack.mute();
        }
        Some(seq)
    }

    /// Turns an RTX packet in place into the packet it repeats; returns its length, or `None`
    /// if there is none inside: bandwidth probing.
    pub fn restore_rtx(&self, header: &RtpHeader, packet: &mut [u8]) -> Option<usize> {
        if Some(header.pt) != self.config.rtx_pt {
            return None;
        }
        let payload = header.payload_range();
        if payload.len() < OSN_LEN || payload.end > packet.len() {
            return None;
        }
        let osn = [packet[payload.start], packet[payload.start + 1]];
        packet.copy_within(payload.start + OSN_LEN..payload.end, payload.start);
        packet[0] &= !0x20;
        packet[1] = packet[1] & 0x80 | self.config.pt;
        packet[2..4].copy_from_slice(&osn);
        packet[8..12].copy_from_slice(&self.config.ssrc.to_be_bytes());
        Some(payload.end - OSN_LEN)
    }

    /// Takes a restored packet; `None` if it was not missing.
    pub fn handle_restored(
        &mut self,
        now: Instant,
        header: &RtpHeader,
        len: usize,
        info: PayloadInfo,
    ) -> Option<u64> {
        // A packet ahead of all media could move the stream; only gaps are filled.
        let highest = self.seq.highest()?;
        let behind = (highest as u16).wrapping_sub(header.seq);
        let seq = highest.checked_sub(u64::from(behind))?;
        if seq == highest || self.nack.handle_seq(now, seq, info.is_keyframe) != Seen::Recovered {
            return None;
        }
        self.repaired += 1;
        self.rate.add(now, len);
        Some(seq)
    }

    /// Takes a sender report.
    pub fn handle_sr(&mut self, now: Instant, ntp: u64) {
        self.sender_report = Some(((ntp >> 16) as u32, now));
    }

    /// What to report about the stream; begins a new interval.
    pub fn report_block(&mut self, now: Instant) -> ReportBlock {
        let expected = self.expected();
        let received = self.packets + self.repaired;
        let (expected_before, received_before) =
            std::mem::replace(&mut self.reported, (expected, received));
        let expected_now = expected - expected_before;
        let lost_now = expected_now.saturating_sub(received - received_before);
        self.fraction_lost = (lost_now * 256)
            .checked_div(expected_now)
            .map_or(0, |fraction| fraction.min(255) as u8);
        let (lsr, dlsr) = match self.sender_report {
            None => (0, 0),
            Some((lsr, at)) => {
                let delay = now.duration_since(at).as_micros() * 65_536 / 1_000_000;
                (lsr, u32::try_from(delay).unwrap_or(u32::MAX))
            }
        };
        // RFC 3550 counts cycles from the first packet's.
        let cycles = |seq: u64| seq - (self.base_seq.unwrap_or(seq) & !0xFFFF);
        ReportBlock {
            ssrc: self.config.ssrc,
            fraction_lost: self.fraction_lost,
            lost: i32::try_from(self.packets_lost()).unwrap_or(i32::MAX),
            highest_seq: self.seq.highest().map_or(0, cycles) as u32,
            jitter: self.jitter(),
            lsr,
            dlsr,
        }
    }

    /// Packets that never came.
    pub fn packets_lost(&self) -> u64 {
        self.expected().saturating_sub(self.packets + self.repaired)
    }

    /// Loss of the last reported interval, in 1/256.
    pub fn fraction_lost(&self) -> u8 {
        self.fraction_lost
    }

    /// Interarrival jitter in timestamp units.
    pub fn jitter(&self) -> u32 {
        self.jitter.scaled >> 4
    }

    /// Bits per second over the last second.
    pub fn bitrate(&self, now: Instant) -> u64 {
        self.rate.bps(now)
    }

    /// Whether anything came in the last second.
    pub fn is_active(&self, now: Instant) -> bool {
        self.rate.bps(now) > 0
    }

    fn expected(&self) -> u64 {
        match (self.base_seq, self.seq.highest()) {
            (Some(base), Some(highest)) => {
                self.expected_before_base + highest.saturating_sub(base) + 1
            }
            _ => 0,
        }
    }
}

impl Jitter {
    fn update(&mut self, arrived: Instant, ts: u32, clock_rate: u32) {
        if let Some((last_at, last_ts)) = self.last.replace((arrived, ts)) {
            let elapsed = arrived.duration_since(last_at).as_micros() * u128::from(clock_rate);
            let elapsed = i64::try_from(elapsed / 1_000_000).unwrap_or(i64::MAX);
            let advanced = i64::from(ts.wrapping_sub(last_ts).cast_signed());
            let difference = elapsed.saturating_sub(advanced).unsigned_abs();
            let difference = u32::try_from(difference)
                .unwrap_or(u32::MAX >> 5)
                .min(u32::MAX >> 5);
            self.scaled = self.scaled + difference - ((self.scaled + 8) >> 4);
        }
    }
}
