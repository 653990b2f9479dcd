//! Requests, responses and notifications, typed (`spec: channel.md` §3, §4, §9).

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::body::{
    CreateConsumer, CreateProducer, CreateRouter, DtlsParameters, DtlsState, Empty, EnableConsumer,
    EncodingPreferences, Hello, IceState, Misbehave, PlainRtpTransportOptions, RemoteParameters,
    SetAudioLevelsEvent, SetMaxBitrate, SetPreferredProfile, StartMirroring, TransportTuple,
    WebRtcTransportOptions, WorkerSettings,
};
use crate::error::{ErrorCode, Rejection};
use crate::ids::{Ids, ProducerId, Subject};
use crate::read::{Members, Read};
use crate::rtp::Profile;
use crate::shared_fd::SharedFd;

macro_rules! calls {
    ($($(#[$doc:meta])* $Variant:ident($Body:ty) = $method:literal of [$($Subject:ident),*],)*) => {
        /// What is asked of the worker: one variant per method.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "calls are rare and never stored in bulk")]
        pub enum Call {
            $($(#[$doc])* #[doc = concat!("\n\nMethod `", $method, "`.")] $Variant($Body),)*
        }

        impl Call {
            /// The method's name on the wire.
            pub fn method(&self) -> &'static str {
                match self {
                    $(Self::$Variant(_) => $method,)*
                }
            }

            fn data(&self) -> serde_json::Result<Value> {
                match self {
                    $(Self::$Variant(body) => serde_json::to_value(body),)*
                }
            }

            /// Reads a call, and tells which objects it needs, in the order to check them.
            fn read(
                method: &str,
                data: Members<'_>,
            ) -> (&'static [Subject], Result<Self, Rejection>) {
                match method {
                    $($method => {
                        (&[$(Subject::$Subject),*], <$Body>::read(data).map(Self::$Variant))
                    })*
                    _ => (&[], Err(Rejection::new(ErrorCode::UnknownMethod, "unknown method"))),
                }
            }
        }
    };
}

calls! {
    /// Opens a channel between broth's own ends.
    Hello(Hello) = "worker.hello" of [],
    /// Everything in the worker.
    DumpWorker(Empty) = "worker.dump" of [],
    /// The worker's own load.
    GetLoad(Empty) = "worker.getLoad" of [],
    /// Changes the log settings.
    UpdateSettings(WorkerSettings) = "worker.updateSettings" of [],
    /// Does something that workers should not do, to see what comes of it.
    Misbehave(Misbehave) = "worker.misbehave" of [],
    /// Creates a router.
    CreateRouter(CreateRouter) = "worker.createRouter" of [NewRouter],
    /// Closes a router and everything in it.
    CloseRouter(Empty) = "router.close" of [Router],
    /// Starts reading the sockets of a restored router.
    ResumeRouter(Empty) = "router.resume" of [Router],
    /// Ends a router that another worker is to go on with: says no goodbye, and leaves its recorder
    /// as a death would, complete.
    SuspendRouter(Empty) = "router.suspend" of [Router],
    /// Everything in a router.
    DumpRouter(Empty) = "router.dump" of [Router],
    /// Creates a WebRTC transport.
    CreateWebRtcTransport(WebRtcTransportOptions) = "router.createWebRtcTransport" of [Router, NewTransport],
    /// Creates a plain RTP transport.
    CreatePlainRtpTransport(PlainRtpTransportOptions) = "router.createPlainRtpTransport" of [Router, NewTransport],
    /// Creates a producer on a transport.
    CreateProducer(CreateProducer) = "router.createProducer" of [Router, NewProducer, Transport],
    /// Creates a consumer of a producer, not sending yet.
    CreateConsumer(CreateConsumer) = "router.createConsumer" of [Router, NewConsumer, Producer],
    /// Switches the audio level reports.
    SetAudioLevelsEvent(SetAudioLevelsEvent) = "router.setAudioLevelsEvent" of [Router],
    /// Closes a transport and its producers.
    CloseTransport(Empty) = "transport.close" of [Router, Transport],
    /// Everything about a transport.
    DumpTransport(Empty) = "transport.dump" of [Router, Transport],
    /// Stats of a transport.
    GetTransportStats(Empty) = "transport.getStats" of [Router, Transport],
    /// Tells the peer's DTLS parameters.
    SetRemoteDtlsParameters(DtlsParameters) = "transport.setRemoteDtlsParameters" of [Router, Transport],
    /// Tells the peer's address of a plain RTP transport.
    SetRemoteParameters(RemoteParameters) = "transport.setRemoteParameters" of [Router, Transport],
    /// Limits what the peer is told to send.
    SetMaxBitrate(SetMaxBitrate) = "transport.setMaxBitrate" of [Router, Transport],
    /// Replaces the ICE credentials.
    ChangeUfragPwd(Empty) = "transport.changeUfragPwd" of [Router, Transport],
    /// Starts copying clear packets to an address.
    StartMirroring(StartMirroring) = "transport.startMirroring" of [Router, Transport],
    /// Stops copying.
    StopMirroring(Empty) = "transport.stopMirroring" of [Router, Transport],
    /// Closes a producer and its consumers.
    CloseProducer(Empty) = "producer.close" of [Router, Producer],
    /// Everything about a producer.
    DumpProducer(Empty) = "producer.dump" of [Router, Producer],
    /// Stats of a producer's streams.
    GetProducerStats(Empty) = "producer.getStats" of [Router, Producer],
    /// Stops forwarding what the producer sends.
    PauseProducer(Empty) = "producer.pause" of [Router, Producer],
    /// Forwards again.
    ResumeProducer(Empty) = "producer.resume" of [Router, Producer],
    /// Sets the layer for all consumers without a wish of their own.
    SetProducerProfile(SetPreferredProfile) = "producer.setPreferredProfile" of [Router, Producer],
    /// Closes a consumer.
    CloseConsumer(Empty) = "consumer.close" of [Router, Consumer],
    /// Everything about a consumer.
    DumpConsumer(Empty) = "consumer.dump" of [Router, Consumer],
    /// Stats of a consumer's streams.
    GetConsumerStats(Empty) = "consumer.getStats" of [Router, Consumer],
    /// Starts sending on a transport.
    EnableConsumer(EnableConsumer) = "consumer.enable" of [Router, Consumer, Transport],
    /// Stops sending.
    PauseConsumer(Empty) = "consumer.pause" of [Router, Consumer],
    /// Sends again.
    ResumeConsumer(Empty) = "consumer.resume" of [Router, Consumer],
    /// Sets the wanted layer.
    SetConsumerProfile(SetPreferredProfile) = "consumer.setPreferredProfile" of [Router, Consumer],
    /// Limits the temporal layers.
    SetEncodingPreferences(EncodingPreferences) = "consumer.setEncodingPreferences" of [Router, Consumer],
    /// Asks the source for a key frame.
    RequestKeyFrame(Empty) = "consumer.requestKeyFrame" of [Router, Consumer],
}

/// A request to the worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Answered once, under this id.
    pub id: u32,
    /// The objects it is about.
    pub ids: Ids,
    /// What is asked.
    pub call: Call,
}

/// Why a well-framed payload gets no answer: it has no usable id or method.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Discard {
    /// Not JSON at all, or nested too deep.
    #[error("JSON parsing error: {0}")]
    Json(String),
    /// No `id`, or not a `u32`.
    #[error("json has no numeric id field")]
    Id,
    /// No `method`, or not text.
    #[error("json has no string .method field")]
    Method,
}

/// A request as the worker got it: the id is good, the rest may not be.
#[derive(Debug)]
pub struct Incoming {
    /// To be answered.
    pub id: u32,
    /// The name of what is asked.
    pub method: String,
    /// How many descriptors the message names.
    pub fds: usize,
    /// The ids it came with.
    pub ids: Ids,
    /// What the ids must name, before anything else is looked at.
    pub subjects: &'static [Subject],
    /// The request, or what to answer instead of carrying it out.
    pub request: Result<Request, Rejection>,
}

impl Request {
    /// Serializes the request as a payload; `fds` is how many descriptors travel with it.
    pub fn to_payload(&self, fds: usize) -> serde_json::Result<Vec<u8>> {
        let mut message = json!({
            "id": self.id,
            "method": self.call.method(),
            "internal": self.ids,
            "data": self.call.data()?,
        });
        if fds > 0 {
            message["fds"] = fds.into();
        }
        serde_json::to_vec(&message)
    }

    /// Reads a payload that the controller sent.
    ///
    /// # Errors
    /// The payload cannot be answered, because it has no id or no method.
    pub fn parse(payload: &[u8]) -> Result<Incoming, Discard> {
        let message = match read_json(payload) {
            Ok(message) => message,
            Err(error) => return Self::parse_unreadable(payload, &error.to_string()),
        };
        let members = Members::of(&message);
        let id = members.uint("id").ok_or(Discard::Id)?;
        let fds = message.get("fds").and_then(Value::as_u64).unwrap_or(0);
        let part = |name| message.get(name).map_or(Members::NONE, Members::of);
        let method = message.get("method").and_then(Value::as_str);
        let method = method.ok_or(Discard::Method)?;
        let ids = Ids::read(part("internal"));
        let (subjects, call) = Call::read(method, part("data"));
        Ok(Incoming {
            id,
            method: method.into(),
            fds: usize::try_from(fds).unwrap_or(usize::MAX),
            ids,
            subjects,
            request: call.map(|call| Self { id, ids, call }),
        })
    }

    /// What cannot be read, for instance as it nests too deep, is still answered if it has an id.
    fn parse_unreadable(payload: &[u8], error: &str) -> Result<Incoming, Discard> {
        #[derive(Deserialize)]
        struct Head {
            id: u32,
        }
        let Ok(Head { id }) = read_json(payload) else {
            return Err(Discard::Json(error.into()));
        };
        Ok(Incoming {
            id,
            method: String::new(),
            fds: 0,
            ids: Ids::NONE,
            subjects: &[],
            request: Err(Rejection::invalid(format!("JSON parsing error: {error}"))),
        })
    }
}

/// Reads the first JSON value; what follows it is ignored, as in mediasoup v2.
fn read_json<'p, T: Deserialize<'p>>(payload: &'p [u8]) -> serde_json::Result<T> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(payload))
}

/// The worker's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The request's id.
    pub id: u32,
    /// `data` of an accepted request, or the refusal.
    pub result: Result<Value, Rejection>,
}

impl Response {
    /// Serializes the answer as a payload.
    pub fn to_payload(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&match &self.result {
            Ok(data) => json!({ "accepted": true, "data": data, "id": self.id }),
            Err(rejection) => json!({
                "id": self.id,
                "rejected": true,
                "reason": rejection.reason,
                "code": rejection.code,
            }),
        })
    }
}

/// What kind of object a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The worker itself.
    Worker,
    /// A router.
    Router,
    /// A transport.
    Transport,
    /// A producer.
    Producer,
    /// A consumer.
    Consumer,
}

/// The object a notification is about.
///
/// mediasoup v2 sends only `targetId`; broth adds what makes it unambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Id of the object in its own id space.
    pub target_id: u32,
    /// The router the object lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<crate::RouterId>,
    /// The object's kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "lowercase")]
pub enum Event {
    /// A transport or consumer is gone.
    Close,
    /// The path in use changed.
    #[serde(rename_all = "camelCase")]
    IceSelectedTupleChange {
        /// The new path.
        ice_selected_tuple: TransportTuple,
        /// The TCP connection that it is, if another worker can go on with it.
        #[serde(skip)]
        connection: Option<SharedFd>,
    },
    /// ICE changed state.
    #[serde(rename_all = "camelCase")]
    IceStateChange {
        /// The new state.
        ice_state: IceState,
    },
    /// DTLS changed state.
    #[serde(rename_all = "camelCase")]
    DtlsStateChange {
        /// The new state.
        dtls_state: DtlsState,
        /// The peer's certificate (PEM), with state `connected`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dtls_remote_cert: Option<String>,
    },
    /// A consumer's producer was paused.
    SourcePaused,
    /// A consumer's producer was resumed.
    SourceResumed,
    /// A consumer forwards another layer.
    EffectiveProfileChange {
        /// The new layer.
        profile: Profile,
    },
    /// Loudness of a router's producers over the last 500 ms.
    AudioLevels {
        /// `(producer, dBov)`.
        entries: Vec<(ProducerId, i8)>,
    },
    /// A log line of the worker.
    Log {
        /// `debug`, `warn` or `error`.
        level: String,
        /// The text.
        message: String,
    },
}

impl Event {
    /// The descriptors that travel with it.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn into_fds(self) -> io::Result<Vec<OwnedFd>> {
        match self {
            Self::IceSelectedTupleChange {
                connection: Some(connection),
                ..
            } => Ok(vec![connection.into_owned()?]),
            _ => Ok(Vec::new()),
        }
    }

    /// Takes over the descriptors that came with it.
    pub fn set_fds(&mut self, fds: Vec<OwnedFd>) {
        if let Self::IceSelectedTupleChange { connection, .. } = self {
            *connection = fds.into_iter().next().map(SharedFd::from);
        }
    }
}

/// A message of the worker that nobody asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// The object it is about.
    #[serde(flatten)]
    pub target: Target,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Notification {
    /// Serializes the notification as a payload.
    pub fn to_payload(&self) -> serde_json::Result<Vec<u8>> {
        let has_fd = matches!(
            self.event,
            Event::IceSelectedTupleChange {
                connection: Some(_),
                ..
            }
        );
        if !has_fd {
            return serde_json::to_vec(self);
        }
        let mut message = serde_json::to_value(self)?;
        message["fds"] = 1.into();
        serde_json::to_vec(&message)
    }
}

/// What a worker may send: an answer or a notification.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// An answer.
    Response(Response),
    /// Something happened; so many descriptors came along.
    Notification(Notification, usize),
    /// A log line in mediasoup v2's shape: `(level, text)`.
    LogLine(&'static str, String),
}

impl FromWorker {
    /// Reads a payload that a worker sent.
    ///
    /// # Errors
    /// A sentence saying what is wrong with it.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let log = |level| {
            let text = String::from_utf8_lossy(&payload[1..]).into_owned();
            Ok(Self::LogLine(level, text))
        };
        match payload.first() {
            Some(b'{') => {}
            Some(b'D') => return log("debug"),
            Some(b'W') => return log("warn"),
            Some(b'E') => return log("error"),
            _ => return Err("unexpected data".into()),
        }
        let mut message: Value =
            serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        if message.get("targetId").is_some() {
            let fds = message.get("fds").and_then(Value::as_u64).unwrap_or(0);
            let fds = usize::try_from(fds).unwrap_or(usize::MAX);
            return serde_json::from_value(message)
                .map(|notification| Self::Notification(notification, fds))
                .map_err(|error| error.to_string());
        }
        let id = message
            .get("id")
            .and_then(Value::as_u64)
            .and_then(|id| u32::try_from(id).ok())
            .ok_or("neither an answer nor a notification")?;
        let flag = |name| message.get(name).and_then(Value::as_bool) == Some(true);
        let result = if flag("accepted") {
            Ok(message.get_mut("data").map(Value::take).unwrap_or_default())
        } else if flag("rejected") {
            let reason = message.get("reason").and_then(Value::as_str).unwrap_or("");
            let code = message.get("code").cloned().unwrap_or_default();
            Err(Rejection::new(
                serde_json::from_value(code).unwrap_or_default(),
                reason,
            ))
        } else {
            return Err("an answer that neither accepts nor rejects".into());
        };
        Ok(Self::Response(Response { id, result }))
    }
}

#[cfg(test)]
mod tests;
