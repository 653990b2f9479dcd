//! The words a recorder is written to: memory shared with whoever holds its descriptor, or the
//! heap in tests.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::mapping::Mapping;

/// Words that outlive whoever wrote them.
#[derive(Debug)]
pub enum Memory {
    /// A mapped descriptor.
    Mapped(Mapping),
    /// Memory of this process.
    Heap(Heap),
}

/// Memory of this process that can lose its writer at any write: tests go on from there.
#[derive(Debug)]
pub struct Heap {
    words: Box<[AtomicU64]>,
    writes_left: AtomicU64,
}

impl Memory {
    /// Zeroed memory of this process.
    pub fn heap(words: usize) -> Self {
        Self::Heap(Heap {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            writes_left: AtomicU64::new(u64::MAX),
        })
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.words().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words().is_empty()
    }

    /// Reads a word.
    pub fn load(&self, at: usize) -> u64 {
        self.words()[at].load(Ordering::Acquire)
    }

    /// Writes a word. Words written one after the other are there in this order, whenever the
    /// writer dies.
    pub fn store(&self, at: usize, value: u64) {
        match self {
            Self::Mapped(mapping) => mapping.words()[at].store(value, Ordering::Release),
            Self::Heap(heap) => heap.store(at, value),
        }
    }

    /// All words.
    pub fn words(&self) -> &[AtomicU64] {
        match self {
            Self::Mapped(mapping) => mapping.words(),
            Self::Heap(heap) => &heap.words,
        }
    }

    /// Lets the writer die after so many more writes: what it writes then is lost. Mapped memory
    /// knows no such thing.
    pub fn die_after(&self, writes: u64) {
        if let Self::Heap(heap) = self {
            heap.writes_left.store(writes, Ordering::Relaxed);
        }
    }

    /// Whether the writer is about to die of [`die_after`](Self::die_after), or is dead.
    pub fn is_mortal(&self) -> bool {
        matches!(self, Self::Heap(heap) if heap.writes_left.load(Ordering::Relaxed) < u64::MAX / 2)
    }

    /// Whether the writer of [`die_after`](Self::die_after) is dead.
    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Heap(heap) if heap.writes_left.load(Ordering::Relaxed) == 0)
    }
}

impl Heap {
    fn store(&self, at: usize, value: u64) {
        let left = self.writes_left.load(Ordering::Relaxed);
        if left > 0 {
            self.words[at].store(value, Ordering::Release);
            self.writes_left.store(left - 1, Ordering::Relaxed);
        }
    }
}
