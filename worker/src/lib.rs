//! The media engine of one core: ICE-lite, DTLS, SRTP and RTP routing.
//!
//! Sans-IO cores (`wire`, `ice`, `dtls`, `srtp`, `stream`) behind a thin shell
//! (`net`, `event_loop`). See `ARCHITECTURE.md`.

pub mod dtls;
pub mod ice;
pub mod net;
pub mod srtp;
pub mod wire;
