//! The worker as mediasoup v2's controller meets it.

mod live;
mod replay;
mod robustness;
mod traces;
