//! Reads the data of requests as mediasoup v2's worker does, in its order and its words
//! (`spec: channel.md` §6).
//!
//! A member of the wrong type counts as absent. What is needed is asked for by name; what is
//! not known is ignored.

mod bodies;
mod checks;
mod mime;
mod rtp;

use serde_json::{Map, Value};

use crate::error::Rejection;

/// A body of a request, as the worker reads it.
pub(crate) trait Read: Sized {
    /// Reads the members it needs.
    ///
    /// # Errors
    /// One is missing or makes no sense; the reason is mediasoup v2's.
    fn read(data: Members<'_>) -> Result<Self, Rejection>;
}

/// The members of a JSON object; none, if it is no object.
#[derive(Clone, Copy)]
pub(crate) struct Members<'v>(Option<&'v Map<String, Value>>);

impl<'v> Members<'v> {
    /// No members at all.
    pub(crate) const NONE: Self = Self(None);

    /// The members of `value`.
    pub(crate) fn of(value: &'v Value) -> Self {
        Self(value.as_object())
    }

    fn get(self, name: &str) -> Option<&'v Value> {
        self.0?.get(name)
    }

    fn text(self, name: &str) -> Option<&'v str> {
        self.get(name)?.as_str()
    }

    fn flag(self, name: &str) -> Option<bool> {
        self.get(name)?.as_bool()
    }

    /// An integer of 32 bits; `1.0` is one, too.
    pub(crate) fn uint(self, name: &str) -> Option<u32> {
        uint(self.get(name)?)
    }

    fn list(self, name: &str) -> Option<&'v [Value]> {
        self.get(name)?.as_array().map(Vec::as_slice)
    }

    fn object(self, name: &str) -> Option<Self> {
        self.get(name)?
            .as_object()
            .map(|members| Self(Some(members)))
    }
}

fn uint(value: &Value) -> Option<u32> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number))
        .then_some(number as u32)
}

fn int(value: &Value) -> Option<i32> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number))
        .then_some(number as i32)
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection::invalid(reason))
}

fn missing(name: &str) -> Rejection {
    Rejection::invalid(format!("missing {name}"))
}

#[cfg(test)]
mod tests;
