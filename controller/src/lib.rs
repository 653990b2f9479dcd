//! broth: a multi-core WebRTC SFU as a library.
//!
//! [`Server`] starts one pinned worker process per core and keeps them alive. A [`Room`] lives in
//! one of them; a [`Peer`] is a participant, made by the messages of its client, which the
//! application carries: [`Room::receive_request`], [`Peer::receive_request`],
//! [`Peer::receive_notification`] and [`PeerEvent::Notify`]. [`WebRtcTransport`], [`Producer`] and
//! [`Consumer`] come with these messages. The API is that of mediasoup v2.
//!
//! This crate never touches a media packet. All of it must be used within a tokio runtime.

#![deny(missing_docs)]

mod active_speaker;
mod blame;
pub mod chaos;
mod consumer;
mod crash;
mod error;
mod events;
mod memory;
pub mod ortc;
mod pauses;
mod peer;
mod periodic;
mod producer;
mod protocol;
mod quarantine;
mod room;
mod room_channel;
mod rtp_streamer;
mod server;
mod settings;
mod sockets;
mod supervisor;
mod transport;
mod upkeep;
mod worker_channel;

pub use active_speaker::{ActiveSpeakerDetector, ActiveSpeakerEvent};
pub use broth_ipc::body::{
    ConsumerDump, DtlsIdentity, DtlsParameters, DtlsRole, DtlsState, EncodingPreferences,
    Fingerprint, IceCandidate, IceParameters, IceState, Load, PlainRtpTransportDump, ProducerDump,
    Protocol, RouterDump, RtpStreamStats, SendBandwidth, TransportStats, TransportTuple,
    WebRtcTransportDump, WebRtcTransportOptions, WorkerDump, WorkerSettings,
};
pub use broth_ipc::rtp::{
    MediaKind, Parameters, Profile, RtcpFeedback, RtcpParameters, RtpCapabilities,
    RtpCodecCapability, RtpCodecParameters, RtpEncodingParameters, RtpHeaderExtension,
    RtpHeaderExtensionParameters, RtpMapping, RtpParameters, RtxParameters,
};
pub use broth_ipc::{ConsumerId, ErrorCode, ProducerId, Rejection, RouterId, TransportId};
pub use consumer::{Consumer, ConsumerEvent};
pub use error::{Error, Result};
pub use events::EventStream;
pub use ortc::RoomMediaCodec;
pub use peer::{Peer, PeerEvent};
pub use producer::{Producer, ProducerEvent};
pub use room::{AudioLevels, CloseReason, Room, RoomEvent};
pub use rtp_streamer::{RtpStreamer, RtpStreamerEvent, RtpStreamerOptions};
pub use server::{RoomOptions, Server, ServerEvent, WorkerInfo};
pub use settings::{Limits, ListenAddr, Rebalance, Recycle, Settings, WorkerBin};
pub use transport::{
    MirroringOptions, PlainRtpTransport, Transport, TransportEvent, WebRtcTransport,
};

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
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A random id or SSRC in the range mediasoup v2 draws from (`spec: api.md` §1.1).
pub(crate) fn random_id() -> u32 {
    rand::Rng::random_range(&mut rand::rng(), 10_000_000..=99_999_999)
}

/// Makes a thing even if the caller loses interest, and closes it then: half of one would stay in
/// the worker without anybody knowing.
pub(crate) async fn to_its_end<T: Send + 'static>(
    create: impl Future<Output = Result<T>> + Send + 'static,
    close: impl FnOnce(T) + Send + 'static,
) -> Result<T> {
    let (reply, created) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        if let Err(Ok(unwanted)) = reply.send(create.await) {
            close(unwanted);
        }
    });
    created.await.unwrap_or(Err(Error::ChannelClosed))
}

/// Reads a worker's answer.
pub(crate) fn parsed<T: serde::de::DeserializeOwned>(answer: serde_json::Value) -> Result<T> {
    serde_json::from_value(answer)
        .map_err(|error| Error::other(format!("unexpected answer of the worker: {error}")))
}

#[cfg(test)]
mod tests;
