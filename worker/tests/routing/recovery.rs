//! Rooms whose worker dies at random instants, between any two writes and any two packets, and
//! whose peers must not notice. `BROTH_SEED` replays one run, `BROTH_SEEDS` makes so many.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use broth_ipc::body::{
    CreateConsumer, CreateProducer, DtlsState, Empty, EnableConsumer, IceParameters, IceState,
    WebRtcTransportDump, WebRtcTransportOptions,
};
use broth_ipc::rtp::{MediaKind, RtpMapping, RtpParameters};
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, TransportId};
use broth_worker::net::sockets::Path;
use broth_worker::recorder::{COUNTERS, Memory, RECORD_WORDS, Recorder};
use broth_worker::srtp::Profile;
use serde_json::json;

use crate::client::{AUDIO_PT, Client};
use crate::stage::{PT, ROUTER, Stage, parameters};

const SEEDS: u64 = 20;
const KILLS: u32 = 50;
const CLIENTS: u32 = 3;
const TURN: Duration = Duration::from_millis(10);
const RECORDER_WORDS: usize = 8 << 10;
/// More writes than a turn has.
const WRITES: u64 = 300;

#[test]
fn no_peer_notices_that_its_worker_dies() {
    let seeds = match number("BROTH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BROTH_SEEDS").unwrap_or(SEEDS),
    };
    let mut sum = Tally::default();
    for seed in seeds {
        // Shown when the test fails.
        println!("BROTH_SEED={seed}");
        let mut room = Room::new(seed);
        for _ in 0..KILLS {
            for _ in 0..room.below(6) {
                room.turn(None);
            }
            room.kill();
            if room.below(8) == 0 {
                room.calm_down();
                // Nothing is missing when the worker dies.
                room.loses = false;
                room.kill();
                room.loses = true;
            }
        }
        room.calm_down();
        let tally = room.end();
        sum.got += tally.got;
        sum.nacked += tally.nacked;
        sum.repairs += tally.repairs;
        sum.plis += tally.plis;
        sum.wholes += tally.wholes;
    }
    println!("{sum:?}");
    if number("BROTH_SEED").is_some() {
        return;
    }
    assert!(
        sum.got > 1000 && sum.nacked > 100 && sum.repairs > 10 && sum.wholes > 0,
        "{sum:?}"
    );
}

/// Whatever is damaged in the recorder, no index is used twice: who may not go on does not.
#[test]
fn what_is_damaged_is_not_gone_on_with() {
    let (mut most, mut least) = (0, usize::MAX);
    for place in 0.. {
        let mut room = Room::new(place);
        let words = room.memory.words();
        let first = 8 + place as usize * RECORD_WORDS;
        if words[first + COUNTERS..first + RECORD_WORDS]
            .iter()
            .all(|word| word.load(Relaxed) == 0)
        {
            assert!(place > 20, "{place}");
            break;
        }
        for word in &words[first..first + RECORD_WORDS] {
            word.fetch_xor(1 << 20, Relaxed);
        }
        let resumed = room.survive_damage();
        most = most.max(resumed);
        least = least.min(resumed);
    }
    assert_eq!((least, most), (CLIENTS as usize - 1, CLIENTS as usize));
}

#[test]
fn who_finds_no_room_in_the_recorder_is_not_gone_on_with() {
    for places in 0..40 {
        let mut room = Room::with_memory(1, 8 + places * RECORD_WORDS);
        let resumed = room.survive_damage();
        assert!(places >= 15 || resumed < CLIENTS as usize, "{places}");
    }
}

#[derive(Debug, Default)]
struct Tally {
    got: usize,
    nacked: u64,
    repairs: u64,
    plis: u64,
    wholes: u32,
}

/// Where in a turn the worker dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// While packets come in and are forwarded, after so many writes to the recorder.
    Working(u64),
    /// While packets leave, or right after that.
    Sending,
    /// While what was received is recorded.
    Committing(u64),
    /// Between two turns.
    Sleeping,
}

struct Room {
    stage: Stage,
    random: u64,
    memory: Rc<Memory>,
    /// The controller's duplicate of the room's socket.
    socket: UdpSocket,
    key: u32,
    clients: Vec<Client>,
    ice: Vec<IceParameters>,
    /// Datagrams on their way to the worker, or in its socket's buffer.
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    /// The last one that the worker took.
    last: Option<(SocketAddr, Vec<u8>)>,
    /// Of a receiver and its stream: source packets up to here may be lost.
    doomed: HashMap<(usize, u32), u64>,
    loses: bool,
    /// What was recorded is damaged on purpose: not everything goes on.
    is_damaged: bool,
    /// Receivers ask for packets again, needed or not.
    may_nack: bool,
    /// Deaths at which nothing was missing.
    wholes: u32,
    turns_since_death: u32,
}

/// SSRCs under which a receiver gets the streams of a sender.
fn video_ssrc(receiver: usize, sender: usize) -> u32 {
    (1000 * (receiver + 1) + 10 * (sender + 1)) as u32
}

fn audio_ssrc(receiver: usize, sender: usize) -> u32 {
    video_ssrc(receiver, sender) + 2
}

impl Room {
    fn new(seed: u64) -> Self {
        Self::with_memory(seed, RECORDER_WORDS)
    }

    fn with_memory(seed: u64, words: usize) -> Self {
        let profile = Profile::ALL[seed as usize % Profile::ALL.len()];
        // Some rooms begin short of a rollover of the senders' numbers.
        let start = if seed.is_multiple_of(2) { 65_300 } else { 100 };
        let clients = (1..=CLIENTS).map(|id| Client::new(id as u16, profile, start));
        let mut room = Self {
            stage: Stage::without_router(),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            memory: Rc::new(Memory::heap(words)),
            socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
            key: 0,
            clients: clients.collect(),
            ice: Vec::new(),
            queue: VecDeque::new(),
            last: None,
            doomed: HashMap::new(),
            loses: true,
            is_damaged: false,
            may_nack: true,
            wholes: 0,
            turns_since_death: 0,
        };
        room.stage
            .create_recorded(&room.socket, &room.memory, false);
        room.key = room.stage.sockets()[0];
        room.create(false);
        room.warm_up();
        room
    }

    /// A number below `bound` (xorshift64).
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % bound
    }

    /// Makes everything in the room, the first time or once more. Returns how many transports are
    /// connected as before.
    fn create(&mut self, is_restored: bool) -> usize {
        let mut resumed = 0;
        for at in 0..self.clients.len() {
            let options = WebRtcTransportOptions {
                restore: is_restored.then(|| self.ice[at].clone()),
                ..WebRtcTransportOptions::default()
            };
            let ids = Ids::router(ROUTER).transport(TransportId(at as u32 + 1));
            let call = Call::CreateWebRtcTransport(options);
            let dump = self.stage.call(ids, call).unwrap();
            let dump: WebRtcTransportDump = serde_json::from_value(dump).unwrap();
            let remote = Call::SetRemoteDtlsParameters(self.clients[at].dtls_parameters());
            self.stage.call(ids, remote).unwrap();
            if is_restored {
                let states = (dump.ice_state, dump.dtls_state);
                let expected = (IceState::Completed, DtlsState::Connected);
                let is_resumed = states == expected;
                assert!(is_resumed || self.is_damaged, "{states:?}");
                resumed += usize::from(is_resumed);
                continue;
            }
            self.ice.push(dump.ice_local_parameters.clone());
            self.connect(at, &dump);
        }
        for sender in 0..self.clients.len() {
            self.produce(sender);
        }
        for receiver in 0..self.clients.len() {
            for sender in 0..self.clients.len() {
                if sender != receiver {
                    self.consume(receiver, sender);
                }
            }
        }
        resumed
    }

    fn connect(&mut self, at: usize, dump: &WebRtcTransportDump) {
        let now = self.stage.now();
        let client = &mut self.clients[at];
        let addr = client.addr;
        let dtls = &dump.dtls_local_parameters;
        let check = client.connect(now, &dump.ice_local_parameters, dtls);
        let mut to_worker = vec![check];
        while self.clients[at].srtp.is_none() {
            for mut datagram in std::mem::take(&mut to_worker) {
                let path = self.path(addr);
                self.stage.receive(path, &mut datagram);
            }
            let mut to_client = Vec::new();
            self.stage
                .take(|_, _, datagram| to_client.push(datagram.to_vec()));
            assert!(!to_client.is_empty(), "the handshake goes on");
            for datagram in to_client {
                to_worker.extend(self.clients[at].handshake(now, &datagram));
            }
        }
    }

    fn produce(&mut self, sender: usize) {
        let client = &self.clients[sender];
        let ids = Ids::router(ROUTER).transport(TransportId(sender as u32 + 1));
        let (video, audio) = (client.video.ssrc, client.audio.ssrc);
        for (kind, ssrc, parameters) in [
            (MediaKind::Video, video, parameters(video)),
            (MediaKind::Audio, audio, opus(audio)),
        ] {
            let request = CreateProducer {
                kind,
                rtp_parameters: parameters,
                rtp_mapping: RtpMapping {
                    codec_payload_types: vec![(PT, PT), (102, 102), (AUDIO_PT, AUDIO_PT)],
                    header_extension_ids: Vec::new(),
                },
                paused: false,
            };
            let call = Call::CreateProducer(request);
            self.stage
                .call(ids.producer(ProducerId(ssrc)), call)
                .unwrap();
        }
    }

    fn consume(&mut self, receiver: usize, sender: usize) {
        let (video, audio) = (video_ssrc(receiver, sender), audio_ssrc(receiver, sender));
        let client = &self.clients[sender];
        for (kind, source, ssrc, rtp_parameters) in [
            (
                MediaKind::Video,
                client.video.ssrc,
                video,
                parameters(video),
            ),
            (MediaKind::Audio, client.audio.ssrc, audio, opus(audio)),
        ] {
            let ids = Ids::router(ROUTER)
                .transport(TransportId(receiver as u32 + 1))
                .producer(ProducerId(source))
                .consumer(ConsumerId(ssrc));
            let create = Call::CreateConsumer(CreateConsumer { kind });
            self.stage.call(ids, create).unwrap();
            let enable = Call::EnableConsumer(EnableConsumer { rtp_parameters });
            self.stage.call(ids, enable).unwrap();
        }
    }

    fn path(&self, remote: SocketAddr) -> Path {
        Path {
            socket: self.key,
            remote,
        }
    }

    /// Until everybody gets everything.
    fn warm_up(&mut self) {
        self.loses = false;
        for _ in 0..10 {
            self.turn(None);
        }
        self.loses = true;
    }

    /// Until everything that can be repaired is.
    fn calm_down(&mut self) {
        self.loses = false;
        for _ in 0..40 {
            self.turn(None);
        }
        self.loses = true;
        self.check_arrivals();
    }

    /// Everybody sends a frame, some of which is lost, and asks for something once more.
    fn send(&mut self) {
        for at in 0..self.clients.len() {
            let count = 1 + self.below(4);
            let addr = self.clients[at].addr;
            for packet in self.clients[at].frame(count) {
                if !self.loses || self.below(12) > 0 {
                    self.queue.push_back((addr, packet));
                }
            }
            if self.may_nack && self.below(3) == 0 {
                let sender = (at + 1) % self.clients.len();
                let ssrc = video_ssrc(at, sender);
                let behind = self.below(10);
                if let Some(highest) = self.clients[at]
                    .got
                    .get(&ssrc)
                    .and_then(|g| g.index.highest())
                {
                    let nack = self.clients[at].nack(ssrc, (highest - behind) as u16);
                    self.queue.push_back((addr, nack));
                }
            }
        }
    }

    /// A turn of the worker, which it may not live to the end of.
    fn turn(&mut self, death: Option<Death>) {
        self.turns_since_death += 1;
        self.send();
        if let Some(Death::Working(writes)) = death {
            self.memory.die_after(writes);
        }
        while let Some((addr, mut datagram)) = self.queue.pop_front() {
            let path = self.path(addr);
            self.last = Some((addr, datagram.clone()));
            self.stage.receive(path, &mut datagram);
        }
        self.stage.advance(TURN);
        let mut sent = Vec::new();
        self.stage
            .take(|_, addr, datagram| sent.push((addr, datagram.to_vec())));
        match death {
            Some(Death::Working(_)) => sent.clear(),
            Some(Death::Sending) => {
                let left = self.below(sent.len() as u64 + 1) as usize;
                sent.truncate(left);
                self.memory.die_after(0);
            }
            Some(Death::Committing(writes)) => self.memory.die_after(writes),
            Some(Death::Sleeping) | None => {}
        }
        self.stage.commit();
        for (addr, datagram) in sent {
            let client = self.clients.iter_mut().find(|client| client.addr == addr);
            for answer in client.unwrap().receive(&datagram) {
                self.queue.push_back((addr, answer));
            }
        }
    }

    fn kill(&mut self) {
        let death = self.pick_death();
        self.turn(Some(death));
        self.doom();
        self.stage.replace_worker();
        let is_clean = matches!(death, Death::Sleeping);
        // What the last worker did not live to record as received may still be asked for again.
        let is_settled = self.turns_since_death > 30;
        let is_whole = is_clean && is_settled && self.is_everything_there();
        self.turns_since_death = 0;
        if is_clean {
            self.queue.extend(self.last.take());
        }
        let asked: u64 = self.clients.iter().map(|client| client.plis).sum();
        // What is sent meanwhile waits in the socket; some of it is lost.
        self.may_nack = false;
        for _ in 0..self.below(5) {
            self.send();
        }
        self.may_nack = true;
        if self.below(5) == 0 {
            // The next worker dies, too, while it builds everything again.
            let writes = self.below(300);
            self.memory.die_after(writes);
            self.restore();
            self.stage.replace_worker();
        }
        self.memory.die_after(u64::MAX);
        self.restore();
        let notes = &self.stage.worker.io.notes;
        assert!(notes.is_empty(), "{notes:?}");
        let resume = Call::ResumeRouter(Empty {});
        self.stage.call(Ids::router(ROUTER), resume).unwrap();
        if is_clean {
            self.may_nack = false;
            self.turn(None);
            self.may_nack = true;
            let drops = self.stage.worker.io.drops.to_map();
            assert_eq!(drops.get("replayed"), Some(&1), "{drops:?}");
        }
        let now: u64 = self.clients.iter().map(|client| client.plis).sum();
        if is_whole {
            assert_eq!(now, asked, "nobody needs a key frame");
            self.wholes += 1;
        }
    }

    fn pick_death(&mut self) -> Death {
        match self.below(8) {
            0..=2 => Death::Working(self.below(WRITES)),
            3 | 4 => Death::Sending,
            5 => Death::Committing(self.below(20)),
            _ => Death::Sleeping,
        }
    }

    /// The worker dies, and what can go on goes on. Returns how many transports did.
    fn survive_damage(&mut self) -> usize {
        self.is_damaged = true;
        for client in &mut self.clients {
            client.forget_offsets();
        }
        self.stage.replace_worker();
        let resumed = self.restore();
        let resume = Call::ResumeRouter(Empty {});
        self.stage.call(Ids::router(ROUTER), resume).unwrap();
        for _ in 0..30 {
            self.turn(None);
        }
        resumed
    }

    fn restore(&mut self) -> usize {
        self.stage.create_recorded(&self.socket, &self.memory, true);
        self.key = self.stage.sockets()[0];
        self.create(true)
    }

    /// What was sent and did not arrive until now is lost with the worker, if it was on its way.
    fn doom(&mut self) {
        for receiver in 0..self.clients.len() {
            for sender in 0..self.clients.len() {
                let seq = self.clients[sender].video.seq;
                self.doomed
                    .insert((receiver, video_ssrc(receiver, sender)), seq);
            }
        }
    }

    /// Nothing is missing anywhere.
    fn is_everything_there(&self) -> bool {
        (0..self.clients.len()).all(|receiver| {
            let mut senders = (0..self.clients.len()).filter(|sender| *sender != receiver);
            senders.all(|sender| {
                let got = &self.clients[receiver].got[&video_ssrc(receiver, sender)].by_source;
                let first = got.keys().next().copied().unwrap_or(0);
                let last = self.clients[sender].video.seq;
                let from = first.max(last.saturating_sub(80));
                got.range(from..).count() as u64 == last - from + 1
            })
        })
    }

    /// Everything that was sent since the last death has arrived.
    fn check_arrivals(&self) {
        for receiver in 0..self.clients.len() {
            for sender in (0..self.clients.len()).filter(|sender| *sender != receiver) {
                let ssrc = video_ssrc(receiver, sender);
                let got = &self.clients[receiver].got[&ssrc].by_source;
                let doomed = self.doomed[&(receiver, ssrc)];
                let last = self.clients[sender].video.seq;
                for seq in doomed + 1..=last {
                    let is_there = got.contains_key(&seq);
                    assert!(is_there, "{seq} of {doomed}…{last} to {ssrc}");
                }
            }
        }
    }

    fn end(mut self) -> Tally {
        let drops = self.stage.worker.io.drops.to_map();
        for reason in [
            "srtp",
            "rtp",
            "rtcp",
            "unknownAddress",
            "noKeys",
            "noProducer",
        ] {
            assert!(!drops.contains_key(reason), "{drops:?}");
        }
        let mut tally = Tally {
            wholes: self.wholes,
            ..Tally::default()
        };
        for receiver in 0..self.clients.len() {
            for sender in 0..self.clients.len() {
                if sender == receiver {
                    continue;
                }
                let got = &self.clients[receiver].got;
                tally.got += got[&video_ssrc(receiver, sender)].by_source.len();
                tally.got += got[&audio_ssrc(receiver, sender)].by_source.len();
            }
            let client = &self.clients[receiver];
            tally.nacked += client.nacked;
            tally.repairs += client.repairs;
            tally.plis += client.plis;
        }
        let close = Call::CloseRouter(Empty {});
        self.stage.call(Ids::router(ROUTER), close).unwrap();
        // Nothing is left in the recorder, least of all a key.
        let (_, left) = Recorder::restore(self.memory);
        assert!(left.transports.is_empty() && left.inbound.is_empty());
        assert!(left.streams.is_empty() && left.consumers.is_empty());
        tally
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn opus(ssrc: u32) -> RtpParameters {
    serde_json::from_value(json!({
        "muxId": ssrc.to_string(),
        "codecs": [{ "name": "opus", "mimeType": "audio/opus", "clockRate": 48000,
                     "payloadType": AUDIO_PT, "channels": 2 }],
        "encodings": [{ "ssrc": ssrc }],
        "rtcp": { "cname": "test" },
    }))
    .unwrap()
}
