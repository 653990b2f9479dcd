//! Rooms by name: made when somebody enters, closed when empty for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use broth::{AudioLevels, Room, RoomEvent, RoomMediaCodec, RoomOptions, Server};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

/// How long an empty room stays, so that a reload finds it again.
const EMPTY_TIME: Duration = Duration::from_secs(5);

/// Who is louder than this is speaking, in dBov.
const SPEAKING_LEVEL_MIN: i8 = -50;

/// The rooms of a server.
pub(crate) struct Rooms {
    server: Server,
    open: Mutex<HashMap<String, OpenRoom>>,
}

struct OpenRoom {
    room: Room,
    seats: usize,
    speakers: watch::Receiver<Value>,
}

/// A socket's place in a room; the room stays open as long as there is one.
pub(crate) struct Seat {
    pub(crate) room: Room,
    /// The latest word on who is speaking; its sender is gone when the room has closed.
    pub(crate) speakers: watch::Receiver<Value>,
    name: String,
    rooms: Arc<Rooms>,
}

impl Rooms {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            open: Mutex::default(),
        }
    }

    /// Enters a room, which is made with `codec` preferred if it is not there.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        name: &str,
        codec: VideoCodec,
    ) -> broth::Result<Seat> {
        let mut open = self.open.lock().await;
        // A room whose worker died may still be listed.
        if open.get(name).is_none_or(|found| found.room.closed()) {
            let made = self.make(codec).await?;
            open.insert(name.into(), made);
        }
        let entered = open.get_mut(name).expect("it is there or was just made");
        entered.seats += 1;
        Ok(Seat {
            room: entered.room.clone(),
            speakers: entered.speakers.clone(),
            name: name.into(),
            rooms: Arc::clone(self),
        })
    }

    /// Everything that lives, for people and their tools.
    pub(crate) async fn stats(&self) -> Value {
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
        let open = self.open.lock().await;
        let alive = open.iter().filter(|(_, open)| !open.room.closed());
        let rooms: Vec<_> = alive
            .map(|(name, open)| describe(name, &open.room))
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

    async fn make(&self, preferred: VideoCodec) -> broth::Result<OpenRoom> {
        let room = self
            .server
            .room(&codecs(preferred), RoomOptions::default())
            .await?;
        let (sender, speakers) = watch::channel(Value::Null);
        tokio::spawn(watch_room(room.clone(), sender));
        Ok(OpenRoom {
            room,
            seats: 0,
            speakers,
        })
    }

    async fn vacate(&self, name: &str, room: &Room) {
        if let Some(left) = self.find(&mut *self.open.lock().await, name, room) {
            left.seats -= 1;
            if left.seats > 0 {
                return;
            }
        }
        tokio::time::sleep(EMPTY_TIME).await;
        let mut open = self.open.lock().await;
        if self
            .find(&mut open, name, room)
            .is_some_and(|left| left.seats == 0)
        {
            open.remove(name);
            room.close(None);
        }
    }

    /// The entry of exactly that room: another of its name may have taken its place.
    fn find<'a>(
        &self,
        open: &'a mut HashMap<String, OpenRoom>,
        name: &str,
        room: &Room,
    ) -> Option<&'a mut OpenRoom> {
        open.get_mut(name).filter(|found| found.room == *room)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (rooms, room) = (Arc::clone(&self.rooms), self.room.clone());
        let name = std::mem::take(&mut self.name);
        tokio::spawn(async move { rooms.vacate(&name, &room).await });
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
                None => return,
            },
            Some(levels) = levels.recv() => drop(speakers.send_replace(speaking(&levels))),
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

fn describe(name: &str, room: &Room) -> Value {
    let peers = room.peers();
    let count = |what: fn(&broth::Peer) -> usize| peers.iter().map(what).sum::<usize>();
    json!({
        "name": name,
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
