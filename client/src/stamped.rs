//! Receiving with the kernel's stamps: when a datagram arrived, however late it is read, and how
//! many did not find room in the socket's buffer.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, ReceiveTimestampns, RxqOvfl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;

/// Longest datagram.
const DATAGRAM_BYTES: usize = 2048;
/// Room asked for what waits while other sockets are served.
const WAITING_BYTES: usize = 1 << 20;

/// Buffers for one datagram.
pub struct Receiver {
    datagram: [u8; DATAGRAM_BYTES],
    control: Vec<u8>,
}

/// A datagram that arrived.
pub struct Stamped<'b> {
    /// Its bytes.
    pub datagram: &'b mut [u8],
    /// When, since 1970; `None` if the kernel does not say.
    pub at: Option<Duration>,
    /// Datagrams that did not fit the socket's buffer so far; `None` if none.
    pub dropped: Option<u32>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            datagram: [0; DATAGRAM_BYTES],
            control: cmsg_space!(TimeSpec, u32),
        }
    }
}

impl Receiver {
    /// Prepares a socket: it does not block any more, and what it receives is stamped.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn prepare(socket: &UdpSocket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        setsockopt(socket, RcvBuf, &WAITING_BYTES)?;
        setsockopt(socket, ReceiveTimestampns, &true)?;
        setsockopt(socket, RxqOvfl, &1)?;
        Ok(())
    }

    /// The next datagram of a prepared socket; `None` if nothing is there.
    ///
    /// # Errors
    /// That of the socket.
    pub fn recv(&mut self, socket: &UdpSocket) -> io::Result<Option<Stamped<'_>>> {
        let (mut at, mut dropped) = (None, None);
        let len = {
            let mut slices = [IoSliceMut::new(&mut self.datagram)];
            let (control, flags) = (Some(&mut self.control[..]), MsgFlags::MSG_DONTWAIT);
            let received = match recvmsg::<()>(socket.as_raw_fd(), &mut slices, control, flags) {
                Ok(received) => received,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            for message in received.cmsgs()? {
                match message {
                    ControlMessageOwned::ScmTimestampns(stamp) => at = Some(stamp.into()),
                    ControlMessageOwned::RxqOvfl(count) => dropped = Some(count),
                    _ => {}
                }
            }
            received.bytes
        };
        Ok(Some(Stamped {
            datagram: &mut self.datagram[..len],
            at,
            dropped,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn unix() -> Duration {
        SystemTime::UNIX_EPOCH.elapsed().unwrap()
    }

    #[test]
    fn stamps_tell_when_it_arrived_and_not_when_it_is_read() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Receiver::prepare(&socket).unwrap();
        let mut receiver = Receiver::default();
        assert!(receiver.recv(&socket).unwrap().is_none());
        let before = unix();
        for text in [&b"one"[..], b"two2"] {
            socket.send_to(text, socket.local_addr().unwrap()).unwrap();
        }
        let after = unix();
        for text in [&b"one"[..], b"two2"] {
            let stamped = receiver.recv(&socket).unwrap().unwrap();
            assert_eq!((&*stamped.datagram, stamped.dropped), (text, None));
            let at = stamped.at.unwrap();
            assert!(before <= at && at <= after, "{before:?} {at:?} {after:?}");
        }
        assert!(receiver.recv(&socket).unwrap().is_none());
    }

    #[test]
    fn what_found_no_room_is_counted() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Receiver::prepare(&socket).unwrap();
        setsockopt(&socket, RcvBuf, &4096).unwrap();
        let remote = socket.local_addr().unwrap();
        let mut receiver = Receiver::default();
        for _ in 0..100 {
            socket.send_to(&[0; 1000], remote).unwrap();
        }
        let mut read = 0;
        while receiver.recv(&socket).unwrap().is_some() {
            read += 1;
        }
        socket.send_to(b"x", remote).unwrap();
        let stamped = receiver.recv(&socket).unwrap().unwrap();
        assert_eq!(stamped.dropped, Some(100 - read));
    }
}
