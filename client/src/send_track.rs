//! A stream of RTP that a client sends: its numbers, what was sent lately, and that once more
//! for who asks (RFC 4585, RFC 4588). Does not send anything itself.

use std::collections::VecDeque;

use broth_worker::wire::rtp::FIXED_HEADER_LEN;

use crate::rtp::{OSN_LEN, RTX_PT, opus_packet, vp8_packet};

/// Room for a packet and a tag.
pub const PACKET_BYTES: usize = 1500;
/// Packets that can be sent once more: eight seconds of 60 a second.
const KEPT: usize = 512;
/// First number: a rollover comes within seconds.
const FIRST: u64 = 65_000;

/// What is in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Frames of VP8, 30 a second by their timestamps, with RTX on the next SSRC.
    Vp8 {
        /// Packets of a frame.
        frame_packets: u16,
        /// Bytes of a packet before it is sealed.
        packet_len: usize,
    },
    /// Packets of opus of 20 ms, which are not sent once more.
    Opus {
        /// Bytes of a packet before it is sealed.
        packet_len: usize,
    },
}

/// A packet that was sent: enough to write it again.
#[derive(Clone, Copy, Debug)]
struct Sent {
    index: u64,
    ts: u32,
    is_keyframe: bool,
    is_start: bool,
}

/// A written packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its SRTP index: rollovers and sequence number.
    pub index: u64,
    /// Its length, without a tag.
    pub len: usize,
}

/// A stream that is sent.
#[derive(Debug)]
pub struct SendTrack {
    media: Media,
    ssrc: u32,
    next: u64,
    next_rtx: u64,
    ts: u32,
    is_keyframe_wanted: bool,
    sent: VecDeque<Sent>,
}

impl SendTrack {
    /// A stream that begins with a key frame.
    pub fn new(media: Media, ssrc: u32) -> Self {
        Self {
            media,
            ssrc,
            next: FIRST,
            next_rtx: 0,
            ts: 0,
            is_keyframe_wanted: true,
            sent: VecDeque::new(),
        }
    }

    /// Its SSRC.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Makes the next frame a key frame.
    pub fn want_keyframe(&mut self) {
        self.is_keyframe_wanted = true;
    }

    /// Packets of the next frame.
    pub fn frame_packets(&self) -> u16 {
        match self.media {
            Media::Vp8 { frame_packets, .. } => frame_packets,
            Media::Opus { .. } => 1,
        }
    }

    /// Writes packet `n` of the next frame; the last one ends the frame.
    ///
    /// # Panics
    /// A packet has more than [`PACKET_BYTES`] with its tag.
    pub fn write(&mut self, n: u16, buffer: &mut [u8; PACKET_BYTES]) -> Written {
        let sent = Sent {
            index: self.next,
            ts: self.ts,
            is_keyframe: n == 0 && self.is_keyframe_wanted,
            is_start: n == 0,
        };
        self.next += 1;
        if n + 1 == self.frame_packets() {
            self.is_keyframe_wanted = false;
            self.ts = self.ts.wrapping_add(match self.media {
                Media::Vp8 { .. } => 3000,
                Media::Opus { .. } => 960,
            });
        }
        if matches!(self.media, Media::Vp8 { .. }) {
            if self.sent.len() == KEPT {
                self.sent.pop_front();
            }
            self.sent.push_back(sent);
        }
        Written {
            index: sent.index,
            len: self.write_again(sent, buffer),
        }
    }

    /// Writes the RTX packet that repeats the packet of that number; `None` if that is forgotten.
    pub fn repeat(&mut self, seq: u16, buffer: &mut [u8; PACKET_BYTES]) -> Option<Written> {
        let is_it = |sent: &&Sent| sent.index as u16 == seq;
        let sent = *self.sent.iter().rev().find(is_it)?;
        let len = self.write_again(sent, buffer);
        buffer.copy_within(FIXED_HEADER_LEN..len, FIXED_HEADER_LEN + OSN_LEN);
        buffer[FIXED_HEADER_LEN..FIXED_HEADER_LEN + OSN_LEN].copy_from_slice(&seq.to_be_bytes());
        let index = self.next_rtx;
        self.next_rtx += 1;
        buffer[1] = buffer[1] & 0x80 | RTX_PT;
        buffer[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        buffer[8..12].copy_from_slice(&(self.ssrc + 1).to_be_bytes());
        Some(Written {
            index,
            len: len + OSN_LEN,
        })
    }

    fn write_again(&self, sent: Sent, buffer: &mut [u8]) -> usize {
        // What was in the buffer before is no part of the packet.
        buffer.fill(0);
        let seq = sent.index as u16;
        match self.media {
            Media::Vp8 { packet_len, .. } => vp8_packet(
                buffer,
                self.ssrc,
                seq,
                sent.ts,
                sent.is_keyframe,
                sent.is_start,
                packet_len.saturating_sub(FIXED_HEADER_LEN),
            ),
            Media::Opus { packet_len } => {
                let payload_len = packet_len.saturating_sub(FIXED_HEADER_LEN);
                opus_packet(buffer, self.ssrc, seq, sent.ts, payload_len)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use broth_worker::wire::rtp::RtpHeader;
    use broth_worker::wire::vp8::Vp8Descriptor;

    use super::*;

    const VIDEO: Media = Media::Vp8 {
        frame_packets: 2,
        packet_len: 200,
    };

    fn next(track: &mut SendTrack) -> Vec<(u64, Vec<u8>)> {
        let count = track.frame_packets();
        let write = |n| {
            let mut buffer = [0; PACKET_BYTES];
            let written = track.write(n, &mut buffer);
            (written.index, buffer[..written.len].to_vec())
        };
        (0..count).map(write).collect()
    }

    #[test]
    fn frames_are_numbered_and_key_frames_come_when_wanted() {
        let mut track = SendTrack::new(VIDEO, 10);
        let mut key_frames = Vec::new();
        for frame in 0..4 {
            if frame == 2 {
                track.want_keyframe();
            }
            for (n, (index, packet)) in (0..).zip(next(&mut track)) {
                let header = RtpHeader::parse(&packet).unwrap();
                assert_eq!(index, FIRST + frame * 2 + n);
                assert_eq!((header.ssrc, header.seq), (10, index as u16));
                assert_eq!((header.ts, packet.len()), (frame as u32 * 3000, 200));
                let payload = header.payload(&packet);
                if Vp8Descriptor::parse(payload).unwrap().is_keyframe {
                    key_frames.push((frame, n));
                }
            }
        }
        assert_eq!(key_frames, [(0, 0), (2, 0)]);
    }

    #[test]
    fn what_is_asked_for_is_repeated_under_numbers_of_its_own() {
        let mut track = SendTrack::new(VIDEO, 10);
        let first = next(&mut track).remove(0).1;
        let mut buffer = [0; PACKET_BYTES];
        for index in 0..2 {
            let written = track.repeat(FIRST as u16, &mut buffer).unwrap();
            assert_eq!((written.index, written.len), (index, first.len() + OSN_LEN));
            let header = RtpHeader::parse(&buffer[..written.len]).unwrap();
            assert_eq!((header.ssrc, header.pt), (11, RTX_PT));
            assert_eq!((header.seq, header.ts), (index as u16, 0));
            let payload = header.payload(&buffer[..written.len]);
            assert_eq!(payload[..OSN_LEN], (FIRST as u16).to_be_bytes());
            assert_eq!(payload[OSN_LEN..], first[FIXED_HEADER_LEN..]);
        }
        assert_eq!(track.repeat(FIRST as u16 + 2, &mut buffer), None);
        for _ in 0..KEPT / 2 {
            next(&mut track);
        }
        assert_eq!(track.repeat(FIRST as u16, &mut buffer), None);
    }

    #[test]
    fn opus_is_not_repeated() {
        let mut track = SendTrack::new(Media::Opus { packet_len: 92 }, 10);
        let (index, packet) = next(&mut track).remove(0);
        assert_eq!(packet.len(), 92);
        let mut buffer = [0; PACKET_BYTES];
        assert_eq!(track.repeat(index as u16, &mut buffer), None);
    }
}
