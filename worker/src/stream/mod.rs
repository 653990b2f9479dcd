//! State of one RTP stream each way: order, repair, renumbering, reports.
//!
//! One SSRC at a time, sans-IO: packets and `now` in, decisions out. What belongs together for
//! a received stream is composed in [`RecvStream`], for a sent one in [`SendStream`].

mod arrivals;
mod audio_level;
mod hold;
mod keyframe;
mod nack;
mod numbering;
mod parameter_sets;
mod pool;
mod rate;
mod recv;
mod retransmit;
mod send;
mod sent_log;
mod seq;

pub use arrivals::Arrivals;
pub use audio_level::LevelMeter;
pub use hold::{Cuts, Hold};
pub use keyframe::KeyFrameLimiter;
pub use nack::{NackAction, NackGenerator, Seen};
pub use numbering::{Numbering, Picture, PictureIds, TsOffset};
pub use parameter_sets::ParameterSets;
pub use pool::{BUFFER_LEN, PacketId, PacketPool};
pub use rate::RateMeter;
pub use recv::{RecvConfig, RecvStream};
pub use retransmit::{RetransmitRing, StoredPacket};
pub use send::SendStream;
pub use sent_log::{Sent, SentLog};
pub use seq::{DROPOUT_MAX, Unwrapper};

#[cfg(test)]
mod tests;
