//! The commands besides the server. `publish` and `record` join a room from outside, with ffmpeg at
//! the other end of plain RTP: they are clients of the server's sockets like any other and share
//! nothing with it. `chaos` has a server of its own.

pub(crate) mod chaos;
mod client;
mod ffmpeg;
mod ports;
mod probe;
pub(crate) mod publish;
pub(crate) mod record;
mod sdp;

/// Where a server listens unless told otherwise.
const SERVER: &str = "ws://127.0.0.1:3000";
