//! Which objects a request is about (`spec: channel.md` §5).

use std::collections::HashMap;
use std::hash::Hash;

use broth_ipc::{ConsumerId, Ids, ProducerId, Rejection, Subject, TransportId};

use super::Router;

impl Router {
    /// Checks that an object of a request is there, or is not there yet.
    pub fn check(&self, subject: Subject, ids: &Ids) -> Result<(), Rejection> {
        match subject {
            // It is this one.
            Subject::Router | Subject::NewRouter => Ok(()),
            Subject::Transport => self.transport_key(ids).map(drop),
            Subject::Producer => self.producer_key(ids).map(drop),
            Subject::Consumer => self.consumer_key(ids).map(drop),
            Subject::NewTransport => free(
                &self.transport_keys,
                transport_id(ids)?,
                "a Transport with same transportId already exists",
            ),
            Subject::NewProducer => free(
                &self.producer_keys,
                producer_id(ids)?,
                "a Producer with same producerId already exists",
            ),
            Subject::NewConsumer => free(
                &self.consumer_keys,
                consumer_id(ids)?,
                "a Consumer with same consumerId already exists",
            ),
        }
    }

    pub(super) fn transport_key(&self, ids: &Ids) -> Result<usize, Rejection> {
        let key = self.transport_keys.get(&transport_id(ids)?).copied();
        key.ok_or_else(|| Rejection::not_found("Transport not found"))
    }

    pub(super) fn producer_key(&self, ids: &Ids) -> Result<usize, Rejection> {
        let key = self.producer_keys.get(&producer_id(ids)?).copied();
        key.ok_or_else(|| Rejection::not_found("Producer not found"))
    }

    pub(super) fn consumer_key(&self, ids: &Ids) -> Result<usize, Rejection> {
        let key = self.consumer_keys.get(&consumer_id(ids)?).copied();
        key.ok_or_else(|| Rejection::not_found("Consumer not found"))
    }
}

pub(super) fn transport_id(ids: &Ids) -> Result<TransportId, Rejection> {
    ids.transport_id.ok_or_else(|| not_numeric("transportId"))
}

pub(super) fn producer_id(ids: &Ids) -> Result<ProducerId, Rejection> {
    ids.producer_id.ok_or_else(|| not_numeric("producerId"))
}

pub(super) fn consumer_id(ids: &Ids) -> Result<ConsumerId, Rejection> {
    ids.consumer_id.ok_or_else(|| not_numeric("consumerId"))
}

fn not_numeric(name: &str) -> Rejection {
    Rejection::invalid(format!("Request has not numeric internal.{name}"))
}

fn free<K: Eq + Hash>(taken: &HashMap<K, usize>, id: K, reason: &str) -> Result<(), Rejection> {
    match taken.contains_key(&id) {
        true => Err(Rejection::exists(reason)),
        false => Ok(()),
    }
}
