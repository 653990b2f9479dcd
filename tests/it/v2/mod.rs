//! The worker as mediasoup v2's controller meets it.

mod replay;
mod traces;
