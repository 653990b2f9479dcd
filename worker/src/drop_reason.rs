//! Why a packet went no further. Every packet that disappears is counted under one of these.

use std::collections::BTreeMap;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $Variant:ident = $name:literal,)*) => {
        /// Why a packet went no further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $Variant,)* }

        const NAMES: &[&str] = &[$($name,)*];
    };
}

drop_reasons! {
    /// Neither STUN, DTLS, RTP nor RTCP.
    UnknownProtocol = "unknownProtocol",
    /// From an address that no ICE check vouched for.
    UnknownAddress = "unknownAddress",
    /// A STUN message that is malformed or for nobody here.
    Stun = "stun",
    /// RTP or RTCP before DTLS was done.
    NoKeys = "noKeys",
    /// SRTP or SRTCP that is forged or broken.
    Srtp = "srtp",
    /// SRTP or SRTCP that was seen before or is too old.
    Replayed = "replayed",
    /// Malformed RTP.
    Rtp = "rtp",
    /// Malformed RTCP inside a compound.
    Rtcp = "rtcp",
    /// RTP that belongs to no producer (yet).
    NoProducer = "noProducer",
    /// RTP of a producer that belongs to none of its encodings.
    NoStream = "noStream",
    /// RTX without a payload: bandwidth probing.
    EmptyRtx = "emptyRtx",
    /// A repaired packet that was not missing.
    NotMissing = "notMissing",
    /// A duplicate, or a sequence number far from the stream's.
    Duplicate = "duplicate",
    /// Larger than what can be forwarded.
    TooLarge = "tooLarge",
    /// The packet pool is exhausted.
    PoolExhausted = "poolExhausted",
}

/// Counters by reason.
#[derive(Clone, Debug, Default)]
pub struct Drops([u64; NAMES.len()]);

impl Drops {
    /// Counts one packet.
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// The counters that are not zero, by name.
    pub fn to_map(&self) -> BTreeMap<String, u64> {
        NAMES
            .iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| ((*name).to_owned(), count))
            .collect()
    }
}
