//! Says what is in hand, in memory that outlives the process: its controller reads there over
//! what a worker died (`broth_ipc::black_box` has the layout).
//!
//! Everything that may be somebody's doing is entered before it is begun and cleared behind it.
//! A datagram is copied, as it is decrypted in place.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use broth_ipc::black_box::{
    self, BYTES, HEAD, MAGIC, MAGIC_WORD, NOTHING, REMOTE, ROUTER, TRANSPORT, WORDS, Work,
};
use broth_ipc::{Ids, RouterId, TransportId};

use crate::recorder::Memory;

/// What is in hand; without memory nothing is written.
#[derive(Debug, Default)]
pub struct BlackBox(Option<Memory>);

impl BlackBox {
    /// Takes over memory; `None` if it is too short.
    pub fn new(memory: Memory) -> Option<Self> {
        let words: &[AtomicU64; WORDS] = memory.words().first_chunk()?;
        words[HEAD].store(NOTHING, Ordering::Release);
        words[MAGIC].store(MAGIC_WORD, Ordering::Release);
        Some(Self(Some(memory)))
    }

    /// Nothing that is anybody's.
    pub fn clear(&self) {
        if let Some(words) = self.words() {
            words[HEAD].store(NOTHING, Ordering::Release);
        }
    }

    /// A datagram for a router, or a frame of a connection.
    pub fn take_datagram(&self, router: RouterId, remote: SocketAddr, datagram: &[u8]) {
        let Some(words) = self.words() else {
            return;
        };
        let remote = black_box::remote(remote);
        write(
            words,
            Work::Datagram,
            Some(router.0),
            None,
            remote,
            datagram,
        );
    }

    /// The transport the datagram in hand is for, as soon as that is known.
    pub fn note_transport(&self, transport: TransportId) {
        if let Some(words) = self.words() {
            let id = black_box::id(Some(transport.0));
            words[TRANSPORT].store(id, Ordering::Release);
        }
    }

    /// A request, by its method. What it carries may be a key and is not written.
    pub fn take_request(&self, ids: &Ids, method: &str) {
        let Some(words) = self.words() else {
            return;
        };
        let router = ids.router_id.map(|id| id.0);
        let transport = ids.transport_id.map(|id| id.0);
        let method = method.as_bytes();
        write(words, Work::Request, router, transport, [0; 3], method);
    }

    /// Other work for a router.
    pub fn take(&self, work: Work, router: RouterId, transport: Option<TransportId>) {
        let Some(words) = self.words() else {
            return;
        };
        let transport = transport.map(|id| id.0);
        write(words, work, Some(router.0), transport, [0; 3], &[]);
    }

    fn words(&self) -> Option<&[AtomicU64; WORDS]> {
        self.0.as_ref()?.words().first_chunk()
    }
}

/// The head is cleared first and written last: who dies between has nothing in hand.
fn write(
    words: &[AtomicU64; WORDS],
    work: Work,
    router: Option<u32>,
    transport: Option<u32>,
    remote: [u64; 3],
    bytes: &[u8],
) {
    let (head, kept) = black_box::head(work, bytes.len());
    words[HEAD].store(NOTHING, Ordering::Release);
    words[ROUTER].store(black_box::id(router), Ordering::Release);
    words[TRANSPORT].store(black_box::id(transport), Ordering::Release);
    for (word, part) in words[REMOTE..].iter().zip(remote) {
        word.store(part, Ordering::Release);
    }
    let (whole, rest) = bytes[..kept].as_chunks();
    for (word, part) in words[BYTES..].iter().zip(whole) {
        word.store(u64::from_le_bytes(*part), Ordering::Release);
    }
    if !rest.is_empty() {
        let mut part = [0; 8];
        part[..rest.len()].copy_from_slice(rest);
        words[BYTES + whole.len()].store(u64::from_le_bytes(part), Ordering::Release);
    }
    words[HEAD].store(head, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use broth_ipc::black_box::{InHand, Unreadable};

    const ROUTER_ID: RouterId = RouterId(7);
    const TRANSPORT_ID: TransportId = TransportId(8);

    fn read(black_box: &BlackBox) -> Result<Option<InHand>, Unreadable> {
        let words = black_box.words().unwrap();
        let bytes = words
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        InHand::read(&bytes.collect::<Vec<u8>>())
    }

    #[test]
    fn what_is_in_hand_can_be_read_until_it_is_cleared() {
        let black_box = BlackBox::new(Memory::heap(WORDS)).unwrap();
        assert_eq!(read(&black_box), Ok(None));
        let remote: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        let datagram: Vec<u8> = (0..3001).map(|at| at as u8).collect();
        for len in [0, 1, 8, 1199, 2047, 2048, 2049, 3001] {
            black_box.take_datagram(ROUTER_ID, remote, &datagram[..len]);
            let in_hand = read(&black_box).unwrap().unwrap();
            assert_eq!((in_hand.transport, in_hand.len), (None, len));
            assert_eq!(in_hand.bytes, datagram[..len.min(2048)]);
            black_box.note_transport(TRANSPORT_ID);
            let in_hand = read(&black_box).unwrap().unwrap();
            assert_eq!(in_hand.work, Work::Datagram);
            assert_eq!(in_hand.router, Some(ROUTER_ID));
            assert_eq!(in_hand.transport, Some(TRANSPORT_ID));
            assert_eq!(in_hand.remote, Some(remote));
            black_box.clear();
            assert_eq!(read(&black_box), Ok(None));
        }
        let ids = Ids::router(ROUTER_ID).transport(TRANSPORT_ID);
        black_box.take_request(&ids, "transport.close");
        let in_hand = read(&black_box).unwrap().unwrap();
        assert_eq!((in_hand.work, in_hand.remote), (Work::Request, None));
        assert_eq!(in_hand.bytes, b"transport.close");
        black_box.take(Work::Timer, ROUTER_ID, None);
        let in_hand = read(&black_box).unwrap().unwrap();
        assert_eq!(in_hand.work, Work::Timer);
        assert_eq!((in_hand.transport, in_hand.len), (None, 0));
    }

    #[test]
    fn without_memory_or_with_too_little_nothing_is_written() {
        assert!(BlackBox::new(Memory::heap(WORDS - 1)).is_none());
        let absent = BlackBox::default();
        absent.take_request(&Ids::NONE, "worker.dump");
        absent.clear();
    }
}
