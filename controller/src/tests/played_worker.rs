//! The other end of a channel, played by a test: it answers in order, refuses what it is told to
//! refuse, tells what it is told to tell, and keeps the requests.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use broth_ipc::body::Empty;
use broth_ipc::{
    Call, Channel, Ids, Notification, PAYLOAD_BYTES_MAX, Received, Rejection, Request, Response,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::chaos::Target;
use crate::lock;
use crate::ortc::RoomMediaCodec;
use crate::room::Room;
use crate::settings::Limits;
use crate::sockets::Ports;
use crate::supervisor::worker::{Places, Worker, WorkerKind};
use crate::worker_channel::{ChannelEnd, Requests, WorkerChannel};

/// What a test holds of the worker it plays.
pub(super) struct PlayedWorker {
    worker: Arc<Worker>,
    places: Places,
    asked: Arc<Mutex<Vec<Request>>>,
    refused: Arc<Mutex<Vec<&'static str>>>,
    told: mpsc::UnboundedSender<Notification>,
    /// Whether it answers.
    is_held: watch::Sender<bool>,
    play: JoinHandle<()>,
    end: JoinHandle<ChannelEnd>,
}

/// What is left of a worker.
pub(super) struct Grave {
    kind: WorkerKind,
    pid: u32,
    place: usize,
    places: Places,
}

impl Grave {
    /// Another worker takes over; it refuses these methods.
    pub(super) fn successor(self, refused: &[&'static str]) -> PlayedWorker {
        let played = PlayedWorker::start(self.kind, self.pid + 1, self.place, self.places);
        for method in refused {
            played.refuse(method);
        }
        played.enter()
    }
}

impl PlayedWorker {
    /// Starts playing; makes a room in the worker.
    pub(super) async fn with_room() -> (Self, Room) {
        // The kind that binds its own ports, so that none are needed here.
        Self::with_room_in(WorkerKind::V2).await
    }

    /// The same for a worker of another kind.
    pub(super) async fn with_room_in(kind: WorkerKind) -> (Self, Room) {
        let places = [(); 2].map(|()| Arc::default());
        let played = Self::start(kind, 1, 0, places.into()).enter();
        let codecs = [
            RoomMediaCodec::audio("opus", 48_000, 2),
            RoomMediaCodec::video("VP8"),
        ];
        let ports = Arc::new(Ports {
            listen: vec![],
            range: 1..=1,
        });
        let worker = Arc::clone(&played.worker);
        let places = Arc::clone(&played.places);
        let room = Room::create(worker, places, codecs.into(), ports, Limits::default());
        let room = room.await.unwrap();
        (played, room)
    }

    /// Another one of the same server, which takes the rooms of a place.
    pub(super) fn beside(&self, place: usize) -> Self {
        let pid = self.worker.pid + 100;
        Self::start(self.worker.kind, pid, place, Arc::clone(&self.places)).enter()
    }

    /// The same with another layout of flight recorders.
    pub(super) fn beside_of_version(&self, place: usize, recorder_version: u32) -> Self {
        let pid = self.worker.pid + 100;
        let mut played = Self::start(self.worker.kind, pid, place, Arc::clone(&self.places));
        Arc::get_mut(&mut played.worker).unwrap().recorder_version = recorder_version;
        played.enter()
    }

    /// Takes the rooms of its place.
    fn enter(self) -> Self {
        self.worker.rooms.enter(&self.worker);
        self
    }

    fn start(kind: WorkerKind, pid: u32, place: usize, places: Places) -> Self {
        let rooms = Arc::clone(&places[place]);
        let (own, other) = UnixStream::pair().unwrap();
        let heard = Arc::clone(&rooms);
        let (channel, end) = WorkerChannel::start(own, move |event| heard.handle(event)).unwrap();
        let (told, mut telling) = mpsc::unbounded_channel::<Notification>();
        let (asked, refused) = (Arc::default(), Arc::default());
        let (asking, refusing) = (Arc::clone(&asked), Arc::clone(&refused));
        let is_held = watch::Sender::new(false);
        let mut holding = is_held.subscribe();
        let mut other = Channel::new(other, PAYLOAD_BYTES_MAX).unwrap();
        let play = tokio::spawn(async move {
            loop {
                // What was told before a request arrives before its answer.
                let payload = tokio::select! {
                    biased;
                    Some(notification) = telling.recv() => notification.to_payload().unwrap(),
                    received = other.next() => {
                        let Ok(Received::Payload(payload)) = received else { break };
                        let request = Request::parse(&payload).unwrap().request.unwrap();
                        let method = request.call.method();
                        lock::<Vec<_>>(&asking).push(request.clone());
                        holding.wait_for(|is_held| !is_held).await.unwrap();
                        let result = match lock::<Vec<&str>>(&refusing).contains(&method) {
                            true => Err(Rejection::invalid("no")),
                            false => Ok(answer(&request)),
                        };
                        let id = request.id;
                        Response { id, result }.to_payload().unwrap()
                    }
                };
                other.send(&payload, vec![]).unwrap();
            }
        });
        let worker = Arc::new(Worker {
            idx: place,
            id: "played".into(),
            kind,
            pid,
            cpu: 0,
            channel,
            rooms,
            load: Mutex::default(),
            target: Target::default(),
            recorder_version: 1,
            stage: watch::Sender::default(),
        });
        Self {
            worker,
            places,
            asked,
            refused,
            told,
            is_held,
            play,
            end,
        }
    }

    /// Dies, with what was asked of it in this moment unanswered.
    pub(super) async fn die(self) -> Grave {
        self.play.abort();
        let ChannelEnd { unanswered, .. } = self.end.await.unwrap();
        let worker = &self.worker;
        worker.rooms.lose(worker, "died", unanswered);
        Grave {
            kind: worker.kind,
            pid: worker.pid,
            place: worker.idx,
            places: self.places,
        }
    }

    /// Refuses this method from now on.
    pub(super) fn refuse(&self, method: &'static str) {
        lock(&self.refused).push(method);
    }

    /// Answers nothing before it is released.
    pub(super) fn hold(&self) {
        self.is_held.send_replace(true);
    }

    /// Answers again, the first in hand too.
    pub(super) fn release(&self) {
        self.is_held.send_replace(false);
    }

    /// Waits until it is asked for something, which it need not have answered.
    pub(super) async fn is_asked(&self, method: &str) {
        while !lock(&self.asked)
            .iter()
            .any(|request| request.call.method() == method)
        {
            tokio::task::yield_now().await;
        }
    }

    /// Tells something about an object.
    pub(super) async fn tell(&self, target: u32, event: &str, data: Value) {
        let mut message = json!({ "targetId": target, "event": event });
        if !data.is_null() {
            message["data"] = data;
        }
        let notification = serde_json::from_value(message).unwrap();
        self.told.send(notification).unwrap();
        self.settle().await;
    }

    /// Waits until all requests made by now are answered and what was told has been heard.
    pub(super) async fn settle(&self) {
        let last = Call::GetLoad(Empty::default());
        let answered = self.worker.channel.request(Ids::NONE, last, vec![]);
        answered.await.unwrap();
    }

    /// What has been asked since the last time.
    pub(super) async fn asked(&self) -> Vec<Request> {
        self.settle().await;
        let mut asked = std::mem::take(&mut *lock(&self.asked));
        asked.retain(|request| !matches!(request.call, Call::GetLoad(_)));
        asked
    }

    /// The methods of [`Self::asked`].
    pub(super) async fn methods(&self) -> Vec<&'static str> {
        let asked = self.asked().await;
        asked.iter().map(|request| request.call.method()).collect()
    }
}

/// What a worker that has nothing against it answers.
fn answer(request: &Request) -> Value {
    let id = request.ids.transport_id;
    match &request.call {
        Call::CreateWebRtcTransport(_) => json!({
            "transportId": id, "iceRole": "controlled",
            "iceLocalParameters": { "usernameFragment": "u", "password": "p" },
            "iceLocalCandidates": [], "iceState": "new", "dtlsState": "new",
            "dtlsLocalParameters": { "role": "auto", "fingerprints": [] },
        }),
        Call::CreatePlainRtpTransport(_) => {
            json!({ "transportId": id, "localIP": "127.0.0.1", "localPort": 9 })
        }
        Call::SetRemoteDtlsParameters(_) => json!({ "role": "client" }),
        Call::GetTransportStats(_) | Call::GetProducerStats(_) | Call::GetConsumerStats(_) => {
            json!([])
        }
        _ => json!({}),
    }
}
