//! One client's socket: delivers its messages to the room and the peer in order, and the peer's
//! notifications to it. Never interprets the protocol beyond target and `join`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use broth::{EventStream, Peer, PeerEvent};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, Stream, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::envelope::{self, Incoming};
use crate::rooms::{Rooms, Seat, VideoCodec};

/// Largest message taken from a client; a join with all capabilities has about 10 KiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Largest appData taken: it is kept, and told to everybody in the room.
const APP_DATA_BYTES_MAX: usize = 4096;

/// Messages waiting for a client that reads slowly before it is given up.
const QUEUE_MAX: usize = 1024;

pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How long a client may take to end a connection that was closed.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// How long a client may be connected without having joined.
const JOIN_TIME: Duration = Duration::from_secs(30);

/// Messages a second a client may send for long; a page sends a few dozen when it joins.
const MESSAGES_PER_SECOND: f64 = 50.0;

/// Messages a client may send at once.
const MESSAGES_BURST: f64 = 200.0;

/// A client that answers no ping for so long is gone.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(40);

/// Who wants to enter which room.
pub(crate) struct Visitor {
    pub(crate) room: String,
    pub(crate) name: String,
    pub(crate) codec: VideoCodec,
}

/// Why a socket is closed by the server.
type Refusal = String;

/// Serves a socket until either side has enough.
pub(crate) async fn serve(socket: WebSocket, visitor: Visitor, rooms: Arc<Rooms>) {
    let (sink, mut incoming) = socket.split();
    let (queue, queued) = mpsc::channel(QUEUE_MAX);
    let writer = tokio::spawn(write(sink, queued));

    let refusal = match rooms.enter(&visitor.room, visitor.codec).await {
        Err(error) => Some(error.to_string()),
        Ok(seat) => {
            let mut session = Session {
                seat,
                name: visitor.name,
                joined: None,
                has_joined: false,
                queue: queue.clone(),
            };
            let refusal = session.run(&mut incoming).await.err();
            if let Some((peer, _)) = session.joined {
                peer.close(None);
            }
            refusal
        }
    };
    let reason = refusal.unwrap_or_default();
    tracing::debug!(reason, "socket closes");
    let frame = CloseFrame {
        code: close_code::POLICY,
        reason: shortened(&reason).into(),
    };
    // A full queue means that the client does not read: it is not told either.
    let _ = queue.try_send(Message::Close(Some(frame)));
    drop(queue);
    let abort = writer.abort_handle();
    if timeout(PING_INTERVAL, writer).await.is_err() {
        tracing::debug!("the client did not take the last messages");
        abort.abort();
    }
    await_end(incoming).await;
}

/// Lets the client end a connection it was told to close (RFC 6455 §7.1.1): what it sends
/// meanwhile, a pong for instance, would be answered with a reset, which may overtake the reason.
pub(crate) async fn await_end<T>(mut incoming: impl Stream<Item = Result<T, axum::Error>> + Unpin) {
    let ended = async { while incoming.next().await.is_some_and(|message| message.is_ok()) {} };
    if timeout(CLOSE_TIME, ended).await.is_err() {
        tracing::debug!("the client does not close");
    }
}

struct Session {
    seat: Seat,
    name: String,
    joined: Option<(Peer, EventStream<PeerEvent>)>,
    has_joined: bool,
    queue: mpsc::Sender<Message>,
}

impl Session {
    /// Runs until the client closes (`Ok`) or has to be closed.
    async fn run<S>(&mut self, incoming: &mut S) -> Result<(), Refusal>
    where
        S: Stream<Item = Result<Message, axum::Error>> + Unpin,
    {
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_heard = Instant::now();
        let mut throttle = Throttle::new(last_heard);
        let join_by = last_heard + JOIN_TIME;
        loop {
            tokio::select! {
                message = incoming.next() => {
                    last_heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            // Who sends more than that waits: TCP tells it.
                            sleep(throttle.take(last_heard)).await;
                            self.handle(text.as_str()).await?;
                        }
                        Some(Ok(Message::Binary(_))) => return Err("send text, not binary".into()),
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Close(_))) | None => return Ok(()),
                        Some(Err(error)) => return Err(error.to_string()),
                    }
                }
                event = next_event(&mut self.joined) => self.deliver(event)?,
                changed = self.seat.speakers.changed() => match changed {
                    Ok(()) => self.tell_speakers()?,
                    Err(_) => return self.say_farewell().await,
                },
                _ = pings.tick() => {
                    if last_heard.elapsed() > SILENCE_MAX {
                        return Err("no sign of life".into());
                    }
                    self.send(Message::Ping(Vec::new().into()))?;
                }
                () = sleep_until(join_by), if !self.has_joined => {
                    return Err("not joined in time".into());
                }
            }
        }
    }

    async fn handle(&mut self, text: &str) -> Result<(), Refusal> {
        let message = envelope::parse(text)?;
        let (Incoming::Request { data, .. } | Incoming::Notification { data }) = &message;
        let app_data = data.get("appData").map(Value::to_string);
        if app_data.is_some_and(|app_data| app_data.len() > APP_DATA_BYTES_MAX) {
            return Err(format!("appData is larger than {APP_DATA_BYTES_MAX} bytes"));
        }
        match message {
            Incoming::Request { id, data } => {
                let answer = self.request(data).await;
                self.send(Message::text(envelope::response(id, answer)))
            }
            Incoming::Notification { data } => {
                if let Some((peer, _)) = &self.joined
                    && let Err(error) = peer.receive_notification(data).await
                {
                    tracing::debug!(peer = peer.name(), %error, "notification refused");
                }
                Ok(())
            }
        }
    }

    async fn request(&mut self, data: Value) -> Result<Value, String> {
        let text = |error: broth::Error| error.to_string();
        match (data["target"].as_str(), data["method"].as_str()) {
            (Some("room"), Some("join")) => self.join(data),
            (Some("room"), _) => self.seat.room.receive_request(data).await.map_err(text),
            (Some("peer"), _) => match &self.joined {
                Some((peer, _)) => peer.receive_request(data).await.map_err(text),
                None => Err("join the room first".into()),
            },
            _ => Err("wrong/missing request target".into()),
        }
    }

    fn join(&mut self, data: Value) -> Result<Value, String> {
        if self.joined.as_ref().is_some_and(|(peer, _)| !peer.closed()) {
            return Err("already joined".into());
        }
        if data["peerName"] != self.name.as_str() {
            return Err("peerName is not the name this socket was opened with".into());
        }
        // Nobody listens here without being seen.
        if data["spy"] == true {
            return Err("spies are not admitted".into());
        }
        let (peer, response) = self
            .seat
            .room
            .join(data)
            .map_err(|error| error.to_string())?;
        // What happened since the join waits in the stream and follows the response.
        let events = peer.events();
        self.joined = Some((peer, events));
        self.has_joined = true;
        Ok(response)
    }

    fn deliver(&mut self, event: Option<PeerEvent>) -> Result<(), Refusal> {
        match event {
            Some(PeerEvent::Notify(data)) => self.notify(&data),
            Some(_) => Ok(()),
            // It left or was closed; the socket may join again.
            None => {
                self.joined = None;
                Ok(())
            }
        }
    }

    fn tell_speakers(&mut self) -> Result<(), Refusal> {
        let speakers = self.seat.speakers.borrow_and_update().clone();
        if self.joined.is_none() {
            return Ok(());
        }
        self.notify(&speakers)
    }

    /// The room has closed: what the peer was told about it still goes out.
    async fn say_farewell(&mut self) -> Result<(), Refusal> {
        while let Some((_, events)) = &mut self.joined {
            let event = events.recv().await;
            self.deliver(event)?;
        }
        Err("the room closed".into())
    }

    fn notify(&self, data: &Value) -> Result<(), Refusal> {
        self.send(Message::text(envelope::notification(data)))
    }

    fn send(&self, message: Message) -> Result<(), Refusal> {
        self.queue
            .try_send(message)
            .map_err(|_| "too many messages unread".into())
    }
}

/// How many messages a client may send.
struct Throttle {
    /// Messages it may send now; below zero it has to wait.
    allowance: f64,
    at: Instant,
}

impl Throttle {
    fn new(now: Instant) -> Self {
        Self {
            allowance: MESSAGES_BURST,
            at: now,
        }
    }

    /// Counts a message and says how long it has to wait.
    fn take(&mut self, now: Instant) -> Duration {
        let earned = (now - self.at).as_secs_f64() * MESSAGES_PER_SECOND;
        self.at = now;
        self.allowance = (self.allowance + earned).min(MESSAGES_BURST) - 1.0;
        Duration::from_secs_f64((-self.allowance / MESSAGES_PER_SECOND).max(0.0))
    }
}

/// The peer's next event; never comes while nobody has joined.
async fn next_event(joined: &mut Option<(Peer, EventStream<PeerEvent>)>) -> Option<PeerEvent> {
    match joined {
        Some((_, events)) => events.recv().await,
        None => std::future::pending().await,
    }
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut queued: mpsc::Receiver<Message>) {
    while let Some(message) = queued.recv().await {
        let is_last = matches!(message, Message::Close(_));
        if sink.send(message).await.is_err() || is_last {
            return;
        }
    }
}

/// A close frame has room for 123 bytes of reason.
pub(crate) fn shortened(reason: &str) -> String {
    let end = (0..=reason.len().min(120))
        .rev()
        .find(|&end| reason.is_char_boundary(end));
    reason[..end.unwrap_or(0)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_a_flood_is_slowed_to_the_rate() {
        let begin = Instant::now();
        let mut throttle = Throttle::new(begin);
        for _ in 0..MESSAGES_BURST as u32 {
            assert_eq!(throttle.take(begin), Duration::ZERO);
        }
        let interval = Duration::from_secs_f64(1.0 / MESSAGES_PER_SECOND);
        assert_eq!(throttle.take(begin), interval);
        assert_eq!(throttle.take(begin + interval), interval);
        assert_eq!(
            throttle.take(begin + Duration::from_secs(60)),
            Duration::ZERO
        );
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(shortened("the room closed"), "the room closed");
        assert_eq!(shortened(&"ä".repeat(100)).len(), 120);
        assert_eq!(shortened(&format!("x{}", "ä".repeat(100))).len(), 119);
    }
}
