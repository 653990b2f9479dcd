//! Descriptors in values that are cloned.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A descriptor that several hold; it is closed when the last one lets go.
#[derive(Clone, Debug)]
pub struct SharedFd(Arc<OwnedFd>);

impl SharedFd {
    /// Another descriptor of the same.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// The descriptor itself if nobody else holds it, or another one of the same.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn into_owned(self) -> io::Result<OwnedFd> {
        Arc::try_unwrap(self.0).or_else(|shared| shared.try_clone())
    }
}

impl From<OwnedFd> for SharedFd {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

/// Whether they are one descriptor, not whether they are of one file.
impl PartialEq for SharedFd {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
