//! Packets that are handed to the kernel together, as those of one frame.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use broth_worker::net::sys::{Message, send};

/// Packets of one length, of which the last may be shorter.
#[derive(Default)]
pub struct Burst {
    bytes: Vec<u8>,
    slices: Vec<(u32, u32)>,
}

impl Burst {
    /// Adds a packet.
    pub fn push(&mut self, packet: &[u8]) {
        let start = self.bytes.len() as u32;
        self.slices.push((start, packet.len() as u32));
        self.bytes.extend_from_slice(packet);
    }

    /// Sends all packets as one message (`UDP_SEGMENT`) and returns how many messages the kernel
    /// took. Nothing is left.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&mut self, socket: &UdpSocket, remote: SocketAddr) -> io::Result<usize> {
        let message = Message {
            remote,
            slices: self.slices.len(),
            segment_len: self.slices.first().map_or(0, |(_, len)| *len as u16),
        };
        let sent = send(socket.as_fd(), &self.bytes, &self.slices, &[message]);
        self.bytes.clear();
        self.slices.clear();
        sent
    }
}
