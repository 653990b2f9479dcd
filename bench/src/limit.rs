//! What no forwarder can do without: open a packet once, seal it for every viewer, send it. A
//! process of its own, so that the kernel counts its time as that of any other server.
//!
//! It is told who sends and who receives by lines of JSON ([`Order`]) and answers each with what
//! it has done so far ([`Counters`]). The first line that it says is where it listens.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::{Context, Result};
use broth_worker::dtls::SrtpKeys;
use broth_worker::net::sys::{Message, RecvBatch, SEGMENTS_MAX, SEND_BATCH, SLICES_MAX, send};
use broth_worker::srtp::{OpenKey, Profile, RecvIndex, SealKey, TAG_LEN_MAX};
use broth_worker::wire::rtp::{header_len, is_rtp};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, SndBuf, UdpGroSegment};
use serde::{Deserialize, Serialize};

/// The argument that makes the executable this.
pub(crate) const LIMIT_ARG: &str = "limit";

/// Buffers of the socket, as a room's.
const BUFFER_BYTES: usize = 4 << 20;
/// Bytes of packets between two sends.
const ARENA_BYTES: usize = 1 << 20;
/// Bytes one GSO message may have.
const GSO_BYTES_MAX: usize = 65_000;

/// Master keys of both directions; absent where RTP is plain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Keys {
    profile: String,
    seal: (Vec<u8>, Vec<u8>),
    open: (Vec<u8>, Vec<u8>),
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// A producer sends from there; producers count from 0.
    Sender {
        remote: SocketAddr,
        keys: Option<Keys>,
    },
    /// A viewer is there, for these producers.
    Viewer {
        remote: SocketAddr,
        keys: Option<Keys>,
        senders: Vec<u32>,
    },
    /// A viewer is gone.
    Gone { remote: SocketAddr },
    /// Nothing new.
    Count,
}

/// What it has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Packets the kernel took.
    pub(crate) packets: u64,
    /// Packets it did not take.
    pub(crate) refused: u64,
    /// System calls that sent.
    pub(crate) calls: u64,
    /// Longest turn of the loop since the last order, in microseconds.
    pub(crate) turn_us_max: u64,
}

impl Keys {
    /// Keys for the two ends of one path: its own, and the limit's. Nobody else is to be kept
    /// out, so they are but different from others'.
    pub(crate) fn pair(profile: Profile, number: u32) -> (SrtpKeys, Self) {
        let bytes = |salted: u8, len: usize| -> Vec<u8> {
            let number = number.to_be_bytes();
            (0..len)
                .map(|at| number[at % 4] ^ salted ^ at as u8)
                .collect()
        };
        let key = |salted| bytes(salted, profile.key_len());
        let salt = |salted| bytes(salted, profile.salt_len());
        let theirs = SrtpKeys {
            profile,
            local_key: key(0x11),
            local_salt: salt(0x22),
            remote_key: key(0x33),
            remote_salt: salt(0x44),
        };
        let ours = Self {
            profile: profile.openssl_name().into(),
            seal: (key(0x33), salt(0x44)),
            open: (key(0x11), salt(0x22)),
        };
        (theirs, ours)
    }

    fn profile(&self) -> Result<Profile> {
        Profile::from_openssl_name(&self.profile).context("unknown profile")
    }

    fn seal_key(&self) -> Result<SealKey> {
        Ok(SealKey::new(self.profile()?, &self.seal.0, &self.seal.1)?)
    }

    fn open_key(&self) -> Result<OpenKey> {
        Ok(OpenKey::new(self.profile()?, &self.open.0, &self.open.1)?)
    }
}

/// Runs it until nobody gives orders any more.
pub(crate) fn run() -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    setsockopt(&socket, RcvBuf, &BUFFER_BYTES)?;
    setsockopt(&socket, SndBuf, &BUFFER_BYTES)?;
    setsockopt(&socket, UdpGroSegment, &true)?;
    let mut orders = io::stdin().lock();
    let mut answers = io::stdout().lock();
    writeln!(answers, "{}", socket.local_addr()?)?;
    answers.flush()?;
    let mut heard = Vec::new();
    let mut relay = Relay::default();
    let mut batch = RecvBatch::default();
    loop {
        let mut ready = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(orders.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut ready, PollTimeout::NONE)?;
        let is_ready = ready.map(|fd| fd.any() == Some(true));
        if is_ready[0] {
            let begin = Instant::now();
            for index in 0..batch.recv(socket.as_fd()).unwrap_or(0) {
                relay.forward(&mut batch, index, &socket);
            }
            relay.out.flush(&socket);
            let counters = &mut relay.out.counters;
            let took = begin.elapsed().as_micros() as u64;
            counters.turn_us_max = counters.turn_us_max.max(took);
        }
        if is_ready[1] {
            let mut bytes = [0; 4096];
            match orders.read(&mut bytes)? {
                0 => return Ok(()),
                count => heard.extend_from_slice(&bytes[..count]),
            }
            while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = heard.drain(..=end).collect();
                relay.obey(serde_json::from_slice(&line)?)?;
                let counters = &mut relay.out.counters;
                writeln!(answers, "{}", serde_json::to_string(counters)?)?;
                answers.flush()?;
                counters.turn_us_max = 0;
            }
        }
    }
}

/// Who sends and who receives.
#[derive(Default)]
struct Relay {
    senders: Vec<Sender>,
    by_address: HashMap<SocketAddr, usize>,
    burst: Burst,
    out: Out,
}

struct Sender {
    open: Option<OpenKey>,
    index: RecvIndex,
    viewers: Vec<Viewer>,
}

struct Viewer {
    remote: SocketAddr,
    seal: Option<SealKey>,
}

/// Packets that came together, opened.
#[derive(Default)]
struct Burst {
    bytes: Vec<u8>,
    packets: Vec<Opened>,
}

/// Where an opened packet lies among the bytes of its burst.
#[derive(Clone, Copy)]
struct Opened {
    start: usize,
    len: usize,
    header_len: usize,
    roc: u32,
}

/// What waits to be sent.
struct Out {
    arena: Box<[u8]>,
    used: usize,
    slices: Vec<(u32, u32)>,
    messages: Vec<Message>,
    counters: Counters,
}

impl Relay {
    fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Sender { remote, keys } => {
                self.by_address.insert(remote, self.senders.len());
                self.senders.push(Sender {
                    open: keys.map(|keys| keys.open_key()).transpose()?,
                    index: RecvIndex::new(),
                    viewers: Vec::new(),
                });
            }
            Order::Viewer {
                remote,
                keys,
                senders,
            } => {
                for sender in senders {
                    let seal = keys.as_ref().map(Keys::seal_key).transpose()?;
                    let sender = self.senders.get_mut(sender as usize);
                    let sender = sender.context("no such producer")?;
                    sender.viewers.push(Viewer { remote, seal });
                }
            }
            Order::Gone { remote } => {
                for sender in &mut self.senders {
                    sender.viewers.retain(|viewer| viewer.remote != remote);
                }
            }
            Order::Count => {}
        }
        Ok(())
    }

    /// Forwards one received message: a packet, or a burst that the kernel coalesced.
    fn forward(&mut self, batch: &mut RecvBatch, index: usize, socket: &UdpSocket) {
        let mut from = None;
        self.burst.bytes.clear();
        self.burst.packets.clear();
        batch.datagrams(index, |datagram, remote| {
            from = from.or_else(|| self.by_address.get(&remote).copied());
            if let Some(sender) = from {
                self.burst.take(&mut self.senders[sender], datagram);
            }
        });
        let Some(sender) = from else { return };
        for viewer in &self.senders[sender].viewers {
            self.out.queue(viewer, &self.burst, socket);
        }
    }
}

impl Burst {
    /// Opens a packet, unless it is none.
    fn take(&mut self, sender: &mut Sender, datagram: &mut [u8]) {
        if !is_rtp(datagram) {
            return;
        }
        let Ok(header_len) = header_len(datagram) else {
            return;
        };
        let (mut len, mut roc) = (datagram.len(), 0);
        if let Some(open) = &sender.open {
            let index = sender
                .index
                .guess(u16::from_be_bytes([datagram[2], datagram[3]]));
            let Ok(opened) = open.unprotect_rtp(&mut sender.index, datagram, header_len) else {
                return;
            };
            (len, roc) = (opened, (index >> 16) as u32);
        }
        self.packets.push(Opened {
            start: self.bytes.len(),
            len,
            header_len,
            roc,
        });
        self.bytes.extend_from_slice(&datagram[..len]);
    }
}

impl Default for Out {
    fn default() -> Self {
        Self {
            arena: vec![0; ARENA_BYTES].into(),
            used: 0,
            slices: Vec::with_capacity(SLICES_MAX),
            messages: Vec::with_capacity(SEND_BATCH),
            counters: Counters::default(),
        }
    }
}

impl Out {
    /// Seals a burst for a viewer, in as few messages as can be.
    fn queue(&mut self, viewer: &Viewer, burst: &Burst, socket: &UdpSocket) {
        let room = |packet: &Opened| packet.len + TAG_LEN_MAX;
        let longest = burst.packets.iter().map(room).max().unwrap_or(1);
        for packets in burst
            .packets
            .chunks(SEGMENTS_MAX.min(GSO_BYTES_MAX / longest))
        {
            if self.used + packets.len() * longest > self.arena.len()
                || self.slices.len() + packets.len() > SLICES_MAX
                || self.messages.len() == SEND_BATCH
            {
                self.flush(socket);
            }
            let first = self.slices.len();
            for packet in packets {
                let slot = &mut self.arena[self.used..self.used + room(packet)];
                let bytes = &burst.bytes[packet.start..packet.start + packet.len];
                let len = match &viewer.seal {
                    Some(seal) => {
                        let (header, payload) = bytes.split_at(packet.header_len);
                        slot[..header.len()].copy_from_slice(header);
                        seal.protect_rtp_with(packet.roc, slot, header.len(), header.len(), payload)
                            .expect("there is room for the tag")
                    }
                    None => {
                        slot[..packet.len].copy_from_slice(bytes);
                        packet.len
                    }
                };
                self.slices.push((self.used as u32, len as u32));
                self.used += len;
            }
            self.messages.push(Message {
                remote: viewer.remote,
                slices: packets.len(),
                segment_len: self.slices[first].1 as u16,
            });
        }
    }

    /// Sends all that waits.
    fn flush(&mut self, socket: &UdpSocket) {
        let (mut slices, mut messages) = (&self.slices[..], &self.messages[..]);
        while !messages.is_empty() {
            self.counters.calls += 1;
            let sent = send(socket.as_fd(), &self.arena, slices, messages);
            // What the kernel does not take is lost, and the rest is tried again.
            let done = sent.as_ref().map_or(1, |sent| *sent);
            let packets: usize = messages[..done].iter().map(|message| message.slices).sum();
            match sent {
                Ok(_) => self.counters.packets += packets as u64,
                Err(_) => self.counters.refused += packets as u64,
            }
            (slices, messages) = (&slices[packets..], &messages[done..]);
        }
        self.used = 0;
        self.slices.clear();
        self.messages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: Profile = Profile::Aes128CmSha1_80;

    fn packet(seq: u16) -> Vec<u8> {
        let mut packet = vec![0; 60];
        packet[0] = 0x80;
        packet[1] = 100;
        packet[2..4].copy_from_slice(&seq.to_be_bytes());
        packet[12..].fill(seq as u8);
        packet
    }

    #[test]
    fn what_one_end_seals_the_other_opens() {
        let (theirs, ours) = Keys::pair(PROFILE, 7);
        let seal = SealKey::new(PROFILE, &theirs.local_key, &theirs.local_salt).unwrap();
        let mut sealed = packet(9);
        sealed.resize(60 + TAG_LEN_MAX, 0);
        let len = seal.protect_rtp(0, &mut sealed, 12, 60).unwrap();
        let open = ours.open_key().unwrap();
        let opened = open.unprotect_rtp(&mut RecvIndex::new(), &mut sealed[..len], 12);
        assert_eq!((opened, &sealed[..60]), (Ok(60), &packet(9)[..]));
    }

    #[test]
    fn every_viewer_gets_a_burst_in_order() {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let patience = std::time::Duration::from_secs(5);
            socket.set_read_timeout(Some(patience)).unwrap();
            (socket.local_addr().unwrap(), socket)
        };
        let (at, socket) = bind();
        let (from, sender) = bind();
        let viewers = [bind(), bind()];
        let mut relay = Relay::default();
        let (remote, keys) = (from, None);
        relay.obey(Order::Sender { remote, keys }).unwrap();
        for (remote, _) in &viewers {
            let order = Order::Viewer {
                remote: *remote,
                keys: None,
                senders: vec![0],
            };
            relay.obey(order).unwrap();
        }
        for seq in 0..3 {
            sender.send_to(&packet(seq), at).unwrap();
        }
        let mut batch = RecvBatch::default();
        for index in 0..batch.recv(socket.as_fd()).unwrap() {
            relay.forward(&mut batch, index, &socket);
        }
        relay.out.flush(&socket);
        assert_eq!(relay.out.counters.packets, 6);
        for (_, viewer) in &viewers {
            for seq in 0..3 {
                let mut received = [0; 100];
                let len = viewer.recv(&mut received).unwrap();
                assert_eq!(received[..len], packet(seq));
            }
        }
        let (remote, _) = viewers[0];
        relay.obey(Order::Gone { remote }).unwrap();
        assert_eq!(relay.senders[0].viewers.len(), 1);
    }
}
