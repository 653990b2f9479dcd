//! Memory that a worker writes and that outlives it: held here, handed to workers, never mapped
//! here.
//!
//! A room's flight recorder holds the keys of its media (`docs/recovery.md`) and is not read here.
//! A worker's black box is read once, after its death.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use broth_ipc::RECORDER_BYTES;
use broth_ipc::black_box::{BLACK_BOX_BYTES, InHand};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// Makes an empty flight recorder.
pub(crate) fn recorder() -> io::Result<OwnedFd> {
    sealed(c"broth-recorder", RECORDER_BYTES)
}

/// A worker's black box.
pub(crate) struct BlackBox(File);

impl BlackBox {
    /// Makes an empty one.
    pub(crate) fn create() -> io::Result<Self> {
        let memory = sealed(c"broth-black-box", BLACK_BOX_BYTES)?;
        Ok(Self(memory.into()))
    }

    /// Another descriptor of it, for the worker.
    pub(crate) fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// What the worker has in hand, if anything.
    pub(crate) fn read(&self) -> io::Result<Option<InHand>> {
        let mut bytes = vec![0; BLACK_BOX_BYTES];
        self.0.read_exact_at(&mut bytes, 0)?;
        InHand::read(&bytes).map_err(io::Error::other)
    }
}

/// Memory whose size nobody can change. Pages are taken as they are written.
fn sealed(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(name, flags)?;
    ftruncate(&memory, bytes as i64)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use broth_ipc::black_box::{self, HEAD, MAGIC, MAGIC_WORD, Work};

    use super::*;

    #[test]
    fn its_size_is_fixed() {
        let memory = recorder().unwrap();
        assert!(ftruncate(&memory, 0).is_err());
        assert!(ftruncate(&memory, 2 * RECORDER_BYTES as i64).is_err());
    }

    #[test]
    fn a_black_box_is_read_by_its_content_alone() {
        let black_box = BlackBox::create().unwrap();
        let error = black_box.read().unwrap_err().to_string();
        assert_eq!(error, "it begins with another word");
        let writer = File::from(black_box.try_clone_fd().unwrap());
        let store = |at: usize, word: u64| {
            let bytes = word.to_le_bytes();
            writer.write_all_at(&bytes, at as u64 * 8).unwrap();
        };
        store(MAGIC, MAGIC_WORD);
        assert_eq!(black_box.read().unwrap(), None);
        store(HEAD, black_box::head(Work::Timer, 0).0);
        assert_eq!(black_box.read().unwrap().unwrap().work, Work::Timer);
        store(HEAD, u64::MAX);
        let error = black_box.read().unwrap_err().to_string();
        assert_eq!(error, "it names an unknown work");
    }
}
