//! A worker behind broth's controller: broth's own, or the original's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use broth::{Peer, Room, RoomMediaCodec, RoomOptions, Server, Settings, WorkerBin};
use broth_client::client::{Client, PlainPeer};
use broth_client::peer::Endpoint;
use broth_client::rtp::{opus_parameters, vp8_parameters};
use broth_ipc::TransportId;
use broth_ipc::body::{DtlsRole, Load};
use broth_worker::srtp::Profile;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::plan::{Media, Plan};
use crate::source::send_ssrc;

/// Ports of rooms, and of the original's transports: below those that clients' sockets get.
const BROTH_PORTS: RangeInclusive<u16> = 10_000..=19_999;
const ORIGINAL_PORTS: RangeInclusive<u16> = 20_000..=31_999;
/// Transports of one peer: no limit.
const TRANSPORTS_MAX: usize = 1000;

/// A server with one worker.
pub(crate) struct Controlled {
    runtime: Runtime,
    server: Server,
    rooms: Vec<Room>,
    peers: Mutex<HashMap<String, Peer>>,
    profile: Option<Profile>,
    media: Media,
    ids: AtomicU32,
    is_original: bool,
}

impl Controlled {
    /// Starts broth's worker, or the original's.
    pub(crate) fn start(
        plan: &Plan,
        profile: Option<Profile>,
        original: Option<&Path>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let mut settings = Settings {
            num_workers: Some(1),
            standby: false,
            listen: vec![IpAddr::from(Ipv4Addr::LOCALHOST).into()],
            rtc_ports: BROTH_PORTS,
            worker_bin: WorkerBin::ThisExecutable,
            ..Settings::default()
        };
        settings.limits.transports_max = TRANSPORTS_MAX;
        if let Some(path) = original {
            settings.worker_bin = WorkerBin::Path(path.into());
            settings.rtc_ports = ORIGINAL_PORTS;
        }
        let (server, rooms) = runtime.block_on(async {
            let server = Server::new(settings).await?;
            let codecs = [
                RoomMediaCodec::audio("opus", 48_000, 2),
                RoomMediaCodec::video("VP8"),
            ];
            let mut rooms = Vec::new();
            for _ in 0..plan.rooms {
                rooms.push(server.room(&codecs, RoomOptions::default()).await?);
            }
            Ok::<_, broth::Error>((server, rooms))
        })?;
        Ok(Self {
            runtime,
            server,
            rooms,
            peers: Mutex::default(),
            profile,
            media: plan.media,
            ids: AtomicU32::new(1),
            is_original: original.is_some(),
        })
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        let workers = self.server.workers();
        Ok(workers.first().context("the worker is gone")?.pid)
    }

    /// What the worker said of its load, some 200 ms ago; the original says nothing.
    pub(crate) fn load(&self) -> Option<Load> {
        let worker = self.server.workers().into_iter().next();
        worker
            .filter(|_| !self.is_original)
            .map(|worker| worker.load)
    }

    /// Connects a producer of a room; who also sees the others has the same name there.
    pub(crate) fn connect_sender(&self, room: u32, name: &str, sender: u32) -> Result<Client> {
        let peer = self.join(room, name, false)?;
        let (transport, client) = self.connect(&peer, "send")?;
        let (kind, parameters) = match self.media {
            Media::Video => ("video", vp8_parameters(send_ssrc(sender))),
            Media::Audio => ("audio", opus_parameters(send_ssrc(sender))),
        };
        let producer = json!({ "id": self.id(), "kind": kind, "transportId": transport,
            "rtpParameters": parameters });
        self.request(&peer, "createProducer", producer)?;
        Ok(client)
    }

    /// Connects a viewer of a room and enables all of its consumers.
    pub(crate) fn connect_viewer(&self, room: u32, name: &str) -> Result<Client> {
        let peer = self.join(room, name, true)?;
        let (transport, client) = self.connect(&peer, "recv")?;
        for consumer in peer.consumers() {
            let members = json!({ "id": consumer.id(), "transportId": transport });
            self.request(&peer, "enableConsumer", members)?;
        }
        Ok(client)
    }

    pub(crate) fn disconnect(&self, name: &str) {
        let _in_runtime = self.runtime.enter();
        if let Some(peer) = self.peers().remove(name) {
            peer.close(None);
        }
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Peer>> {
        self.peers.lock().expect("no panic holds the lock")
    }

    fn id(&self) -> u32 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The peer of that name. A spy is announced to nobody.
    fn join(&self, room: u32, name: &str, is_spy: bool) -> Result<Peer> {
        if let Some(peer) = self.peers().get(name) {
            return Ok(peer.clone());
        }
        let _in_runtime = self.runtime.enter();
        let room = &self.rooms[room as usize];
        let request = json!({ "method": "join", "target": "room", "peerName": name,
            "spy": is_spy, "rtpCapabilities": room.rtp_capabilities() });
        let (peer, _) = room.join(request)?;
        self.peers().insert(name.into(), peer.clone());
        Ok(peer)
    }

    fn connect(&self, peer: &Peer, direction: &str) -> Result<(u32, Client)> {
        let transport = self.id();
        let mut members = json!({ "id": transport, "direction": direction,
            "options": { "tcp": false } });
        let client = match self.profile {
            Some(profile) => {
                let endpoint = Endpoint::new(DtlsRole::Client)?;
                members["dtlsParameters"] = json!(endpoint.dtls_parameters());
                let answer = self.request(peer, "createTransport", members)?;
                let connected = endpoint.connect_to(&answer, transport, profile)?;
                Client::WebRtc(Box::new(connected))
            }
            None => {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                members["plainRtpParameters"] =
                    json!({ "ip": "127.0.0.1", "port": socket.local_addr()?.port() });
                let answer = self.request(peer, "createTransport", members)?;
                let port = answer["plainRtpParameters"]["port"].as_u64();
                let port = u16::try_from(port.context("no port")?)?;
                socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
                let transport = TransportId(transport);
                Client::Plain(PlainPeer { socket, transport })
            }
        };
        Ok((transport, client))
    }

    fn request(&self, peer: &Peer, method: &str, mut members: Value) -> Result<Value> {
        members["method"] = method.into();
        members["target"] = "peer".into();
        let answer = self.runtime.block_on(peer.receive_request(members));
        answer.with_context(|| method.to_owned())
    }
}

impl Drop for Controlled {
    fn drop(&mut self) {
        self.runtime.block_on(self.server.close());
    }
}
