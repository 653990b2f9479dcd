//! Everything one worker process holds.

use std::collections::HashMap;

use broth_ipc::RouterId;
use broth_ipc::body::Misbehave;
use slab::Slab;

use crate::dialect::Dialect;
use crate::io::Io;
use crate::load::LoadMeter;
use crate::log::Tag;
use crate::router::Router;
use crate::settings::Family;

/// Everything one worker process holds.
pub struct Worker {
    /// The id given on the command line.
    pub id: String,
    /// How the controller is talked to.
    pub dialect: Dialect,
    /// Shared by all routers.
    pub io: Io,
    /// Routers by key.
    pub routers: Slab<Router>,
    /// Router keys by id.
    pub router_keys: HashMap<RouterId, usize>,
    /// Whether it does to itself what it is asked.
    pub is_obedient: bool,
    /// What it does once it has answered.
    pub misbehaviour: Option<Misbehave>,
    /// What the worker costs.
    pub meter: LoadMeter,
}

impl Worker {
    /// Creates a worker without routers.
    pub fn new(id: String, io: Io) -> Self {
        let meter = LoadMeter::new(io.now);
        Self {
            id,
            dialect: Dialect::default(),
            io,
            routers: Slab::new(),
            router_keys: HashMap::new(),
            is_obedient: false,
            misbehaviour: None,
            meter,
        }
    }

    /// Says what the settings are, to whoever asked for that much.
    pub fn log_configuration(&mut self) {
        let (level, tags) = self.io.log.settings();
        let mut lines = vec![
            format!("logLevel: {}", level.name()),
            format!("logTags: {}", tags.names()),
        ];
        if !self.io.log.is_enabled(Tag::Info) {
            return;
        }
        for family in [Family::V4, Family::V6] {
            let name = family.name();
            lines.push(match self.io.binder.ip(family) {
                Some(ip) => format!("rtc{name}: {ip}"),
                None => format!("rtc{name}: (unavailable)"),
            });
            if let Some(announced) = self.io.binder.announced(family) {
                lines.push(format!("rtcAnnounced{name}: {announced}"));
            }
        }
        for line in lines {
            let place = "Settings::PrintConfiguration";
            self.io.log.debug(Tag::Info, place, || line);
        }
    }
}
