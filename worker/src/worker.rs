//! Everything one worker process holds.

use std::collections::HashMap;

use broth_ipc::RouterId;
use slab::Slab;

use crate::io::Io;
use crate::load::LoadMeter;
use crate::router::Router;

/// Everything one worker process holds.
pub struct Worker {
    /// The id given on the command line.
    pub id: String,
    /// Shared by all routers.
    pub io: Io,
    /// Routers by key.
    pub routers: Slab<Router>,
    /// Router keys by id.
    pub router_keys: HashMap<RouterId, usize>,
    /// What the worker costs.
    pub meter: LoadMeter,
}

impl Worker {
    /// Creates a worker without routers.
    pub fn new(id: String, io: Io) -> Self {
        let meter = LoadMeter::new(io.now);
        Self {
            id,
            io,
            routers: Slab::new(),
            router_keys: HashMap::new(),
            meter,
        }
    }
}
