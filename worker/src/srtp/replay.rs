//! Which packet indices of one SSRC were received (RFC 3711 §3.3.1, §3.3.2).
//! Plain `Copy` data: a recorder can hold it, a successor can go on from it.

use super::SrtpError;

/// Words of the RTP window. 1024 packets, so that a retransmission without RTX
/// is still accepted a second later at 1000 packets/s.
const RTP_WORDS: usize = 16;
/// Words of the RTCP window; RTCP is rare.
const RTCP_WORDS: usize = 2;
/// RTP indices have 48 bits.
const RTP_INDEX_END: u64 = 1 << 48;

/// Highest index seen and a bit for each one before it.
///
/// Bit `index % len` tells of `index`, so advancing clears instead of shifting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window<const WORDS: usize> {
    highest: Option<u64>,
    seen: [u64; WORDS],
}

impl<const WORDS: usize> Window<WORDS> {
    const LEN: u64 = WORDS as u64 * 64;

    fn new() -> Self {
        Self {
            highest: None,
            seen: [0; WORDS],
        }
    }

    fn resumed(highest: u64) -> Self {
        Self {
            highest: Some(highest),
            seen: [u64::MAX; WORDS],
        }
    }

    fn check(&self, index: u64) -> Result<(), SrtpError> {
        let Some(highest) = self.highest else {
            return Ok(());
        };
        if index > highest {
            return Ok(());
        }
        if highest - index >= Self::LEN {
            return Err(SrtpError::TooOld);
        }
        if self.seen[Self::word(index)] & Self::bit(index) != 0 {
            return Err(SrtpError::Replayed);
        }
        Ok(())
    }

    fn record(&mut self, index: u64) {
        match self.highest {
            None => self.highest = Some(index),
            Some(highest) if index > highest => {
                if index - highest >= Self::LEN {
                    self.seen = [0; WORDS];
                } else {
                    for skipped in highest + 1..index {
                        self.seen[Self::word(skipped)] &= !Self::bit(skipped);
                    }
                }
                self.highest = Some(index);
            }
            Some(_) => {}
        }
        self.seen[Self::word(index)] |= Self::bit(index);
    }

    fn word(index: u64) -> usize {
        (index / 64) as usize % WORDS
    }

    fn bit(index: u64) -> u64 {
        1 << (index % 64)
    }
}

/// What was received of one SSRC: the highest `roc << 16 | seq`, and a window
/// of 1024 packets before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvIndex(Window<RTP_WORDS>);

impl RecvIndex {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self(Window::new())
    }

    /// Goes on from a recorded highest index; everything up to it counts as
    /// received, since what exactly was is not recorded.
    pub fn resumed(highest: u64) -> Self {
        Self(Window::resumed(highest))
    }

    /// The highest authenticated index.
    pub fn highest(&self) -> Option<u64> {
        self.0.highest
    }

    /// The index nearest to the highest one that has this sequence number
    /// (RFC 3711 §3.3.1); never below zero.
    pub fn guess(&self, seq: u16) -> u64 {
        let Some(highest) = self.0.highest else {
            return u64::from(seq);
        };
        let distance = seq.wrapping_sub(highest as u16).cast_signed();
        highest
            .checked_add_signed(i64::from(distance))
            .unwrap_or_else(|| u64::from(seq))
    }

    pub(super) fn check(&self, index: u64) -> Result<(), SrtpError> {
        if index >= RTP_INDEX_END {
            return Err(SrtpError::KeyExhausted);
        }
        self.0.check(index)
    }

    pub(super) fn record(&mut self, index: u64) {
        self.0.record(index);
    }
}

impl Default for RecvIndex {
    fn default() -> Self {
        Self::new()
    }
}

/// The SRTCP indices received from one SSRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcpReplay(Window<RTCP_WORDS>);

impl RtcpReplay {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self(Window::new())
    }

    /// Goes on from a recorded highest index, see [`RecvIndex::resumed`].
    pub fn resumed(highest: u32) -> Self {
        Self(Window::resumed(u64::from(highest)))
    }

    /// The highest authenticated index.
    pub fn highest(&self) -> Option<u32> {
        self.0.highest.map(|index| index as u32)
    }

    pub(super) fn check(&self, index: u64) -> Result<(), SrtpError> {
        self.0.check(index)
    }

    pub(super) fn record(&mut self, index: u64) {
        self.0.record(index);
    }
}

impl Default for RtcpReplay {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_index_nearest_to_the_highest_is_guessed() {
        let rows = [
            (None, 65_535, 65_535),
            (Some(10), 11, 11),
            (Some(10), 9, 9),
            (Some(65_535), 0, 65_536),
            (Some(65_536), 65_535, 65_535),
            (Some(65_536 + 40_000), 0, 2 * 65_536),
            (Some(65_536 + 20_000), 65_000, 65_000),
            (Some(5), 65_535, 65_535),
        ];
        for (highest, seq, expected) in rows {
            let recv_index = RecvIndex(Window {
                highest,
                seen: [0; RTP_WORDS],
            });
            assert_eq!(recv_index.guess(seq), expected, "{highest:?} {seq}");
        }
    }

    #[test]
    fn a_resumed_index_takes_only_what_is_new() {
        let resumed = RecvIndex::resumed(70_000);
        assert_eq!(resumed.check(70_000), Err(SrtpError::Replayed));
        assert_eq!(resumed.check(69_500), Err(SrtpError::Replayed));
        assert_eq!(resumed.check(60_000), Err(SrtpError::TooOld));
        assert_eq!(resumed.check(70_001), Ok(()));
    }

    #[test]
    fn no_index_comes_after_the_last() {
        let last = RTP_INDEX_END - 1;
        let resumed = RecvIndex::resumed(last);
        assert_eq!(resumed.guess(3), last + 4);
        assert_eq!(resumed.check(last + 4), Err(SrtpError::KeyExhausted));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(
            steps in prop::collection::vec(-300i64..300, 1..200),
        ) {
            let mut window = Window::<RTCP_WORDS>::new();
            let mut model = BTreeSet::new();
            let mut at = 1000u64;
            for step in steps {
                at = at.saturating_add_signed(step);
                let expected = match model.last() {
                    Some(&highest) if at < highest && highest - at >= 128 => Err(SrtpError::TooOld),
                    _ if model.contains(&at) => Err(SrtpError::Replayed),
                    _ => Ok(()),
                };
                prop_assert_eq!(window.check(at), expected);
                if expected.is_ok() {
                    window.record(at);
                    model.insert(at);
                }
            }
        }
    }
}
