//! RTCP: what receivers and senders report, and what is reported to them.

use super::Router;
use crate::drop_reason::DropReason;
use crate::io::Io;
use crate::wire::rtcp::{
    Dlrr, Packet, ReportBlock, XrBlock, emit_nack, emit_receiver_report, emit_remb,
    emit_sdes_cname, emit_sender_report, emit_xr_dlrr, packets,
};

/// A compound is sent when it has grown to this many bytes.
const COMPOUND_BYTES: usize = 1100;

impl Router {
    /// Takes a decrypted compound packet from a transport.
    pub(super) fn handle_rtcp(&mut self, io: &mut Io, key: usize, compound: &[u8]) {
        for packet in packets(compound) {
            match packet {
                Ok(packet) => self.handle_rtcp_packet(io, key, packet),
                Err(_) => io.drop(DropReason::Rtcp),
            }
        }
    }

    fn handle_rtcp_packet(&mut self, io: &mut Io, key: usize, packet: Packet<'_>) {
        match packet {
            Packet::Sr(report, blocks) => {
                let transport = &self.transports[key];
                if let Some(producer) = transport.listener.producer_of(report.ssrc)
                    && let Some(stream) = self.producers[producer]
                        .streams
                        .iter_mut()
                        .find(|stream| stream.ssrc == report.ssrc)
                {
                    stream.recv.handle_sr(io.arrived, report.ntp);
                }
                self.handle_report_blocks(io, key, blocks);
            }
            Packet::Rr { blocks, .. } => self.handle_report_blocks(io, key, blocks),
            Packet::Nack { media, seqs, .. } => self.handle_nack(io, key, media, seqs),
            Packet::Pli { media, .. } => {
                if let Some(consumer) = self.consumer_of(key, media) {
                    self.consumers[consumer].count_feedback(|stream| stream.plis += 1);
                    self.request_keyframe_for(io, consumer);
                }
            }
            Packet::Fir { entries, .. } => {
                for entry in entries {
                    if let Some(consumer) = self.consumer_of(key, entry.ssrc) {
                        self.consumers[consumer].count_feedback(|stream| stream.firs += 1);
                        self.request_keyframe_for(io, consumer);
                    }
                }
            }
            Packet::Remb(remb) => {
                let bandwidth = &mut self.transports[key].remote_bandwidth;
                bandwidth.bitrate = remb.bitrate_bps;
                bandwidth.ssrcs.clear();
                bandwidth.ssrcs.extend(remb.ssrcs);
            }
            Packet::Xr { ssrc, blocks } => {
                for block in blocks {
                    if let XrBlock::Rrtr { ntp } = block {
                        let middle = (ntp >> 16) as u32;
                        self.transports[key].reference_time = Some((ssrc, middle, io.now));
                    }
                }
            }
            Packet::Sdes(_)
            | Packet::Bye(_)
            | Packet::App { .. }
            | Packet::Twcc { .. }
            | Packet::Other { .. } => {}
        }
    }

    fn handle_report_blocks(
        &mut self,
        io: &Io,
        key: usize,
        blocks: impl Iterator<Item = ReportBlock>,
    ) {
        for block in blocks {
            if let Some(consumer) = self.consumer_of(key, block.ssrc)
                && let Some(sending) = &mut self.consumers[consumer].sending
                && sending.ssrc == block.ssrc
            {
                sending.stream.handle_report_block(io.ntp, &block);
                sending.note_feedback();
            }
        }
    }

    fn handle_nack(
        &mut self,
        io: &mut Io,
        key: usize,
        media: u32,
        seqs: impl Iterator<Item = u16>,
    ) {
        let Some(consumer_key) = self.consumer_of(key, media) else {
            return;
        };
        let Some(way) = self.transports[key].way() else {
            return;
        };
        let consumer = &mut self.consumers[consumer_key];
        consumer.count_feedback(|stream| stream.nacks += 1);
        let producer = &self.producers[consumer.producer];
        let mut needs_keyframe = false;
        for seq in seqs {
            needs_keyframe |= consumer.take_unrepeatable(seq);
            consumer.resend(io, way, producer, seq);
        }
        let sent = consumer.settle(io.now);
        self.transports[key].count_sent(sent);
        if needs_keyframe {
            self.request_keyframe_for(io, consumer_key);
        }
    }

    fn consumer_of(&self, transport: usize, ssrc: u32) -> Option<usize> {
        self.transports[transport]
            .consumer_by_ssrc
            .get(&ssrc)
            .copied()
    }

    /// Sends the periodic reports of a transport.
    pub(super) fn send_reports(&mut self, io: &mut Io, key: usize) {
        let mut packet = std::mem::take(&mut io.scratch);
        packet.clear();
        let transport = &mut self.transports[key];
        let mut is_dlrr_due = true;
        for at in 0..transport.consumers.len() {
            let consumer = &self.consumers[transport.consumers[at]];
            let Some(sending) = consumer.sending.as_ref().filter(|_| consumer.is_sending()) else {
                continue;
            };
            let Some(report) = sending.stream.sender_report(io.now, io.ntp) else {
                continue;
            };
            emit_sender_report(&mut packet, &report, &[]);
            emit_sdes_cname(&mut packet, sending.ssrc, &sending.cname);
            if let Some((ssrc, lrr, at)) = transport.reference_time
                && std::mem::take(&mut is_dlrr_due)
            {
                let delay = io.now.duration_since(at).as_micros() * 65_536 / 1_000_000;
                let dlrr = u32::try_from(delay).unwrap_or(u32::MAX);
                emit_xr_dlrr(&mut packet, sending.ssrc, &[Dlrr { ssrc, lrr, dlrr }]);
            }
            if packet.len() > COMPOUND_BYTES {
                transport.send_rtcp(io, &mut packet);
            }
        }
        let mut blocks = std::mem::take(&mut io.blocks);
        blocks.clear();
        for &producer in &transport.producers {
            for stream in &mut self.producers[producer].streams {
                blocks.push(stream.recv.report_block(io.now));
            }
        }
        // A block has 24 bytes: at most 31 of them fit one report and one datagram.
        for blocks in blocks.chunks(31) {
            emit_receiver_report(&mut packet, 0, blocks);
            if packet.len() > COMPOUND_BYTES {
                transport.send_rtcp(io, &mut packet);
            }
        }
        io.blocks = blocks;
        transport.send_rtcp(io, &mut packet);
        io.scratch = packet;
        self.send_remb(io, key);
        self.transports[key].schedule_rtcp(io);
    }

    /// Tells the peer how much it may send, if there is a limit.
    pub(super) fn send_remb(&mut self, io: &mut Io, key: usize) {
        let transport = &self.transports[key];
        if transport.bitrate_max == 0 {
            return;
        }
        let ssrcs = self.video_ssrcs(transport);
        if ssrcs.is_empty() {
            return;
        }
        let mut packet = Vec::new();
        emit_receiver_report(&mut packet, 0, &[]);
        emit_remb(&mut packet, 0, u64::from(transport.bitrate_max), &ssrcs);
        self.transports[key].send_rtcp(io, &mut packet);
    }

    /// Asks the peer of a transport for what is missing.
    pub(super) fn send_nack(&mut self, io: &mut Io, key: usize, ssrc: u32, seqs: &[u16]) {
        let mut packet = std::mem::take(&mut io.scratch);
        packet.clear();
        emit_nack(&mut packet, 0, ssrc, seqs);
        self.transports[key].send_rtcp(io, &mut packet);
        io.scratch = packet;
    }
}
