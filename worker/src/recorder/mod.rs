//! The flight recorder of a router: what a successor needs to go on where this worker stopped,
//! in memory that outlives the process.
//!
//! Owns the layout: a header, then records of one size (`entry`); what is in them is said in
//! `records`. Never maps anything itself and never looks at media. `docs/recovery.md` tells
//! what is restored from it and what is lost.
//!
//! ```text
//!  word 0      1                        2              3              4      8        64
//!       magic  version:32 │ record:32   records used   not recorded   mark   record 0 record 1 …
//! ```
//!
//! An index under which a packet is sealed is recorded before the packet can leave. What was
//! received is recorded after what became of it has left ([`Recorder::commit`]), so that what
//! died on its way is asked for again.

mod entry;
mod memory;
mod records;

use std::collections::HashMap;
use std::rc::Rc;

use broth_ipc::{ConsumerId, ProducerId, TransportId};

use crate::io::Io;
pub use entry::{COUNTERS, Counters, Entry, Kind, RECORD_WORDS, Scribe};
use entry::{Found, MARK, pack, unpack};
pub use memory::Memory;
pub use records::{
    BYTES, BYTES_RECEIVED, BYTES_SENT, ConsumerRecord, DISCARDED, FIRS, FRAME_END, FRAME_LEN,
    HIGHEST, InboundRecord, LOST, MISSING, NACKS, NEWEST_PICTURE, NEWEST_TS, PACKETS,
    PAYLOAD_BYTES, PLIS, REPAIRED, RTX_SEQ, Record, SENDERS, SRTCP_INDEX, StreamRecord, TWCC_COUNT,
    TransportRecord,
};

/// `broth-fr`.
const MAGIC: u64 = u64::from_le_bytes(*b"broth-fr");
/// Version of the layout: changes with anything that is written.
pub const VERSION: u32 = 3;
/// What the header says of the layout.
const LAYOUT: u64 = (VERSION as u64) << 32 | RECORD_WORDS as u64;
const USED: usize = 2;
const REFUSED: usize = 3;
const HEADER_WORDS: usize = 8;
/// Of so many counters set lately the next packet of a stream is likely to set one again.
const LATEST: usize = 6;

/// A router's recorder.
#[derive(Debug)]
pub struct Recorder {
    memory: Rc<Memory>,
    /// Places given back.
    free: Vec<u32>,
    /// Places ever taken.
    used: usize,
    /// Objects that found no place.
    refused: u64,
    /// Counters to be written when this turn's packets have left.
    uncommitted: Vec<(usize, u64)>,
}

/// A record of an object of an earlier worker.
#[derive(Debug)]
pub struct Recorded<R> {
    /// The record, to be written on.
    pub entry: Entry,
    /// What it says.
    pub record: R,
    /// Its counters.
    pub counters: Counters,
}

/// Everything an earlier worker recorded, by the objects it is about.
#[derive(Debug, Default)]
pub struct Recordings {
    /// Connected transports.
    pub transports: HashMap<TransportId, Recorded<TransportRecord>>,
    /// What transports received.
    pub inbound: HashMap<TransportId, Vec<Recorded<InboundRecord>>>,
    /// Streams of producers.
    pub streams: HashMap<ProducerId, Vec<Recorded<StreamRecord>>>,
    /// Enabled consumers.
    pub consumers: HashMap<ConsumerId, Recorded<ConsumerRecord>>,
}

impl Recorder {
    /// Records nothing.
    pub fn absent() -> Self {
        Self::over(Rc::new(Memory::heap(0)))
    }

    /// Starts on empty memory.
    pub fn create(memory: Rc<Memory>) -> Self {
        let recorder = Self::over(memory);
        if recorder.capacity() > 0 {
            for (at, word) in [MAGIC, LAYOUT, 0, 0].into_iter().enumerate() {
                recorder.memory.store(at, word);
            }
            // Records of other recorders, and of what was here before, are none in this one.
            let mark = u64::from_le_bytes(Io::random());
            recorder.memory.store(MARK, mark);
        }
        recorder
    }

    /// Goes on with what an earlier worker wrote. Nothing is taken on trust: what does not read
    /// well is forgotten.
    pub fn restore(memory: Rc<Memory>) -> (Self, Recordings) {
        let mut recordings = Recordings::default();
        let is_ours =
            memory.len() > HEADER_WORDS && memory.load(0) == MAGIC && memory.load(1) == LAYOUT;
        if !is_ours {
            return (Self::create(memory), recordings);
        }
        let mut recorder = Self::over(memory);
        let used = unpack(recorder.memory.load(USED)).unwrap_or(0);
        recorder.used = recorder.capacity().min(used as usize);
        recorder.refused = unpack(recorder.memory.load(REFUSED)).unwrap_or(0);
        for place in 0..recorder.used {
            recorder.read(place, &mut recordings);
        }
        (recorder, recordings)
    }

    fn over(memory: Rc<Memory>) -> Self {
        Self {
            memory,
            free: Vec::new(),
            used: 0,
            refused: 0,
            uncommitted: Vec::new(),
        }
    }

    fn capacity(&self) -> usize {
        self.memory.len().saturating_sub(HEADER_WORDS) / RECORD_WORDS
    }

    fn read(&mut self, place: usize, recordings: &mut Recordings) {
        let at = at(place);
        let raw = match Entry::read(&self.memory, at) {
            Found::Free => {
                self.free.push(at);
                return;
            }
            Found::Damaged => {
                entry::wipe(&self.memory, at);
                self.free.push(at);
                return;
            }
            Found::Record(raw) => *raw,
        };
        let id = raw.id;
        let displaced = match raw.kind {
            Kind::Transport => decode(raw).map(|recorded| {
                let old = recordings.transports.insert(TransportId(id), recorded);
                old.map(|old| old.entry)
            }),
            Kind::Inbound => decode(raw).map(|recorded| {
                let all = recordings.inbound.entry(TransportId(id)).or_default();
                all.push(recorded);
                None
            }),
            Kind::Stream => decode(raw).map(|recorded| {
                let all = recordings.streams.entry(ProducerId(id)).or_default();
                all.push(recorded);
                None
            }),
            Kind::Consumer => decode(raw).map(|recorded| {
                let old = recordings.consumers.insert(ConsumerId(id), recorded);
                old.map(|old| old.entry)
            }),
        };
        match displaced {
            Ok(None) => {}
            Ok(Some(entry)) | Err(entry) => self.remove(entry),
        }
    }

    /// Begins a record; `None` if there is no room.
    pub fn add<R: Record>(&mut self, id: R::Id, record: &R) -> Option<Entry> {
        let Some(at) = self.take_place(R::KIND) else {
            if self.is_present() {
                self.refused += 1;
                self.memory.store(REFUSED, pack(self.refused));
            }
            return None;
        };
        let mut entry = Entry::new(Rc::clone(&self.memory), at, R::KIND, R::id_word(id));
        record.write(&mut entry);
        Some(entry)
    }

    fn take_place(&mut self, kind: Kind) -> Option<u32> {
        // Of SSRCs a peer may invent any number; nobody else is to go short for that.
        let taken = self.used - self.free.len();
        if kind == Kind::Inbound && taken >= self.capacity() - self.capacity() / 4 {
            return None;
        }
        if let Some(at) = self.free.pop() {
            return Some(at);
        }
        if self.used == self.capacity() {
            return None;
        }
        let at = at(self.used);
        self.used += 1;
        self.memory.store(USED, pack(self.used as u64));
        Some(at)
    }

    /// Ends a record.
    pub fn remove(&mut self, entry: Entry) {
        let words = entry.word(0)..entry.word(COUNTERS);
        self.uncommitted.retain(|(word, _)| !words.contains(word));
        self.free.push(entry.wipe());
    }

    /// Sets a counter with the next [`commit`](Self::commit).
    pub fn set_later(&mut self, entry: &Entry, counter: usize, value: u64) {
        let word = entry.word(counter);
        let mut latest = self.uncommitted.iter_mut().rev().take(LATEST);
        match latest.find(|(set, _)| *set == word) {
            Some((_, newest)) => *newest = value,
            None => self.uncommitted.push((word, value)),
        }
    }

    /// What was sent in this turn has left.
    pub fn commit(&mut self) {
        for (word, value) in self.uncommitted.drain(..) {
            self.memory.store(word, pack(value));
        }
    }

    /// Whether there is anything to record to.
    pub fn is_present(&self) -> bool {
        self.capacity() > 0
    }

    /// Objects that found no place.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

fn at(place: usize) -> u32 {
    (HEADER_WORDS + place * RECORD_WORDS) as u32
}

fn decode<R: Record>(raw: entry::Raw) -> Result<Recorded<R>, Entry> {
    match R::read(&raw.payload) {
        Some(record) => Ok(Recorded {
            entry: raw.entry,
            record,
            counters: raw.counters,
        }),
        None => Err(raw.entry),
    }
}

#[cfg(test)]
mod tests;
