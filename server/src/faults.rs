//! Faults on purpose over HTTP, for a page that shows what a worker's death costs:
//! `broth serve --chaos`. Whoever can open the page can end workers with it.
//!
//! ```text
//! POST /api/chaos        { "room": "tea", "fault": "kill" }    → { "worker": 0, "pid": 4711, … }
//!                        { "worker": 0, "fault": "stop" }
//! GET  /api/chaos?room=  server-sent events: which process serves the room, from now on
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use broth::chaos::{Direction, Fault};
use broth::{EventStream, Room, RoomEvent, Server};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::http::is_own_page;
use crate::rooms::Rooms;

const BODY_BYTES_MAX: usize = 4096;

/// A room of a small server has far less, and a small machine has it.
const HOG_BYTES: u64 = 64 << 20;

/// The watchdog takes this for a worker that stands still.
const SLOW_DELAY: Duration = Duration::from_millis(400);
const SLOW_DURATION: Duration = Duration::from_secs(5);

const FAULTS: [(&str, Fault); 7] = [
    ("kill", Fault::Kill),
    ("stop", Fault::Stop),
    ("abort", Fault::Abort),
    ("memory-hog", Fault::MemoryHog { bytes: HOG_BYTES }),
    (
        "slow-channel",
        Fault::SlowChannel {
            delay: SLOW_DELAY,
            duration: SLOW_DURATION,
        },
    ),
    ("garbage-to-worker", Fault::Garbage(Direction::ToWorker)),
    ("garbage-from-worker", Fault::Garbage(Direction::FromWorker)),
];

/// A refusal: a status, and the text its JSON carries.
type Refusal = (StatusCode, String);

/// Faults made and not told yet to who watches.
const BACKLOG: usize = 64;

/// What all requests share.
struct Faults {
    rooms: Arc<Rooms>,
    /// What is done to which worker, just before it is.
    made: broadcast::Sender<Made>,
}

#[derive(Clone)]
struct Made {
    worker: usize,
    pid: u32,
    fault: &'static str,
}

/// What there is to ask for; everything is refused unless it `is_enabled`.
pub(crate) fn routes(rooms: Arc<Rooms>, is_enabled: bool) -> Router<Arc<Rooms>> {
    let methods = match is_enabled {
        true => get(watch).post(inject),
        false => get(refuse).post(refuse),
    };
    let (made, _) = broadcast::channel(BACKLOG);
    Router::new()
        .route("/api/chaos", methods)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(Faults { rooms, made }))
}

async fn refuse() -> Response {
    let text = "chaos is not enabled: start the server with --chaos";
    answer(Err((StatusCode::FORBIDDEN, text.into())))
}

async fn inject(State(faults): State<Arc<Faults>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(try_inject(&faults, &headers, &body).await)
}

async fn try_inject(faults: &Faults, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
    check_page(headers)?;
    let Order {
        target,
        name,
        fault,
    } = Order::parse(body).map_err(|text| (StatusCode::BAD_REQUEST, text))?;
    let not_found = |text| (StatusCode::NOT_FOUND, text);
    let (rooms, server) = (&faults.rooms, faults.rooms.server());
    let worker = match target {
        Target::Room(room) => rooms.room(&room).map_err(not_found)?.worker_idx(),
        Target::Worker(idx) => idx,
    };
    // One that died a moment ago is not found either.
    let pid = pid_of(server, worker)
        .ok_or_else(|| not_found(format!("there is no worker {worker} now")))?;
    let made = Made {
        worker,
        pid,
        fault: name,
    };
    // Nobody may be watching.
    let _ = faults.made.send(made);
    let injected = server.inject(worker, fault).await;
    injected.map_err(|error| (StatusCode::CONFLICT, error.to_string()))?;
    tracing::warn!(worker, pid, fault = name, "fault injected");
    Ok(json!({ "worker": worker, "pid": pid, "fault": name }))
}

#[derive(Deserialize)]
struct WatchQuery {
    room: Option<String>,
}

async fn watch(
    State(faults): State<Arc<Faults>>,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
) -> Response {
    let room = check_page(&headers).and_then(|()| {
        let missing = || (StatusCode::BAD_REQUEST, "name a room".to_owned());
        let room = query.room.ok_or_else(missing)?;
        let room = faults.rooms.room(&room);
        room.map_err(|text| (StatusCode::NOT_FOUND, text))
    });
    match room {
        Ok(room) => Sse::new(Life::of(room, &faults).told())
            .keep_alive(KeepAlive::default())
            .into_response(),
        Err(refusal) => answer(Err(refusal)),
    }
}

/// Which process serves a room, now and after each death, until the room closes.
struct Life {
    server: Server,
    room: Room,
    events: EventStream<RoomEvent>,
    made: broadcast::Receiver<Made>,
}

impl Life {
    fn of(room: Room, faults: &Faults) -> Self {
        Self {
            server: faults.rooms.server().clone(),
            events: room.events(),
            made: faults.made.subscribe(),
            room,
        }
    }

    fn told(self) -> impl Stream<Item = Result<Event, Infallible>> {
        let first = self.alive(None);
        stream::unfold((Some(first), self), |(first, mut life)| async move {
            let news = match first {
                Some(first) => first,
                None => life.next().await?,
            };
            Some((Ok(Event::default().data(news.to_string())), (None, life)))
        })
    }

    /// What happens next; `None` when nothing more will.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let worker = self.room.worker_idx();
            tokio::select! {
                // What is done to a worker comes before what it does.
                biased;
                made = self.made.recv() => match made {
                    Ok(Made { worker: at, pid, fault }) if at == worker => {
                        return Some(json!({ "state": "fault", "worker": worker, "pid": pid, "fault": fault }));
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                event = self.events.recv() => match event? {
                    RoomEvent::WorkerDied(reason) => {
                        return Some(json!({ "state": "dead", "worker": worker, "reason": reason }));
                    }
                    RoomEvent::Recovered(gap) => return Some(self.alive(Some(gap))),
                    RoomEvent::Moved { .. } => return Some(self.alive(None)),
                    RoomEvent::Close { .. } => return None,
                    RoomEvent::NewPeer(_) | RoomEvent::Implicated { .. } => {}
                },
            }
        }
    }

    fn alive(&self, gap: Option<Duration>) -> Value {
        let worker = self.room.worker_idx();
        let pid = pid_of(&self.server, worker);
        let mut news = json!({ "state": "alive", "worker": worker, "pid": pid });
        if let Some(gap) = gap {
            news["gapMs"] = json!((gap.as_secs_f64() * 10_000.0).round() / 10.0);
        }
        news
    }
}

fn pid_of(server: &Server, worker: usize) -> Option<u32> {
    let mut alive = server.workers().into_iter();
    alive.find(|info| info.idx == worker).map(|info| info.pid)
}

fn check_page(headers: &HeaderMap) -> Result<(), Refusal> {
    match is_own_page(headers) {
        true => Ok(()),
        false => Err((
            StatusCode::FORBIDDEN,
            "this is another site's server".into(),
        )),
    }
}

fn answer(outcome: Result<Value, Refusal>) -> Response {
    match outcome {
        Ok(value) => Json(value).into_response(),
        Err((status, text)) => (status, Json(json!({ "error": text }))).into_response(),
    }
}

/// What is to be done to which worker.
#[derive(Debug, PartialEq)]
struct Order {
    target: Target,
    name: &'static str,
    fault: Fault,
}

#[derive(Debug, PartialEq)]
enum Target {
    /// Whichever worker serves it.
    Room(String),
    Worker(usize),
}

impl Order {
    /// Reads an order; the error says what is wrong with it.
    fn parse(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            room: Option<String>,
            worker: Option<usize>,
            fault: String,
        }
        let text = |error: serde_json::Error| error.to_string();
        let value: Value = serde_json::from_slice(body).map_err(text)?;
        // An array would do for a struct, too.
        if !value.is_object() {
            return Err("give an object".into());
        }
        let raw = Raw::deserialize(value).map_err(text)?;
        let target = match (raw.room, raw.worker) {
            (Some(room), None) => Target::Room(room),
            (None, Some(worker)) => Target::Worker(worker),
            _ => return Err("give either a room or a worker".into()),
        };
        let found = FAULTS.into_iter().find(|(name, _)| *name == raw.fault);
        let (name, fault) = found.ok_or_else(|| {
            let known = FAULTS.map(|(name, _)| name).join(", ");
            format!("fault: {:?} is none of {known}", raw.fault)
        })?;
        Ok(Self {
            target,
            name,
            fault,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_name_a_target_and_a_fault() {
        let order = Order::parse(br#"{"room":"tea","fault":"kill"}"#).unwrap();
        assert_eq!(order.target, Target::Room("tea".into()));
        assert_eq!((order.name, order.fault), ("kill", Fault::Kill));
        for (name, fault) in FAULTS {
            let body = json!({ "worker": 1, "fault": name }).to_string();
            let order = Order::parse(body.as_bytes()).unwrap();
            assert_eq!((order.target, order.fault), (Target::Worker(1), fault));
        }
    }

    #[test]
    fn orders_that_cannot_be_are_refused_with_the_reason() {
        let rows = [
            ("", "EOF"),
            ("[null,0,\"kill\"]", "give an object"),
            ("{}", "missing field `fault`"),
            (r#"{"room":"tea"}"#, "missing field `fault`"),
            (r#"{"fault":"kill"}"#, "either a room or a worker"),
            (
                r#"{"room":"tea","worker":0,"fault":"kill"}"#,
                "either a room or a worker",
            ),
            (r#"{"worker":-1,"fault":"kill"}"#, "invalid value"),
            (
                r#"{"worker":0,"fault":"kill","pid":1}"#,
                "unknown field `pid`",
            ),
            (
                r#"{"worker":0,"fault":"Kill"}"#,
                "\"Kill\" is none of kill, stop, abort",
            ),
        ];
        for (body, expected) in rows {
            let error = Order::parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }
}
