//! The ICE-lite agent of one transport (RFC 8445 §2.5), always controlled, with consent as in
//! RFC 7675.
//!
//! Owns credentials, tuples and the state. Never opens a socket or reads a clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use broth_ipc::body::IceState;

use crate::wire::stun::{self, BINDING, Class, Message, StunError};

/// A path without a valid check for so long has lost consent (RFC 7675 §5.1).
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Paths one peer may hold open.
pub const TUPLES_MAX: usize = 8;

const UFRAG_LEN: usize = 16;

/// Priority of a host candidate, component 1 (RFC 8445 §5.1.2.1, type preference 64).
pub fn candidate_priority(local_preference: u32) -> u32 {
    (1 << 24) * 64 + (1 << 8) * local_preference + 255
}

/// What a peer must know to reach the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Names the transport.
    pub ufrag: String,
    /// Keys the checks.
    pub pwd: String,
}

impl Credentials {
    /// Writes cryptographic random bytes as 16 and 32 characters of `[a-z0-9]`.
    pub fn from_random(random: &[u8; 48]) -> Self {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let text = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|&byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]))
                .collect()
        };
        let (ufrag, pwd) = random.split_at(UFRAG_LEN);
        Self {
            ufrag: text(ufrag),
            pwd: text(pwd),
        }
    }
}

/// Why a check is dropped without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunDrop {
    /// The peer sent bytes that are no correct STUN message.
    #[error("malformed check: {0}")]
    Malformed(#[from] StunError),
}

/// What happened, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IceEvent<T> {
    /// A new path proved valid.
    TupleAdded(T),
    /// A path is forgotten.
    TupleRemoved(T),
    /// Packets go out here from now on.
    Selected(T),
    /// The state changed.
    State(IceState),
}

struct Path<T> {
    tuple: T,
    checked_at: Instant,
}

/// The agent; `T` names a path: local socket and remote address, or a connection.
pub struct IceLite<T: Copy + Eq> {
    credentials: Credentials,
    /// The newest in front.
    paths: VecDeque<Path<T>>,
    selected: Option<T>,
    state: IceState,
    events: VecDeque<IceEvent<T>>,
}

impl<T: Copy + Eq> IceLite<T> {
    /// Waits for the first check.
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            paths: VecDeque::new(),
            selected: None,
            state: IceState::New,
            events: VecDeque::new(),
        }
    }

    /// Goes on where an earlier agent stopped: its peer has `now` consented to the path.
    pub fn resumed(now: Instant, credentials: Credentials, tuple: T, state: IceState) -> Self {
        let mut paths = VecDeque::new();
        paths.push_front(Path {
            tuple,
            checked_at: now,
        });
        Self {
            credentials,
            paths,
            selected: Some(tuple),
            state,
            events: VecDeque::new(),
        }
    }

    /// What checks must carry now.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Takes new credentials; state, tuples and selection stay.
    pub fn restart(&mut self, credentials: Credentials) {
        self.credentials = credentials;
    }

    /// Takes a STUN message and appends the answer to `reply`, if there is one.
    ///
    /// # Errors
    /// The message was dropped.
    pub fn handle_binding(
        &mut self,
        now: Instant,
        tuple: T,
        remote: SocketAddr,
        msg: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), StunDrop> {
        let msg = Message::parse(msg)?;
        if msg.class() != Class::Request {
            return Ok(());
        }
        if let Some(code) = self.refusal(&msg) {
            stun::write_error(reply, msg.transaction_id(), code);
            return Ok(());
        }
        let pwd = self.credentials.pwd.as_bytes();
        stun::write_success(reply, msg.transaction_id(), remote, pwd);
        self.accept(now, tuple, msg.has_use_candidate());
        Ok(())
    }

    /// Notes DTLS, or RTP of a producer: a peer sending on a known tuple has chosen it.
    pub fn handle_media(&mut self, tuple: T) {
        if self.is_known(tuple) {
            self.select(tuple);
        }
    }

    /// Whether a valid check came from there.
    pub fn is_known(&self, tuple: T) -> bool {
        self.paths.iter().any(|path| path.tuple == tuple)
    }

    /// Where packets go out.
    pub fn selected(&self) -> Option<T> {
        self.selected
    }

    /// The state.
    pub fn state(&self) -> IceState {
        self.state
    }

    /// The known tuples, newest first.
    pub fn tuples(&self) -> impl Iterator<Item = T> + '_ {
        self.paths.iter().map(|path| path.tuple)
    }

    /// Forgets a tuple whose connection is gone.
    pub fn remove_tuple(&mut self, tuple: T) {
        let Some(at) = self.paths.iter().position(|path| path.tuple == tuple) else {
            return;
        };
        self.paths.remove(at);
        self.events.push_back(IceEvent::TupleRemoved(tuple));
        if self.selected != Some(tuple) {
            return;
        }
        self.selected = None;
        match self.paths.front().map(|path| path.tuple) {
            Some(front) => self.select(front),
            None => self.enter(IceState::Disconnected),
        }
    }

    /// What happened since, oldest first.
    pub fn poll_event(&mut self) -> Option<IceEvent<T>> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.paths
            .iter()
            .filter(|path| self.can_expire(path))
            .map(|path| path.checked_at + CONSENT_TIMEOUT)
            .min()
    }

    /// Forgets unselected tuples without consent; without it on the selected one, disconnects.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(path) = self
            .paths
            .iter()
            .rev()
            .find(|path| self.can_expire(path) && now >= path.checked_at + CONSENT_TIMEOUT)
        {
            let tuple = path.tuple;
            if self.selected == Some(tuple) {
                self.enter(IceState::Disconnected);
            } else {
                self.remove_tuple(tuple);
            }
        }
    }

    /// The selected tuple expires once; it stays known, so that a late check restores it.
    fn can_expire(&self, path: &Path<T>) -> bool {
        self.selected != Some(path.tuple) || self.state != IceState::Disconnected
    }

    fn refusal(&self, msg: &Message<'_>) -> Option<u16> {
        if msg.method() != BINDING || !msg.has_fingerprint() || !msg.has_integrity() {
            return Some(400);
        }
        let (Some(username), Some(1..)) = (msg.username(), msg.priority()) else {
            return Some(400);
        };
        let named = username
            .strip_prefix(self.credentials.ufrag.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b':'));
        let valid = named && msg.verify_integrity(self.credentials.pwd.as_bytes());
        (!valid).then_some(401)
    }

    fn accept(&mut self, now: Instant, tuple: T, nominated: bool) {
        match self.paths.iter_mut().find(|path| path.tuple == tuple) {
            Some(path) => path.checked_at = now,
            None => self.add(now, tuple),
        }
        let waiting = matches!(self.state, IceState::New | IceState::Disconnected);
        if waiting || nominated {
            self.select(tuple);
        }
        if nominated {
            self.enter(IceState::Completed);
        } else if waiting {
            self.enter(IceState::Connected);
        }
    }

    fn add(&mut self, now: Instant, tuple: T) {
        if self.paths.len() >= TUPLES_MAX {
            let oldest = self
                .tuples()
                .filter(|&old| self.selected != Some(old))
                .last();
            if let Some(oldest) = oldest {
                self.remove_tuple(oldest);
            }
        }
        self.paths.push_front(Path {
            tuple,
            checked_at: now,
        });
        self.events.push_back(IceEvent::TupleAdded(tuple));
    }

    fn select(&mut self, tuple: T) {
        if self.selected != Some(tuple) {
            self.selected = Some(tuple);
            self.events.push_back(IceEvent::Selected(tuple));
        }
    }

    fn enter(&mut self, state: IceState) {
        if self.state != state {
            self.state = state;
            self.events.push_back(IceEvent::State(state));
        }
    }
}

#[cfg(test)]
mod tests;
