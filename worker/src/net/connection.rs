//! An accepted ICE-TCP connection, which outlives its worker: the controller holds it, too.
//!
//! A successor must find both directions between two frames. What is read therefore stays in the
//! kernel until whole frames of it are handled; and before a frame is written, its end is noted
//! where a successor reads it, so that it can fill up a frame that was written in part. The peer
//! drops such a frame, as it does not open.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use super::sys;
use super::tcp_frame::{FRAME_PAYLOAD_MAX, PREFIX_LEN, write_frame};
use crate::recorder::{Counters, FRAME_END, FRAME_LEN, Scribe};

/// Bytes that may wait for a slow peer; packets above are dropped.
const WAITING_BYTES_MAX: usize = 512 * 1024;

/// An accepted connection.
pub struct Connection {
    stream: TcpStream,
    /// Key of its listener.
    pub(super) listener: u32,
    /// The frame in hand.
    frame: Vec<u8>,
    /// Bytes of it that are written.
    written: usize,
    /// Frames behind it.
    waiting: VecDeque<u8>,
    /// Bytes written since the connection was made, by whichever worker.
    written_ever: u64,
    /// Where the frame in hand is noted.
    scribe: Option<Scribe>,
}

impl Connection {
    /// One that was just accepted.
    ///
    /// # Errors
    /// The socket failed.
    pub(super) fn new(stream: TcpStream, listener: u32) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            listener,
            frame: Vec::new(),
            written: 0,
            waiting: VecDeque::new(),
            written_ever: 0,
            scribe: None,
        })
    }

    /// One of an earlier worker, which noted the frame it had in hand.
    ///
    /// # Errors
    /// The socket failed, or what was noted cannot be.
    pub(super) fn resumed(stream: TcpStream, listener: u32, noted: &Counters) -> io::Result<Self> {
        let mut connection = Self::new(stream, listener)?;
        connection.written_ever = sys::tcp_bytes_written(connection.stream.as_fd())?;
        let (end, len) = (noted[FRAME_END], noted[FRAME_LEN]);
        if let Some(left @ 1..) = end.checked_sub(connection.written_ever) {
            let begun = len.checked_sub(left);
            let payload = (len as usize).checked_sub(PREFIX_LEN);
            let payload = payload.filter(|len| *len <= FRAME_PAYLOAD_MAX);
            let (Some(begun), Some(payload)) = (begun, payload) else {
                return Err(io::Error::other("no such frame was begun"));
            };
            write_frame(&mut connection.frame, &vec![0; payload]).map_err(io::Error::other)?;
            connection.written = begun as usize;
        }
        Ok(connection)
    }

    /// The peer's address.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn remote(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Notes the frame in hand from now on.
    pub(super) fn set_scribe(&mut self, scribe: Scribe) {
        self.scribe = Some(scribe);
        self.note_frame();
    }

    fn note_frame(&self) {
        if let Some(scribe) = &self.scribe {
            let (len, written) = (self.frame.len() as u64, self.written as u64);
            // Without the end the length means nothing.
            scribe.set(FRAME_LEN, len);
            scribe.set(FRAME_END, self.written_ever - written + len);
        }
    }

    /// Looks at what is there, without taking it.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection failed.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(buffer)
    }

    /// Takes what was looked at.
    ///
    /// # Errors
    /// The connection failed.
    pub fn take(&mut self, seen: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(seen)
    }

    /// Writes a packet, now or when there is room; `false` if too much waits already.
    pub(super) fn send(&mut self, packet: &[u8]) -> bool {
        if self.waiting.len() + packet.len() > WAITING_BYTES_MAX {
            return false;
        }
        if self.is_idle() {
            self.frame.clear();
            self.written = 0;
            // What is too long for a frame is too long for any path.
            if write_frame(&mut self.frame, packet).is_ok() {
                self.note_frame();
                // A broken connection shows itself when it is read.
                let _ = self.flush();
            }
        } else if let Ok(len) = u16::try_from(packet.len()) {
            self.waiting.extend(len.to_be_bytes());
            self.waiting.extend(packet);
        }
        true
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// The connection failed; nothing waits any more.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        loop {
            if self.is_idle() && !self.next_frame() {
                return Ok(());
            }
            match self.stream.write(&self.frame[self.written..]) {
                Ok(len) => {
                    self.written += len;
                    self.written_ever += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    self.frame.clear();
                    self.written = 0;
                    self.waiting.clear();
                    return Err(error);
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.written == self.frame.len()
    }

    fn next_frame(&mut self) -> bool {
        let (Some(&high), Some(&low)) = (self.waiting.front(), self.waiting.get(1)) else {
            return false;
        };
        let len = PREFIX_LEN + usize::from(u16::from_be_bytes([high, low]));
        self.frame.clear();
        self.frame.extend(self.waiting.drain(..len));
        self.written = 0;
        self.note_frame();
        true
    }

    /// Ends it for the peer, whoever else holds it.
    pub(super) fn shut_down(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub(super) fn try_clone(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::rc::Rc;

    use broth_ipc::TransportId;

    use super::*;
    use crate::net::tcp_frame::Frames;
    use crate::recorder::{Entry, InboundRecord, Memory, Recorder};

    const ID: TransportId = TransportId(1);
    const LISTENER: u32 = 0;

    /// A connection and its peer.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, peer)
    }

    fn recorder() -> (Rc<Memory>, Entry) {
        let memory = Rc::new(Memory::heap(1000));
        let record = InboundRecord {
            ssrc: 1,
            is_rtcp: false,
        };
        let entry = Recorder::create(Rc::clone(&memory)).add(ID, &record);
        (memory, entry.unwrap())
    }

    fn noted(memory: &Rc<Memory>) -> Counters {
        let (_, recordings) = Recorder::restore(Rc::clone(memory));
        recordings.inbound[&ID][0].counters
    }

    /// What the peer got, frame by frame.
    fn read_frames(peer: &mut TcpStream) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).unwrap();
        let mut frames = Frames::of(&mut bytes);
        let payloads = frames.by_ref().map(|frame| frame.unwrap().to_vec());
        let payloads = payloads.collect();
        assert_eq!(frames.taken(), bytes.len(), "the last frame is whole");
        payloads
    }

    #[test]
    fn half_a_frame_stays_where_a_successor_finds_it() {
        let (stream, mut peer) = pair();
        let kept = stream.try_clone().unwrap();
        let mut wire = Vec::new();
        write_frame(&mut wire, b"first").unwrap();
        write_frame(&mut wire, b"second").unwrap();
        let half = wire.len() - 3;
        peer.write_all(&wire[..half]).unwrap();
        let mut connection = Connection::new(stream, LISTENER).unwrap();
        let mut buffer = [0; 100];
        let len = loop {
            match connection.peek(&mut buffer) {
                Ok(len) if len == half => break len,
                _ => std::thread::yield_now(),
            }
        };
        let mut frames = Frames::of(&mut buffer[..len]);
        assert_eq!(frames.next(), Some(Ok(&mut b"first".to_owned()[..])));
        assert_eq!(frames.next(), None);
        let taken = frames.taken();
        connection.take(&mut buffer[..taken]).unwrap();
        drop(connection);

        peer.write_all(&wire[half..]).unwrap();
        let mut successor = Connection::resumed(kept, LISTENER, &[0; 16]).unwrap();
        successor.stream.set_nonblocking(false).unwrap();
        let mut rest = vec![0; wire.len() - taken];
        successor.take(&mut rest).unwrap();
        assert_eq!(&rest[2..], b"second");
    }

    #[test]
    fn a_frame_written_in_part_is_filled_up_by_the_next_worker() {
        for len in [1, 3, 1000, FRAME_PAYLOAD_MAX] {
            let (stream, mut peer) = pair();
            let kept = stream.try_clone().unwrap();
            let (memory, mut entry) = recorder();
            let mut connection = Connection::new(stream, LISTENER).unwrap();
            connection.send(b"before it was recorded");
            connection.set_scribe(entry.scribe());
            let mut sent = 0;
            while connection.waiting.is_empty() {
                assert!(connection.send(&vec![7; len]));
                sent += 1;
            }
            drop(connection);
            let counters = noted(&memory);
            let reader = std::thread::spawn(move || read_frames(&mut peer));
            let mut successor = Connection::resumed(kept, LISTENER, &counters).unwrap();
            successor.stream.set_nonblocking(false).unwrap();
            assert!(successor.send(b"by the next one"));
            successor.flush().unwrap();
            successor.shut_down();
            let got = reader.join().unwrap();
            assert_eq!(got[0], b"before it was recorded");
            assert_eq!(got.last().unwrap(), b"by the next one");
            // All but those that still waited, and the one in hand is damaged at most.
            let (whole, last) = (&got[1..got.len() - 2], &got[got.len() - 2]);
            assert!(whole.iter().all(|frame| *frame == vec![7; len]));
            assert_eq!(last.len(), len);
            assert!(got.len() - 2 <= sent);
        }
    }

    #[test]
    fn what_was_noted_must_fit_the_connection() {
        let mut counters = [0; 16];
        for (end, len, fits) in [
            (0, 0, true),
            (1, 0, false),
            (10, 9, false),
            (10, 10, true),
            (1, 1, false),
            (1 << 40, 1200, false),
            (70_000, 70_000, false),
        ] {
            let (stream, _peer) = pair();
            (counters[FRAME_END], counters[FRAME_LEN]) = (end, len);
            let resumed = Connection::resumed(stream, LISTENER, &counters);
            assert_eq!(resumed.is_ok(), fits, "{end} {len}");
        }
    }

    #[test]
    fn a_peer_that_does_not_read_costs_packets_and_no_memory() {
        let (stream, _peer) = pair();
        let mut connection = Connection::new(stream, LISTENER).unwrap();
        while connection.send(&[1; 1200]) {}
        assert!(connection.waiting.len() <= WAITING_BYTES_MAX);
        assert!(!connection.send(&[1; 1200]));
    }

    #[test]
    fn a_scribe_of_the_past_notes_nothing() {
        let (stream, _peer) = pair();
        let (memory, mut entry) = recorder();
        let mut connection = Connection::new(stream, LISTENER).unwrap();
        connection.set_scribe(entry.scribe());
        connection.send(b"12345678");
        assert_eq!(noted(&memory)[FRAME_END], 10);
        let _next = entry.scribe();
        connection.send(b"12345678");
        assert_eq!(noted(&memory)[FRAME_END], 10);
    }
}
