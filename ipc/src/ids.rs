//! Ids of the objects that live in a worker, and the id set that addresses a request.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::read::Members;

macro_rules! id {
    ($(#[$doc:meta])* $Name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $Name(pub u32);

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A router: the part of a room that lives in a worker. Unique in its worker.
    RouterId
);
id!(
    /// A transport. Unique in its router.
    TransportId
);
id!(
    /// A producer. Unique in its router.
    ProducerId
);
id!(
    /// A consumer. Unique in its router.
    ConsumerId
);

/// An object that a request is about, and whether it has to be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A router that exists.
    Router,
    /// A router still to be created.
    NewRouter,
    /// A transport that exists.
    Transport,
    /// A transport still to be created.
    NewTransport,
    /// A producer that exists.
    Producer,
    /// A producer still to be created.
    NewProducer,
    /// A consumer that exists.
    Consumer,
    /// A consumer still to be created.
    NewConsumer,
}

/// The `internal` member of a request: which objects it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    /// The router, needed by all but the `worker.*` methods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_id: Option<RouterId>,
    /// The transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport_id: Option<TransportId>,
    /// The producer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_id: Option<ProducerId>,
    /// The consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_id: Option<ConsumerId>,
}

impl Ids {
    /// No object: a request to the worker itself.
    pub const NONE: Self = Self {
        router_id: None,
        transport_id: None,
        producer_id: None,
        consumer_id: None,
    };

    /// Addresses a router.
    pub fn router(router: RouterId) -> Self {
        Self {
            router_id: Some(router),
            ..Self::NONE
        }
    }

    /// Adds a transport.
    #[must_use]
    pub fn transport(self, transport: TransportId) -> Self {
        Self {
            transport_id: Some(transport),
            ..self
        }
    }

    /// Adds a producer.
    #[must_use]
    pub fn producer(self, producer: ProducerId) -> Self {
        Self {
            producer_id: Some(producer),
            ..self
        }
    }

    /// Adds a consumer.
    #[must_use]
    pub fn consumer(self, consumer: ConsumerId) -> Self {
        Self {
            consumer_id: Some(consumer),
            ..self
        }
    }

    /// Reads the ids; a member that is not a `u32` counts as absent.
    pub(crate) fn read(internal: Members<'_>) -> Self {
        Self {
            router_id: internal.uint("routerId").map(RouterId),
            transport_id: internal.uint("transportId").map(TransportId),
            producer_id: internal.uint("producerId").map(ProducerId),
            consumer_id: internal.uint("consumerId").map(ConsumerId),
        }
    }
}
