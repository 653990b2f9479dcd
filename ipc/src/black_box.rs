//! What a worker has in hand: written by it before it begins, read by its controller after its
//! death. Pure.
//!
//! Words of 64 bits, little-endian, in memory that the controller makes and the worker maps:
//!
//! ```text
//!  word 0      1      2        3           4        5 … 6     7      8 … 263
//!       magic  head   router   transport   remote   address   free   bytes
//!
//!  head               work:8 │ free:8 │ bytes kept:16 │ bytes:32    0: nothing in hand
//!  router, transport  is one:1 │ id:32                              0: none
//!  remote             family:8 │ port:16                            family 4, 6, or 0: none
//! ```
//!
//! The head is cleared first and written last, so that whoever dies between reads as one with
//! nothing in hand. `bytes` is the datagram, or the method of a request: never what a request
//! carries, which may be a key. Nothing that is read is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::{RouterId, TransportId};

/// Size of the memory: a page.
pub const BLACK_BOX_BYTES: usize = 4096;
/// Words that mean something.
pub const WORDS: usize = BYTES + BYTES_MAX / 8;
/// Most bytes of a datagram that are kept.
pub const BYTES_MAX: usize = 2048;

/// Place of the magic.
pub const MAGIC: usize = 0;
/// Place of the head.
pub const HEAD: usize = 1;
/// Place of the router.
pub const ROUTER: usize = 2;
/// Place of the transport.
pub const TRANSPORT: usize = 3;
/// First of the three places of the remote address.
pub const REMOTE: usize = 4;
/// First place of the bytes.
pub const BYTES: usize = 8;

/// What a worker writes first; another layout has another one.
pub const MAGIC_WORD: u64 = u64::from_le_bytes(*b"broth b1");
/// The head while nothing is in hand.
pub const NOTHING: u64 = 0;

/// Marks an id word that has an id.
const IS_ONE: u64 = 1 << 32;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Work {
    /// A received datagram, or a frame of an ICE-TCP connection.
    Datagram = 1,
    /// The bytes of an ICE-TCP connection, before they are frames.
    Connection = 2,
    /// A request of the controller.
    Request = 3,
    /// A transport's deadline.
    Timer = 4,
    /// The packets that came from a transport in this turn, on their way to its consumers.
    Forwarding = 5,
}

impl Work {
    const ALL: [Self; 5] = [
        Self::Datagram,
        Self::Connection,
        Self::Request,
        Self::Timer,
        Self::Forwarding,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Datagram => "datagram",
            Self::Connection => "connection",
            Self::Request => "request",
            Self::Timer => "timer",
            Self::Forwarding => "forwarding",
        }
    }
}

/// What a worker had in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InHand {
    /// What it did.
    pub work: Work,
    /// For which router.
    pub router: Option<RouterId>,
    /// For which transport of it; `None` also before that was found out.
    pub transport: Option<TransportId>,
    /// Who sent the datagram.
    pub remote: Option<SocketAddr>,
    /// How long the datagram was, in bytes.
    pub len: usize,
    /// The datagram as it arrived, at most [`BYTES_MAX`] bytes of it, or the method of the request.
    pub bytes: Vec<u8>,
}

/// Why a black box says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// It is shorter than its layout.
    #[error("it is too short")]
    Short,
    /// No worker wrote it, or one with another layout.
    #[error("it begins with another word")]
    Magic,
    /// The kind of work is not known.
    #[error("it names an unknown work")]
    Work,
    /// More bytes than there is room for, or than there were.
    #[error("its length is out of bounds")]
    Length,
    /// A word that is no id.
    #[error("it has a malformed id")]
    Id,
    /// A word that is no address.
    #[error("it has a malformed address")]
    Remote,
}

/// The head for a work on something of `len` bytes, and how many of them are to be kept.
pub fn head(work: Work, len: usize) -> (u64, usize) {
    let kept = len.min(BYTES_MAX);
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let head = work as u64 | (kept as u64) << 16 | u64::from(len) << 32;
    (head, kept)
}

/// The word of an id.
pub fn id(id: Option<u32>) -> u64 {
    id.map_or(0, |id| IS_ONE | u64::from(id))
}

/// The words of an address.
pub fn remote(remote: SocketAddr) -> [u64; 3] {
    let port = u64::from(remote.port()) << 8;
    match remote.ip() {
        IpAddr::V4(ip) => [4 | port, u64::from(ip.to_bits()), 0],
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            [6 | port, bits as u64, (bits >> 64) as u64]
        }
    }
}

impl InHand {
    /// Reads a black box; `None` if nothing was in hand.
    ///
    /// # Errors
    /// It cannot be what a worker wrote.
    pub fn read(memory: &[u8]) -> Result<Option<Self>, Unreadable> {
        let memory = memory.get(..WORDS * 8).ok_or(Unreadable::Short)?;
        let word = |at: usize| {
            let bytes = memory[at * 8..].first_chunk();
            u64::from_le_bytes(*bytes.expect("there are WORDS words"))
        };
        if word(MAGIC) != MAGIC_WORD {
            return Err(Unreadable::Magic);
        }
        let head = word(HEAD);
        if head == NOTHING {
            return Ok(None);
        }
        let is_it = |work: &Work| head & 0xFFFF == *work as u64;
        let work = Work::ALL.into_iter().find(is_it).ok_or(Unreadable::Work)?;
        let (kept, len) = ((head >> 16 & 0xFFFF) as usize, (head >> 32) as usize);
        if kept > BYTES_MAX || kept > len {
            return Err(Unreadable::Length);
        }
        Ok(Some(Self {
            work,
            router: read_id(word(ROUTER))?.map(RouterId),
            transport: read_id(word(TRANSPORT))?.map(TransportId),
            remote: read_remote([word(REMOTE), word(REMOTE + 1), word(REMOTE + 2)])?,
            len,
            bytes: memory[BYTES * 8..][..kept].to_vec(),
        }))
    }
}

fn read_id(word: u64) -> Result<Option<u32>, Unreadable> {
    match word {
        0 => Ok(None),
        _ if word >> 32 == 1 => Ok(Some(word as u32)),
        _ => Err(Unreadable::Id),
    }
}

fn read_remote([head, low, high]: [u64; 3]) -> Result<Option<SocketAddr>, Unreadable> {
    let port = (head >> 8) as u16;
    let ip = match (head & 0xFF, head >> 24) {
        (0, _) if head == 0 => return Ok(None),
        (4, 0) => {
            let bits = u32::try_from(low).map_err(|_| Unreadable::Remote)?;
            IpAddr::from(Ipv4Addr::from_bits(bits))
        }
        (6, 0) => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
        _ => return Err(Unreadable::Remote),
    };
    Ok(Some(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box with a datagram in hand.
    fn written(datagram: &[u8], from: SocketAddr) -> Vec<u64> {
        let mut words = vec![0; BLACK_BOX_BYTES / 8];
        let (head, kept) = head(Work::Datagram, datagram.len());
        words[MAGIC] = MAGIC_WORD;
        words[HEAD] = head;
        words[ROUTER] = id(Some(7));
        words[TRANSPORT] = id(Some(u32::MAX));
        words[REMOTE..REMOTE + 3].copy_from_slice(&remote(from));
        for (word, part) in words[BYTES..].iter_mut().zip(datagram[..kept].chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            *word = u64::from_le_bytes(bytes);
        }
        words
    }

    fn read(words: &[u64]) -> Result<Option<InHand>, Unreadable> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        InHand::read(&bytes)
    }

    #[test]
    fn what_was_in_hand_is_read_back() {
        let long: Vec<u8> = (0..3000).map(|at| at as u8).collect();
        for (datagram, from) in [
            (&long[..5], "192.0.2.1:65535"),
            (&long[..1200], "[2001:db8::1]:1"),
            (&long[..0], "[::1]:0"),
            (&long[..], "0.0.0.0:9"),
        ] {
            let from = from.parse().unwrap();
            let expected = InHand {
                work: Work::Datagram,
                router: Some(RouterId(7)),
                transport: Some(TransportId(u32::MAX)),
                remote: Some(from),
                len: datagram.len(),
                bytes: datagram[..datagram.len().min(BYTES_MAX)].to_vec(),
            };
            assert_eq!(read(&written(datagram, from)), Ok(Some(expected)));
        }
    }

    #[test]
    fn a_box_that_nobody_wrote_or_that_breaks_off_says_nothing() {
        let whole = written(b"datagram", "192.0.2.1:9".parse().unwrap());
        assert_eq!(InHand::read(&[]), Err(Unreadable::Short));
        assert_eq!(read(&whole[..WORDS - 1]), Err(Unreadable::Short));
        assert_eq!(read(&[0; WORDS]), Err(Unreadable::Magic));
        // Whoever dies while it writes has cleared the head before.
        let mut torn = whole;
        torn[HEAD] = NOTHING;
        torn[TRANSPORT] = u64::MAX;
        assert_eq!(read(&torn), Ok(None));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let rows = [
            (MAGIC, MAGIC_WORD + 1, Unreadable::Magic),
            (HEAD, 9, Unreadable::Work),
            (HEAD, 1 << 8, Unreadable::Work),
            (HEAD, 1 | 2049 << 16 | 4000 << 32, Unreadable::Length),
            (HEAD, 1 | 100 << 16 | 99 << 32, Unreadable::Length),
            (ROUTER, 1, Unreadable::Id),
            (TRANSPORT, 2 << 32, Unreadable::Id),
            (TRANSPORT, u64::MAX, Unreadable::Id),
            (REMOTE, 5, Unreadable::Remote),
            (REMOTE, 4 | 1 << 24, Unreadable::Remote),
            (REMOTE, 1 << 8, Unreadable::Remote),
            (REMOTE + 1, 1 << 32, Unreadable::Remote),
        ];
        for (at, word, expected) in rows {
            let mut words = written(b"datagram", "192.0.2.1:9".parse().unwrap());
            words[at] = word;
            assert_eq!(read(&words), Err(expected), "{at}: {word:x}");
        }
    }

    #[test]
    fn garbage_is_read_without_harm_and_stays_within_bounds() {
        let mut random = 1_u64;
        for _ in 0..2_000 {
            let mut words = written(&[9; 1200], "192.0.2.1:9".parse().unwrap());
            for _ in 0..3 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = (random >> 33) as usize % BYTES;
                words[at] = random.rotate_left(random as u32 % 64) >> (random >> 58);
            }
            if let Ok(Some(in_hand)) = read(&words) {
                assert!(
                    in_hand.bytes.len() <= BYTES_MAX.min(in_hand.len),
                    "{in_hand:?}"
                );
            }
        }
    }
}
