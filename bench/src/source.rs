//! The producer: bursts of video packets, each with its send time inside.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use broth_bench::client::Client;
use broth_bench::rtp::vp8_packet;
use broth_worker::net::sys::{Message, send};
use broth_worker::wire::rtp::FIXED_HEADER_LEN;

use crate::receive::CHECK_INTERVAL;
use crate::{Args, SEND_SSRC};

/// Where the send time lies in the packet: behind the VP8 descriptor.
pub(crate) const STAMP_AT: usize = FIXED_HEADER_LEN + 8;
/// Frames between two key frames.
const KEYFRAME_INTERVAL: u64 = 100;

/// Sends bursts of video packets.
pub(crate) struct Source<'p> {
    peer: &'p Client,
    remote: SocketAddr,
    clock: Instant,
    checked_at: Instant,
    seq: u64,
    arena: Vec<u8>,
    slices: Vec<(u32, u32)>,
}

impl<'p> Source<'p> {
    /// A producer at `peer`; send times count from `clock`.
    pub(crate) fn new(peer: &'p Client, clock: Instant) -> Result<Self> {
        Ok(Self {
            peer,
            remote: peer.socket().peer_addr()?,
            clock,
            checked_at: clock,
            seq: 0,
            arena: Vec::new(),
            slices: Vec::new(),
        })
    }

    /// Sends `rate` packets per second for `window`; returns how many were sent.
    pub(crate) fn send(&mut self, args: &Args, rate: u32, window: Duration) -> Result<u64> {
        let interval = Duration::from_secs(1) * args.burst / rate;
        let begin = Instant::now();
        let mut sent = 0;
        let mut due = begin;
        while due < begin + window {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.checked_at.elapsed() > CHECK_INTERVAL {
                self.checked_at = Instant::now();
                self.peer.keep_alive()?;
            }
            self.send_burst(args)?;
            sent += u64::from(args.burst);
            due += interval;
        }
        thread::sleep((begin + window).saturating_duration_since(Instant::now()));
        Ok(sent)
    }

    /// The packets of one frame, handed to the kernel at once; the first frame, and one in a
    /// hundred, is a key frame.
    fn send_burst(&mut self, args: &Args) -> Result<()> {
        let frame = self.seq / u64::from(args.burst);
        self.arena.clear();
        self.slices.clear();
        for n in 0..args.burst {
            let mut packet = [0; 2048];
            let ts = (frame * 3000) as u32;
            let is_start = n == 0;
            let is_keyframe = is_start && frame.is_multiple_of(KEYFRAME_INTERVAL);
            let len = vp8_packet(
                &mut packet,
                SEND_SSRC,
                self.seq as u16,
                ts,
                is_keyframe,
                is_start,
                args.size - FIXED_HEADER_LEN,
            );
            let stamp = self.clock.elapsed().as_micros() as u32;
            packet[STAMP_AT..STAMP_AT + 4].copy_from_slice(&stamp.to_be_bytes());
            let roc = (self.seq >> 16) as u32;
            let len = self.peer.seal(roc, &mut packet, FIXED_HEADER_LEN, len)?;
            self.slices.push((self.arena.len() as u32, len as u32));
            self.arena.extend_from_slice(&packet[..len]);
            self.seq += 1;
        }
        let message = Message {
            remote: self.remote,
            slices: self.slices.len(),
            segment_len: self.slices[0].1 as u16,
        };
        let socket = self.peer.socket().as_fd();
        send(socket, &self.arena, &self.slices, &[message])?;
        Ok(())
    }
}
