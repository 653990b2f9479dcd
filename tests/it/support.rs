//! A room of one sender and one receiver on a worker.

use std::io;
use std::time::{Duration, Instant};

use broth_client::peer::Peer;
use broth_client::rtp::{identity_mapping, vp8_packet, vp8_parameters};
use broth_client::worker::DrivenWorker;
use broth_ipc::body::{CreateProducer, Empty};
use broth_ipc::rtp::{MediaKind, Profile as Layer, RtpMapping, RtpParameters};
use broth_ipc::{Call, ConsumerId, Event, Ids, ProducerId, RouterId, TransportId};
use broth_worker::srtp::Profile;
use broth_worker::wire::rtcp;
use broth_worker::wire::rtp::{RtpEmit, RtpHeader, is_rtcp, is_rtp};

pub(crate) const ROUTER: RouterId = RouterId(1);
pub(crate) const PRODUCER: ProducerId = ProducerId(10);
pub(crate) const CONSUMER: ConsumerId = ConsumerId(20);
/// SSRC the sender uses; its RTX has the next one.
pub(crate) const SEND_SSRC: u32 = 1000;
/// SSRC the receiver gets; its RTX has the next one.
pub(crate) const RECV_SSRC: u32 = 2000;

const PATIENCE: Duration = Duration::from_secs(5);

/// A sender and a receiver.
pub(crate) struct Room {
    pub(crate) worker: DrivenWorker,
    pub(crate) sender: Peer,
    pub(crate) receiver: Peer,
}

/// What the sender sends and the receiver gets.
pub(crate) struct Media {
    pub(crate) kind: MediaKind,
    pub(crate) sent: RtpParameters,
    pub(crate) received: RtpParameters,
    pub(crate) mapping: RtpMapping,
}

impl Media {
    /// VP8 from [`SEND_SSRC`] to [`RECV_SSRC`].
    pub(crate) fn vp8() -> Self {
        Self {
            kind: MediaKind::Video,
            sent: vp8_parameters(SEND_SSRC),
            received: vp8_parameters(RECV_SSRC),
            mapping: identity_mapping(),
        }
    }
}

impl Room {
    /// Connects both for VP8; the consumer is enabled.
    pub(crate) fn new(profile: Profile) -> Self {
        Self::with(profile, Media::vp8())
    }

    /// Connects both; the consumer is enabled.
    pub(crate) fn with(profile: Profile, media: Media) -> Self {
        let mut worker = DrivenWorker::in_thread().unwrap();
        worker.create_router(ROUTER).unwrap();
        Self::on(worker, profile, media)
    }

    /// Connects both in a worker with a router; the consumer is enabled.
    pub(crate) fn on(mut worker: DrivenWorker, profile: Profile, media: Media) -> Self {
        let sender = Peer::connect(&mut worker, ROUTER, TransportId(1), profile).unwrap();
        let receiver = Peer::connect(&mut worker, ROUTER, TransportId(2), profile).unwrap();
        let mut room = Self {
            worker,
            sender,
            receiver,
        };
        let request = CreateProducer {
            kind: media.kind,
            rtp_parameters: media.sent,
            rtp_mapping: media.mapping,
            paused: false,
        };
        let ids = Ids::router(ROUTER)
            .transport(TransportId(1))
            .producer(PRODUCER);
        room.worker
            .call(ids, Call::CreateProducer(request))
            .unwrap();
        room.consume(CONSUMER, TransportId(2), media.kind, media.received);
        room
    }

    /// Creates a consumer and enables it on a transport.
    pub(crate) fn consume(
        &mut self,
        consumer: ConsumerId,
        transport: TransportId,
        kind: MediaKind,
        rtp_parameters: RtpParameters,
    ) {
        let ids = Ids::router(ROUTER).producer(PRODUCER).consumer(consumer);
        let ids = ids.transport(transport);
        self.worker.consume(ids, kind, rtp_parameters).unwrap();
    }

    /// Sends a packet of any make from the sender.
    pub(crate) fn send_packet(&mut self, emit: &RtpEmit, exts: &[(u8, &[u8])], payload: &[u8]) {
        let mut buffer = [0; 1500];
        let header_len = emit.emit_header(exts.iter().copied(), &mut buffer).unwrap();
        let len = header_len + payload.len();
        buffer[header_len..len].copy_from_slice(payload);
        self.sender.send_rtp(0, &mut buffer, len).unwrap();
    }

    /// Waits until the worker asks the sender for a key frame of `ssrc`.
    pub(crate) fn await_pli(&mut self, ssrc: u32) -> Option<()> {
        receive(&mut self.sender, |packet| match packet {
            Packet::Rtcp(compound) => rtcp::packets(&compound)
                .flatten()
                .any(|packet| matches!(packet, rtcp::Packet::Pli { media, .. } if media == ssrc))
                .then_some(()),
            Packet::Rtp(..) => None,
        })
    }

    /// How many packets were dropped for a reason.
    pub(crate) fn drops(&mut self, reason: &str) -> u64 {
        drops(&mut self.worker, reason)
    }

    /// The layers announced for [`CONSUMER`] so far.
    pub(crate) fn layers(&mut self) -> Vec<Layer> {
        let dump = Call::DumpWorker(Empty {});
        self.worker.call(Ids::NONE, dump).unwrap();
        let notes = self.worker.notes.iter();
        notes
            .filter_map(|note| match note.event {
                Event::EffectiveProfileChange { profile } => Some(profile),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn create_producer(&mut self, id: ProducerId, ssrc: u32) -> anyhow::Result<()> {
        let ids = Ids::router(ROUTER).transport(TransportId(1)).producer(id);
        self.worker.produce_vp8(ids, ssrc)
    }

    /// Sends one VP8 packet.
    pub(crate) fn send(&mut self, seq: u16, is_keyframe: bool) {
        let mut buffer = [0; 1500];
        let ts = u32::from(seq) * 3000;
        let len = vp8_packet(&mut buffer, SEND_SSRC, seq, ts, is_keyframe, true, 200);
        self.sender.send_rtp(0, &mut buffer, len).unwrap();
    }
}

/// How many packets a worker dropped for a reason.
pub(crate) fn drops(worker: &mut DrivenWorker, reason: &str) -> u64 {
    let load = worker.call(Ids::NONE, Call::GetLoad(Empty {})).unwrap();
    load["drops"][reason].as_u64().unwrap_or(0)
}

/// What a peer received.
#[derive(Debug)]
pub(crate) enum Packet {
    Rtp(RtpHeader, Vec<u8>),
    Rtcp(Vec<u8>),
}

/// Waits for a packet that `wanted` takes, and returns what it makes of it.
pub(crate) fn receive<T>(
    peer: &mut Peer,
    mut wanted: impl FnMut(Packet) -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        let len = match peer.socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => panic!("{error}"),
        };
        let datagram = &mut buffer[..len];
        let packet = if is_rtcp(datagram) {
            let len = peer.srtp.inbound.unprotect_rtcp(datagram).unwrap();
            Packet::Rtcp(datagram[..len].to_vec())
        } else if is_rtp(datagram) {
            let header_len = broth_worker::wire::rtp::header_len(datagram).unwrap();
            let len = peer
                .srtp
                .inbound
                .unprotect_rtp(datagram, header_len)
                .unwrap();
            let header = RtpHeader::parse(&datagram[..len]).unwrap();
            Packet::Rtp(header, datagram[..len].to_vec())
        } else {
            continue;
        };
        if let Some(found) = wanted(packet) {
            return Some(found);
        }
    }
    None
}

/// Waits for the next RTP packet.
pub(crate) fn receive_rtp(peer: &mut Peer) -> Option<(RtpHeader, Vec<u8>)> {
    receive(peer, |packet| match packet {
        Packet::Rtp(header, bytes) => Some((header, bytes)),
        Packet::Rtcp(_) => None,
    })
}
