//! The worker's end of the channel: frames in, frames out, and how much of either may wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use broth_ipc::netstring::FrameError;
use broth_ipc::{Fill, Flush, GARBAGE, Inbox, Outbox};
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::CHANNEL;
use crate::dialect::Dialect;
use crate::net::sys;

/// What may wait for the controller to read before its requests wait, too.
const UNREAD_BYTES_MAX: usize = 1 << 20;
/// What mediasoup v2's controller can take at once: it throws away what it has read if that, with
/// the beginning of a message before it, is more (`spec: channel.md` §2).
const V2_BURST_BYTES: usize = 65_543;
/// Between two looks whether it has read that.
const V2_BURST_INTERVAL: Duration = Duration::from_millis(1);

/// The worker's end of the channel.
pub(super) struct Channel {
    socket: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    /// What the socket is watched for.
    interest: EpollFlags,
    /// What may still be sent to a v2 controller before it has read everything.
    burst_bytes: usize,
    /// There may be complete requests in the inbox.
    has_requests: bool,
}

impl Channel {
    pub(super) fn new(socket: UnixStream, epoll: &Epoll) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, CHANNEL))?;
        Ok(Self {
            socket,
            inbox: Inbox::new(Dialect::default().payload_bytes_max()),
            outbox: Outbox::default(),
            interest: EpollFlags::EPOLLIN,
            burst_bytes: V2_BURST_BYTES,
            has_requests: false,
        })
    }

    pub(super) fn set_payload_bytes_max(&mut self, payload_bytes_max: usize) {
        self.inbox.set_payload_bytes_max(payload_bytes_max);
    }

    /// Reads once. What was read before is carried out first, so that no more than one message
    /// and one reading wait in the inbox.
    pub(super) fn fill(&mut self) -> io::Result<Fill> {
        if self.has_requests {
            return Ok(Fill::Blocked);
        }
        let fill = self.inbox.fill(self.socket.as_fd())?;
        self.has_requests = fill == Fill::Bytes;
        Ok(fill)
    }

    /// The next request; `None` also while the controller does not read: requests wait as long
    /// as their answers would.
    pub(super) fn next_request(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.is_congested() {
            return Ok(None);
        }
        let frame = self.inbox.next_frame()?;
        self.has_requests = frame.is_some();
        Ok(frame)
    }

    /// The descriptors of the request taken last.
    pub(super) fn take_fds(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        self.inbox
            .take_fds(count)
            .ok_or_else(|| io::Error::other("descriptors named by a request did not arrive"))
    }

    /// Queues a message.
    pub(super) fn push(&mut self, payload: &[u8]) -> io::Result<()> {
        self.push_with(payload, Vec::new())
    }

    /// Queues a message with descriptors.
    pub(super) fn push_with(&mut self, payload: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
        let pushed = self.outbox.push(payload, fds);
        pushed.map_err(io::Error::other)
    }

    /// Queues what no controller understands.
    pub(super) fn push_garbage(&mut self) {
        self.outbox.push_raw(GARBAGE);
    }

    /// Sends what the socket and the controller can take.
    pub(super) fn flush(&mut self, dialect: Dialect, epoll: &Epoll) -> io::Result<()> {
        let socket = self.socket.as_fd();
        let flushed = match dialect {
            Dialect::Broth => self.outbox.flush(socket)?,
            Dialect::V2 if self.outbox.is_empty() => Flush::Done,
            Dialect::V2 => {
                if !self.outbox.is_amid_frame() && sys::unread_bytes(socket)? == 0 {
                    self.burst_bytes = V2_BURST_BYTES;
                }
                self.outbox.flush_within(socket, &mut self.burst_bytes)?
            }
        };
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLOUT, flushed == Flush::Blocked);
        interest.set(EpollFlags::EPOLLIN, !self.is_congested());
        if interest != self.interest {
            self.interest = interest;
            epoll.modify(&self.socket, &mut EpollEvent::new(interest, CHANNEL))?;
        }
        Ok(())
    }

    /// How long there is nothing to do here unless the socket says otherwise.
    pub(super) fn sleep_max(&self) -> Option<Duration> {
        if self.has_requests && !self.is_congested() {
            return Some(Duration::ZERO);
        }
        let is_paused = !self.outbox.is_empty() && !self.interest.contains(EpollFlags::EPOLLOUT);
        is_paused.then_some(V2_BURST_INTERVAL)
    }

    /// Sends the last words to whoever still reads.
    pub(super) fn finish(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while let Ok(Flush::Blocked) = self.outbox.flush(self.socket.as_fd()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let millis = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
            if left.is_zero() || !matches!(poll(&mut polled, millis), Ok(1..)) {
                return;
            }
        }
    }

    fn is_congested(&self) -> bool {
        self.outbox.len() > UNREAD_BYTES_MAX
    }
}
