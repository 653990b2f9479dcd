//! RFC 4571 framing of datagrams on a TCP stream: a 16-bit big-endian length
//! before each one. Pure: bytes in, frames out; never touches a socket.

/// Largest payload one frame can carry.
///
/// The length field could say 65535; two bytes less keep prefix and payload
/// within the 64 KiB buffer that a connection is given (`spec/media.md` §1).
pub const FRAME_PAYLOAD_MAX: usize = u16::MAX as usize - 2;
/// Largest frame with its prefix.
pub const FRAME_BYTES_MAX: usize = PREFIX_LEN + FRAME_PAYLOAD_MAX;

/// Bytes of the length before each payload.
pub(super) const PREFIX_LEN: usize = 2;

/// Why a connection cannot be read, or a payload not framed, any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcpFrameError {
    /// A length prefix, or a payload to be written, exceeds [`FRAME_PAYLOAD_MAX`].
    #[error("frame longer than {FRAME_PAYLOAD_MAX} bytes")]
    TooLong,
}

/// The complete, non-empty frames at the beginning of what was read from a connection.
#[derive(Debug)]
pub struct Frames<'b> {
    rest: &'b mut [u8],
    taken: usize,
}

impl<'b> Frames<'b> {
    /// Those in `bytes`, which begin with a frame.
    pub fn of(bytes: &'b mut [u8]) -> Self {
        Self {
            rest: bytes,
            taken: 0,
        }
    }

    /// Bytes of the frames returned so far, and of empty ones among them.
    pub fn taken(&self) -> usize {
        self.taken
    }
}

/// An error is a prefix that announces a frame no buffer may hold: close the connection.
impl<'b> Iterator for Frames<'b> {
    type Item = Result<&'b mut [u8], TcpFrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let len = usize::from(u16::from_be_bytes(*self.rest.first_chunk()?));
            if len > FRAME_PAYLOAD_MAX {
                return Some(Err(TcpFrameError::TooLong));
            }
            let rest = std::mem::take(&mut self.rest);
            match rest.split_at_mut_checked(PREFIX_LEN + len) {
                None => return None,
                Some((frame, rest)) => {
                    self.rest = rest;
                    self.taken += frame.len();
                    if len > 0 {
                        return Some(Ok(&mut frame[PREFIX_LEN..]));
                    }
                }
            }
        }
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

    /// The frames at the beginning of `wire`, and how many bytes they are.
    fn frames(wire: &mut [u8]) -> (Vec<Vec<u8>>, usize) {
        let mut frames = Frames::of(wire);
        let payloads = frames.by_ref().map(|frame| frame.unwrap().to_vec());
        (payloads.collect(), frames.taken())
    }

    #[test]
    fn zero_length_frames_are_ignored() {
        assert_eq!(frames(&mut [0, 0, 0, 0, 0, 1, 7, 0, 0]), (vec![vec![7]], 9));
    }

    #[test]
    fn a_frame_that_cannot_fit_is_an_error_at_its_prefix() {
        let mut wire = [0xFF, 0xFE];
        let first = Frames::of(&mut wire).next();
        assert_eq!(first, Some(Err(TcpFrameError::TooLong)));
    }

    #[test]
    fn the_longest_frame_passes_and_one_more_byte_does_not() {
        let payload = vec![9; FRAME_PAYLOAD_MAX + 1];
        let mut out = Vec::new();
        assert_eq!(write_frame(&mut out, &payload), Err(TcpFrameError::TooLong));
        assert!(out.is_empty());
        write_frame(&mut out, &payload[1..]).unwrap();
        let len = out.len();
        assert_eq!(len, FRAME_BYTES_MAX);
        assert_eq!(frames(&mut out), (vec![payload[1..].to_vec()], len));
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
            let (mut waiting, mut got) = (Vec::new(), Vec::new());
            for bytes in wire.chunks(chunk) {
                waiting.extend_from_slice(bytes);
                let (complete, taken) = frames(&mut waiting);
                got.extend(complete);
                waiting.drain(..taken);
            }
            prop_assert_eq!(got, payloads);
            prop_assert!(waiting.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let len = bytes.len();
            let mut frames = Frames::of(&mut bytes);
            while let Some(Ok(frame)) = frames.next() {
                prop_assert!(!frame.is_empty());
            }
            prop_assert!(frames.taken() <= len);
        }
    }
}
