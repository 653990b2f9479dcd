//! The media engine of one core: ICE-lite, DTLS, SRTP and RTP routing.
//!
//! Sans-IO cores (`wire`, `ice`, `dtls`, `srtp`, `stream`) behind a thin shell
//! (`net`, `event_loop`). See `ARCHITECTURE.md`.

pub mod black_box;
pub mod consumer;
mod control;
pub mod dialect;
pub mod drop_reason;
pub mod dtls;
pub mod event_loop;
pub mod ice;
pub mod io;
mod load;
pub mod log;
mod misbehave;
pub mod net;
mod parameters;
#[cfg(feature = "poison")]
pub mod poison;
pub mod ports;
pub mod producer;
pub mod recorder;
pub mod router;
mod run;
pub mod settings;
pub mod srtp;
pub mod stream;
pub mod transport;
pub mod wire;
pub mod worker;

pub use run::{RUN_WORKER_ENV, run, run_if_asked};
