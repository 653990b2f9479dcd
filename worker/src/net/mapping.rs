//! A descriptor's memory, mapped: the words of a flight recorder.

#![allow(unsafe_code, reason = "mapping memory has no safe wrapper")]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;

/// Memory shared with whoever maps the same descriptor.
#[derive(Debug)]
pub struct Mapping {
    words: NonNull<AtomicU64>,
    len: usize,
}

impl Mapping {
    /// Maps the whole of a memfd, which must be sealed against any change of its size: memory
    /// cut off by another process would kill this one.
    ///
    /// # Errors
    /// It is no such descriptor, or the kernel refuses.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let seals = SealFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW) {
            return Err(io::Error::other("its size is not sealed"));
        }
        let bytes = usize::try_from(fstat(&fd)?.st_size).unwrap_or(0);
        let len = bytes / size_of::<AtomicU64>();
        let bytes = NonZeroUsize::new(len * size_of::<AtomicU64>())
            .ok_or_else(|| io::Error::other("it is empty"))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; it aliases nothing here.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, &fd, 0)? };
        Ok(Self {
            words: start.cast(),
            len,
        })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `words` is page-aligned and maps `len` words until `self` is dropped, the size
        // of the file being sealed; any bits are a valid `AtomicU64`, and other processes that
        // change them do so as with atomics.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let bytes = self.len * size_of::<AtomicU64>();
        // SAFETY: exactly what `new` mapped; borrows of it end before `self` does.
        let unmapped = unsafe { munmap(self.words.cast(), bytes) };
        debug_assert!(unmapped.is_ok(), "the mapping was made by `new`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::unistd::ftruncate;
    use std::sync::atomic::Ordering;

    fn memfd(bytes: i64, seals: SealFlag) -> OwnedFd {
        let fd = memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&fd, bytes).unwrap();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        fd
    }

    #[test]
    fn what_one_writes_another_reads_later() {
        let sealed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        let fd = memfd(8192, sealed);
        let mapping = Mapping::new(fd.try_clone().unwrap()).unwrap();
        assert_eq!(mapping.words().len(), 1024);
        mapping.words()[1023].store(7, Ordering::Release);
        drop(mapping);
        let again = Mapping::new(fd).unwrap();
        assert_eq!(again.words()[1023].load(Ordering::Acquire), 7);
    }

    #[test]
    fn memory_whose_size_may_change_is_refused() {
        for (bytes, seals) in [
            (8192, SealFlag::F_SEAL_GROW),
            (8192, SealFlag::empty()),
            (0, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW),
        ] {
            assert!(Mapping::new(memfd(bytes, seals)).is_err(), "{seals:?}");
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Mapping::new(file.into()).is_err());
    }
}
