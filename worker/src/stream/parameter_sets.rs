//! Where decoding can begin if parameter sets may come in packets of their own in front of the picture
//! that needs them (RFC 6184, RFC 7798).
//!
//! With those, as a picture without them cannot be decoded: if they are lost they come again, or another
//! picture is asked for. A sender may also tell them elsewhere, as in SDP.

use super::RecvStream;

/// What is known of a stream's parameter sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    /// The last picture to begin with had none.
    are_elsewhere: bool,
}

impl ParameterSets {
    /// Some came.
    pub fn note(&mut self) {
        self.are_elsewhere = false;
    }

    /// Whether a picture to begin with begins with packet `seq` of the time `ts`, which has none but
    /// starts a slice. Where nothing is repeated what was lost is not waited for.
    pub fn are_elsewhere(&mut self, recv: &RecvStream, seq: u64, ts: u32) -> bool {
        let before = (0..seq).rev().map_while(|seq| recv.ring.get(seq));
        for packet in before {
            if packet.header.ts != ts {
                self.are_elsewhere = true;
                return true;
            }
            if packet.info.is_keyframe {
                // It began there.
                return false;
            }
        }
        self.are_elsewhere || !recv.repeats()
    }
}
