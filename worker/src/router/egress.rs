//! Packets out: each packet to each consumer of its producer, at the end of the turn it came in
//! or with the rest of its frame, and the key frames that make a beginning possible.

use std::time::Instant;

use broth_ipc::Event;
use broth_ipc::black_box::Work;
use broth_ipc::rtp::Profile;

use super::Router;
use crate::io::Io;
use crate::wire::rtcp::{FirEntry, emit_fir, emit_pli};

impl Router {
    /// Fans out what arrived, but for the beginnings of frames whose rest is about to come
    /// ([`Cuts`](crate::stream::Cuts)). Each waits for the end of its frame, at most until
    /// [`held_until`](Self::held_until).
    pub fn forward(&mut self, io: &mut Io) {
        let may_hold = io.may_hold && !io.hold.time().is_zero();
        let is_over = self.held_until.is_some_and(|until| until <= io.now);
        let mut dirty = std::mem::take(&mut self.dirty_producers);
        dirty.retain(|&key| {
            let Some(producer) = self.producers.get_mut(key) else {
                return false;
            };
            let waits = may_hold && producer.may_wait(io) && !is_over;
            if !waits {
                self.fan_out(io, key);
            }
            waits
        });
        let until = || self.held_until.unwrap_or_else(|| io.now + io.hold.time());
        self.held_until = (!dirty.is_empty()).then(until);
        self.dirty_producers = dirty;
    }

    /// When what waits is to be fanned out, complete or not.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Sends what a producer has pending.
    ///
    /// Consumer by consumer, so that the packets of one destination lie next to each other in
    /// the send queue.
    fn fan_out(&mut self, io: &mut Io, producer_key: usize) {
        let producer = &mut self.producers[producer_key];
        producer.cuts.handle_release();
        let mut pending = std::mem::take(&mut producer.pending);
        let producer = &self.producers[producer_key];
        let source = self.transports[producer.transport].id;
        io.black_box.take(Work::Forwarding, self.id, Some(source));
        for &consumer_key in &producer.consumers {
            let consumer = &mut self.consumers[consumer_key];
            let Some(transport_key) = consumer.transport else {
                continue;
            };
            let Some(way) = self.transports[transport_key].way() else {
                continue;
            };
            for (at, &(stream, seq)) in pending.iter().enumerate() {
                let ring = &producer.streams[usize::from(stream)].recv.ring;
                let Some(packet) = ring.get(seq) else {
                    continue;
                };
                let was_on = consumer.is_on(stream);
                if let Some(profile) = consumer.forward(io, way, producer, stream, packet) {
                    let event = Event::EffectiveProfileChange { profile };
                    io.note_consumer(self.id, consumer.id, event);
                }
                if !was_on && consumer.is_on(stream) {
                    let rest = &pending[at + 1..];
                    consumer.catch_up(io, way, producer, (stream, seq), rest);
                }
            }
            self.transports[transport_key].count_sent(consumer.settle(io.now));
        }
        pending.clear();
        self.producers[producer_key].pending = pending;
    }

    /// Lets every consumer of a producer choose its layer again.
    pub(super) fn choose_all(&mut self, io: &mut Io, producer_key: usize) {
        let consumers = self.producers[producer_key].consumers.clone();
        for consumer in consumers {
            self.choose(io, consumer);
        }
    }

    /// Lets a consumer choose its layer and asks for the key frame it needs.
    pub(super) fn choose(&mut self, io: &mut Io, consumer_key: usize) {
        let consumer = &mut self.consumers[consumer_key];
        let producer_key = consumer.producer;
        let choice = consumer.choose(&self.producers[producer_key]);
        if choice.is_lost {
            let profile = Profile::None;
            io.note_consumer(
                self.id,
                consumer.id,
                Event::EffectiveProfileChange { profile },
            );
        }
        if let Some(stream) = choice.keyframe_from {
            self.request_keyframe(io, producer_key, stream, false);
        }
    }

    /// Asks for key frames on behalf of every consumer of a transport that just connected.
    pub(super) fn request_keyframes_for(&mut self, io: &mut Io, transport_key: usize) {
        let consumers = self.transports[transport_key].consumers.clone();
        for consumer in consumers {
            self.request_keyframe_for(io, consumer);
        }
    }

    /// Asks for a key frame on behalf of a consumer.
    pub(super) fn request_keyframe_for(&mut self, io: &mut Io, consumer_key: usize) {
        let consumer = &self.consumers[consumer_key];
        if let Some(stream) = consumer.keyframe_source() {
            self.request_keyframe(io, consumer.producer, stream, false);
        }
    }

    /// Asks a producer for a key frame, unless it was asked within the last second: then the
    /// limiter remembers.
    pub(super) fn request_keyframe(
        &mut self,
        io: &mut Io,
        producer_key: usize,
        stream: u8,
        is_forced: bool,
    ) {
        let producer = &mut self.producers[producer_key];
        let is_paused = producer.paused;
        let Some(stream) = producer.streams.get_mut(usize::from(stream)) else {
            return;
        };
        if is_paused || !(stream.has_pli || stream.has_fir) {
            return;
        }
        let transport = producer.transport;
        if stream.keyframes.request(io.now, is_forced) {
            send_keyframe_request(io, stream, &mut self.transports[transport]);
        }
        self.touch(transport);
    }
}

/// Sends a PLI, or a FIR where only that is negotiated.
pub(super) fn send_keyframe_request(
    io: &mut Io,
    stream: &mut crate::producer::Stream,
    transport: &mut crate::transport::Transport,
) {
    let mut packet = std::mem::take(&mut io.scratch);
    packet.clear();
    if stream.has_pli {
        stream.recv.plis += 1;
        emit_pli(&mut packet, 0, stream.ssrc);
    } else {
        stream.recv.firs += 1;
        stream.fir_seq = stream.fir_seq.wrapping_add(1);
        let entry = FirEntry {
            ssrc: stream.ssrc,
            seq: stream.fir_seq,
        };
        emit_fir(&mut packet, 0, entry);
    }
    stream.note_asked();
    transport.send_rtcp(io, &mut packet);
    io.scratch = packet;
}
