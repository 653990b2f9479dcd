//! The producers: packets in bursts, each with its send time inside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use broth_client::burst::Burst;
use broth_client::client::Client;
use broth_client::rtp::{opus_packet, vp8_packet};
use broth_worker::wire::rtp::FIXED_HEADER_LEN;

use crate::plan::{Media, Plan};

/// Where the send time lies in the packet: behind the VP8 descriptor.
pub(crate) const STAMP_AT: usize = FIXED_HEADER_LEN + 8;
/// Frames between two key frames: who joins need not wait for long.
const KEYFRAME_INTERVAL: u64 = 30;
/// The bit of the second byte that says that a frame ends (RFC 3550 §5.1).
const MARKER: u8 = 0x80;

/// The SSRC of a producer; its RTX has the next one.
pub(crate) fn send_ssrc(sender: u32) -> u32 {
    10 + 2 * sender
}

/// Sends bursts, one producer after the other.
pub(crate) struct Source {
    feeds: Vec<Feed>,
    next: usize,
    clock: Instant,
}

/// One producer.
struct Feed {
    client: Arc<Client>,
    ssrc: u32,
    remote: SocketAddr,
    seq: u64,
    frames: u64,
    burst: Burst,
}

impl Source {
    /// A producer at each of the clients; send times count from `clock`.
    pub(crate) fn new(clients: Vec<Arc<Client>>, clock: Instant) -> Result<Self> {
        let feeds = clients.into_iter().zip(0..).map(|(client, sender)| {
            Ok(Feed {
                remote: client.socket().peer_addr()?,
                client,
                ssrc: send_ssrc(sender),
                seq: 0,
                frames: 0,
                burst: Burst::default(),
            })
        });
        Ok(Self {
            feeds: feeds.collect::<Result<_>>()?,
            next: 0,
            clock,
        })
    }

    /// Sends `rate` packets per second and producer for `window`, spread evenly; returns how many
    /// were sent in all. Every producer begins with a key frame.
    pub(crate) fn send(&mut self, plan: &Plan, rate: u32, window: Duration) -> Result<u64> {
        for feed in &mut self.feeds {
            feed.frames = 0;
        }
        let bursts_per_s = f64::from(rate) * self.feeds.len() as f64 / f64::from(plan.burst);
        let begin = Instant::now();
        let mut bursts = 0_u32;
        loop {
            let due = Duration::from_secs_f64(f64::from(bursts) / bursts_per_s);
            if due >= window {
                break;
            }
            thread::sleep((begin + due).saturating_duration_since(Instant::now()));
            self.feeds[self.next].send_burst(plan, self.clock)?;
            self.next = (self.next + 1) % self.feeds.len();
            bursts += 1;
        }
        thread::sleep((begin + window).saturating_duration_since(Instant::now()));
        Ok(u64::from(bursts) * u64::from(plan.burst))
    }
}

impl Feed {
    /// The packets of one frame, handed to the kernel at once.
    fn send_burst(&mut self, plan: &Plan, clock: Instant) -> Result<()> {
        let frame = self.seq / u64::from(plan.burst);
        for n in 0..plan.burst {
            let mut packet = [0; 2048];
            let is_start = n == 0;
            let (ssrc, seq, payload) = (self.ssrc, self.seq as u16, plan.size - FIXED_HEADER_LEN);
            let len = match plan.media {
                Media::Video => {
                    let is_keyframe = is_start && self.frames.is_multiple_of(KEYFRAME_INTERVAL);
                    let ts = (frame * 3000) as u32;
                    vp8_packet(&mut packet, ssrc, seq, ts, is_keyframe, is_start, payload)
                }
                Media::Audio => opus_packet(&mut packet, ssrc, seq, (frame * 960) as u32, payload),
            };
            let is_last = n + 1 == plan.burst;
            if is_last && plan.media == Media::Video {
                packet[1] |= MARKER;
            }
            let stamp = clock.elapsed().as_micros() as u32;
            packet[STAMP_AT..STAMP_AT + 4].copy_from_slice(&stamp.to_be_bytes());
            let roc = (self.seq >> 16) as u32;
            let len = self.client.seal(roc, &mut packet, FIXED_HEADER_LEN, len)?;
            self.burst.push(&packet[..len]);
            self.seq += 1;
        }
        self.frames += 1;
        self.burst.send(self.client.socket(), self.remote)?;
        Ok(())
    }
}
