//! What is to exist in the room, as its controller knows it, and how a worker is asked for it: the
//! first time or once more.

use std::net::SocketAddr;

use broth_ipc::body::{
    CreateConsumer, CreateProducer, DtlsState, Empty, EnableConsumer, EncodingPreferences,
    IceParameters, IceState, SetPreferredProfile, WebRtcTransportDump, WebRtcTransportOptions,
};
use broth_ipc::rtp::{Profile, RtpMapping};
use broth_ipc::{Call, ConsumerId, Ids, ProducerId, TransportId};

use super::client::Client;
use super::ledger::Got;
use super::room::Room;
use super::source::{Format, RTX_PT, Source};
use crate::stage::ROUTER;

/// Numbers between two SSRCs, for RTX.
const SSRC_STEP: u32 = 10;

/// A peer with its transport.
pub(super) struct Member {
    pub(super) client: Client,
    pub(super) transport: TransportId,
    ice: Option<IceParameters>,
}

/// A producer.
pub(super) struct Producing {
    pub(super) id: ProducerId,
    /// Its member.
    pub(super) sender: usize,
    pub(super) format: Format,
    pub(super) streams: Vec<(u32, Profile)>,
    pub(super) is_paused: bool,
    pub(super) preferred: Profile,
}

/// A consumer, and what came of it.
pub(super) struct Consuming {
    pub(super) id: ConsumerId,
    pub(super) producer: ProducerId,
    /// Its member.
    pub(super) receiver: usize,
    pub(super) is_paused: bool,
    pub(super) preferred: Profile,
    pub(super) temporal: Option<u8>,
    pub(super) got: Got,
}

impl Producing {
    pub(super) fn ids(&self) -> Ids {
        Ids::router(ROUTER).producer(self.id)
    }
}

impl Consuming {
    pub(super) fn ids(&self) -> Ids {
        Ids::router(ROUTER).consumer(self.id)
    }
}

impl Room {
    /// Makes everything in the room once more. Returns how many transports are connected as
    /// before.
    pub(super) fn ask_for_everything(&mut self) -> usize {
        let mut resumed = 0;
        for at in 0..self.members.len() {
            let states = self.ask_for_transport(at);
            let is_resumed = states == (IceState::Completed, DtlsState::Connected);
            assert!(is_resumed || self.is_damaged, "{states:?}");
            resumed += usize::from(is_resumed);
        }
        for at in 0..self.producing.len() {
            self.ask_for_producer(at);
        }
        for at in 0..self.consuming.len() {
            self.ask_for_consumer(at);
        }
        resumed
    }

    fn ask_for_transport(&mut self, at: usize) -> (IceState, DtlsState) {
        let member = &self.members[at];
        let options = WebRtcTransportOptions {
            restore: member.ice.clone(),
            ..WebRtcTransportOptions::default()
        };
        let is_new = member.ice.is_none();
        let ids = Ids::router(ROUTER).transport(member.transport);
        let call = Call::CreateWebRtcTransport(options);
        let dump = self.stage.call(ids, call).unwrap();
        let dump: WebRtcTransportDump = serde_json::from_value(dump).unwrap();
        let remote = Call::SetRemoteDtlsParameters(member.client.dtls_parameters());
        self.stage.call(ids, remote).unwrap();
        if is_new {
            self.connect(at, &dump);
            self.members[at].ice = Some(dump.ice_local_parameters);
        }
        (dump.ice_state, dump.dtls_state)
    }

    fn connect(&mut self, at: usize, dump: &WebRtcTransportDump) {
        let now = self.stage.now();
        let client = &mut self.members[at].client;
        let addr = client.addr;
        let dtls = &dump.dtls_local_parameters;
        let check = client.connect(now, &dump.ice_local_parameters, dtls);
        let mut to_worker = vec![check];
        while self.members[at].client.srtp.is_none() {
            for mut datagram in std::mem::take(&mut to_worker) {
                let path = self.path(addr);
                self.stage.receive(path, &mut datagram);
            }
            let mut to_client = Vec::new();
            self.stage.take(|_, to, datagram| {
                if to == addr {
                    to_client.push(datagram.to_vec());
                }
            });
            assert!(!to_client.is_empty(), "the handshake goes on");
            for datagram in to_client {
                to_worker.extend(self.members[at].client.handshake(now, &datagram));
            }
        }
    }

    fn ask_for_producer(&mut self, at: usize) {
        let producing = &self.producing[at];
        let ids = producing.ids();
        let transport = self.members[producing.sender].transport;
        let pt = producing.format.pt();
        let request = CreateProducer {
            kind: producing.format.kind(),
            rtp_parameters: producing.format.parameters(&producing.streams),
            rtp_mapping: RtpMapping {
                codec_payload_types: vec![(pt, pt), (RTX_PT, RTX_PT)],
                header_extension_ids: Vec::new(),
            },
            paused: producing.is_paused,
        };
        let profile = producing.preferred;
        let create = Call::CreateProducer(request);
        self.stage.call(ids.transport(transport), create).unwrap();
        if profile != Profile::Default {
            let call = Call::SetProducerProfile(SetPreferredProfile { profile });
            self.stage.call(ids, call).unwrap();
        }
    }

    fn ask_for_consumer(&mut self, at: usize) {
        let consuming = &self.consuming[at];
        let ids = consuming.ids();
        let format = self.producer(consuming.producer).format;
        let kind = format.kind();
        let profile = consuming.preferred;
        let temporal_layer = consuming.temporal;
        let mut calls = Vec::new();
        if consuming.is_paused {
            calls.push(Call::PauseConsumer(Empty {}));
        }
        if profile != Profile::Default {
            calls.push(Call::SetConsumerProfile(SetPreferredProfile { profile }));
        }
        if temporal_layer.is_some() {
            let preferences = EncodingPreferences { temporal_layer };
            calls.push(Call::SetEncodingPreferences(preferences));
        }
        let transport = self.members[consuming.receiver].transport;
        let rtp_parameters = format.parameters(&[(consuming.id.0, Profile::Default)]);
        let create = Call::CreateConsumer(CreateConsumer { kind });
        let of = ids.producer(consuming.producer);
        self.stage.call(of, create).unwrap();
        for call in calls {
            self.stage.call(ids, call).unwrap();
        }
        let enable = Call::EnableConsumer(EnableConsumer { rtp_parameters });
        self.stage.call(ids.transport(transport), enable).unwrap();
    }

    /// A new SSRC, with room for its RTX.
    fn next_ssrc(&mut self) -> u32 {
        self.last_ssrc += SSRC_STEP;
        self.last_ssrc
    }

    /// Somebody comes in, with an address of their own.
    pub(super) fn new_member(&mut self) -> Member {
        let id = self.next_ssrc();
        let addr = SocketAddr::from(([127, 0, 0, 1], 1000 + id as u16));
        Member {
            client: Client::new(addr, self.profile),
            transport: TransportId(id),
            ice: None,
        }
    }

    /// Connects a new member.
    pub(super) fn join(&mut self, at: usize) {
        self.ask_for_transport(at);
    }

    /// A member begins to send, and everybody else gets it. Its numbers begin after `first`.
    pub(super) fn produce(
        &mut self,
        sender: usize,
        format: Format,
        profiles: &[Profile],
        first: u64,
    ) {
        let mut streams = Vec::new();
        for &profile in profiles {
            let ssrc = self.next_ssrc();
            streams.push((ssrc, profile));
            let source = Source::new(format, ssrc, profile, first);
            self.members[sender].client.sources.push(source);
        }
        let id = ProducerId(streams[0].0);
        self.producing.push(Producing {
            id,
            sender,
            format,
            streams,
            is_paused: false,
            preferred: Profile::Default,
        });
        self.ask_for_producer(self.producing.len() - 1);
        for receiver in (0..self.members.len()).filter(|receiver| *receiver != sender) {
            self.consume(receiver, id);
        }
    }

    /// A member begins to get what another one sends.
    pub(super) fn consume(&mut self, receiver: usize, producer: ProducerId) {
        let ssrc = self.next_ssrc();
        let format = self.producer(producer).format;
        self.consuming.push(Consuming {
            id: ConsumerId(ssrc),
            producer,
            receiver,
            is_paused: false,
            preferred: Profile::Default,
            temporal: None,
            got: Got::new(format, ssrc),
        });
        self.ask_for_consumer(self.consuming.len() - 1);
        self.listen(self.consuming.len() - 1);
    }

    /// A consumer listens from now on: what was sent before need not come.
    pub(super) fn listen(&mut self, at: usize) {
        let sender = self.producer(self.consuming[at].producer).sender;
        let sources = self.members[sender].client.sources.iter();
        let heard = sources.map(|source| (source.ssrc, source.seq));
        self.consuming[at].got.heard_from = heard.collect();
    }

    pub(super) fn producer(&self, id: ProducerId) -> &Producing {
        let mut all = self.producing.iter();
        all.find(|producing| producing.id == id).unwrap()
    }

    /// The source that a consumer should be fed from; `None` if it is to get nothing.
    pub(super) fn wanted(&self, consuming: &Consuming) -> Option<&Source> {
        let producing = self.producer(consuming.producer);
        if consuming.is_paused || producing.is_paused {
            return None;
        }
        let wish = match consuming.preferred {
            Profile::Default => producing.preferred,
            wish => wish,
        };
        let sources = &self.members[producing.sender].client.sources;
        let is_one = |source: &&Source| {
            let mut streams = producing.streams.iter();
            !source.is_silent && streams.any(|(ssrc, _)| *ssrc == source.ssrc)
        };
        let mut layers: Vec<&Source> = sources.iter().filter(is_one).collect();
        layers.sort_by_key(|source| source.profile);
        let is_low = |source: &&&Source| wish == Profile::Default || source.profile <= wish;
        let best = layers.iter().rev().find(is_low);
        best.or_else(|| layers.first()).copied()
    }
}
