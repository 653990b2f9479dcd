//! Coded refusals: the code drives behaviour, the reason is for people.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What kind of refusal a [`Rejection`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorCode {
    /// The request is malformed: a missing or wrongly typed member, an impossible value.
    InvalidRequest,
    /// No such method.
    UnknownMethod,
    /// The object addressed does not exist.
    NotFound,
    /// The id, SSRC, MID or RID is taken.
    AlreadyExists,
    /// The object is in a state that does not allow the request.
    InvalidState,
    /// The operating system refused: no port, no memory, no descriptor.
    Unavailable,
    /// The answer is larger than the channel allows.
    TooBig,
    /// The peer did not give a code: a mediasoup v2 worker.
    #[default]
    Unspecified,
}

/// A refused request: a stable code and mediasoup v2's reason text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Rejection {
    /// What kind of refusal it is.
    pub code: ErrorCode,
    /// Text for people, as mediasoup v2 words it where v2 has it.
    pub reason: String,
}

impl Rejection {
    /// Creates a rejection.
    pub fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    /// A malformed request.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, reason)
    }

    /// An id, SSRC, MID or RID that is taken.
    pub fn exists(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::AlreadyExists, reason)
    }

    /// An object that does not exist.
    pub fn not_found(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, reason)
    }

    /// A request that the object's state does not allow.
    pub fn state(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidState, reason)
    }
}
