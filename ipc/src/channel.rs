//! The tokio end of a channel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use thiserror::Error;
use tokio::io::Interest;

use crate::netstring::FrameError;
use crate::socket::{Fill, Flush, Inbox, Outbox, OutboxFull};

/// What is queued at most before it is sent.
const UNSENT_BYTES: usize = 64 * 1024;

/// Why a channel ended.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The bytes are not netstrings: synchronisation is lost for good.
    #[error("framing error: {0}")]
    Frame(#[from] FrameError),
    /// The socket failed.
    #[error("channel socket: {0}")]
    Io(#[from] io::Error),
    /// The other end does not read.
    #[error(transparent)]
    Full(#[from] OutboxFull),
}

/// What [`Channel::next`] came back with.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A payload.
    Payload(Bytes),
    /// The other end closed.
    Eof,
}

/// The controller's end of a channel to one worker.
#[derive(Debug)]
pub struct Channel {
    socket: tokio::net::UnixStream,
    inbox: Inbox,
    outbox: Outbox,
}

impl Channel {
    /// Wraps a connected socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking or registered.
    pub fn new(socket: UnixStream, payload_bytes_max: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: tokio::net::UnixStream::from_std(socket)?,
            inbox: Inbox::new(payload_bytes_max),
            outbox: Outbox::default(),
        })
    }

    /// Queues a payload and sends what the socket takes; the rest leaves during
    /// [`Channel::next`].
    ///
    /// # Errors
    /// The channel is unusable.
    pub fn send(&mut self, payload: &[u8], fds: Vec<OwnedFd>) -> Result<(), ChannelError> {
        self.queue(payload, fds)?;
        self.flush()
    }

    /// Queues a payload, to be sent with those after it.
    ///
    /// # Errors
    /// The channel is unusable.
    pub fn queue(&mut self, payload: &[u8], fds: Vec<OwnedFd>) -> Result<(), ChannelError> {
        self.outbox.push(payload, fds)?;
        if self.outbox.len() > UNSENT_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what is queued, as far as the socket takes it; the rest leaves during
    /// [`Channel::next`].
    ///
    /// # Errors
    /// The channel is unusable.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        self.outbox.flush(self.socket.as_fd())?;
        Ok(())
    }

    /// Sends bytes as they are: after what is no netstring nothing is understood.
    ///
    /// # Errors
    /// The channel is unusable.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.outbox.push_raw(bytes);
        self.flush()
    }

    /// Waits for the next payload, sending what is queued meanwhile. Cancel safe.
    ///
    /// # Errors
    /// The channel is unusable.
    pub async fn next(&mut self) -> Result<Received, ChannelError> {
        loop {
            if let Some(payload) = self.inbox.next_frame()? {
                return Ok(Received::Payload(payload));
            }
            let interest = if self.outbox.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            let ready = self.socket.ready(interest).await?;
            if ready.is_writable() && !self.outbox.is_empty() {
                self.flush_ready()?;
            }
            if ready.is_readable() && self.fill_ready()? == Fill::Eof {
                return Ok(Received::Eof);
            }
        }
    }

    /// The next payload, if it has arrived already.
    ///
    /// # Errors
    /// The channel is unusable.
    pub fn next_arrived(&mut self) -> Result<Option<Bytes>, ChannelError> {
        Ok(self.inbox.next_frame()?)
    }

    /// Takes the `count` descriptors of the payload taken last, or `None` if so many did not come,
    /// which leaves the channel unusable.
    pub fn take_fds(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        self.inbox.take_fds(count)
    }

    /// Sends, telling tokio when the socket turned out not to be writable.
    fn flush_ready(&mut self) -> io::Result<()> {
        let (socket, outbox) = (&self.socket, &mut self.outbox);
        let flushed = socket.try_io(Interest::WRITABLE, || {
            match outbox.flush(socket.as_fd())? {
                Flush::Done => Ok(()),
                Flush::Blocked => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        ignore_blocked(flushed, ())
    }

    /// Reads, telling tokio when the socket turned out not to be readable.
    fn fill_ready(&mut self) -> io::Result<Fill> {
        let (socket, inbox) = (&self.socket, &mut self.inbox);
        let filled = socket.try_io(Interest::READABLE, || match inbox.fill(socket.as_fd())? {
            Fill::Blocked => Err(io::ErrorKind::WouldBlock.into()),
            filled => Ok(filled),
        });
        ignore_blocked(filled, Fill::Blocked)
    }
}

fn ignore_blocked<T>(result: io::Result<T>, blocked: T) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(blocked),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn payloads_cross_in_both_directions_whatever_their_size() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut a = Channel::new(a, 1 << 24).unwrap();
        let mut b = Channel::new(b, 1 << 24).unwrap();
        let big = vec![b'y'; 5 << 20];
        a.send(b"small", vec![]).unwrap();
        a.send(&big, vec![]).unwrap();
        b.send(b"back", vec![]).unwrap();
        let reader = tokio::spawn(async move {
            let mut sizes = Vec::new();
            while let Received::Payload(payload) = b.next().await.unwrap() {
                sizes.push(payload.len());
                if sizes.len() == 2 {
                    break;
                }
            }
            (sizes, b)
        });
        assert_eq!(
            a.next().await.unwrap(),
            Received::Payload(Bytes::from_static(b"back"))
        );
        let next = tokio::spawn(async move { a.next().await.unwrap() });
        let (sizes, b) = reader.await.unwrap();
        assert_eq!(sizes, [5, big.len()]);
        drop(b);
        assert_eq!(next.await.unwrap(), Received::Eof);
    }

    #[tokio::test]
    async fn a_framing_error_ends_the_channel() {
        use std::io::Write;
        let (mut a, b) = UnixStream::pair().unwrap();
        let mut b = Channel::new(b, 100).unwrap();
        a.write_all(b"2:{},garbage").unwrap();
        assert!(matches!(b.next().await, Ok(Received::Payload(_))));
        assert!(matches!(
            b.next().await,
            Err(ChannelError::Frame(FrameError::NoLength))
        ));
    }
}
