//! The producer: bursts of video packets, each with its send time inside.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use broth_client::client::Client;
use broth_client::rtp::vp8_packet;
use broth_worker::net::sys::{Message, send};
use broth_worker::wire::rtp::FIXED_HEADER_LEN;

use crate::receive::CHECK_INTERVAL;
use crate::{Args, send_ssrc};

/// Where the send time lies in the packet: behind the VP8 descriptor.
pub(crate) const STAMP_AT: usize = FIXED_HEADER_LEN + 8;
/// Frames between two key frames.
const KEYFRAME_INTERVAL: u64 = 100;

/// Sends bursts of video packets, one producer after the other.
pub(crate) struct Source<'p> {
    feeds: Vec<Feed<'p>>,
    next: usize,
    checked_at: Instant,
}

/// One producer.
struct Feed<'p> {
    peer: &'p Client,
    ssrc: u32,
    remote: SocketAddr,
    clock: Instant,
    seq: u64,
    arena: Vec<u8>,
    slices: Vec<(u32, u32)>,
}

impl<'p> Source<'p> {
    /// A producer at each of `peers`; send times count from `clock`.
    pub(crate) fn new(peers: &'p [Client], clock: Instant) -> Result<Self> {
        let feeds = peers.iter().zip(0..).map(|(peer, p)| {
            Ok(Feed {
                peer,
                ssrc: send_ssrc(p),
                remote: peer.socket().peer_addr()?,
                clock,
                seq: 0,
                arena: Vec::new(),
                slices: Vec::new(),
            })
        });
        Ok(Self {
            feeds: feeds.collect::<Result<_>>()?,
            next: 0,
            checked_at: clock,
        })
    }

    /// Sends `rate` packets per second and producer for `window`, spread evenly; returns how many
    /// were sent in all.
    pub(crate) fn send(&mut self, args: &Args, rate: u32, window: Duration) -> Result<u64> {
        let interval = Duration::from_secs(1) * args.burst / (rate * args.producers);
        let begin = Instant::now();
        let mut sent = 0;
        let mut due = begin;
        while due < begin + window {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.checked_at.elapsed() > CHECK_INTERVAL {
                self.checked_at = Instant::now();
                self.feeds
                    .iter()
                    .try_for_each(|feed| feed.peer.keep_alive())?;
            }
            self.feeds[self.next].send_burst(args)?;
            self.next = (self.next + 1) % self.feeds.len();
            sent += u64::from(args.burst);
            due += interval;
        }
        thread::sleep((begin + window).saturating_duration_since(Instant::now()));
        Ok(sent)
    }
}

impl Feed<'_> {
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
                self.ssrc,
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
