//! A worker whose packets are handed in and taken out by the test.

use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use broth_ipc::body::{
    CreateConsumer, CreateProducer, CreateRouter, EnableConsumer, PlainRtpTransportOptions,
    Protocol, RouterSocket,
};
use broth_ipc::rtp::{MediaKind, RtpHeaderExtensionParameters, RtpMapping, RtpParameters};
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, Rejection, Request, RouterId, TransportId};
use broth_worker::dialect::Dialect;
use broth_worker::dtls::Certificate;
use broth_worker::io::Io;
use broth_worker::net::sockets::{Path, Sockets};
use broth_worker::recorder::Memory;
use broth_worker::router::Router;
use broth_worker::stream::Hold;
use broth_worker::wire::rtp::{RtpEmit, RtpHeader};
use broth_worker::worker::Worker;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use serde_json::{Value, json};

pub(crate) const ROUTER: RouterId = RouterId(1);
pub(crate) const PT: u8 = 101;
pub(crate) const TWCC_ID: u8 = 5;
/// Bytes of the VP8 descriptor and frame header written by [`vp8`].
pub(crate) const VP8_HEADER: usize = 7;

/// A worker with one router, on a clock of its own.
pub(crate) struct Stage {
    pub(crate) worker: Worker,
    began: Instant,
    now: Duration,
    /// Transports and when they want to be woken.
    deadlines: Vec<(Instant, usize)>,
    hold: Hold,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let mut stage = Self::without_router();
        let create = Call::CreateRouter(CreateRouter::default());
        stage.call(Ids::router(ROUTER), create).unwrap();
        stage
    }

    pub(crate) fn without_router() -> Self {
        let mut stage = Self {
            worker: new_worker(),
            began: Instant::now(),
            now: Duration::ZERO,
            deadlines: Vec::with_capacity(4096),
            hold: Hold::default(),
        };
        stage.advance(Duration::ZERO);
        stage
    }

    /// The worker is gone without a word; another one stands there on the same clock.
    pub(crate) fn replace_worker(&mut self) {
        self.worker = new_worker();
        self.set_hold(self.hold);
        self.deadlines.clear();
        self.advance(Duration::ZERO);
    }

    /// How long frames may wait, in this worker and those that replace it.
    pub(crate) fn set_hold(&mut self, hold: Hold) {
        self.hold = hold;
        self.worker.io.hold = hold;
    }

    /// A router with a socket, recorded to `memory`; `is_restored` from what is there.
    pub(crate) fn create_recorded(
        &mut self,
        socket: &UdpSocket,
        memory: &Rc<Memory>,
        is_restored: bool,
    ) {
        let local = socket.local_addr().unwrap();
        let create = CreateRouter {
            sockets: vec![RouterSocket {
                protocol: Protocol::Udp,
                ip: local.ip(),
                port: local.port(),
                announced_ip: None,
            }],
            restore: is_restored,
            ..CreateRouter::default()
        };
        let request = Request {
            id: 1,
            ids: Ids::router(ROUTER),
            call: Call::CreateRouter(create),
        };
        let fds = vec![socket.try_clone().unwrap().into()];
        self.worker.handle_request(request, fds).unwrap();
        let router = self.router();
        if is_restored {
            router.restore(Some(Rc::clone(memory)));
        } else {
            router.record(Rc::clone(memory));
        }
    }

    /// The one router.
    pub(crate) fn router(&mut self) -> &mut Router {
        let (_, router) = self.worker.routers.iter_mut().next().unwrap();
        router
    }

    pub(crate) fn now(&self) -> Instant {
        self.began + self.now
    }

    /// Moves the clock, wakes what is due and fans out: a turn of the event loop.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        let wall = Duration::from_secs(1_700_000_000) + self.now;
        let now = self.began + self.now;
        let Worker { routers, io, .. } = &mut self.worker;
        io.set_now(now, wall);
        for (_, router) in routers.iter_mut() {
            let deadlines = &mut self.deadlines;
            loop {
                router.take_deadlines(|transport, at| deadlines.push((at, transport)));
                let Some(due) = deadlines.iter().position(|(at, _)| *at <= now) else {
                    break;
                };
                let (at, transport) = deadlines.swap_remove(due);
                router.handle_deadline(io, transport, at);
            }
            router.forward(io);
        }
    }

    pub(crate) fn call(&mut self, ids: Ids, call: Call) -> Result<Value, Rejection> {
        let request = Request { id: 1, ids, call };
        self.worker.handle_request(request, Vec::new())
    }

    /// A plain transport towards a made-up address; packets on it are told apart by the path.
    pub(crate) fn plain_transport(&mut self, id: TransportId) -> Path {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = socket.local_addr().unwrap();
        let remote = SocketAddr::from(([127, 0, 0, 1], 9));
        let options = PlainRtpTransportOptions {
            remote_ip: Some(remote.ip().to_string()),
            remote_port: Some(remote.port()),
            socket: Some(RouterSocket {
                protocol: Protocol::Udp,
                ip: local.ip(),
                port: local.port(),
                announced_ip: None,
            }),
            ..PlainRtpTransportOptions::default()
        };
        let request = Request {
            id: 1,
            ids: Ids::router(ROUTER).transport(id),
            call: Call::CreatePlainRtpTransport(options),
        };
        let before = self.sockets();
        self.worker
            .handle_request(request, vec![socket.into()])
            .unwrap();
        let after = self.sockets();
        let key = after.into_iter().find(|key| !before.contains(key)).unwrap();
        Path {
            socket: key,
            remote,
        }
    }

    pub(crate) fn sockets(&self) -> Vec<u32> {
        let sockets = &self.worker.io.sockets;
        (0..1000)
            .filter(|&key| sockets.local(key).is_some())
            .collect()
    }

    pub(crate) fn produce(&mut self, transport: TransportId, id: ProducerId, ssrc: u32) {
        self.produce_video(transport, id, parameters(ssrc));
    }

    /// Video whose payload types are the room's.
    pub(crate) fn produce_video(
        &mut self,
        transport: TransportId,
        id: ProducerId,
        rtp_parameters: RtpParameters,
    ) {
        let request = CreateProducer {
            kind: MediaKind::Video,
            rtp_parameters,
            rtp_mapping: RtpMapping {
                codec_payload_types: vec![(PT, PT), (102, 102)],
                header_extension_ids: Vec::new(),
            },
            paused: false,
        };
        self.produce_as(transport, id, request);
    }

    pub(crate) fn produce_as(
        &mut self,
        transport: TransportId,
        id: ProducerId,
        request: CreateProducer,
    ) {
        let ids = Ids::router(ROUTER).transport(transport).producer(id);
        self.call(ids, Call::CreateProducer(request)).unwrap();
    }

    pub(crate) fn consume(
        &mut self,
        transport: TransportId,
        producer: ProducerId,
        id: ConsumerId,
        ssrc: u32,
    ) {
        self.consume_as(transport, producer, id, MediaKind::Video, parameters(ssrc));
    }

    pub(crate) fn consume_as(
        &mut self,
        transport: TransportId,
        producer: ProducerId,
        id: ConsumerId,
        kind: MediaKind,
        rtp_parameters: RtpParameters,
    ) {
        let ids = Ids::router(ROUTER)
            .transport(transport)
            .producer(producer)
            .consumer(id);
        let create = Call::CreateConsumer(CreateConsumer { kind });
        self.call(ids, create).unwrap();
        let enable = Call::EnableConsumer(EnableConsumer { rtp_parameters });
        self.call(ids, enable).unwrap();
    }

    /// A datagram arrives.
    pub(crate) fn receive(&mut self, path: Path, datagram: &mut [u8]) {
        let Worker { routers, io, .. } = &mut self.worker;
        let (_, router) = routers.iter_mut().next().unwrap();
        router.handle_datagram(io, path, datagram);
    }

    /// Everything that would have been sent, in order.
    pub(crate) fn take(&mut self, each: impl FnMut(u32, SocketAddr, &[u8])) {
        self.worker.io.sockets.queue.take(each);
    }

    /// The end of a turn, after everything was sent.
    pub(crate) fn commit(&mut self) {
        self.router().commit();
    }
}

fn new_worker() -> Worker {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let io = Io::new(Sockets::new(epoll), Certificate::generate().unwrap()).unwrap();
    let mut worker = Worker::new("test".into(), io);
    worker.dialect = Dialect::Broth;
    worker
}

pub(crate) fn parameters(ssrc: u32) -> RtpParameters {
    serde_json::from_value(json!({
        "muxId": ssrc.to_string(),
        "codecs": [
            { "name": "VP8", "mimeType": "video/VP8", "clockRate": 90000, "payloadType": PT,
              "rtcpFeedback": [{ "type": "nack" }, { "type": "nack", "parameter": "pli" }] },
            { "name": "rtx", "mimeType": "video/rtx", "clockRate": 90000, "payloadType": 102,
              "parameters": { "apt": PT } },
        ],
        "encodings": [{ "ssrc": ssrc, "rtx": { "ssrc": ssrc + 1 } }],
        "rtcp": { "cname": "test" },
    }))
    .unwrap()
}

/// Writes a VP8 packet with a 15-bit picture id and `body`; returns its length.
pub(crate) fn vp8(
    out: &mut [u8],
    (ssrc, seq, ts): (u32, u16, u32),
    picture: u16,
    is_keyframe: bool,
    body: &[u8],
) -> usize {
    let emit = RtpEmit {
        marker: true,
        pt: PT,
        seq,
        ts,
        ssrc,
    };
    let at = emit.emit_header(std::iter::empty(), out).unwrap();
    let [high, low] = (picture & 0x7FFF | 0x8000).to_be_bytes();
    let header = [0x90, 0xE0, high, low, 0, 0, u8::from(!is_keyframe)];
    out[at..at + VP8_HEADER].copy_from_slice(&header);
    let end = at + VP8_HEADER + body.len();
    out[at + VP8_HEADER..end].copy_from_slice(body);
    end
}

/// The extension of numbers in the whole transport.
pub(crate) fn twcc_extension() -> RtpHeaderExtensionParameters {
    RtpHeaderExtensionParameters {
        uri: "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01".into(),
        id: TWCC_ID,
        encrypt: false,
        parameters: Default::default(),
    }
}

/// A packet with a number in the whole transport.
pub(crate) fn numbered(header: &RtpHeader, twcc_seq: u16, payload: &[u8]) -> Vec<u8> {
    let emit = RtpEmit {
        marker: header.marker,
        pt: header.pt,
        seq: header.seq,
        ts: header.ts,
        ssrc: header.ssrc,
    };
    let mut out = vec![0; 64];
    let twcc_seq = twcc_seq.to_be_bytes();
    let extensions = [(TWCC_ID, &twcc_seq[..])];
    let len = emit.emit_header(extensions.into_iter(), &mut out).unwrap();
    out.truncate(len);
    out.extend_from_slice(payload);
    out
}
