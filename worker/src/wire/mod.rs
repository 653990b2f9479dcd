//! Views over bytes: one protocol per file, each with `parse` and `emit`.
//!
//! Nothing in here keeps state, reads a clock or allocates on the packet path. Every parser accepts
//! arbitrary bytes: it answers with a value or a [`ParseError`] and never panics.

pub mod codec;
pub mod h264;
pub mod h265;
pub mod rtcp;
pub mod rtp;
pub mod rtp_ext;
pub mod stun;
pub mod vp8;
pub mod vp9;

/// Why a packet from the network cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The peer sent fewer bytes than the headers promise.
    #[error("packet is shorter than its headers say")]
    Truncated,
    /// The peer sent something that is not RTP or RTCP version 2.
    #[error("version is not 2")]
    Version,
    /// The padding count is zero or reaches into the header.
    #[error("padding count is impossible")]
    Padding,
    /// The packet is longer than 65535 bytes.
    #[error("packet is longer than 65535 bytes")]
    TooLong,
    /// A field contradicts another one.
    #[error("fields contradict each other")]
    Malformed,
}

/// Returns the big-endian 16-bit number at `at`, if the buffer reaches that far.
pub(crate) fn u16_at(buf: &[u8], at: usize) -> Option<u16> {
    let bytes = buf.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

/// Returns the big-endian 32-bit number at `at`, if the buffer reaches that far.
pub(crate) fn u32_at(buf: &[u8], at: usize) -> Option<u32> {
    let bytes = buf.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Returns the big-endian 64-bit number at `at`, if the buffer reaches that far.
pub(crate) fn u64_at(buf: &[u8], at: usize) -> Option<u64> {
    let bytes = buf.get(at..)?.first_chunk()?;
    Some(u64::from_be_bytes(*bytes))
}
