//! broth's worker with rooms that have no flight recorder, which its controller does not make:
//! requests go to it directly.

use std::sync::Mutex;

use anyhow::{Context, Result};
use broth_client::client::Client;
use broth_client::rtp::{OPUS_PT, identity_mapping, opus_parameters, vp8_parameters};
use broth_client::worker::DrivenWorker;
use broth_ipc::body::{CreateProducer, Empty, Load};
use broth_ipc::rtp::{MediaKind, RtpParameters};
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, RouterId, TransportId};
use broth_worker::srtp::Profile;

use crate::plan::{Media, Plan};
use crate::source::send_ssrc;

/// The first SSRC of consumers, behind those of producers.
const CONSUMERS_FROM: u32 = 1_000_000;

/// The worker.
pub(crate) struct Unrecorded {
    pid: u32,
    driven: Mutex<Driven>,
    profile: Option<Profile>,
    media: Media,
}

struct Driven {
    worker: DrivenWorker,
    /// The last id of a transport or consumer.
    id_last: u32,
}

impl Unrecorded {
    pub(crate) fn start(plan: &Plan, profile: Option<Profile>, cpu: usize) -> Result<Self> {
        let mut worker = DrivenWorker::in_process(cpu)?;
        for room in 0..plan.rooms {
            worker.create_router(RouterId(room))?;
        }
        Ok(Self {
            pid: worker.pid().context("it is a process")?,
            driven: Mutex::new(Driven { worker, id_last: 0 }),
            profile,
            media: plan.media,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn load(&self) -> Result<Load> {
        self.driven().worker.load()
    }

    pub(crate) fn connect_sender(&self, room: u32, sender: u32) -> Result<Client> {
        let mut driven = self.driven();
        let (transport, client) = driven.connect(room, self.profile)?;
        let mut mapping = identity_mapping();
        mapping.codec_payload_types.push((OPUS_PT, OPUS_PT));
        let request = CreateProducer {
            kind: self.kind(),
            rtp_parameters: self.parameters(send_ssrc(sender)),
            rtp_mapping: mapping,
            paused: false,
        };
        let ids = Ids::router(RouterId(room))
            .transport(transport)
            .producer(ProducerId(sender));
        driven.worker.call(ids, Call::CreateProducer(request))?;
        Ok(client)
    }

    pub(crate) fn connect_viewer(&self, room: u32, senders: Vec<u32>) -> Result<Client> {
        let mut driven = self.driven();
        let (transport, client) = driven.connect(room, self.profile)?;
        for sender in senders {
            let consumer = driven.id();
            let ids = Ids::router(RouterId(room))
                .producer(ProducerId(sender))
                .consumer(ConsumerId(consumer))
                .transport(transport);
            let rtp_parameters = self.parameters(CONSUMERS_FROM + 2 * consumer);
            driven.worker.consume(ids, self.kind(), rtp_parameters)?;
        }
        Ok(client)
    }

    /// Closes a viewer's transport, which leaves its consumers without one.
    pub(crate) fn disconnect(&self, room: u32, viewer: &Client) -> Result<()> {
        let transport = match viewer {
            Client::WebRtc(peer) => peer.transport,
            Client::Plain(peer) => peer.transport,
        };
        let ids = Ids::router(RouterId(room)).transport(transport);
        let close = Call::CloseTransport(Empty {});
        self.driven().worker.call(ids, close)?;
        Ok(())
    }

    fn driven(&self) -> std::sync::MutexGuard<'_, Driven> {
        self.driven.lock().expect("no panic holds the lock")
    }

    fn kind(&self) -> MediaKind {
        match self.media {
            Media::Video => MediaKind::Video,
            Media::Audio => MediaKind::Audio,
        }
    }

    fn parameters(&self, ssrc: u32) -> RtpParameters {
        match self.media {
            Media::Video => vp8_parameters(ssrc),
            Media::Audio => opus_parameters(ssrc),
        }
    }
}

impl Driven {
    fn id(&mut self) -> u32 {
        self.id_last += 1;
        self.id_last
    }

    fn connect(&mut self, room: u32, profile: Option<Profile>) -> Result<(TransportId, Client)> {
        let transport = TransportId(self.id());
        let worker = &mut self.worker;
        let client = Client::connect(worker, RouterId(room), transport, profile)?;
        Ok((transport, client))
    }
}
