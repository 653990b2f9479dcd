//! Creating and closing producers and consumers, and changing them.

use broth_ipc::body::{CreateConsumer, CreateProducer, EnableConsumer};
use broth_ipc::rtp::{Profile, RtpEncodingParameters};
use broth_ipc::{Event, Ids, Rejection};

use super::Router;
use super::subjects::{consumer_id, producer_id};
use crate::consumer::Consumer;
use crate::io::Io;
use crate::producer::Producer;

impl Router {
    /// Creates a producer on a transport.
    pub fn create_producer(&mut self, ids: &Ids, request: CreateProducer) -> Result<(), Rejection> {
        let id = producer_id(ids)?;
        let transport_key = self.transport_key(ids)?;
        let producer = Producer::new(id, transport_key, request);
        let entry = self.producers.vacant_entry();
        let key = entry.key();
        let transport = &mut self.transports[transport_key];
        transport.listener.add(key, id, &producer.parameters)?;
        transport.producers.push(key);
        entry.insert(producer);
        self.producer_keys.insert(id, key);
        self.restore_streams(key);
        Ok(())
    }

    /// Creates a consumer of a producer; it does not send before it is enabled.
    pub fn create_consumer(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        request: CreateConsumer,
    ) -> Result<(), Rejection> {
        let id = consumer_id(ids)?;
        let producer_key = self.producer_key(ids)?;
        let producer = &mut self.producers[producer_key];
        if producer.kind != request.kind {
            return Err(Rejection::invalid("not matching kind"));
        }
        let key = self
            .consumers
            .insert(Consumer::new(id, producer_key, producer));
        producer.consumers.push(key);
        self.consumer_keys.insert(id, key);
        // Whoever builds it again knows.
        if producer.paused && !self.is_held {
            io.note_consumer(self.id, id, Event::SourcePaused);
        }
        Ok(())
    }

    /// Starts a consumer on a transport.
    pub fn enable_consumer(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        request: EnableConsumer,
    ) -> Result<(), Rejection> {
        let key = self.consumer_key(ids)?;
        let transport_key = self.transport_key(ids)?;
        let consumer = &mut self.consumers[key];
        if consumer.transport.is_some() {
            return Err(Rejection::state("Consumer already enabled"));
        }
        let transport = &mut self.transports[transport_key];
        // One SRTP key seals all consumers of a transport: an SSRC must never be used by two.
        let encodings = request.rtp_parameters.encodings.iter();
        let taken = encodings
            .flat_map(RtpEncodingParameters::ssrcs)
            .find(|ssrc| transport.consumer_by_ssrc.contains_key(ssrc));
        if let Some(ssrc) = taken {
            return Err(Rejection::exists(format!(
                "ssrc already exists on the Transport [ssrc:{ssrc}]"
            )));
        }
        consumer.enable(io.now, transport_key, request.rtp_parameters)?;
        if let Some(sending) = &consumer.sending {
            let rtx = sending.rtx.map(|(ssrc, _)| ssrc);
            for ssrc in [Some(sending.ssrc), rtx].into_iter().flatten() {
                transport.consumer_by_ssrc.insert(ssrc, key);
            }
        }
        transport.consumers.push(key);
        let has_hole = self.record_consumer(io, key, transport_key);
        self.choose(io, key);
        if has_hole {
            self.request_keyframe_for(io, key);
        }
        Ok(())
    }

    /// Pauses or resumes a producer and tells its consumers.
    pub fn pause_producer(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        is_paused: bool,
    ) -> Result<(), Rejection> {
        let key = self.producer_key(ids)?;
        let producer = &mut self.producers[key];
        if producer.paused == is_paused {
            return Ok(());
        }
        producer.paused = is_paused;
        for consumer in producer.consumers.clone() {
            let consumer = &mut self.consumers[consumer];
            consumer.source_paused = is_paused;
            consumer.restart(io.now);
            let event = if is_paused {
                Event::SourcePaused
            } else {
                Event::SourceResumed
            };
            if !self.is_held {
                io.note_consumer(self.id, consumer.id, event);
            }
        }
        if !is_paused {
            self.choose_all(io, key);
        }
        Ok(())
    }

    /// Pauses or resumes a consumer.
    pub fn pause_consumer(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        is_paused: bool,
    ) -> Result<(), Rejection> {
        let key = self.consumer_key(ids)?;
        let consumer = &mut self.consumers[key];
        if consumer.paused != is_paused {
            consumer.paused = is_paused;
            consumer.restart(io.now);
            self.choose(io, key);
        }
        Ok(())
    }

    /// Sets the layer of a producer's consumers without a wish of their own.
    pub fn set_producer_profile(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        profile: Profile,
    ) -> Result<(), Rejection> {
        let key = self.producer_key(ids)?;
        self.producers[key].preferred = profile;
        self.choose_all(io, key);
        Ok(())
    }

    /// Sets the layer a consumer wants.
    pub fn set_consumer_profile(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        profile: Profile,
    ) -> Result<(), Rejection> {
        let key = self.consumer_key(ids)?;
        self.consumers[key].preferred = profile;
        self.choose(io, key);
        Ok(())
    }

    /// Limits the temporal layers of a consumer.
    pub fn set_temporal_max(&mut self, ids: &Ids, layer: Option<u8>) -> Result<(), Rejection> {
        let key = self.consumer_key(ids)?;
        self.consumers[key].temporal_max = layer.unwrap_or(u8::MAX);
        Ok(())
    }

    /// Asks a consumer's source for a key frame.
    pub fn ask_keyframe(&mut self, io: &mut Io, ids: &Ids) -> Result<(), Rejection> {
        let key = self.consumer_key(ids)?;
        self.request_keyframe_for(io, key);
        Ok(())
    }

    /// Closes a producer and its consumers.
    pub fn close_producer(&mut self, io: &mut Io, ids: &Ids) -> Result<(), Rejection> {
        let key = self.producer_key(ids)?;
        self.remove_producer(io, key);
        Ok(())
    }

    /// Closes a consumer.
    pub fn close_consumer(&mut self, io: &mut Io, ids: &Ids) -> Result<(), Rejection> {
        let key = self.consumer_key(ids)?;
        self.remove_consumer(io, key);
        Ok(())
    }

    /// Closes everything, consumers before transports; the shared sockets are the caller's.
    pub fn close(&mut self, io: &mut Io) {
        let producers: Vec<_> = self.producers.iter().map(|(key, _)| key).collect();
        for key in producers {
            self.remove_producer(io, key);
        }
        let transports: Vec<_> = self.transports.iter().map(|(key, _)| key).collect();
        for key in transports {
            self.remove_transport(io, key);
        }
        self.forget_recordings();
    }

    pub(super) fn remove_producer(&mut self, io: &mut Io, key: usize) {
        for consumer in self.producers[key].consumers.clone() {
            self.remove_consumer(io, consumer);
        }
        let mut producer = self.producers.remove(key);
        producer.clear(io);
        for stream in &mut producer.streams {
            if let Some(entry) = stream.take_entry() {
                self.recorder.remove(entry);
            }
        }
        self.producer_keys.remove(&producer.id);
        self.dirty_producers.retain(|dirty| *dirty != key);
        let transport = &mut self.transports[producer.transport];
        transport.listener.remove(key);
        transport.producers.retain(|owned| *owned != key);
    }

    fn remove_consumer(&mut self, io: &mut Io, key: usize) {
        let mut consumer = self.consumers.remove(key);
        self.consumer_keys.remove(&consumer.id);
        self.producers[consumer.producer]
            .consumers
            .retain(|owned| *owned != key);
        if let Some(transport) = consumer.transport {
            let transport = &mut self.transports[transport];
            transport.consumers.retain(|owned| *owned != key);
            transport.consumer_by_ssrc.retain(|_, owner| *owner != key);
        }
        if let Some(transport) = consumer.transport {
            self.count_senders(transport);
        }
        self.forget_consumer(consumer.take_entry());
        io.note_consumer(self.id, consumer.id, Event::Close);
    }
}
