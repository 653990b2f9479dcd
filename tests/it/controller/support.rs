//! A server with one room, and clients that speak the mediasoup protocol to it.

use std::fmt::Debug;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broth::{
    Consumer, DtlsIdentity, Error, EventStream, Peer, PeerEvent, Producer, Room, RoomMediaCodec,
    RoomOptions, RouterDump, Server, Settings, WebRtcTransport, WorkerBin,
};
use futures_util::FutureExt;
use serde_json::{Value, json};

/// How long anything may take before a scenario fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// The ports of one scenario: `test` is another number in each.
pub(crate) fn ports(test: u16) -> RangeInclusive<u16> {
    let first = 22_000 + test * 20;
    first..=first + 19
}

pub(crate) fn settings(test: u16, num_workers: usize) -> Settings {
    Settings {
        num_workers: Some(num_workers),
        standby: false,
        listen: vec![IpAddr::from(Ipv4Addr::LOCALHOST).into()],
        rtc_ports: ports(test),
        worker_bin: WorkerBin::Path(env!("CARGO_BIN_EXE_broth-test-worker").into()),
        ..Settings::default()
    }
}

pub(crate) fn codecs() -> [RoomMediaCodec; 2] {
    [
        RoomMediaCodec::audio("opus", 48_000, 2),
        RoomMediaCodec::video("VP8"),
    ]
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, happens).await;
    waited.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Waits for an event that `wanted` takes.
pub(crate) async fn wait_for<E: Debug, T>(
    events: &mut EventStream<E>,
    what: &str,
    mut wanted: impl FnMut(&E) -> Option<T>,
) -> T {
    let found = async {
        loop {
            let event = events.recv().await;
            let event = event.unwrap_or_else(|| panic!("the events ended without {what}"));
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    };
    soon(what, found).await
}

/// What has been emitted by now.
pub(crate) fn pending<E>(events: &mut EventStream<E>) -> Vec<E> {
    let next = || events.recv().now_or_never().flatten();
    std::iter::from_fn(next).collect()
}

/// A server of one worker with one room.
pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) room: Room,
}

impl House {
    pub(crate) async fn new(test: u16) -> Self {
        Self::with(settings(test, 1)).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let server = Server::new(settings).await.unwrap();
        let room = server.room(&codecs(), RoomOptions::default()).await;
        Self {
            server,
            room: room.unwrap(),
        }
    }

    pub(crate) fn join(&self, name: &str) -> Client {
        Client::join(&self.room, json!({ "peerName": name })).0
    }

    /// Transports, producers and consumers in the worker.
    pub(crate) async fn counts(&self) -> [usize; 3] {
        let dump = self.room.dump().await.unwrap();
        let RouterDump {
            transports,
            producers,
            consumers,
            ..
        } = dump;
        [transports.len(), producers.len(), consumers.len()]
    }
}

/// A client as the application sees it.
pub(crate) struct Client {
    pub(crate) peer: Peer,
    pub(crate) events: EventStream<PeerEvent>,
}

impl Client {
    /// Joins with the room's capabilities, unless `members` say otherwise; also returns the answer.
    pub(crate) fn join(room: &Room, members: Value) -> (Self, Value) {
        let mut request = json!({
            "method": "join",
            "target": "room",
            "rtpCapabilities": room.rtp_capabilities(),
        });
        merge(&mut request, members);
        let (peer, answer) = room.join(request).unwrap();
        let events = peer.events();
        (Self { peer, events }, answer)
    }

    pub(crate) async fn request(&self, method: &str, members: Value) -> Result<Value, Error> {
        let mut request = json!({ "method": method, "target": "peer" });
        merge(&mut request, members);
        soon(method, self.peer.receive_request(request)).await
    }

    pub(crate) async fn notify(&self, method: &str, members: Value) {
        let mut message = json!({ "method": method, "target": "peer", "notification": true });
        merge(&mut message, members);
        let received = self.peer.receive_notification(message);
        soon(method, received).await.unwrap();
    }

    pub(crate) async fn create_transport(&self, id: u32, direction: &str) -> Value {
        let members = json!({ "id": id, "direction": direction });
        self.request("createTransport", members).await.unwrap()
    }

    /// A WebRTC transport of the client.
    pub(crate) fn web_rtc(&self, id: u32) -> WebRtcTransport {
        let transport = self.peer.get_transport_by_id(id).unwrap();
        transport.as_web_rtc().unwrap().clone()
    }

    /// Produces on the transport; the parameters tell the kind.
    pub(crate) async fn produce(&self, id: u32, transport: u32, parameters: Value) -> Producer {
        let members = producer(id, transport, parameters);
        self.request("createProducer", members).await.unwrap();
        self.peer.get_producer_by_id(id).unwrap()
    }

    /// Enables the consumer of a producer.
    pub(crate) async fn consume(&self, producer: &Producer, transport: u32) -> Consumer {
        let consumer = self.peer.get_consumer_for_source(producer).unwrap();
        let members = json!({ "id": consumer.id(), "transportId": transport });
        self.request("enableConsumer", members).await.unwrap();
        consumer
    }

    /// All events up to what the worker has told by now.
    pub(crate) async fn settle(&mut self) -> Vec<PeerEvent> {
        // The worker answers after everything it told before.
        let _ = self.peer.room().dump().await;
        pending(&mut self.events)
    }

    /// Notifications to the client up to now, without the members they all share.
    pub(crate) async fn told(&mut self) -> Vec<Value> {
        let events = self.settle().await;
        events.into_iter().filter_map(notification).collect()
    }

    /// Waits for a notification.
    pub(crate) async fn hear(&mut self, method: &str) -> Value {
        let wanted = |event: &PeerEvent| {
            notification(event.clone()).filter(|message| message["method"] == method)
        };
        wait_for(&mut self.events, method, wanted).await
    }
}

/// The notification in an event, without the members all of them share.
fn notification(event: PeerEvent) -> Option<Value> {
    let PeerEvent::Notify(mut message) = event else {
        return None;
    };
    let members = message.as_object_mut().unwrap();
    assert_eq!(members.remove("target"), Some(json!("peer")));
    assert_eq!(members.remove("notification"), Some(json!(true)));
    Some(message)
}

/// Lays the members of one object over another's.
pub(crate) fn merge(message: &mut Value, members: Value) {
    let Value::Object(members) = members else {
        panic!("members are an object: {members}");
    };
    message.as_object_mut().unwrap().extend(members);
}

/// Members of a `createProducer` request.
pub(crate) fn producer(id: u32, transport: u32, parameters: Value) -> Value {
    let is_audio = parameters["codecs"][0]["name"] == "opus";
    let kind = if is_audio { "audio" } else { "video" };
    json!({ "id": id, "kind": kind, "transportId": transport, "rtpParameters": parameters })
}

/// A self-signed certificate and its key.
pub(crate) fn identity() -> DtlsIdentity {
    use openssl::{asn1, ec, hash, nid, pkey, x509};
    let group = ec::EcGroup::from_curve_name(nid::Nid::X9_62_PRIME256V1).unwrap();
    let key = ec::EcKey::generate(&group).unwrap();
    let key = pkey::PKey::from_ec_key(key).unwrap();
    let mut builder = x509::X509::builder().unwrap();
    let days = |days| asn1::Asn1Time::days_from_now(days).unwrap();
    builder.set_not_before(&days(0)).unwrap();
    builder.set_not_after(&days(30)).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.sign(&key, hash::MessageDigest::sha256()).unwrap();
    let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
    DtlsIdentity {
        certificate: text(builder.build().to_pem().unwrap()),
        private_key: text(key.private_key_to_pem_pkcs8().unwrap()),
    }
}

/// DTLS parameters that nobody has a certificate for, of a client of that role.
pub(crate) fn dtls(role: &str) -> Value {
    let value = ["AB"; 32].join(":");
    json!({ "role": role, "fingerprints": [{ "algorithm": "sha-256", "value": value }] })
}

/// Extension id of the audio level, as the client has it.
pub(crate) const LEVEL_EXT: u8 = 7;

/// Opus from a client with numbers of its own.
pub(crate) fn opus(ssrc: u32) -> Value {
    json!({
        "muxId": format!("a{ssrc}"),
        "codecs": [{ "name": "opus", "mimeType": "audio/opus", "payloadType": 111,
            "clockRate": 48000, "channels": 2, "parameters": { "useinbandfec": 1 },
            "rtcpFeedback": [] }],
        "headerExtensions": [
            { "uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "id": LEVEL_EXT }],
        "encodings": [{ "ssrc": ssrc }],
        "rtcp": { "cname": "somebody", "reducedSize": true, "mux": true },
    })
}

/// VP8 with RTX on the next SSRC; payload types as `broth_client::rtp` sends them.
pub(crate) fn vp8(ssrc: u32) -> Value {
    serde_json::to_value(broth_client::rtp::vp8_parameters(ssrc)).unwrap()
}

/// VP8 in three layers, with SSRCs a hundred apart.
pub(crate) fn simulcast(ssrc: u32) -> Value {
    let mut parameters = vp8(ssrc);
    let layers = ["low", "medium", "high"].iter().zip(0..);
    let layer = |(profile, at): (&&str, u32)| {
        let ssrc = ssrc + at * 100;
        json!({ "ssrc": ssrc, "rtx": { "ssrc": ssrc + 1 }, "profile": profile })
    };
    parameters["encodings"] = layers.map(|(p, at)| layer((p, at))).collect();
    parameters
}

/// Logs the events of several objects in the order they were emitted.
///
/// Tasks of a single-threaded runtime run in the order they were woken, so this works for the
/// events of one synchronous call there, and only there.
#[derive(Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    pub(crate) fn watch<E: Send + 'static>(
        &self,
        mut events: EventStream<E>,
        describe: impl Fn(E) -> Option<String> + Send + 'static,
    ) {
        let log = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Some(line) = describe(event) {
                    log.lock().unwrap().push(line);
                }
            }
        });
    }

    /// Lets all watchers catch up and takes what they logged.
    pub(crate) async fn take(&self) -> Vec<String> {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}
