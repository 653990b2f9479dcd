//! RFC 4571 framing of datagrams on a TCP stream: a 16-bit big-endian length
//! before each one. Pure: bytes in, frames out; never touches a socket.

/// Largest payload one frame can carry.
///
/// The length field could say 65535; two bytes less keep prefix and payload
/// within the 64 KiB buffer that a connection is given (`spec/media.md` §1).
pub const FRAME_PAYLOAD_MAX: usize = u16::MAX as usize - 2;

const PREFIX_LEN: usize = 2;

/// Why a connection cannot be read, or a payload not framed, any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcpFrameError {
    /// A length prefix, or a payload to be written, exceeds [`FRAME_PAYLOAD_MAX`].
    #[error("frame longer than {FRAME_PAYLOAD_MAX} bytes")]
    TooLong,
}

/// Cuts a byte stream into frames.
///
/// Feed what was read, then call [`next`](Self::next) until it says `None`.
/// Drained that way, the buffer never holds more than one partial frame and
/// the last chunk fed.
#[derive(Debug, Default)]
pub struct TcpDeframer {
    buffer: Vec<u8>,
    consumed: usize,
}

impl TcpDeframer {
    /// Creates an empty deframer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes read from the connection.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete, non-empty frame, or `None` until more is fed.
    ///
    /// # Errors
    /// The prefix announces a frame no buffer may hold: close the connection.
    #[expect(
        clippy::should_implement_trait,
        reason = "lends from itself, which Iterator cannot"
    )]
    pub fn next(&mut self) -> Result<Option<&[u8]>, TcpFrameError> {
        loop {
            let unread = &self.buffer[self.consumed..];
            let Some((prefix, rest)) = unread.split_first_chunk::<PREFIX_LEN>() else {
                return Ok(None);
            };
            let len = usize::from(u16::from_be_bytes(*prefix));
            if len > FRAME_PAYLOAD_MAX {
                return Err(TcpFrameError::TooLong);
            }
            if rest.len() < len {
                return Ok(None);
            }
            let start = self.consumed + PREFIX_LEN;
            self.consumed = start + len;
            if len > 0 {
                return Ok(Some(&self.buffer[start..start + len]));
            }
        }
    }

    /// Bytes held back because their frame is not complete.
    pub fn buffered_len(&self) -> usize {
        self.buffer.len() - self.consumed
    }
}

/// Appends `payload` to `out` as one frame.
///
/// # Errors
/// The payload is longer than [`FRAME_PAYLOAD_MAX`]; `out` is unchanged.
pub fn write_frame(out: &mut Vec<u8>, payload: &[u8]) -> Result<(), TcpFrameError> {
    if payload.len() > FRAME_PAYLOAD_MAX {
        return Err(TcpFrameError::TooLong);
    }
    let len = u16::try_from(payload.len()).map_err(|_| TcpFrameError::TooLong)?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(deframer: &mut TcpDeframer) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = deframer.next().unwrap() {
            frames.push(frame.to_vec());
        }
        frames
    }

    #[test]
    fn zero_length_frames_are_ignored() {
        let mut deframer = TcpDeframer::new();
        deframer.feed(&[0, 0, 0, 0, 0, 1, 7, 0, 0]);
        assert_eq!(drain(&mut deframer), [vec![7]]);
        assert_eq!(deframer.buffered_len(), 0);
    }

    #[test]
    fn a_frame_that_cannot_fit_is_an_error_at_its_prefix() {
        let mut deframer = TcpDeframer::new();
        deframer.feed(&[0xFF, 0xFE]);
        assert_eq!(deframer.next(), Err(TcpFrameError::TooLong));
    }

    #[test]
    fn the_longest_frame_passes_and_one_more_byte_does_not() {
        let payload = vec![9; FRAME_PAYLOAD_MAX + 1];
        let mut out = Vec::new();
        assert_eq!(write_frame(&mut out, &payload), Err(TcpFrameError::TooLong));
        assert!(out.is_empty());
        write_frame(&mut out, &payload[1..]).unwrap();
        let mut deframer = TcpDeframer::new();
        deframer.feed(&out);
        assert_eq!(drain(&mut deframer), [payload[1..].to_vec()]);
    }

    proptest! {
        #[test]
        fn any_split_yields_the_frames_written(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..10),
            chunk in 1usize..40,
        ) {
            let mut wire = Vec::new();
            for payload in &payloads {
                write_frame(&mut wire, payload).unwrap();
            }
            let mut deframer = TcpDeframer::new();
            let mut got = Vec::new();
            for bytes in wire.chunks(chunk) {
                deframer.feed(bytes);
                got.extend(drain(&mut deframer));
            }
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut deframer = TcpDeframer::new();
            deframer.feed(&bytes);
            while let Ok(Some(frame)) = deframer.next() {
                prop_assert!(!frame.is_empty());
            }
        }
    }
}
