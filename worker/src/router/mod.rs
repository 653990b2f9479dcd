//! A router: the part of a room that lives in this worker.
//!
//! Owns its transports, producers and consumers in slabs and knows how they hang together.
//! `ingress` takes datagrams in, `egress` fans packets out, `rtcp` talks about them,
//! `timers` wakes what waits, `subjects` finds what a request is about, `links` and `objects`
//! create and close, `own_sockets` has those of single transports,
//! `recording` keeps what a successor needs. Nothing here looks into a
//! descriptor: packets leave through [`Io`].

mod egress;
mod ingress;
mod links;
mod objects;
mod own_sockets;
mod recording;
mod rtcp;
mod subjects;
mod timers;

use std::collections::HashMap;
use std::time::Instant;

use broth_ipc::body::{RouterDump, RouterSocket, RtpStreamStats, TransportStats};
use broth_ipc::{ConsumerId, Ids, ProducerId, Rejection, RouterId, Scope, TransportId};
use serde_json::Value;
use slab::Slab;

use crate::consumer::Consumer;
use crate::io::Io;
use crate::net::sockets::Path;
use crate::producer::Producer;
use crate::recorder::{Recorder, Recordings};
use crate::transport::Transport;

/// A router.
pub struct Router {
    /// Id in the worker.
    pub id: RouterId,
    key: usize,
    sockets: Vec<RouterSocket>,
    transports: Slab<Transport>,
    producers: Slab<Producer>,
    consumers: Slab<Consumer>,
    transport_keys: HashMap<TransportId, usize>,
    producer_keys: HashMap<ProducerId, usize>,
    consumer_keys: HashMap<ConsumerId, usize>,
    /// Transports by our ufrag: where the first check of a new path goes.
    by_ufrag: HashMap<String, usize>,
    /// Transports by authenticated path.
    by_path: HashMap<Path, usize>,
    /// Producers with packets to fan out.
    dirty_producers: Vec<usize>,
    /// When those whose packets wait for the rest of a frame are fanned out at the latest.
    held_until: Option<Instant>,
    /// Transports whose timers may have changed in this turn.
    touched: Vec<usize>,
    audio_levels_at: Option<Instant>,
    recorder: Recorder,
    /// What an earlier router recorded and nothing took up yet.
    recordings: Recordings,
    /// It is being built again, around what an earlier one recorded.
    is_held: bool,
}

impl Router {
    /// Creates an empty router; `key` is its key in the worker.
    pub fn new(id: RouterId, key: usize, sockets: Vec<RouterSocket>) -> Self {
        Self {
            id,
            key,
            sockets,
            transports: Slab::new(),
            producers: Slab::new(),
            consumers: Slab::new(),
            transport_keys: HashMap::new(),
            producer_keys: HashMap::new(),
            consumer_keys: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_path: HashMap::new(),
            dirty_producers: Vec::new(),
            held_until: None,
            touched: Vec::new(),
            audio_levels_at: None,
            recorder: Recorder::absent(),
            recordings: Recordings::default(),
            is_held: false,
        }
    }

    /// How many transports, producers and consumers there are.
    pub fn counts(&self) -> (usize, usize, usize) {
        (
            self.transports.len(),
            self.producers.len(),
            self.consumers.len(),
        )
    }

    /// The kinds of this router's objects that get notifications under an id.
    pub fn scopes_of(&self, target_id: u32) -> impl Iterator<Item = Scope> {
        let transport = TransportId(target_id);
        let consumer = ConsumerId(target_id);
        [
            (self.id.0 == target_id).then_some(Scope::Router),
            self.transport_keys
                .contains_key(&transport)
                .then_some(Scope::Transport),
            self.consumer_keys
                .contains_key(&consumer)
                .then_some(Scope::Consumer),
        ]
        .into_iter()
        .flatten()
    }

    /// Everything in the router.
    pub fn dump(&self, io: &Io) -> RouterDump {
        let consumers_of = |producer: &Producer| {
            producer
                .consumers
                .iter()
                .map(|&key| self.consumers[key].id.to_string())
                .collect()
        };
        RouterDump {
            router_id: self.id,
            transports: self
                .transports
                .iter()
                .map(|(_, transport)| transport.dump(io))
                .collect(),
            producers: self.producers.iter().map(|(_, p)| p.dump()).collect(),
            consumers: self
                .consumers
                .iter()
                .map(|(_, consumer)| consumer.dump(&self.producers[consumer.producer]))
                .collect(),
            map_producer_consumers: self
                .producers
                .iter()
                .map(|(_, producer)| (producer.id.to_string(), consumers_of(producer)))
                .collect(),
            map_consumer_producer: self
                .consumers
                .iter()
                .map(|(_, consumer)| {
                    let producer = &self.producers[consumer.producer];
                    (consumer.id.to_string(), producer.id.to_string())
                })
                .collect(),
            audio_levels_event_enabled: self.audio_levels_at.is_some(),
        }
    }

    /// Dump of one transport.
    pub fn dump_transport(&self, io: &Io, ids: &Ids) -> Result<Value, Rejection> {
        Ok(self.transports[self.transport_key(ids)?].dump(io))
    }

    /// Stats of one transport; a plain one has none.
    pub fn transport_stats(
        &self,
        io: &Io,
        ids: &Ids,
    ) -> Result<Option<[TransportStats; 1]>, Rejection> {
        let transport = &self.transports[self.transport_key(ids)?];
        let ssrcs = self.video_ssrcs(transport);
        Ok(transport.stats(io, ssrcs).map(|stats| [stats]))
    }

    /// Dump of one producer.
    pub fn dump_producer(&self, ids: &Ids) -> Result<broth_ipc::body::ProducerDump, Rejection> {
        Ok(self.producers[self.producer_key(ids)?].dump())
    }

    /// Stats of one producer.
    pub fn producer_stats(&self, io: &Io, ids: &Ids) -> Result<Vec<RtpStreamStats>, Rejection> {
        let producer = &self.producers[self.producer_key(ids)?];
        Ok(producer.stats(io, self.transports[producer.transport].id))
    }

    /// Dump of one consumer.
    pub fn dump_consumer(&self, ids: &Ids) -> Result<broth_ipc::body::ConsumerDump, Rejection> {
        let consumer = &self.consumers[self.consumer_key(ids)?];
        Ok(consumer.dump(&self.producers[consumer.producer]))
    }

    /// Stats of one consumer.
    pub fn consumer_stats(&self, io: &Io, ids: &Ids) -> Result<Vec<RtpStreamStats>, Rejection> {
        let consumer = &self.consumers[self.consumer_key(ids)?];
        let Some(transport) = consumer.transport else {
            return Ok(Vec::new());
        };
        let producer = &self.producers[consumer.producer];
        Ok(consumer.stats(io, producer, self.transports[transport].id))
    }

    fn video_ssrcs(&self, transport: &Transport) -> Vec<u32> {
        transport
            .producers
            .iter()
            .flat_map(|&key| &self.producers[key].streams)
            .filter(|stream| stream.has_pli || stream.has_fir)
            .map(|stream| stream.ssrc)
            .collect()
    }
}
