//! broth: a crash-proof, multi-core WebRTC SFU as a library.
//!
//! So far its lower half, on which `Server`, `Room` and `Peer` will stand: negotiation
//! ([`ortc`]), settings, the sockets of a room ([`sockets`]), pinned worker processes
//! ([`supervisor`]), requests to a worker ([`worker_channel`]) and event streams ([`events`]).
//! This crate never touches a media packet.

#![deny(missing_docs)]

pub mod error;
pub mod events;
pub mod ortc;
pub mod settings;
pub mod sockets;
pub mod supervisor;
pub mod worker_channel;

pub use broth_ipc::body::{
    DtlsIdentity, DtlsParameters, DtlsRole, DtlsState, Fingerprint, IceCandidate, IceParameters,
    IceState, Load, TransportTuple, WorkerSettings,
};
pub use broth_ipc::rtp::{MediaKind, Profile, RtpCapabilities, RtpParameters};
pub use broth_ipc::{ErrorCode, Rejection};
pub use error::{Error, Result};
pub use events::EventStream;
pub use ortc::RoomMediaCodec;
pub use settings::{Limits, ListenAddr, Settings, WorkerBin};

/// Who caused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Originator {
    /// The application on the server, or broth itself.
    Local,
    /// A message of the client.
    Remote,
    /// The producer that feeds a consumer.
    Source,
}

/// Locks a mutex whose holders do not panic between two consistent states.
pub fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A random id or SSRC in the range mediasoup v2 draws from (`spec: api.md` §1.1).
pub fn random_id() -> u32 {
    rand::Rng::random_range(&mut rand::rng(), 10_000_000..=99_999_999)
}
