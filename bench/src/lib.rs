//! What drives a worker from outside: the controller's end of its channel, and peers that
//! speak ICE, DTLS and SRTP over real sockets. Used by the load generator and by the tests.

pub mod peer;
pub mod rtp;
pub mod worker;
