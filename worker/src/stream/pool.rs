//! Memory of kept packets: buffers of one size, grown in chunks, never given back.

/// Bytes of one buffer: an Ethernet MTU and some room.
pub const BUFFER_LEN: usize = 1600;
/// Buffers added at once.
const CHUNK: usize = 64;

/// Names a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketId(u32);

/// The pool.
#[derive(Debug)]
pub struct PacketPool {
    chunks: Vec<Box<[u8]>>,
    lens: Vec<u16>,
    free: Vec<u32>,
    packets_max: usize,
}

impl PacketPool {
    /// A pool that grows to at most `packets_max` packets.
    pub fn new(packets_max: usize) -> Self {
        Self {
            chunks: Vec::new(),
            lens: Vec::new(),
            free: Vec::new(),
            packets_max,
        }
    }

    /// Keeps a copy of `bytes`; `None` if they are too long or the pool is full.
    pub fn alloc(&mut self, bytes: &[u8]) -> Option<PacketId> {
        if bytes.len() > BUFFER_LEN {
            return None;
        }
        if self.free.is_empty() {
            self.grow();
        }
        let id = self.free.pop()?;
        let (chunk, start) = place(id);
        self.chunks[chunk][start..start + bytes.len()].copy_from_slice(bytes);
        self.lens[id as usize] = bytes.len() as u16;
        Some(PacketId(id))
    }

    /// The bytes that were kept.
    pub fn get(&self, id: PacketId) -> &[u8] {
        let (chunk, start) = place(id.0);
        let len = usize::from(self.lens[id.0 as usize]);
        &self.chunks[chunk][start..start + len]
    }

    /// Gives a buffer back; its id must not be used any more.
    pub fn free(&mut self, id: PacketId) {
        self.free.push(id.0);
    }

    /// How many packets are kept.
    pub fn in_use(&self) -> usize {
        self.lens.len() - self.free.len()
    }

    fn grow(&mut self) {
        let first = self.lens.len();
        if first + CHUNK > self.packets_max.next_multiple_of(CHUNK) {
            return;
        }
        self.chunks.push(vec![0; CHUNK * BUFFER_LEN].into());
        self.lens.resize(first + CHUNK, 0);
        self.free
            .extend((first as u32..(first + CHUNK) as u32).rev());
    }
}

fn place(id: u32) -> (usize, usize) {
    let id = id as usize;
    (id / CHUNK, id % CHUNK * BUFFER_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_apart_reused_and_bounded() {
        let mut pool = PacketPool::new(CHUNK);
        let ids: Vec<_> = (0..CHUNK)
            .map(|n| pool.alloc(&[n as u8; 100]).unwrap())
            .collect();
        assert_eq!(pool.in_use(), CHUNK);
        assert_eq!(pool.alloc(&[0]), None);
        for (n, &id) in ids.iter().enumerate() {
            assert_eq!(pool.get(id), [n as u8; 100]);
        }
        pool.free(ids[5]);
        let again = pool.alloc(&[9; BUFFER_LEN]).unwrap();
        assert_eq!(pool.get(again), [9; BUFFER_LEN]);
        assert_eq!(pool.alloc(&[0; BUFFER_LEN + 1]), None);
    }
}
