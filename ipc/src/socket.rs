//! Non-blocking ends of the channel's socket, with descriptors beside the bytes.
//!
//! Descriptors are sent with the first byte of the message that names them. A stream socket
//! never merges bytes across such a boundary, so by the time a message is complete its
//! descriptors are in the inbox, in order.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use thiserror::Error;

use crate::netstring::{self, Decoder, FrameError};

/// Most descriptors that travel with one message (the kernel's own limit is 253).
pub(crate) const FDS_MAX: usize = 64;

/// Most descriptors that may wait for their message.
const FDS_WAITING_MAX: usize = 4 * FDS_MAX;

/// Bytes read from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// Most frames sent by one system call.
const FRAMES_PER_CALL: usize = 64;

/// Most bytes that may wait to be sent.
const OUTBOX_BYTES_MAX: usize = 4 * crate::PAYLOAD_BYTES_MAX;

/// What reading from the socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Bytes arrived.
    Bytes,
    /// Nothing to read now.
    Blocked,
    /// The other end is gone.
    Eof,
}

/// The receiving half.
#[derive(Debug)]
pub struct Inbox {
    decoder: Decoder,
    fds: VecDeque<OwnedFd>,
    buffer: Box<[u8]>,
}

impl Inbox {
    /// Creates an inbox that rejects payloads above `payload_bytes_max`.
    pub fn new(payload_bytes_max: usize) -> Self {
        Self {
            decoder: Decoder::new(payload_bytes_max),
            fds: VecDeque::new(),
            buffer: vec![0; READ_BYTES].into(),
        }
    }

    /// Changes the limit for the frames still to come.
    pub fn set_payload_bytes_max(&mut self, payload_bytes_max: usize) {
        self.decoder.set_payload_bytes_max(payload_bytes_max);
    }

    /// Reads once from the socket.
    ///
    /// # Errors
    /// The socket failed. Descriptors beyond what may wait are closed at once.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<Fill> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut self.buffer)];
            match recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Fill::Blocked),
                other => break other?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                let room = FDS_WAITING_MAX - self.fds.len();
                self.fds.extend(fds.take(room));
            }
        }
        if received.bytes == 0 {
            return Ok(Fill::Eof);
        }
        self.decoder.feed(&self.buffer[..received.bytes]);
        Ok(Fill::Bytes)
    }

    /// Takes the next complete payload.
    ///
    /// # Errors
    /// The stream is not netstrings; it must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.decoder.next_frame()
    }

    /// Takes the `count` descriptors of the payload taken last, or `None` if so many did not
    /// come, which leaves the channel unusable.
    pub fn take_fds(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        (count <= self.fds.len()).then(|| self.fds.drain(..count).collect())
    }
}

/// The outbox is full: the other end does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the other end of the channel does not read")]
pub struct OutboxFull;

/// How far a flush came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Everything is sent.
    Done,
    /// The socket takes no more now.
    Blocked,
}

/// The sending half: a bounded queue of frames.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl Outbox {
    /// Queues a payload with the descriptors it names.
    ///
    /// # Errors
    /// Too much is waiting already; nothing was queued.
    ///
    /// # Panics
    /// More than 64 descriptors.
    pub fn push(&mut self, payload: &[u8], fds: Vec<OwnedFd>) -> Result<(), OutboxFull> {
        assert!(fds.len() <= FDS_MAX, "at most {FDS_MAX} descriptors");
        if self.bytes + payload.len() > OUTBOX_BYTES_MAX {
            return Err(OutboxFull);
        }
        let mut bytes = Vec::new();
        netstring::encode(payload, &mut bytes);
        self.push_frame(bytes, fds);
        Ok(())
    }

    /// Queues bytes as they are: after what is no netstring nothing is understood.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        self.push_frame(bytes.into(), Vec::new());
    }

    fn push_frame(&mut self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        self.bytes += bytes.len();
        self.frames.push_back(Frame {
            bytes,
            sent: 0,
            fds,
        });
    }

    /// Sends as much as the socket takes.
    ///
    /// # Errors
    /// The socket failed.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<Flush> {
        let mut unlimited = usize::MAX;
        self.flush_within(socket, &mut unlimited)
    }

    /// Sends as much as the socket takes, but begins no frame longer than `bytes_max`, from which
    /// the frames sent are subtracted.
    ///
    /// # Errors
    /// The socket failed.
    pub fn flush_within(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes_max: &mut usize,
    ) -> io::Result<Flush> {
        loop {
            let mut left = *bytes_max;
            let frames = self.frames.iter().enumerate().take_while(|(at, frame)| {
                // Descriptors travel with the first byte of a call.
                let may_follow = *at == 0 || frame.fds.is_empty();
                let rest = left.checked_sub(frame.unbegun());
                rest.inspect(|rest| left = *rest).is_some() && may_follow
            });
            let count = frames.take(FRAMES_PER_CALL).count();
            if count == 0 {
                return Ok(Flush::Done);
            }
            match self.send(socket, count) {
                Ok(sent) => *bytes_max -= self.take_sent(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Flush::Blocked),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends what is left of the first frames, and the descriptors of the first one.
    fn send(&self, socket: BorrowedFd<'_>, count: usize) -> Result<usize, Errno> {
        let frames = self.frames.iter().take(count);
        let parts: Vec<_> = frames
            .map(|frame| IoSlice::new(&frame.bytes[frame.sent..]))
            .collect();
        let first = self.frames.front();
        let fds: Vec<_> = first
            .iter()
            .flat_map(|first| &first.fds)
            .map(AsFd::as_fd)
            .collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
            debug_assert!(pushed, "the space is sized for FDS_MAX descriptors");
        }
        sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)
    }

    /// Notes that so many bytes are sent, and returns the length of the frames that they began.
    fn take_sent(&mut self, mut sent: usize) -> usize {
        let mut begun = 0;
        while sent > 0
            && let Some(frame) = self.frames.front_mut()
        {
            begun += frame.unbegun();
            let part = sent.min(frame.bytes.len() - frame.sent);
            frame.sent += part;
            frame.fds.clear();
            sent -= part;
            if frame.sent == frame.bytes.len() {
                self.bytes -= frame.bytes.len();
                self.frames.pop_front();
            }
        }
        begun
    }

    /// Whether a frame is sent in part.
    pub fn is_amid_frame(&self) -> bool {
        self.frames.front().is_some_and(|frame| frame.sent > 0)
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes waiting to be sent.
    pub fn len(&self) -> usize {
        self.bytes
    }
}

impl Frame {
    /// Its length, if nothing of it is sent.
    fn unbegun(&self) -> usize {
        if self.sent == 0 { self.bytes.len() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        b.set_nonblocking(true).unwrap();
        (a, b)
    }

    fn temp_file(content: &str) -> OwnedFd {
        let fd = rustix::fs::memfd_create("ipc-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(content.as_bytes()).unwrap();
        file.rewind().unwrap();
        file.into()
    }

    #[test]
    fn descriptors_arrive_with_the_message_that_names_them() {
        let (a, b) = pair();
        let mut outbox = Outbox::default();
        let mut inbox = Inbox::new(1000);
        outbox.push(b"none", vec![]).unwrap();
        outbox.push(b"one", vec![temp_file("1")]).unwrap();
        outbox
            .push(b"two", vec![temp_file("2"), temp_file("3")])
            .unwrap();
        assert_eq!(outbox.flush(a.as_fd()).unwrap(), Flush::Done);
        assert!(outbox.is_empty());
        let mut content = Vec::new();
        for (payload, count) in [("none", 0), ("one", 1), ("two", 2)] {
            let frame = loop {
                if let Some(frame) = inbox.next_frame().unwrap() {
                    break frame;
                }
                assert_eq!(inbox.fill(b.as_fd()).unwrap(), Fill::Bytes);
            };
            assert_eq!(&frame[..], payload.as_bytes());
            for fd in inbox.take_fds(count).unwrap() {
                let mut text = String::new();
                File::from(fd).read_to_string(&mut text).unwrap();
                content.push(text);
            }
        }
        assert_eq!(content, ["1", "2", "3"]);
        assert!(inbox.take_fds(1).is_none());
        assert_eq!(inbox.fill(b.as_fd()).unwrap(), Fill::Blocked);
        drop(a);
        assert_eq!(inbox.fill(b.as_fd()).unwrap(), Fill::Eof);
    }

    #[test]
    fn no_frame_is_begun_that_exceeds_what_may_be_sent() {
        let (a, mut b) = pair();
        let mut outbox = Outbox::default();
        for payload in [b"one", b"two", b"six"] {
            outbox.push(payload, vec![]).unwrap();
        }
        // Each frame has six bytes.
        for (mut bytes_max, left, rest) in [(5, 5, 18), (13, 1, 6), (6, 0, 0)] {
            let flushed = outbox.flush_within(a.as_fd(), &mut bytes_max);
            assert_eq!(flushed.unwrap(), Flush::Done);
            assert_eq!((bytes_max, outbox.len()), (left, rest));
        }
        assert!(!outbox.is_amid_frame());
        let mut received = [0; 18];
        b.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"3:one,3:two,3:six,");
    }

    #[test]
    fn a_reader_that_stops_reading_fills_the_outbox_and_nothing_is_lost() {
        let (a, b) = pair();
        let mut outbox = Outbox::default();
        let payload = vec![b'x'; 1 << 20];
        let mut queued = 0;
        while outbox.push(&payload, vec![]).is_ok() {
            queued += 1;
        }
        assert!(queued > 1 && outbox.len() <= OUTBOX_BYTES_MAX + 16);
        assert_eq!(outbox.flush(a.as_fd()).unwrap(), Flush::Blocked);
        let mut inbox = Inbox::new(payload.len());
        let mut frames = 0;
        loop {
            let flush = outbox.flush(a.as_fd()).unwrap();
            while inbox.fill(b.as_fd()).unwrap() == Fill::Bytes {}
            while let Some(frame) = inbox.next_frame().unwrap() {
                assert_eq!(frame.len(), payload.len());
                frames += 1;
            }
            if flush == Flush::Done {
                break;
            }
        }
        assert_eq!(frames, queued);
    }
}
