//! Netstrings: `<decimal length>:<payload>,`, decoded incrementally.
//!
//! Pure: no socket, no clock. Incomplete input is a value (`Ok(None)`), a framing error is
//! final: once a length or a comma is wrong nothing behind it can be trusted, so the decoder
//! keeps answering the same error and the owner of the stream must close it.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Longest accepted length prefix: nine digits, as mediasoup v2's parser.
const DIGITS_MAX: usize = 9;

/// Why a byte stream is not a sequence of netstrings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame does not start with a digit.
    #[error("netstring does not start with a length")]
    NoLength,
    /// The length has a leading zero.
    #[error("netstring length has a leading zero")]
    LeadingZero,
    /// The length is above the limit of this channel.
    #[error("netstring of more than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Something else than a colon follows the length.
    #[error("netstring length is not followed by a colon")]
    NoColon,
    /// The payload is not followed by a comma.
    #[error("netstring payload is not followed by a comma")]
    NoComma,
}

/// An incremental netstring decoder.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    payload_bytes_max: usize,
    failed: Option<FrameError>,
}

impl Decoder {
    /// Creates a decoder that rejects payloads of more than `payload_bytes_max` bytes.
    pub fn new(payload_bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            payload_bytes_max,
            failed: None,
        }
    }

    /// Changes the limit for the frames still to come.
    pub fn set_payload_bytes_max(&mut self, payload_bytes_max: usize) {
        self.payload_bytes_max = payload_bytes_max;
    }

    /// Appends bytes as they arrived from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Takes the next complete payload, or `None` while one is incomplete.
    ///
    /// # Errors
    /// The stream is not netstrings. The error is permanent.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let header = self.header().inspect_err(|&error| {
            self.failed = Some(error);
            self.buffer = BytesMut::new();
        })?;
        let Some((start, len)) = header else {
            return Ok(None);
        };
        self.buffer.advance(start);
        let payload = self.buffer.split_to(len).freeze();
        self.buffer.advance(1);
        Ok(Some(payload))
    }

    /// Whether nothing of an unfinished frame is buffered.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Finds `(payload start, payload length)` of a complete first frame.
    fn header(&self) -> Result<Option<(usize, usize)>, FrameError> {
        let bytes = &self.buffer[..];
        let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return if bytes.is_empty() {
                Ok(None)
            } else {
                Err(FrameError::NoLength)
            };
        }
        if digits > 1 && bytes[0] == b'0' {
            return Err(FrameError::LeadingZero);
        }
        let too_long = FrameError::TooLong {
            limit: self.payload_bytes_max,
        };
        if digits > DIGITS_MAX {
            return Err(too_long);
        }
        let len = bytes[..digits]
            .iter()
            .fold(0usize, |len, digit| len * 10 + usize::from(digit - b'0'));
        if len > self.payload_bytes_max {
            return Err(too_long);
        }
        match bytes.get(digits) {
            None => return Ok(None),
            Some(b':') => {}
            Some(_) => return Err(FrameError::NoColon),
        }
        let start = digits + 1;
        match bytes.get(start + len) {
            None => Ok(None),
            Some(b',') => Ok(Some((start, len))),
            Some(_) => Err(FrameError::NoComma),
        }
    }
}

/// Appends `payload` to `out` as one netstring.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(payload.len() + DIGITS_MAX + 2);
    out.extend_from_slice(payload.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(payload);
    out.push(b',');
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::netstring as peer;
    use proptest::prelude::*;

    fn decode(input: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut decoder = Decoder::new(limit);
        decoder.feed(input);
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame.to_vec());
        }
        Ok(frames)
    }

    #[test]
    fn frames_and_errors() {
        let ok = |frames: &[&str]| Ok(frames.iter().map(|f| f.as_bytes().to_vec()).collect());
        let too_long = Err(FrameError::TooLong { limit: 10 });
        type Row<'a> = (&'a str, Result<Vec<Vec<u8>>, FrameError>);
        let rows: &[Row<'_>] = &[
            ("", ok(&[])),
            ("0:,", ok(&[""])),
            ("5:hello,", ok(&["hello"])),
            ("5:hello,5:world,", ok(&["hello", "world"])),
            ("5:hello,5:wor", ok(&["hello"])),
            ("1", ok(&[])),
            ("10", ok(&[])),
            ("10:", ok(&[])),
            ("3:a,:,", ok(&["a,:"])),
            ("x", Err(FrameError::NoLength)),
            (":a,", Err(FrameError::NoLength)),
            ("-1:a,", Err(FrameError::NoLength)),
            ("01:a,", Err(FrameError::LeadingZero)),
            ("00:,", Err(FrameError::LeadingZero)),
            ("11:", too_long.clone()),
            ("99999999999999999999:", too_long),
            ("5;hello,", Err(FrameError::NoColon)),
            ("5 :hello,", Err(FrameError::NoColon)),
            ("5:hello;", Err(FrameError::NoComma)),
            ("4:hello,", Err(FrameError::NoComma)),
        ];
        for (input, expected) in rows {
            assert_eq!(&decode(input.as_bytes(), 10), expected, "{input:?}");
        }
    }

    #[test]
    fn an_error_is_permanent_and_good_frames_before_it_are_delivered() {
        let mut decoder = Decoder::new(10);
        decoder.feed(b"1:a,x1:b,");
        assert_eq!(decoder.next_frame(), Ok(Some(Bytes::from_static(b"a"))));
        assert_eq!(decoder.next_frame(), Err(FrameError::NoLength));
        decoder.feed(b"1:b,");
        assert_eq!(decoder.next_frame(), Err(FrameError::NoLength));
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_decodes_to_the_same_frames(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cut in 1usize..7,
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                encode(frame, &mut stream);
            }
            let mut decoder = Decoder::new(64);
            let mut decoded = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    decoded.push(frame.to_vec());
                }
            }
            prop_assert_eq!(decoded, frames);
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 50);
        }

        #[test]
        fn the_netstring_crate_agrees(text in "[ -~]{0,60}") {
            use peer::{ReadNetstring, WriteNetstring};
            let mut ours = Vec::new();
            encode(text.as_bytes(), &mut ours);
            let mut theirs = Vec::new();
            theirs.write_netstring(&text).unwrap();
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!((&ours[..]).read_netstring().unwrap(), text);
        }
    }
}
