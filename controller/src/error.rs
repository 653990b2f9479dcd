//! What can go wrong, with mediasoup v2's texts (`spec: api.md` §15).

use broth_ipc::Rejection;
use thiserror::Error;

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. The text is meant for people; match on the variant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The object is closed, or not in a state that allows the operation.
    #[error("{0}")]
    InvalidState(String),
    /// The caller or the client gave something of a wrong type or shape.
    #[error("{0}")]
    Type(String),
    /// The worker refused.
    #[error(transparent)]
    Refused(#[from] Rejection),
    /// The settings cannot work; the text says what to change.
    #[error("{0}")]
    Settings(String),
    /// The request is understood and well formed, but not possible.
    #[error("{0}")]
    Other(String),
    /// The worker did not answer in time.
    #[error("request timeout")]
    Timeout,
    /// The worker is gone.
    #[error("Channel closed")]
    ChannelClosed,
    /// The request is larger than the channel to the worker allows.
    #[error("request too big")]
    TooBig,
}

impl Error {
    /// An object that is closed; `class` is its name in the API.
    pub fn closed(class: &str) -> Self {
        Self::InvalidState(format!("{class} closed"))
    }

    /// Refuses what a closed object cannot do.
    pub(crate) fn if_closed(is_closed: bool, class: &str) -> Result<()> {
        match is_closed {
            true => Err(Self::closed(class)),
            false => Ok(()),
        }
    }

    /// A request of the wrong shape.
    pub fn wrong_type(text: impl Into<String>) -> Self {
        Self::Type(text.into())
    }

    /// Any other refusal.
    pub fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_v2s() {
        let rows = [
            (Error::closed("Room"), "Room closed"),
            (Error::wrong_type("not a request"), "not a request"),
            (Error::other("Producer not found"), "Producer not found"),
            (
                Rejection::invalid("unknown method").into(),
                "unknown method",
            ),
            (Error::TooBig, "request too big"),
            (Error::Timeout, "request timeout"),
            (Error::ChannelClosed, "Channel closed"),
        ];
        for (error, expected) in rows {
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(Error::if_closed(false, "Room"), Ok(()));
        let closed = Err(Error::InvalidState("Room closed".into()));
        assert_eq!(Error::if_closed(true, "Room"), closed);
    }
}
