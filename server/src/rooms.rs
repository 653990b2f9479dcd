//! Rooms by name: made when somebody enters, closed when empty for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broth::{AudioLevels, Peer, Room, RoomEvent, RoomMediaCodec, RoomOptions, Server};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, watch};

/// How long an empty room stays, so that a reload finds it again.
const EMPTY_TIME: Duration = Duration::from_secs(5);

/// Who is louder than this is speaking, in dBov.
const SPEAKING_LEVEL_MIN: i8 = -50;

/// The rooms of a server.
pub(crate) struct Rooms {
    server: Server,
    open: Mutex<HashMap<String, Open>>,
}

/// A name in use.
struct Open {
    seats: usize,
    made: Arc<OnceCell<Made>>,
}

/// A room, made by the first who enters while the others wait.
struct Made {
    room: Room,
    speakers: watch::Receiver<Value>,
}

/// A socket's place in a room; the room stays open as long as there is one.
pub(crate) struct Seat {
    pub(crate) room: Room,
    /// The latest word on who is speaking; its sender is gone when the room has closed.
    pub(crate) speakers: watch::Receiver<Value>,
    _claim: Claim,
}

/// Keeps a name in use.
struct Claim {
    name: String,
    made: Arc<OnceCell<Made>>,
    rooms: Arc<Rooms>,
}

impl Rooms {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            open: Mutex::default(),
        }
    }

    /// Whether a room could be made.
    pub(crate) fn is_alive(&self) -> bool {
        self.server.num_workers() > 0
    }

    /// Enters a room, which is made with `codec` preferred if it is not there.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        name: &str,
        codec: VideoCodec,
    ) -> broth::Result<Seat> {
        loop {
            let claim = self.claim(name);
            let made = claim.made.get_or_try_init(|| self.make(codec)).await?;
            let (room, speakers) = (made.room.clone(), made.speakers.clone());
            if !room.closed() {
                return Ok(Seat {
                    room,
                    speakers,
                    _claim: claim,
                });
            }
            // Its worker died; the name gets a new room.
            let mut open = self.lock();
            if claim.find(&mut open).is_some() {
                open.remove(name);
            }
        }
    }

    /// Who is called `name` in a room; the error says what is not there.
    pub(crate) fn peer(&self, room: &str, name: &str) -> Result<Peer, String> {
        let open = self.lock();
        let made = open.get(room).and_then(|open| open.made.get());
        let Some(made) = made.filter(|made| !made.room.closed()) else {
            return Err(format!("there is no room {room:?}"));
        };
        let peer = made.room.get_peer_by_name(name);
        peer.ok_or_else(|| format!("nobody in the room {room:?} is called {name:?}"))
    }

    fn claim(self: &Arc<Self>, name: &str) -> Claim {
        let mut open = self.lock();
        let open = open.entry(name.into()).or_insert_with(|| Open {
            seats: 0,
            made: Arc::default(),
        });
        open.seats += 1;
        Claim {
            name: name.into(),
            made: Arc::clone(&open.made),
            rooms: Arc::clone(self),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that lives, for people and their tools. Names of rooms are not told: who knows
    /// one may enter.
    pub(crate) fn stats(&self) -> Value {
        let workers: Vec<_> = self
            .server
            .workers()
            .into_iter()
            .map(|worker| {
                json!({
                    "id": worker.id,
                    "pid": worker.pid,
                    "cpu": worker.cpu,
                    "rooms": worker.rooms,
                    "load": worker.load,
                })
            })
            .collect();
        let open = self.lock();
        let rooms: Vec<_> = open
            .values()
            .filter_map(|open| open.made.get())
            .filter(|made| !made.room.closed())
            .map(|made| describe(&made.room))
            .collect();
        let total =
            |member: &str| -> u64 { rooms.iter().filter_map(|room| room[member].as_u64()).sum() };
        json!({
            "workers": workers,
            "peers": total("peers"),
            "transports": total("transports"),
            "producers": total("producers"),
            "consumers": total("consumers"),
            "rooms": rooms,
        })
    }

    fn close_if_empty(&self, name: &str, made: &Arc<OnceCell<Made>>) {
        let mut open = self.lock();
        let is_empty = |open: &Open| open.seats == 0 && Arc::ptr_eq(&open.made, made);
        if open.get(name).is_some_and(is_empty) {
            open.remove(name);
            if let Some(made) = made.get() {
                made.room.close(None);
            }
        }
    }

    async fn make(&self, preferred: VideoCodec) -> broth::Result<Made> {
        let room = self
            .server
            .room(&codecs(preferred), RoomOptions::default())
            .await?;
        let (sender, speakers) = watch::channel(Value::Null);
        tokio::spawn(watch_room(room.clone(), sender));
        Ok(Made { room, speakers })
    }
}

impl Claim {
    /// The entry this is a claim to: another of its name may have taken its place.
    fn find<'a>(&self, open: &'a mut HashMap<String, Open>) -> Option<&'a mut Open> {
        open.get_mut(&self.name)
            .filter(|found| Arc::ptr_eq(&found.made, &self.made))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut open = self.rooms.lock();
        let Some(left) = self.find(&mut open) else {
            return;
        };
        left.seats -= 1;
        if left.seats > 0 {
            return;
        }
        let (rooms, name) = (Arc::clone(&self.rooms), self.name.clone());
        let made = Arc::clone(&self.made);
        tokio::spawn(async move {
            tokio::time::sleep(EMPTY_TIME).await;
            rooms.close_if_empty(&name, &made);
        });
    }
}

/// Passes on who is speaking until the room closes.
async fn watch_room(room: Room, speakers: watch::Sender<Value>) {
    let (mut events, mut levels) = (room.events(), room.audio_levels());
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(RoomEvent::NewPeer(peer)) => {
                    tracing::info!(id = room.id(), peer = peer.name(), "peer joined");
                }
                Some(RoomEvent::Close { reason, .. }) => {
                    tracing::info!(id = room.id(), ?reason, "room closed");
                }
                Some(RoomEvent::WorkerDied(reason)) => {
                    tracing::warn!(id = room.id(), reason, "room lost its worker");
                }
                Some(RoomEvent::Recovered(gap)) => {
                    tracing::info!(id = room.id(), ?gap, "room recovered");
                }
                Some(RoomEvent::Moved { worker_idx, gap }) => {
                    tracing::info!(id = room.id(), worker = worker_idx, ?gap, "room moved");
                }
                None => return,
            },
            Some(levels) = levels.recv() => {
                let latest = speaking(&levels);
                speakers.send_if_modified(|last| {
                    // Silence is told once; who speaks is told again for those who come later.
                    let is_news = latest["levels"] != json!([]) || *last != latest;
                    *last = latest;
                    is_news
                });
            }
        }
    }
}

/// What clients are told about who is speaking.
fn speaking(levels: &AudioLevels) -> Value {
    let heard = levels
        .iter()
        .filter(|(_, level)| *level > SPEAKING_LEVEL_MIN);
    let levels: Vec<_> = heard
        .map(|(producer, level)| json!({ "peerName": producer.peer().name(), "level": level }))
        .collect();
    json!({
        "method": "activeSpeaker",
        "target": "app",
        "notification": true,
        "levels": levels,
    })
}

fn describe(room: &Room) -> Value {
    let peers = room.peers();
    let count = |what: fn(&Peer) -> usize| peers.iter().map(what).sum::<usize>();
    json!({
        "id": room.id(),
        "worker": room.worker_idx(),
        "peers": peers.len(),
        "transports": count(|peer| peer.transports().len()),
        "producers": count(|peer| peer.producers().len()),
        "consumers": count(|peer| peer.consumers().len()),
    })
}

/// The video codecs rooms allow, in the order they are preferred unless asked otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum VideoCodec {
    #[default]
    Vp8,
    H264,
    Vp9,
}

impl VideoCodec {
    const ALL: [Self; 3] = [Self::Vp8, Self::H264, Self::Vp9];

    /// The codec of that name, in any case.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.capability().name.eq_ignore_ascii_case(name))
    }

    fn capability(self) -> RoomMediaCodec {
        match self {
            Self::Vp8 => RoomMediaCodec::video("VP8"),
            Self::Vp9 => RoomMediaCodec::video("VP9"),
            // Constrained baseline: what every browser can send and receive.
            Self::H264 => RoomMediaCodec::video("H264")
                .with("packetization-mode", 1)
                .with("profile-level-id", "42e01f"),
        }
    }
}

/// What a room allows. Clients send the first codec of a kind that they know.
fn codecs(preferred: VideoCodec) -> Vec<RoomMediaCodec> {
    let others = VideoCodec::ALL
        .into_iter()
        .filter(|&codec| codec != preferred);
    let video = std::iter::once(preferred)
        .chain(others)
        .map(VideoCodec::capability);
    std::iter::once(RoomMediaCodec::audio("opus", 48_000, 2))
        .chain(video)
        .collect()
}

#[cfg(test)]
mod tests {
    use broth::MediaKind;

    use super::*;

    fn video_names(preferred: VideoCodec) -> Vec<String> {
        let video = codecs(preferred)
            .into_iter()
            .filter(|codec| codec.kind == MediaKind::Video);
        video.map(|codec| codec.name).collect()
    }

    #[test]
    fn the_preferred_codec_comes_first_and_the_others_stay() {
        assert_eq!(video_names(VideoCodec::default()), ["VP8", "H264", "VP9"]);
        assert_eq!(video_names(VideoCodec::H264), ["H264", "VP8", "VP9"]);
        assert_eq!(video_names(VideoCodec::Vp9), ["VP9", "VP8", "H264"]);
    }

    #[test]
    fn codec_names_are_read_in_any_case() {
        assert_eq!(VideoCodec::from_name("h264"), Some(VideoCodec::H264));
        assert_eq!(VideoCodec::from_name("opus"), None);
    }
}
