//! One record: a few counters, each a word of its own, and two slots for everything else.
//!
//! ```text
//!  word  0 … 15 │ 16    17 … 34   35  │ 36 …
//!      counters │ head  payload   sum │ the other slot
//!
//!  head     generation:16 │ kind:8 │ payload words:8 │ id:32
//!  counter  check:16 │ value:48
//! ```
//!
//! A write goes to the slot that is not the newest, its sum last: whenever it breaks off, the
//! other slot holds. A record without any sum is free.

use std::cell::Cell;
use std::rc::Rc;

use super::memory::Memory;

/// Words of a record: seven cache lines.
pub const RECORD_WORDS: usize = COUNTERS + 2 * SLOT_WORDS;
/// Counters of a record: those of every packet, and a cache line of rare ones.
pub const COUNTERS: usize = 16;
/// Most words of a payload.
pub(super) const PAYLOAD_MAX: usize = SLOT_WORDS - 2;
const SLOT_WORDS: usize = 20;

/// The header's word that is another one in every recorder.
pub(super) const MARK: usize = 4;

/// The counters of a record.
pub type Counters = [u64; COUNTERS];

/// Bits of a counter's value: those of an SRTP index (RFC 3711 §3.3.1).
pub(super) const COUNTER_BITS: u32 = 48;
/// Odd, and no 16 bits of it in a row are all equal, so that any flipped bit changes the check.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connected transport.
    Transport = 1,
    /// An SSRC that a transport received.
    Inbound = 2,
    /// A stream of a producer.
    Stream = 3,
    /// An enabled consumer.
    Consumer = 4,
}

/// A record of a living object. To be given back to the recorder with the object's end.
#[derive(Debug)]
pub struct Entry {
    memory: Rc<Memory>,
    /// First word.
    at: u32,
    kind: Kind,
    id: u32,
    generation: u16,
    is_second_newest: bool,
    /// Of its scribe.
    is_scribe_obeyed: Option<Rc<Cell<bool>>>,
}

/// Sets counters of a record that somebody else has. Without effect once that record ended or has
/// another scribe.
#[derive(Debug)]
pub struct Scribe {
    memory: Rc<Memory>,
    at: u32,
    is_obeyed: Rc<Cell<bool>>,
}

impl Scribe {
    /// Sets a counter, at once and whole.
    pub fn set(&self, counter: usize, value: u64) {
        if self.is_obeyed.get() {
            self.memory.store(self.at as usize + counter, pack(value));
        }
    }
}

/// What is read back from a record.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) entry: Entry,
    pub(super) kind: Kind,
    pub(super) id: u32,
    pub(super) payload: [u64; PAYLOAD_MAX],
    pub(super) counters: Counters,
}

/// What a place holds.
pub(super) enum Found {
    Free,
    Damaged,
    Record(Box<Raw>),
}

struct Slot {
    generation: u16,
    kind: Kind,
    id: u32,
    payload: [u64; PAYLOAD_MAX],
}

impl Entry {
    /// Takes over a place that holds nothing of use; nothing is there before the first [`write`](Self::write).
    pub(super) fn new(memory: Rc<Memory>, at: u32, kind: Kind, id: u32) -> Self {
        wipe(&memory, at);
        for counter in 0..COUNTERS {
            memory.store(at as usize + counter, 0);
        }
        Self {
            memory,
            at,
            kind,
            id,
            generation: 0,
            is_second_newest: true,
            is_scribe_obeyed: None,
        }
    }

    /// Reads what is at a place.
    pub(super) fn read(memory: &Rc<Memory>, at: u32) -> Found {
        let first = read_slot(memory, slot_at(at, false));
        let second = read_slot(memory, slot_at(at, true));
        let (is_second_newest, newest) = match (first, second) {
            (Ok(None), Ok(None)) => return Found::Free,
            (Ok(Some(first)), Ok(Some(second))) => {
                let is_second = second.generation.wrapping_sub(first.generation) < 1 << 15;
                (is_second, if is_second { second } else { first })
            }
            (Ok(Some(first)), _) => (false, first),
            (_, Ok(Some(second))) => (true, second),
            (Err(Damage), _) | (_, Err(Damage)) => return Found::Damaged,
        };
        let mut counters = [0; COUNTERS];
        for (index, counter) in counters.iter_mut().enumerate() {
            let Some(value) = unpack(memory.load(at as usize + index)) else {
                return Found::Damaged;
            };
            *counter = value;
        }
        let Slot {
            generation,
            kind,
            id,
            payload,
        } = newest;
        Found::Record(Box::new(Raw {
            entry: Self {
                memory: Rc::clone(memory),
                at,
                kind,
                id,
                generation,
                is_second_newest,
                is_scribe_obeyed: None,
            },
            kind,
            id,
            payload,
            counters,
        }))
    }

    /// Replaces the payload.
    pub(super) fn write(&mut self, payload: &[u64]) {
        debug_assert!(payload.len() <= PAYLOAD_MAX);
        self.is_second_newest = !self.is_second_newest;
        self.generation = self.generation.wrapping_add(1);
        let at = slot_at(self.at, self.is_second_newest);
        let head = u64::from(self.generation) << 48
            | (self.kind as u64) << 40
            | (payload.len() as u64) << 32
            | u64::from(self.id);
        // From here on the slot holds nothing.
        self.memory.store(sum_at(at), 0);
        self.memory.store(at, head);
        for (index, &word) in payload.iter().enumerate() {
            self.memory.store(at + 1 + index, word);
        }
        let sum = sum(&self.memory, at, head, payload);
        self.memory.store(sum_at(at), sum);
    }

    /// Sets a counter, at once and whole.
    pub fn set(&self, counter: usize, value: u64) {
        self.memory.store(self.word(counter), pack(value));
    }

    /// Somebody else who sets counters of it, in place of the last one.
    pub fn scribe(&mut self) -> Scribe {
        self.dismiss_scribe();
        let is_obeyed = Rc::new(Cell::new(true));
        self.is_scribe_obeyed = Some(Rc::clone(&is_obeyed));
        Scribe {
            memory: Rc::clone(&self.memory),
            at: self.at,
            is_obeyed,
        }
    }

    fn dismiss_scribe(&self) {
        if let Some(is_obeyed) = &self.is_scribe_obeyed {
            is_obeyed.set(false);
        }
    }

    /// Where a counter is.
    pub(super) fn word(&self, counter: usize) -> usize {
        self.at as usize + counter
    }

    /// Wipes the record, the older slot first: until the last one goes, the newest counts.
    pub(super) fn wipe(self) -> u32 {
        self.dismiss_scribe();
        for is_second in [!self.is_second_newest, self.is_second_newest] {
            wipe_slot(&self.memory, slot_at(self.at, is_second));
        }
        self.at
    }
}

/// Wipes whatever is at a place.
pub(super) fn wipe(memory: &Memory, at: u32) {
    for is_second in [false, true] {
        wipe_slot(memory, slot_at(at, is_second));
    }
}

fn wipe_slot(memory: &Memory, at: usize) {
    memory.store(sum_at(at), 0);
    for word in at..sum_at(at) {
        memory.store(word, 0);
    }
}

fn slot_at(at: u32, is_second: bool) -> usize {
    at as usize + COUNTERS + usize::from(is_second) * SLOT_WORDS
}

fn sum_at(slot: usize) -> usize {
    slot + SLOT_WORDS - 1
}

struct Damage;

/// `None`: nothing was written there, or not to its end.
fn read_slot(memory: &Memory, at: usize) -> Result<Option<Slot>, Damage> {
    let expected = memory.load(sum_at(at));
    if expected == 0 {
        return Ok(None);
    }
    let head = memory.load(at);
    let len = (head >> 32) as u8;
    let kinds = [Kind::Transport, Kind::Inbound, Kind::Stream, Kind::Consumer];
    let kind = kinds
        .into_iter()
        .find(|kind| *kind as u8 == (head >> 40) as u8);
    let mut payload = [0; PAYLOAD_MAX];
    let used = payload.get_mut(..usize::from(len)).ok_or(Damage)?;
    for (index, word) in used.iter_mut().enumerate() {
        *word = memory.load(at + 1 + index);
    }
    if sum(memory, at, head, used) != expected {
        return Err(Damage);
    }
    Ok(Some(Slot {
        generation: (head >> 48) as u16,
        kind: kind.ok_or(Damage)?,
        id: head as u32,
        payload,
    }))
}

/// Never zero. Knows the recorder and the place, so that a record is none anywhere else. Detects
/// accidents, not malice: whoever writes the memory holds the keys anyway.
fn sum(memory: &Memory, at: usize, head: u64, payload: &[u64]) -> u64 {
    let words = [memory.load(MARK), at as u64, head];
    let words = words.into_iter().chain(payload.iter().copied());
    let sum = words.fold(MIX, |sum, word| {
        ((sum ^ word).wrapping_mul(MIX)).rotate_left(29)
    });
    sum.max(1)
}

/// A counter's word: the value with its check. What is too large stays at the largest.
pub(super) fn pack(value: u64) -> u64 {
    let value = value.min((1 << COUNTER_BITS) - 1);
    value | value.wrapping_mul(MIX) & !((1 << COUNTER_BITS) - 1)
}

/// The value of a counter's word, if its check fits.
pub(super) fn unpack(word: u64) -> Option<u64> {
    let value = word & ((1 << COUNTER_BITS) - 1);
    (pack(value) == word).then_some(value)
}
