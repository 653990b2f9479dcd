//! What OpenSSL takes for a socket: two queues of datagrams.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

/// Datagrams that may wait to be read; a peer that sends more is not shaking hands.
const INCOMING_MAX: usize = 32;

/// Two queues of datagrams.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Datagrams {
    /// Queues a received datagram, unless too many wait.
    pub(super) fn push(&mut self, datagram: &[u8]) {
        if self.incoming.len() < INCOMING_MAX {
            self.incoming.push_back(datagram.to_vec());
        }
    }

    /// Takes what was written.
    pub(super) fn take_outgoing(&mut self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut self.outgoing)
    }
}

impl Read for Datagrams {
    /// Reads one whole datagram; what does not fit is lost, as with a socket.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let len = datagram.len().min(buf.len());
        buf[..len].copy_from_slice(&datagram[..len]);
        Ok(len)
    }
}

impl Write for Datagrams {
    /// One write is one datagram.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.outgoing.push_back(buf.to_vec());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
