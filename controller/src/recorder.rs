//! A room's flight recorder: memory that its worker writes and that outlives it.
//!
//! Held here and handed to every worker of the room, never mapped here: it holds the keys of the
//! room's media (`docs/recovery.md`).

use std::io;
use std::os::fd::OwnedFd;

use broth_ipc::RECORDER_BYTES;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// Makes an empty recorder whose size nobody can change. Pages are taken as they are written.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"broth-recorder", flags)?;
    ftruncate(&memory, RECORDER_BYTES as i64)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_is_fixed() {
        let memory = create().unwrap();
        assert!(ftruncate(&memory, 0).is_err());
        assert!(ftruncate(&memory, 2 * RECORDER_BYTES as i64).is_err());
    }
}
