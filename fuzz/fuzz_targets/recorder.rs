#![no_main]
//! A router is made again from whatever is in its recorder: bytes as they are, or records that are
//! whole and say anything. Then a packet comes and a second passes.

use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use broth_ipc::body::{
    CreateConsumer, CreateProducer, CreateRouter, DtlsRole, Empty, EnableConsumer, IceParameters,
    IceState, Protocol, RouterSocket, WebRtcTransportOptions,
};
use broth_ipc::rtp::{MediaKind, RtpMapping, RtpParameters};
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, Request, RouterId, TransportId};
use broth_worker::dialect::Dialect;
use broth_worker::dtls::{Certificate, SrtpKeys};
use broth_worker::io::Io;
use broth_worker::net::sockets::{Path, Sockets};
use broth_worker::recorder::{
    COUNTERS, ConsumerRecord, InboundRecord, Memory, RECORD_WORDS, Recorder, SENDERS, StreamRecord,
    TransportRecord,
};
use broth_worker::srtp::{Profile, SealKey};
use broth_worker::wire::rtp::RtpEmit;
use broth_worker::worker::Worker;
use nix::sys::epoll::{Epoll, EpollCreateFlags};

const ROUTER: RouterId = RouterId(1);
const SENDER: TransportId = TransportId(1);
const RECEIVER: TransportId = TransportId(2);
const PRODUCER: ProducerId = ProducerId(3);
const CONSUMER: ConsumerId = ConsumerId(4);
const PT: u8 = 101;
const WORDS: usize = 8 + 12 * RECORD_WORDS;
const PROFILE: Profile = Profile::AeadAes128Gcm;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let memory = Rc::new(Memory::heap(WORDS));
    let local = socket().local_addr().unwrap();
    if input.byte() % 4 == 0 {
        // As it is.
        let words = data.chunks(8).take(WORDS);
        for (at, word) in words.enumerate() {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            memory.store(at, u64::from_le_bytes(bytes));
        }
    } else {
        record(&mut input, &memory, local);
    }
    restore(&mut input, memory, local);
});

/// The bytes as numbers; zeroes when there are no more.
struct Input<'d>(&'d [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        // Small ones, ones near the ends of what has 16, 32, 48 and 64 bits, or any.
        let near = u64::from(self.byte());
        match self.byte() % 8 {
            0 => near,
            1 => (1 << 16) - near,
            2 => (1 << 16) + near,
            3 => (1 << 32) - near,
            4 => (1 << 48) - 1 - near,
            5 => u64::MAX - near,
            6 => (1 << 63) - near,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn is(&mut self) -> bool {
        self.byte() & 1 == 1
    }
}

/// Records that are whole, of objects that are there or not.
fn record(input: &mut Input<'_>, memory: &Rc<Memory>, local: SocketAddr) {
    let mut recorder = Recorder::create(Rc::clone(memory));
    for _ in 0..input.byte() % 16 {
        let id = u32::from(input.byte() % 6);
        let ssrc = u32::from(input.byte() % 8);
        let entry = match input.byte() % 4 {
            0 => {
                let remote = SocketAddr::from(([127, 0, 0, 1], 1 + u16::from(input.byte() % 4)));
                let record = TransportRecord {
                    ice_state: IceState::Completed,
                    local: if input.is() { local } else { remote },
                    remote,
                    is_tcp: input.byte() % 8 == 7,
                    role: [DtlsRole::Client, DtlsRole::Server][usize::from(input.is())],
                    keys: keys(),
                };
                recorder.add(TransportId(id), &record)
            }
            1 => {
                let is_rtcp = input.is();
                recorder.add(TransportId(id), &InboundRecord { ssrc, is_rtcp })
            }
            2 => {
                let record = StreamRecord {
                    ssrc,
                    index: input.byte() % 4,
                    encoding: input.byte() % 4,
                    fir_seq: input.byte(),
                    base_seq: input.number(),
                    expected_before_base: input.number(),
                };
                recorder.add(ProducerId(id), &record)
            }
            _ => {
                let record = ConsumerRecord {
                    transport: TransportId(u32::from(input.byte() % 6)),
                    ssrc,
                    rtx_ssrc: input.is().then_some(ssrc + 1),
                    current: input.is().then(|| input.byte() % 4),
                    seq_offset: input.number().cast_signed(),
                    reached: input.number(),
                    ts_offset: input.number() as u32,
                    picture_offset: input.number() as u16,
                    tl0_offset: input.byte(),
                };
                recorder.add(ConsumerId(id), &record)
            }
        };
        let is_filled = input.is();
        if let Some(entry) = entry.filter(|_| is_filled) {
            for counter in (0..COUNTERS).filter(|counter| *counter != SENDERS) {
                entry.set(counter, input.number() & ((1 << 48) - 1));
            }
            entry.set(SENDERS, u64::from(input.byte() % 3));
        }
    }
}

fn restore(input: &mut Input<'_>, memory: Rc<Memory>, local: SocketAddr) {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let mut io = Io::new(Sockets::new(epoll), certificate().clone()).unwrap();
    let began = Instant::now();
    io.set_now(began, Duration::from_secs(1_700_000_000));
    let mut worker = Worker::new("fuzz".into(), io);
    worker.dialect = Dialect::Broth;
    let create = CreateRouter {
        sockets: vec![RouterSocket {
            protocol: Protocol::Udp,
            ip: local.ip(),
            port: local.port(),
            announced_ip: None,
        }],
        restore: true,
        ..CreateRouter::default()
    };
    let create = Request {
        id: 1,
        ids: Ids::router(ROUTER),
        call: Call::CreateRouter(create),
    };
    let fd = socket().try_clone().unwrap().into();
    worker.handle_request(create, vec![fd]).unwrap();
    let (_, router) = worker.routers.iter_mut().next().unwrap();
    router.restore(Some(memory));
    for id in [SENDER, RECEIVER] {
        let ice = IceParameters {
            username_fragment: format!("ufrag{id}"),
            password: "a password that is long enough".into(),
            ice_lite: true,
        };
        let options = WebRtcTransportOptions {
            restore: Some(ice),
            ..WebRtcTransportOptions::default()
        };
        let ids = Ids::router(ROUTER).transport(id);
        call(&mut worker, ids, Call::CreateWebRtcTransport(options));
    }
    let produce = CreateProducer {
        kind: MediaKind::Video,
        rtp_parameters: parameters(0),
        rtp_mapping: RtpMapping {
            codec_payload_types: vec![(PT, PT), (PT + 1, PT + 1)],
            header_extension_ids: Vec::new(),
        },
        paused: input.byte() % 8 == 7,
    };
    let ids = Ids::router(ROUTER).transport(SENDER).producer(PRODUCER);
    call(&mut worker, ids, Call::CreateProducer(produce));
    let ids = Ids::router(ROUTER)
        .transport(RECEIVER)
        .producer(PRODUCER)
        .consumer(CONSUMER);
    let kind = MediaKind::Video;
    call(
        &mut worker,
        ids,
        Call::CreateConsumer(CreateConsumer { kind }),
    );
    let rtp_parameters = parameters(4);
    let enable = Call::EnableConsumer(EnableConsumer { rtp_parameters });
    call(&mut worker, ids, enable);
    call(
        &mut worker,
        Ids::router(ROUTER),
        Call::ResumeRouter(Empty {}),
    );
    for turn in 1..=8 {
        let port = 1 + u16::from(input.byte() % 4);
        let mut packet = packet(input);
        let Worker { routers, io, .. } = &mut worker;
        let (_, router) = routers.iter_mut().next().unwrap();
        let path = Path {
            socket: io.sockets.keys_of(|_| true)[0],
            remote: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        let passed = Duration::from_millis(turn * 300);
        io.set_now(began + passed, Duration::from_secs(1_700_000_000) + passed);
        router.handle_datagram(io, path, &mut packet);
        let mut due = Vec::new();
        router.take_deadlines(|transport, at| due.push((transport, at)));
        for (transport, at) in due {
            if at <= io.now {
                router.handle_deadline(io, transport, at);
            }
        }
        router.forward(io);
        io.sockets.queue.take(|_, _, _| {});
        router.commit();
    }
    for ask in [
        Call::GetProducerStats(Empty {}),
        Call::DumpProducer(Empty {}),
    ] {
        let ids = Ids::router(ROUTER).producer(PRODUCER);
        call(&mut worker, ids, ask);
    }
    for ask in [
        Call::GetConsumerStats(Empty {}),
        Call::DumpConsumer(Empty {}),
    ] {
        let ids = Ids::router(ROUTER).consumer(CONSUMER);
        call(&mut worker, ids, ask);
    }
    call(&mut worker, Ids::router(ROUTER), Call::DumpRouter(Empty {}));
}

/// None of this may be refused, whatever was recorded.
fn call(worker: &mut Worker, ids: Ids, call: Call) {
    let request = Request { id: 1, ids, call };
    worker.handle_request(request, Vec::new()).unwrap();
}

/// A packet that opens if the keys are those of [`keys`] and the index is new.
fn packet(input: &mut Input<'_>) -> Vec<u8> {
    let (ssrc, index) = (u32::from(input.byte() % 8), input.number());
    let emit = RtpEmit {
        marker: input.is(),
        pt: PT + input.byte() % 2,
        seq: index as u16,
        ts: input.number() as u32,
        ssrc,
    };
    let mut packet = vec![0; 200];
    let at = emit.emit_header(std::iter::empty(), &mut packet).unwrap();
    let body = usize::from(input.byte() % 100);
    for byte in &mut packet[at..at + body] {
        *byte = input.byte();
    }
    let keys = keys();
    let seal = SealKey::new(PROFILE, &keys.remote_key, &keys.remote_salt).unwrap();
    let roc = (index >> 16) as u32;
    let len = seal.protect_rtp(roc, &mut packet, at, at + body).unwrap();
    packet.truncate(len);
    packet
}

fn keys() -> SrtpKeys {
    SrtpKeys {
        profile: PROFILE,
        local_key: vec![1; PROFILE.key_len()],
        local_salt: vec![2; PROFILE.salt_len()],
        remote_key: vec![3; PROFILE.key_len()],
        remote_salt: vec![4; PROFILE.salt_len()],
    }
}

fn parameters(ssrc: u32) -> RtpParameters {
    serde_json::from_value(serde_json::json!({
        "muxId": "x",
        "codecs": [
            { "name": "VP8", "mimeType": "video/VP8", "clockRate": 90000, "payloadType": PT,
              "rtcpFeedback": [{ "type": "nack" }, { "type": "nack", "parameter": "pli" }] },
            { "name": "rtx", "mimeType": "video/rtx", "clockRate": 90000, "payloadType": PT + 1,
              "parameters": { "apt": PT } },
        ],
        "encodings": [
            { "ssrc": ssrc, "rtx": { "ssrc": ssrc + 1 }, "profile": "low" },
            { "ssrc": ssrc + 2, "rtx": { "ssrc": ssrc + 3 }, "profile": "high" },
        ],
        "rtcp": { "cname": "fuzz" },
    }))
    .unwrap()
}

fn socket() -> &'static UdpSocket {
    static SOCKET: OnceLock<UdpSocket> = OnceLock::new();
    SOCKET.get_or_init(|| UdpSocket::bind("127.0.0.1:0").unwrap())
}

fn certificate() -> &'static Certificate {
    static CERTIFICATE: OnceLock<Certificate> = OnceLock::new();
    CERTIFICATE.get_or_init(|| Certificate::generate().unwrap())
}
