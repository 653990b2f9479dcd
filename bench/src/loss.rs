//! Loss on purpose: viewers take some of what arrives for lost and ask for it again.

use broth_client::client::Client;
use broth_client::rtp::{RTX_PT, VP8_PT};
use broth_worker::wire::rtp::peek_ssrc;

/// A step that spreads whole numbers evenly over 32 bits.
const SPREAD: u32 = 0x9E37_79B9;

/// Who loses what, for all viewers.
pub(crate) struct Losses {
    /// Of 2^32 packets.
    share: u64,
    seen: u32,
    /// SSRC and number of what the viewer lost who is being served.
    lost: Vec<(u32, u16)>,
    seqs: Vec<u16>,
    /// Of the next message under any viewer's keys.
    rtcp_index: u32,
}

impl Losses {
    /// So many percent are lost.
    pub(crate) fn new(percent: u32) -> Self {
        Self {
            share: (u64::from(percent) << 32) / 100,
            seen: 0,
            lost: Vec::new(),
            seqs: Vec::new(),
            rtcp_index: 0,
        }
    }

    /// Whether the viewer loses this packet. What it gets again is never lost, nor is audio, which
    /// nobody repeats.
    pub(crate) fn take(&mut self, packet: &[u8]) -> bool {
        if self.share == 0 || packet[1] & 0x7F != VP8_PT {
            return false;
        }
        self.seen = self.seen.wrapping_add(SPREAD);
        let is_lost = u64::from(self.seen) < self.share;
        if is_lost {
            let seq = u16::from_be_bytes([packet[2], packet[3]]);
            self.lost.extend(peek_ssrc(packet).map(|ssrc| (ssrc, seq)));
        }
        is_lost
    }

    /// Lets the viewer ask for what it lost, with one message per stream.
    pub(crate) fn complain(&mut self, viewer: &Client) {
        while let Some(&(ssrc, _)) = self.lost.first() {
            let own = self.lost.extract_if(.., |(of, _)| *of == ssrc);
            self.seqs.clear();
            self.seqs.extend(own.map(|(_, seq)| seq));
            // Should it not get through, packets will be missing.
            let _ = viewer.nack(self.rtcp_index, ssrc, &self.seqs);
            self.rtcp_index += 1;
        }
    }
}

/// Whether a packet repeats another one.
pub(crate) fn is_repeated(packet: &[u8]) -> bool {
    packet[1] & 0x7F == RTX_PT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(pt: u8) -> [u8; 12] {
        [0x80, 0x80 | pt, 1, 2, 0, 0, 0, 0, 0, 0, 0, 9]
    }

    #[test]
    fn the_share_is_lost_and_spread_evenly() {
        let mut losses = Losses::new(5);
        let lost: Vec<_> = (0..10_000)
            .filter(|_| losses.take(&packet(VP8_PT)))
            .collect();
        assert!((495..=505).contains(&lost.len()), "{}", lost.len());
        assert!(
            lost.windows(2)
                .all(|pair| (5..=60).contains(&(pair[1] - pair[0])))
        );
        assert_eq!(losses.lost[0], (9, 0x102));
    }

    #[test]
    fn what_cannot_be_repeated_is_not_lost() {
        let mut losses = Losses::new(100);
        assert!(!losses.take(&packet(RTX_PT)));
        assert!(is_repeated(&packet(RTX_PT)));
        assert!(losses.take(&packet(VP8_PT)));
        assert!(!Losses::new(0).take(&packet(VP8_PT)));
    }
}
