//! Requests of a client: one method each (`spec: protocol.md` §3).

use broth_ipc::body::CreateProducer;
use broth_ipc::rtp::{MediaKind, RtpParameters};
use broth_ipc::{Call, ProducerId, TransportId};
use serde_json::{Value, json};

use super::{Peer, PeerEvent};
use crate::error::{Error, Result};
use crate::ortc;
use crate::producer::Producer;
use crate::protocol::{self, Members};
use crate::transport::{PlainRtpTransport, Transport, WebRtcTransport};
use crate::{Originator, lock, random_id};

impl Peer {
    pub(super) async fn handle_request(&self, method: &str, members: Members) -> Result<Value> {
        self.check_open()?;
        match method {
            "createTransport" => self.create_transport(members).await,
            "restartTransport" => self.restart_transport(&members).await,
            "createProducer" => self.create_producer(members).await,
            "enableConsumer" => self.enable_consumer(&members).await,
            other => Err(Error::other(format!("unknown request method \"{other}\""))),
        }
    }

    async fn create_transport(&self, mut members: Members) -> Result<Value> {
        let id = protocol::optional_id(&members, "id")?.unwrap_or_else(random_id);
        let direction = protocol::direction(&members)?;
        let options = protocol::transport_options(&members);
        let app_data = protocol::app_data(&mut members).unwrap_or_default();
        let room = self.room();
        if self.transports().len() >= room.limits().transports_max {
            return Err(Error::other("too many transports"));
        }
        if room.worker().is_confused_by(id) {
            return Err(Error::other(
                "a Transport with same transportId already exists",
            ));
        }
        let (peer, id) = (self.clone(), TransportId(id));
        if let Some(given) = protocol::given(&members, "plainRtpParameters") {
            let options = protocol::plain_options(given, &options)?;
            let created = PlainRtpTransport::create(room, Some(peer), id, options, app_data);
            return Ok(created.await?.to_response());
        }
        let dtls = protocol::given(&members, "dtlsParameters");
        let dtls = dtls.map(protocol::dtls_parameters).transpose()?;
        let transport = WebRtcTransport::create(peer, id, direction, options, app_data).await?;
        if let Some(dtls) = dtls
            && let Err(error) = transport.set_remote_dtls_parameters(dtls).await
        {
            // Silently for the client: it gets the refusal.
            let mut state = room.lock();
            let transport = Transport::from(transport);
            transport.close_in(&mut state, Originator::Remote, None, true);
            return Err(error);
        }
        Ok(transport.to_response())
    }

    async fn restart_transport(&self, members: &Members) -> Result<Value> {
        let transport = self.transport_of(members, "id")?;
        let parameters = transport.web_rtc()?.change_ufrag_pwd().await?;
        Ok(json!({ "iceParameters": parameters }))
    }

    async fn create_producer(&self, mut members: Members) -> Result<Value> {
        let kind = match members.get("kind").and_then(Value::as_str) {
            Some("audio") => MediaKind::Audio,
            Some("video") => MediaKind::Video,
            other => {
                let kind = other.unwrap_or("undefined");
                return Err(Error::wrong_type(format!("unsupported kind: {kind}")));
            }
        };
        if self.spy() {
            return Err(Error::other("spy peers cannot create producers"));
        }
        let room = self.room();
        if self.producers().len() >= room.limits().producers_max {
            return Err(Error::other("too many producers"));
        }
        let id = ProducerId(protocol::optional_id(&members, "id")?.unwrap_or_else(random_id));
        let wrong = |error: Error| Error::other(format!("wrong RTP parameters: {error}"));
        let parameters: RtpParameters =
            protocol::shaped(&mut members, "rtpParameters").map_err(wrong)?;
        let capabilities = room.rtp_capabilities();
        let mapping = ortc::producer_mapping(kind, &parameters, capabilities).map_err(wrong)?;
        let consumable =
            ortc::consumable_parameters(&parameters, capabilities, &mapping).map_err(wrong)?;
        let transport = protocol::id(&members, "transportId")
            .ok()
            .and_then(|id| self.get_transport_by_id(id))
            .ok_or_else(|| Error::wrong_type("WebRtcTransport not found"))?;
        let request = CreateProducer {
            kind,
            rtp_parameters: parameters,
            rtp_mapping: mapping,
            paused: protocol::flag(&members, "paused")?,
        };
        let app_data = protocol::app_data(&mut members).unwrap_or_default();
        let ids = transport.ids().producer(id);
        let call = Call::CreateProducer(request.clone());
        let peer = self.clone();
        let created = room
            .channel()
            .request_then(ids, call, vec![], move |answer| {
                answer?;
                let mut state = peer.room().lock();
                if transport.closed() {
                    // The worker closed the producer with its transport.
                    return Err(Error::closed("WebRtcTransport"));
                }
                let producer =
                    Producer::new(id, peer.clone(), transport, request, consumable, app_data);
                state.producers.insert(id, producer.clone());
                lock(&peer.0.now).producers.push(producer.clone());
                for other in state.peers.clone() {
                    if other != peer {
                        let consumer =
                            other
                                .room()
                                .add_consumer(&mut state, Some(&other), &producer);
                        other.emit(PeerEvent::NewConsumer(consumer.clone()));
                        other.notify("newConsumer", consumer.to_data());
                    }
                }
                peer.emit(PeerEvent::NewProducer(producer));
                Ok(())
            });
        created.await?;
        Ok(Value::Null)
    }

    async fn enable_consumer(&self, members: &Members) -> Result<Value> {
        let consumer = self.consumer_of(members)?;
        let transport = self
            .transport_of(members, "transportId")
            .map_err(|_| Error::wrong_type("Transport not found"))?;
        if protocol::flag(members, "paused")? {
            consumer.set_paused(Originator::Remote, true, None);
        }
        match protocol::profile(members, "preferredProfile") {
            Ok(Some(profile)) => consumer.prefer_remotely(profile).await?,
            Ok(None) => {}
            Err(error) => tracing::warn!(peer = self.name(), %error, "enableConsumer"),
        }
        consumer.enable(&transport).await?;
        Ok(json!({
            "paused": consumer.locally_paused() || consumer.source_paused(),
            "preferredProfile": consumer.preferred_profile(),
            "effectiveProfile": consumer.effective_profile(),
        }))
    }
}
