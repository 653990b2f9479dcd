//! The DTLS endpoint of one transport (RFC 6347, RFC 5764): handshake, fingerprint check, SRTP
//! keys.
//!
//! OpenSSL speaks the protocol over queues of datagrams in memory; this module decides the
//! role, checks the peer's certificate against its signalled fingerprint, and keeps the
//! schedule of retransmissions. OpenSSL retransmits by itself when a call finds its own timer,
//! on the real clock, run out; the schedule here, on the injected clock, only makes those
//! calls happen. Application data is discarded. Once the keys are exported OpenSSL is done and
//! `association` has what is left to be said.

mod association;
mod certificate;
mod datagrams;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use broth_ipc::body::{DtlsRole, DtlsState, Fingerprint};
use openssl::error::ErrorStack;
use openssl::ssl::{
    ErrorCode, ShutdownState, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions,
    SslRef, SslSessionCacheMode, SslStream, SslVerifyMode, SslVersion,
};
use thiserror::Error;

use association::{Association, Heard};
pub use certificate::Certificate;
use certificate::fingerprint_of;
use datagrams::Datagrams;

use crate::srtp::Profile;

/// Largest handshake datagram, without IP and UDP headers.
const MTU: u32 = 1200;
/// First retransmission; doubles each time (RFC 6347 §4.2.4.1).
const RETRANSMIT_FIRST: Duration = Duration::from_millis(1000);
/// How soon a call is repeated that found OpenSSL's timer not yet run out: that one started
/// later than ours if `now` was read before a batch of other work.
const RETRANSMIT_RECHECK: Duration = Duration::from_millis(50);
/// So long after our first flight, without a result, the handshake has failed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// RFC 5764 §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// ECDHE with AEAD only.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";

/// Why remote parameters are refused.
#[derive(Debug, Error)]
pub enum DtlsError {
    /// They were given before.
    #[error("Transport already has remote DTLS parameters")]
    AlreadySet,
    /// No fingerprint is by an algorithm that is known.
    #[error("unsupported remote fingerprint algorithm")]
    UnknownAlgorithm,
    /// OpenSSL failed.
    #[error(transparent)]
    OpenSsl(#[from] ErrorStack),
}

/// What happened.
#[derive(Debug)]
pub enum DtlsEvent {
    /// The state changed to anything but connected.
    State(DtlsState),
    /// The peer is who it should be; media can flow.
    Connected {
        /// Keys for both directions.
        keys: Box<SrtpKeys>,
        /// The peer's certificate, PEM.
        remote_cert: String,
    },
}

/// Master keys and salts of both directions.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtpKeys {
    /// What was negotiated.
    pub profile: Profile,
    /// Seals what we send.
    pub local_key: Vec<u8>,
    /// Goes with `local_key`.
    pub local_salt: Vec<u8>,
    /// Opens what we receive.
    pub remote_key: Vec<u8>,
    /// Goes with `remote_key`.
    pub remote_salt: Vec<u8>,
}

impl std::fmt::Debug for SrtpKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SrtpKeys")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// Settings shared by all transports of a worker.
#[derive(Clone)]
pub struct DtlsContext(SslContext);

impl DtlsContext {
    /// Creates a context that offers and accepts `profiles`; as server the first one that the
    /// peer offers too is taken.
    ///
    /// # Errors
    /// OpenSSL does not take the certificate or a setting.
    pub fn new(certificate: &Certificate, profiles: &[Profile]) -> Result<Self, ErrorStack> {
        Self::with_ciphers(certificate, profiles, CIPHERS)
    }

    fn with_ciphers(
        certificate: &Certificate,
        profiles: &[Profile],
        ciphers: &str,
    ) -> Result<Self, ErrorStack> {
        let mut builder = SslContextBuilder::new(SslMethod::dtls())?;
        builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
        // The distribution's level may refuse a certificate that was given, such as one of 1024
        // bits; ciphers and version are chosen here anyway.
        builder.set_security_level(1);
        builder.set_certificate(certificate.x509())?;
        builder.set_private_key(certificate.key())?;
        builder.set_cipher_list(ciphers)?;
        builder.set_options(
            SslOptions::NO_TICKET
                | SslOptions::NO_QUERY_MTU
                | SslOptions::CIPHER_SERVER_PREFERENCE
                | SslOptions::NO_RENEGOTIATION,
        );
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_mode(SslMode::RELEASE_BUFFERS);
        // The chain proves nothing here: the signalled fingerprint does, after the handshake.
        let verify = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
        builder.set_verify_callback(verify, |_, _| true);
        let names: Vec<&str> = profiles.iter().map(|p| p.openssl_name()).collect();
        builder.set_tlsext_use_srtp(&names.join(":"))?;
        Ok(Self(builder.build()))
    }
}

/// How far the handshake is.
enum Phase {
    /// Not started.
    Idle,
    /// Under way.
    Handshaking {
        stream: SslStream<Datagrams>,
        /// None until we sent something: a server waits for its client without end.
        schedule: Option<Schedule>,
    },
    /// Done; what the peer still sends can only be its goodbye.
    Done {
        stream: SslStream<Datagrams>,
        /// The datagrams that ended the handshake, if they were ours.
        last_flight: Vec<Vec<u8>>,
    },
    /// Done and verified, without OpenSSL.
    Associated(Box<Association>),
    /// Done by an earlier endpoint, whose association is lost: nothing more can be said or heard.
    Resumed,
    /// Over.
    Ended,
}

/// When to retransmit and when to give up.
struct Schedule {
    retransmit_at: Instant,
    backoff: Duration,
    gives_up_at: Instant,
}

/// The endpoint.
pub struct Dtls {
    context: DtlsContext,
    phase: Phase,
    state: DtlsState,
    role: DtlsRole,
    remote_fingerprint: Option<Fingerprint>,
    outgoing: VecDeque<Vec<u8>>,
    events: VecDeque<DtlsEvent>,
}

impl Dtls {
    /// Creates an endpoint that waits.
    ///
    /// # Errors
    /// None today; OpenSSL objects are made when the handshake starts.
    pub fn new(context: &DtlsContext) -> Result<Self, ErrorStack> {
        Ok(Self {
            context: context.clone(),
            phase: Phase::Idle,
            state: DtlsState::New,
            role: DtlsRole::Auto,
            remote_fingerprint: None,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// Creates an endpoint that takes the place of a connected one, in its role.
    pub fn resumed(context: &DtlsContext, role: DtlsRole) -> Self {
        Self {
            context: context.clone(),
            phase: Phase::Resumed,
            state: DtlsState::Connected,
            role,
            remote_fingerprint: None,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Our role.
    pub fn local_role(&self) -> DtlsRole {
        self.role
    }

    /// The state.
    pub fn state(&self) -> DtlsState {
        self.state
    }

    /// Tells the peer's role and fingerprints and returns our role. After an association that
    /// is over they are those of the next one, which waits for
    /// [`handle_ice_connected`](Self::handle_ice_connected). A resumed endpoint has verified its
    /// peer already and changes nothing.
    ///
    /// # Errors
    /// Parameters were given before, or no fingerprint is usable; nothing changed.
    pub fn set_remote(
        &mut self,
        now: Instant,
        remote_role: DtlsRole,
        fingerprints: &[Fingerprint],
    ) -> Result<DtlsRole, DtlsError> {
        if matches!(self.phase, Phase::Resumed) {
            return Ok(self.role);
        }
        let is_over = matches!(self.phase, Phase::Ended);
        if self.remote_fingerprint.is_some() && !is_over {
            return Err(DtlsError::AlreadySet);
        }
        let known = fingerprints
            .iter()
            .rev()
            .find(|fingerprint| certificate::digest(&fingerprint.algorithm).is_some());
        self.remote_fingerprint = Some(known.ok_or(DtlsError::UnknownAlgorithm)?.clone());
        let role = match remote_role {
            DtlsRole::Client => DtlsRole::Server,
            DtlsRole::Server | DtlsRole::Auto => DtlsRole::Client,
        };
        let is_reversed = self.role == DtlsRole::Server && role == DtlsRole::Client;
        self.role = role;
        if is_over {
            self.phase = Phase::Idle;
        }
        match &self.phase {
            // Even a finished handshake is void, its keys belong to the other role.
            Phase::Handshaking { .. } | Phase::Done { .. } if is_reversed => self.start(now),
            Phase::Done { .. } => self.verify(),
            Phase::Idle
            | Phase::Handshaking { .. }
            | Phase::Associated(_)
            | Phase::Resumed
            | Phase::Ended => {}
        }
        Ok(role)
    }

    /// Starts the handshake, now that packets can cross. An undecided role becomes server.
    pub fn handle_ice_connected(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Idle) {
            if self.role == DtlsRole::Auto {
                self.role = DtlsRole::Server;
            }
            self.start(now);
        }
    }

    /// Takes a datagram of the peer.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        match &mut self.phase {
            Phase::Handshaking { stream, .. } | Phase::Done { stream, .. } => {
                stream.get_mut().push(datagram);
            }
            Phase::Associated(association) => {
                match association.hear(datagram) {
                    Heard::Nothing => {}
                    Heard::Waiting => self.outgoing.extend(association.last_flight.clone()),
                    Heard::Goodbye => self.finish(DtlsState::Closed),
                }
                return;
            }
            Phase::Idle | Phase::Resumed | Phase::Ended => return,
        }
        self.proceed(now, RETRANSMIT_FIRST);
    }

    /// When to be woken.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Handshaking { schedule, .. } => schedule
                .as_ref()
                .map(|schedule| schedule.retransmit_at.min(schedule.gives_up_at)),
            Phase::Idle
            | Phase::Done { .. }
            | Phase::Associated(_)
            | Phase::Resumed
            | Phase::Ended => None,
        }
    }

    /// Retransmits what got no answer, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Phase::Handshaking {
            schedule: Some(schedule),
            ..
        } = &mut self.phase
        else {
            return;
        };
        if now >= schedule.gives_up_at {
            self.finish(DtlsState::Failed);
        } else if now >= schedule.retransmit_at {
            schedule.retransmit_at = now + RETRANSMIT_RECHECK;
            let backoff = schedule.backoff * 2;
            self.proceed(now, backoff);
        }
    }

    /// The next datagram for the peer.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<DtlsEvent> {
        self.events.pop_front()
    }

    /// Says goodbye to the peer.
    pub fn close(&mut self) {
        self.say_goodbye();
        self.phase = Phase::Ended;
        self.state = DtlsState::Closed;
    }

    /// Begins a handshake in our role, forgetting an earlier one.
    fn start(&mut self, now: Instant) {
        match self.new_stream() {
            Ok(stream) => {
                self.phase = Phase::Handshaking {
                    stream,
                    schedule: None,
                };
                self.outgoing.clear();
                self.set_state(DtlsState::Connecting);
                self.proceed(now, RETRANSMIT_FIRST);
            }
            Err(_) => self.finish(DtlsState::Failed),
        }
    }

    fn new_stream(&self) -> Result<SslStream<Datagrams>, ErrorStack> {
        let mut ssl = Ssl::new(&self.context.0)?;
        ssl.set_mtu(MTU)?;
        if self.role == DtlsRole::Client {
            ssl.set_connect_state();
        } else {
            ssl.set_accept_state();
        }
        SslStream::new(ssl, Datagrams::default())
    }

    /// Lets OpenSSL work on what is there; what it sends may be sent again after `backoff`.
    fn proceed(&mut self, now: Instant, backoff: Duration) {
        match &mut self.phase {
            Phase::Handshaking { stream, schedule } => {
                let result = stream.do_handshake();
                let sent = stream.get_mut().take_outgoing();
                if !sent.is_empty() {
                    let gives_up_at = schedule
                        .as_ref()
                        .map_or(now + HANDSHAKE_TIMEOUT, |schedule| schedule.gives_up_at);
                    *schedule = Some(Schedule {
                        retransmit_at: now + backoff,
                        backoff,
                        gives_up_at,
                    });
                }
                self.outgoing.extend(sent.iter().cloned());
                match result {
                    Ok(()) => self.complete(sent.into()),
                    Err(error) if is_waiting(error.code()) => {}
                    Err(_) => self.finish(DtlsState::Failed),
                }
            }
            Phase::Done { stream, .. } => {
                let mut discarded = [0; 512];
                let end = loop {
                    match stream.ssl_read(&mut discarded) {
                        Ok(_) => {}
                        Err(error) if is_waiting(error.code()) => break false,
                        Err(_) => break true,
                    }
                };
                let said_goodbye = stream.get_shutdown().contains(ShutdownState::RECEIVED);
                self.outgoing.extend(stream.get_mut().take_outgoing());
                if end || said_goodbye {
                    self.finish(match self.state {
                        DtlsState::Connected => DtlsState::Closed,
                        _ => DtlsState::Failed,
                    });
                }
            }
            Phase::Idle | Phase::Associated(_) | Phase::Resumed | Phase::Ended => {}
        }
    }

    /// The handshake is done, with our `last_flight` if the peer's was not the last.
    fn complete(&mut self, last_flight: Vec<Vec<u8>>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Ended);
        if let Phase::Handshaking { stream, .. } = phase {
            self.phase = Phase::Done {
                stream,
                last_flight,
            };
            if self.remote_fingerprint.is_some() {
                self.verify();
            }
        }
    }

    /// Compares the peer's certificate with its fingerprint and exports the keys.
    fn verify(&mut self) {
        let Phase::Done {
            stream,
            last_flight,
        } = &mut self.phase
        else {
            return;
        };
        let Some(expected) = &self.remote_fingerprint else {
            return;
        };
        let peer = stream.ssl().peer_certificate();
        let verified = peer.filter(|cert| {
            fingerprint_of(cert, &expected.algorithm)
                .is_some_and(|value| value.eq_ignore_ascii_case(&expected.value))
        });
        let connected = verified.and_then(|cert| {
            let keys = export(stream.ssl(), self.role)?;
            let pem = String::from_utf8(cert.to_pem().ok()?).ok()?;
            Some((keys, pem))
        });
        match connected {
            Some((keys, remote_cert)) => {
                let last_flight = std::mem::take(last_flight);
                let association = Association::take_over(stream.ssl(), self.role, last_flight);
                if let Some(association) = association {
                    self.phase = Phase::Associated(Box::new(association));
                }
                self.state = DtlsState::Connected;
                self.events.push_back(DtlsEvent::Connected {
                    keys: Box::new(keys),
                    remote_cert,
                });
            }
            None => {
                self.say_goodbye();
                self.finish(DtlsState::Failed);
            }
        }
    }

    fn say_goodbye(&mut self) {
        match &mut self.phase {
            Phase::Done { stream, .. } => {
                // It is the peer's loss if this fails.
                let _ = stream.shutdown();
                self.outgoing.extend(stream.get_mut().take_outgoing());
            }
            Phase::Associated(association) => self.outgoing.extend(association.say_goodbye()),
            Phase::Idle | Phase::Handshaking { .. } | Phase::Resumed | Phase::Ended => {}
        }
    }

    fn finish(&mut self, state: DtlsState) {
        self.phase = Phase::Ended;
        self.set_state(state);
    }

    fn set_state(&mut self, state: DtlsState) {
        self.state = state;
        self.events.push_back(DtlsEvent::State(state));
    }
}

fn export(ssl: &SslRef, role: DtlsRole) -> Option<SrtpKeys> {
    let profile = Profile::from_openssl_name(ssl.selected_srtp_profile()?.name())?;
    let (key_len, salt_len) = (profile.key_len(), profile.salt_len());
    let mut material = vec![0; 2 * (key_len + salt_len)];
    ssl.export_keying_material(&mut material, EXPORTER_LABEL, None)
        .ok()?;
    let (client_key, rest) = material.split_at(key_len);
    let (server_key, rest) = rest.split_at(key_len);
    let (client_salt, server_salt) = rest.split_at(salt_len);
    let client = (client_key.to_vec(), client_salt.to_vec());
    let server = (server_key.to_vec(), server_salt.to_vec());
    let (local, remote) = if role == DtlsRole::Client {
        (client, server)
    } else {
        (server, client)
    };
    Some(SrtpKeys {
        profile,
        local_key: local.0,
        local_salt: local.1,
        remote_key: remote.0,
        remote_salt: remote.1,
    })
}

fn is_waiting(code: ErrorCode) -> bool {
    code == ErrorCode::WANT_READ || code == ErrorCode::WANT_WRITE
}

#[cfg(test)]
mod tests;
