//! What a worker does to itself when a controller that tests its recovery asks for it.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::load::mapped_bytes;

/// Memory taken at once.
const PIECE_BYTES: usize = 1 << 20;

/// Takes memory and uses it until there are `bytes` more than now, which the process may not
/// exceed: it aborts, as one that gets no memory does, and nothing else on the machine is short of
/// any.
///
/// # Errors
/// The process cannot be limited; nothing was taken.
pub(crate) fn hog(bytes: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_AS)?;
    let mapped = mapped_bytes().ok_or_else(|| io::Error::other("no /proc/self/statm"))?;
    let limit = mapped.saturating_add(bytes).min(hard);
    setrlimit(Resource::RLIMIT_AS, limit, hard)?;
    let mut taken = Vec::new();
    loop {
        taken.push(vec![1_u8; PIECE_BYTES]);
    }
}
