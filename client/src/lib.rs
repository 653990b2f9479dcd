//! What drives a worker from outside: the controller's end of its channel, and peers that
//! speak ICE, DTLS and SRTP, or plain RTP, over real sockets. Used by the load generator, by
//! `broth chaos` and by the tests.

pub mod burst;
pub mod client;
pub mod peer;
pub mod recv_track;
pub mod rtp;
pub mod send_track;
pub mod stamped;
pub mod worker;
