//! The channel between the broth controller and its workers.
//!
//! Netstring-framed JSON over a UNIX stream socket, in the shape of mediasoup v2's worker
//! channel (`docs/channel.md`), plus what broth adds: a `hello`, coded errors, file
//! descriptors beside the message that names them.
//!
//! Layers, each usable without the next: [`netstring`] (pure codec), [`Request`],
//! [`Response`], [`Notification`] (typed messages), [`Inbox`]/[`Outbox`] (non-blocking socket
//! ends with descriptor passing), [`Channel`] (tokio end), [`Pending`] (request table).
//! [`black_box`] is the one thing they share that is no message.
//! The types in [`rtp`] and [`body`] are the only serializable types in broth.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod black_box;
pub mod body;
mod channel;
mod error;
mod ids;
mod message;
pub mod netstring;
mod pending;
mod read;
pub mod rtp;
mod shared_fd;
mod socket;
mod v2;

pub use channel::{Channel, ChannelError, Received};
pub use error::{ErrorCode, Rejection};
pub use ids::{ConsumerId, Ids, ProducerId, RouterId, Subject, TransportId};
pub use message::{
    Call, Discard, Event, FromWorker, Incoming, Notification, Request, Response, Scope, Target,
};
pub use pending::{Pending, Ticket};
pub use shared_fd::SharedFd;
pub use socket::{Fill, Flush, Inbox, Outbox, OutboxFull};

/// Largest payload between a broth controller and a broth worker, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest payload towards a mediasoup v2 peer, in bytes (`spec: channel.md` §2).
pub const V2_PAYLOAD_BYTES_MAX: usize = 65_536;

/// Size of a room's flight recorder, of which only what is written takes memory.
pub const RECORDER_BYTES: usize = 8 * 1024 * 1024;

/// The channel's descriptor number in the worker process.
pub const CHANNEL_FD: i32 = 3;

/// The environment variable that names [`CHANNEL_FD`], as mediasoup v2 spells it.
pub const CHANNEL_FD_ENV: &str = "MEDIASOUP_CHANNEL_FD";

/// The environment variable by which a broth controller says that it hands over sockets: options
/// for a worker's own ports, which it passes because a mediasoup v2 worker needs them, are then
/// passed over.
pub const CONTROLLER_ENV: &str = "BROTH_CONTROLLER";

/// Variable that tells the C library of a worker how to allocate: on huge pages, as it wakes to an
/// address cache without its pages each time (`docs/performance.md`). Others do not heed it.
pub const ALLOCATOR_ENV: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432",
);

/// Bytes that are no netstring, whatever came before: sent on purpose by those who want to know
/// what becomes of a channel then.
pub const GARBAGE: &[u8] = b"garbage,";

/// Version of broth's additions to the channel, exchanged by `worker.hello`.
pub const PROTOCOL: u32 = 2;
