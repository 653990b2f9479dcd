//! Whole-system scenarios: a worker as it runs in production, real sockets, real peers.

#![allow(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod bad_input;
mod codecs;
mod conformance;
mod controller;
mod early;
mod forwarding;
mod ice_tcp;
mod mirroring;
mod own_ports;
mod plain;
mod recovery;
mod simulcast;
mod support;
mod suspension;
mod system_calls;
mod v2;
