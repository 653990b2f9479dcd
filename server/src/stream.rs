//! The socket of a program on this machine that wants what a peer sends as plain RTP: one
//! streamer for its sound and one for its picture, which live as long as the socket.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::http::{HeaderMap, header};
use broth::{MediaKind, Peer, Producer, RtpStreamer, RtpStreamerOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::envelope::{self, Incoming};
use crate::signal::{PING_INTERVAL, SILENCE_MAX, await_end, shortened};

/// What a receiver has to know of what is sent to one of its ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Track {
    pub(crate) kind: MediaKind,
    pub(crate) codec: String,
    pub(crate) payload_type: u8,
    pub(crate) clock_rate: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channels: Option<u8>,
    pub(crate) ssrc: u32,
    #[serde(default)]
    pub(crate) parameters: Map<String, Value>,
}

/// The address of a client that may have streams: a program on this machine.
///
/// Media goes in the clear to ports of the client's choice. From a client elsewhere that would be
/// a way to make this server send packets to anybody, past firewalls too, and to take a room's
/// media out of its encryption. A page, even one served from here, and whatever comes through a
/// proxy are not on this machine, though their connection is.
pub(crate) fn local_client(address: SocketAddr, headers: &HeaderMap) -> Option<IpAddr> {
    let ip = address.ip().to_canonical();
    let is_from_elsewhere = headers.contains_key(header::ORIGIN)
        || headers.contains_key(header::FORWARDED)
        || headers.contains_key("x-forwarded-for")
        || headers.contains_key("x-real-ip");
    (ip.is_loopback() && !is_from_elsewhere).then_some(ip)
}

/// Serves a socket until either side has enough.
pub(crate) async fn serve(mut socket: WebSocket, peer: Peer, client: IpAddr) {
    let (ended, ends) = mpsc::unbounded_channel();
    let mut session = Session {
        peer,
        client,
        streamers: Vec::new(),
        ended,
    };
    let reason = session.run(&mut socket, ends).await;
    tracing::debug!(reason, "stream socket closes");
    let frame = CloseFrame {
        code: close_code::POLICY,
        reason: shortened(&reason).into(),
    };
    let _ = socket.send(Message::Close(Some(frame))).await;
    drop(session);
    await_end(socket).await;
}

struct Session {
    peer: Peer,
    client: IpAddr,
    streamers: Vec<RtpStreamer>,
    /// Told what ended.
    ended: mpsc::UnboundedSender<MediaKind>,
}

impl Drop for Session {
    fn drop(&mut self) {
        for streamer in &self.streamers {
            streamer.close();
        }
    }
}

impl Session {
    /// Returns why the socket is to be closed.
    async fn run(
        &mut self,
        socket: &mut WebSocket,
        mut ends: mpsc::UnboundedReceiver<MediaKind>,
    ) -> String {
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_heard = Instant::now();
        let mut live = 0;
        loop {
            let answer = tokio::select! {
                message = socket.recv() => {
                    last_heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => match envelope::parse(text.as_str()) {
                            Ok(Incoming::Request { id, data }) => {
                                let answer = self.answer(&data).await;
                                live = live.max(self.streamers.len());
                                Message::text(envelope::response(id, answer))
                            }
                            Ok(Incoming::Notification { .. }) => continue,
                            Err(fault) => return fault.into(),
                        },
                        Some(Ok(Message::Binary(_))) => return "send text, not binary".into(),
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Close(_))) | None => return String::new(),
                        Some(Err(error)) => return error.to_string(),
                    }
                }
                Some(kind) = ends.recv() => {
                    live -= 1;
                    let ended = json!({ "method": "ended", "target": "stream",
                        "notification": true, "kind": kind });
                    Message::text(envelope::notification(&ended))
                }
                _ = pings.tick() => {
                    if last_heard.elapsed() > SILENCE_MAX {
                        return "no sign of life".into();
                    }
                    Message::Ping(Vec::new().into())
                }
            };
            if let Err(error) = socket.send(answer).await {
                return error.to_string();
            }
            if live == 0 && !self.streamers.is_empty() {
                return "all that was sent has ended".into();
            }
        }
    }

    async fn answer(&mut self, data: &Value) -> Result<Value, String> {
        match (data["target"].as_str(), data["method"].as_str()) {
            (Some("stream"), Some("open")) => self.open(data).await,
            (Some("stream"), Some("start")) => {
                for streamer in &self.streamers {
                    streamer.consumer().resume(None);
                }
                Ok(Value::Null)
            }
            _ => Err("a stream's methods are open and start".into()),
        }
    }

    /// Makes the streamers, which send nothing yet.
    async fn open(&mut self, data: &Value) -> Result<Value, String> {
        if !self.streamers.is_empty() {
            return Err("the stream is open already".into());
        }
        let producers = self.peer.producers();
        let mut tracks = Vec::new();
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let Some(port) = port(data, kind)? else {
                continue;
            };
            if let Some(producer) = choose(&producers, kind) {
                tracks.push(self.stream(producer, port).await?);
            }
        }
        if tracks.is_empty() {
            return Err(format!("{:?} sends nothing now", self.peer.name()));
        }
        Ok(json!({ "tracks": tracks }))
    }

    async fn stream(&mut self, producer: &Producer, port: u16) -> Result<Track, String> {
        let options = RtpStreamerOptions {
            remote: SocketAddr::new(self.client, port),
            local_ip: Some(self.client),
        };
        let room = self.peer.room();
        let streamer = room.create_rtp_streamer(producer, options).await;
        let streamer = streamer.map_err(|error| error.to_string())?;
        // The client's port is not open yet.
        streamer.consumer().pause(None);
        let (mut events, ended) = (streamer.events(), self.ended.clone());
        let kind = producer.kind();
        let track = track(&streamer);
        self.streamers.push(streamer);
        tokio::spawn(async move {
            while events.recv().await.is_some() {}
            // Nobody listens once the socket is closed.
            let _ = ended.send(kind);
        });
        track.ok_or_else(|| "the producer has no codec".into())
    }
}

/// The first of a kind. A camera that is off is left out: how large its picture is, which a file
/// begins with, is known by nobody. A muted microphone is silence.
fn choose(producers: &[Producer], kind: MediaKind) -> Option<&Producer> {
    producers.iter().find(|producer| {
        producer.kind() == kind && (kind == MediaKind::Audio || !producer.paused())
    })
}

fn port(data: &Value, kind: MediaKind) -> Result<Option<u16>, String> {
    match data.get(kind.as_str()) {
        None | Some(Value::Null) => Ok(None),
        Some(port) => {
            let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
            match port.filter(|&port| port > 0) {
                Some(port) => Ok(Some(port)),
                None => Err(format!("{kind}: give a UDP port")),
            }
        }
    }
}

fn track(streamer: &RtpStreamer) -> Option<Track> {
    let parameters = streamer.consumer().rtp_parameters();
    let codec = parameters.codecs.iter().find(|codec| !codec.is_rtx())?;
    Some(Track {
        kind: streamer.consumer().kind(),
        codec: codec.name.clone(),
        payload_type: codec.payload_type,
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        ssrc: parameters.encodings.first()?.ssrc?,
        parameters: codec.parameters.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_on_this_machine_may_have_streams() {
        let rows = [
            ("127.0.0.1:9", None, Some("127.0.0.1")),
            ("127.1.2.3:9", None, Some("127.1.2.3")),
            ("[::1]:9", None, Some("::1")),
            ("[::ffff:127.0.0.1]:9", None, Some("127.0.0.1")),
            ("192.0.2.1:9", None, None),
            ("[2001:db8::1]:9", None, None),
            ("[::ffff:192.0.2.1]:9", None, None),
            ("0.0.0.0:9", None, None),
            ("127.0.0.1:9", Some("origin"), None),
            ("127.0.0.1:9", Some("forwarded"), None),
            ("127.0.0.1:9", Some("x-forwarded-for"), None),
            ("127.0.0.1:9", Some("x-real-ip"), None),
            ("127.0.0.1:9", Some("user-agent"), Some("127.0.0.1")),
        ];
        for (address, told, expected) in rows {
            let mut headers = HeaderMap::new();
            if let Some(name) = told {
                headers.insert(name, "x".parse().unwrap());
            }
            let expected = expected.map(|ip| ip.parse::<IpAddr>().unwrap());
            let got = local_client(address.parse().unwrap(), &headers);
            assert_eq!(got, expected, "{address} {told:?}");
        }
    }

    #[test]
    fn ports_are_checked() {
        let data = json!({ "audio": 5004, "video": null });
        assert_eq!(port(&data, MediaKind::Audio), Ok(Some(5004)));
        assert_eq!(port(&data, MediaKind::Video), Ok(None));
        assert_eq!(port(&json!({}), MediaKind::Video), Ok(None));
        for bad in [
            json!(0),
            json!(65_536),
            json!(-1),
            json!("5004"),
            json!(1.5),
        ] {
            let refused = port(&json!({ "audio": bad }), MediaKind::Audio);
            assert_eq!(refused, Err("audio: give a UDP port".into()));
        }
    }
}
