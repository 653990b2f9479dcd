//! The shell around the sans-IO cores: sockets and framing.

pub mod tcp_frame;
