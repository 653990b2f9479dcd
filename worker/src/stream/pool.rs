//! Memory of kept packets: buffers of two sizes, each grown in chunks up to a ceiling in bytes,
//! and never given back: what was needed once is needed again.

/// Bytes of a large buffer, the longest packet kept: an Ethernet MTU and some room.
pub const BUFFER_LEN: usize = 1600;
/// Bytes of a small buffer: a packet of audio.
const SMALL_LEN: usize = 256;
/// The part of all bytes that small buffers may take; then large ones take their place.
const SMALL_SHARE: usize = 8;
/// Buffers added at once.
const CHUNK: usize = 64;
/// The bit that tells a small buffer by its id.
const SMALL: u32 = 1 << 31;

/// Names a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketId(u32);

/// The pool.
#[derive(Debug)]
pub struct PacketPool {
    small: Slab<SMALL_LEN>,
    large: Slab<BUFFER_LEN>,
}

/// Buffers of one size.
#[derive(Debug)]
struct Slab<const LEN: usize> {
    chunks: Vec<Box<[u8]>>,
    lens: Vec<u16>,
    free: Vec<u32>,
    chunks_max: usize,
}

impl PacketPool {
    /// A pool that grows to at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        let small_max = bytes_max / SMALL_SHARE;
        Self {
            small: Slab::new(small_max),
            large: Slab::new(bytes_max - small_max),
        }
    }

    /// Keeps a copy of `bytes`; `None` if they are too long or the pool is full.
    pub fn alloc(&mut self, bytes: &[u8]) -> Option<PacketId> {
        let small = self.small.alloc(bytes).map(|id| PacketId(id | SMALL));
        small.or_else(|| self.large.alloc(bytes).map(PacketId))
    }

    /// The bytes that were kept.
    pub fn get(&self, id: PacketId) -> &[u8] {
        match id.0 & SMALL {
            0 => self.large.get(id.0),
            _ => self.small.get(id.0 & !SMALL),
        }
    }

    /// Gives a buffer back; its id must not be used any more.
    pub fn free(&mut self, id: PacketId) {
        match id.0 & SMALL {
            0 => self.large.free.push(id.0),
            _ => self.small.free.push(id.0 & !SMALL),
        }
    }

    /// How many packets are kept.
    pub fn in_use(&self) -> usize {
        self.small.in_use() + self.large.in_use()
    }
}

impl<const LEN: usize> Slab<LEN> {
    fn new(bytes_max: usize) -> Self {
        Self {
            chunks: Vec::new(),
            lens: Vec::new(),
            free: Vec::new(),
            chunks_max: bytes_max / (CHUNK * LEN),
        }
    }

    fn alloc(&mut self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > LEN {
            return None;
        }
        if self.free.is_empty() && self.chunks.len() < self.chunks_max {
            self.grow();
        }
        let id = self.free.pop()?;
        let (chunk, start) = Self::place(id);
        self.chunks[chunk][start..start + bytes.len()].copy_from_slice(bytes);
        self.lens[id as usize] = bytes.len() as u16;
        Some(id)
    }

    fn get(&self, id: u32) -> &[u8] {
        let (chunk, start) = Self::place(id);
        let len = usize::from(self.lens[id as usize]);
        &self.chunks[chunk][start..start + len]
    }

    fn in_use(&self) -> usize {
        self.lens.len() - self.free.len()
    }

    fn grow(&mut self) {
        let first = self.lens.len();
        self.chunks.push(vec![0; CHUNK * LEN].into());
        self.lens.resize(first + CHUNK, 0);
        // All of them fit, so that giving back never allocates.
        self.free.reserve(first + CHUNK);
        self.free
            .extend((first as u32..(first + CHUNK) as u32).rev());
    }

    fn place(id: u32) -> (usize, usize) {
        let id = id as usize;
        (id / CHUNK, id % CHUNK * LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_apart_reused_and_bounded() {
        // A chunk of small buffers and two of large ones.
        let mut pool = PacketPool::new(2 * CHUNK * BUFFER_LEN + CHUNK * SMALL_LEN * 2);
        let ids: Vec<_> = (0..3 * CHUNK)
            .map(|n| pool.alloc(&[n as u8; 100]).unwrap())
            .collect();
        assert_eq!((pool.small.in_use(), pool.in_use()), (CHUNK, 3 * CHUNK));
        assert_eq!(pool.alloc(&[0]), None);
        for (n, &id) in ids.iter().enumerate() {
            assert_eq!(pool.get(id), [n as u8; 100]);
        }
        pool.free(ids[CHUNK + 5]);
        let again = pool.alloc(&[9; BUFFER_LEN]).unwrap();
        assert_eq!(pool.get(again), [9; BUFFER_LEN]);
        pool.free(ids[5]);
        assert_eq!(pool.alloc(&[0; SMALL_LEN + 1]), None);
        let again = pool.alloc(&[8; SMALL_LEN]).unwrap();
        assert_eq!(pool.get(again), [8; SMALL_LEN]);
        assert_eq!(pool.alloc(&[0; BUFFER_LEN + 1]), None);
    }
}
