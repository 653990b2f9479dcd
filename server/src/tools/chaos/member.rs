//! A participant: what it sends, what it receives, and its answers to feedback.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use broth_client::peer::Peer;
use broth_client::recv_track::RecvTrack;
use broth_client::rtp::{OSN_LEN, nack};
use broth_client::send_track::{PACKET_BYTES, SendTrack, Written};
use broth_worker::srtp::{Profile, RecvIndex, RtcpReplay};
use broth_worker::wire::rtcp::{self, Packet};
use broth_worker::wire::rtp::{
    FIXED_HEADER_LEN, RtpHeader, header_len, is_rtcp, is_rtp, peek_ssrc,
};

use super::ledger::Stream;
use super::measure::{Micros, Window};
use super::wire::Wire;

/// The SSRC that receivers report under.
const REPORTER: u32 = 1;
/// DTLS' content type of alerts.
const DTLS_ALERT: u8 = 21;
/// Bytes of the word with the SRTCP index, and of the tag behind it in the profiles with HMAC.
const SRTCP_WORD: usize = 4;
const SRTCP_HMAC_TAG: usize = 10;

/// What all members share.
pub(super) struct Common<'c> {
    pub(super) wire: &'c mut Wire,
    pub(super) window: &'c mut Window,
    /// When the last packet of each received stream came.
    pub(super) latest: &'c [AtomicU64],
}

/// A participant.
pub(super) struct Member {
    pub(super) peer: Box<Peer>,
    pub(super) room: usize,
    pub(super) sends: Vec<SendTrack>,
    pub(super) receives: Vec<Received>,
    /// Its number among all, once it takes part.
    pub(super) number: usize,
    /// Datagrams for which its socket had no room.
    dropped: u32,
}

/// A packet that never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    /// The stream's number among those of all rooms.
    pub(super) stream: usize,
    pub(super) is_audio: bool,
    /// When a later one came.
    pub(super) at: Micros,
}

/// A stream that it receives.
pub(super) struct Received {
    /// Its number among those of all rooms.
    stream: usize,
    is_audio: bool,
    ssrc: u32,
    rtx_ssrc: Option<u32>,
    track: RecvTrack<Micros>,
    highest: RecvIndex,
    rtx_highest: RecvIndex,
}

impl Received {
    pub(super) fn new(stream: usize, is_audio: bool, ssrc: u32, rtx_ssrc: Option<u32>) -> Self {
        Self {
            stream,
            is_audio,
            ssrc,
            rtx_ssrc,
            track: RecvTrack::default(),
            highest: RecvIndex::new(),
            rtx_highest: RecvIndex::new(),
        }
    }

    /// What never came.
    pub(super) fn into_lost(self) -> impl Iterator<Item = Lost> {
        let lost = self.track.into_lost().into_iter();
        lost.map(move |at| Lost {
            stream: self.stream,
            is_audio: self.is_audio,
            at,
        })
    }
}

impl Member {
    pub(super) fn new(peer: Box<Peer>, room: usize) -> Self {
        Self {
            peer,
            room,
            sends: Vec::new(),
            receives: Vec::new(),
            number: 0,
            dropped: 0,
        }
    }

    /// Sends the next frame of a stream.
    pub(super) fn send_frame(&mut self, track: usize, common: &mut Common<'_>) -> Result<()> {
        let mut buffer = [0; PACKET_BYTES];
        for n in 0..self.sends[track].frame_packets() {
            let written = self.sends[track].write(n, &mut buffer);
            self.send_rtp(written, &mut buffer, common)?;
        }
        Ok(())
    }

    /// Asks for what is missing now.
    pub(super) fn ask(&mut self, now: Instant, common: &mut Common<'_>) -> Result<()> {
        let mut seqs = Vec::new();
        for at in 0..self.receives.len() {
            let received = &mut self.receives[at];
            // Without RTX nobody repeats anything.
            if received.rtx_ssrc.is_none() {
                continue;
            }
            received.track.poll_nack(now, &mut seqs);
            if !seqs.is_empty() {
                let ssrc = received.ssrc;
                self.send_rtcp(nack(REPORTER, ssrc, &seqs), common)?;
                seqs.clear();
            }
        }
        Ok(())
    }

    /// Takes a datagram that arrived at `at`.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        at: Micros,
        datagram: &mut [u8],
        common: &mut Common<'_>,
    ) -> Result<()> {
        if is_rtcp(datagram) {
            common.wire.checks.received += 1;
            return self.receive_rtcp(datagram, common);
        }
        if is_rtp(datagram) {
            common.wire.checks.received += 1;
            self.receive_rtp(now, at, datagram, common);
        } else if datagram.first() == Some(&DTLS_ALERT) {
            common.wire.checks.alerts += 1;
        }
        Ok(())
    }

    /// Takes the kernel's count of datagrams that had no room.
    pub(super) fn note_dropped(&mut self, dropped: u32, common: &mut Common<'_>) {
        let before = std::mem::replace(&mut self.dropped, dropped);
        common.wire.checks.dropped += u64::from(dropped.wrapping_sub(before));
    }

    fn receive_rtp(
        &mut self,
        now: Instant,
        at: Micros,
        datagram: &mut [u8],
        common: &mut Common<'_>,
    ) {
        let (Some(ssrc), Ok(header_len)) = (peek_ssrc(datagram), header_len(datagram)) else {
            return;
        };
        let is_it =
            |received: &&mut Received| received.ssrc == ssrc || received.rtx_ssrc == Some(ssrc);
        let Some(received) = self.receives.iter_mut().find(is_it) else {
            return;
        };
        let seq = u16::from_be_bytes([datagram[2], datagram[3]]);
        let is_rtx = received.ssrc != ssrc;
        let mut len = datagram.len();
        // What is not verified is opened only where one must look inside.
        if common.wire.is_verifying() || is_rtx {
            let highest = match is_rtx {
                true => &mut received.rtx_highest,
                false => &mut received.highest,
            };
            let index = highest.guess(seq);
            let stream = stream(self.number, false, false, ssrc);
            let peer = &self.peer;
            let open = |packet: &mut [u8]| match peer.open_at(index, packet, header_len) {
                Some(plain) => {
                    len = plain;
                    true
                }
                None => false,
            };
            if !common.wire.received(stream, index, datagram, open) {
                return;
            }
            if highest.highest().is_none_or(|highest| highest < index) {
                *highest = RecvIndex::resumed(index);
            }
        }
        if !is_rtx {
            received.track.take(now, seq, at);
            common.window.take(received.stream, at);
            common.latest[received.stream].store(at, Ordering::Relaxed);
        } else if let Some(seq) = original_seq(&datagram[..len]) {
            received.track.take_repeated(now, seq);
        }
    }

    fn receive_rtcp(&mut self, datagram: &mut [u8], common: &mut Common<'_>) -> Result<()> {
        let Some((ssrc, index)) = srtcp_index(self.peer.open.profile(), datagram) else {
            return Ok(());
        };
        let mut len = 0;
        let open = |packet: &mut [u8]| {
            let opened = self
                .peer
                .open
                .unprotect_rtcp(&mut RtcpReplay::new(), packet);
            opened.is_ok_and(|plain| {
                len = plain;
                true
            })
        };
        let stream = stream(self.number, false, true, ssrc);
        if !common.wire.received(stream, index, datagram, open) {
            return Ok(());
        }
        for packet in rtcp::packets(&datagram[..len]).flatten() {
            match packet {
                Packet::Nack { media, seqs, .. } => self.repeat(media, seqs, common)?,
                Packet::Pli { media, .. } => self.want_keyframe(media, common),
                Packet::Fir { entries, .. } => {
                    entries.for_each(|entry| self.want_keyframe(entry.ssrc, common));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn repeat(
        &mut self,
        ssrc: u32,
        seqs: impl Iterator<Item = u16>,
        common: &mut Common<'_>,
    ) -> Result<()> {
        let Some(at) = self.sends.iter().position(|track| track.ssrc() == ssrc) else {
            return Ok(());
        };
        let mut buffer = [0; PACKET_BYTES];
        for seq in seqs {
            if let Some(written) = self.sends[at].repeat(seq, &mut buffer) {
                self.send_rtp(written, &mut buffer, common)?;
            }
        }
        Ok(())
    }

    fn want_keyframe(&mut self, ssrc: u32, common: &mut Common<'_>) {
        let track = self.sends.iter_mut().find(|track| track.ssrc() == ssrc);
        if let Some(track) = track {
            track.want_keyframe();
            common.window.take_key_frame_request(self.room);
        }
    }

    fn send_rtp(
        &mut self,
        written: Written,
        buffer: &mut [u8; PACKET_BYTES],
        common: &mut Common<'_>,
    ) -> Result<()> {
        let Written { index, len } = written;
        let roc = (index >> 16) as u32;
        let len = self.peer.seal(roc, buffer, FIXED_HEADER_LEN, len)?;
        let ssrc = peek_ssrc(buffer).unwrap_or_default();
        let stream = stream(self.number, true, false, ssrc);
        common.wire.sent(stream, index, &buffer[..len]);
        self.send(&buffer[..len])
    }

    fn send_rtcp(&mut self, mut packet: Vec<u8>, common: &mut Common<'_>) -> Result<()> {
        let index = self.peer.srtp.rtcp_index();
        self.peer.srtp.protect_rtcp(&mut packet)?;
        let stream = stream(self.number, true, true, REPORTER);
        common.wire.sent(stream, index.into(), &packet);
        self.send(&packet)
    }

    fn send(&self, datagram: &[u8]) -> Result<()> {
        match self.peer.socket.send(datagram) {
            // It is lost on the way, as others are.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => Ok(sent.map(drop)?),
        }
    }
}

fn stream(client: usize, is_sent: bool, is_rtcp: bool, ssrc: u32) -> Stream {
    Stream {
        client,
        is_sent,
        is_rtcp,
        ssrc,
    }
}

/// The number of the packet inside an RTX packet; `None` if none is inside.
fn original_seq(packet: &[u8]) -> Option<u16> {
    let payload = RtpHeader::parse(packet).ok()?.payload(packet);
    let osn = payload.first_chunk::<OSN_LEN>()?;
    Some(u16::from_be_bytes(*osn))
}

/// Sender and index of an SRTCP packet (RFC 3711 §3.4, RFC 7714 §9.2).
fn srtcp_index(profile: Profile, packet: &[u8]) -> Option<(u32, u64)> {
    let behind = match profile {
        Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 0,
        Profile::Aes128CmSha1_80 | Profile::Aes128CmSha1_32 => SRTCP_HMAC_TAG,
    };
    let word = packet.get(..packet.len().checked_sub(behind)?)?;
    let word = u32::from_be_bytes(*word.last_chunk::<SRTCP_WORD>()?);
    let ssrc = u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?);
    Some((ssrc, u64::from(word & !(1 << 31))))
}
