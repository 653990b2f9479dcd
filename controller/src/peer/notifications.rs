//! Notifications of a client: one method each (`spec: protocol.md` §4).

use serde_json::Value;

use super::Peer;
use crate::Originator;
use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::producer::Producer;
use crate::protocol::{self, Members};
use crate::transport::Transport;

/// How often statistics are sent unless asked otherwise.
const STATS_INTERVAL_MS: u64 = 1000;

impl Peer {
    pub(super) async fn handle_notification(
        &self,
        method: &str,
        mut members: Members,
    ) -> Result<()> {
        self.check_open()?;
        let app_data = protocol::app_data(&mut members);
        let remote = Originator::Remote;
        match method {
            "updateTransport" => return self.update_transport(&members).await,
            "closeTransport" => {
                let transport = self.transport_of(&members, "id")?;
                let mut state = self.room().lock();
                transport.close_in(&mut state, remote, app_data, true);
            }
            "enableTransportStats" => {
                let transport = self.transport_of(&members, "id")?;
                transport.enable_stats(interval_ms(&members)?);
            }
            "disableTransportStats" => self.transport_of(&members, "id")?.disable_stats(),
            "pauseProducer" => self
                .producer_of(&members)?
                .set_paused(remote, true, app_data),
            "resumeProducer" => self
                .producer_of(&members)?
                .set_paused(remote, false, app_data),
            "closeProducer" => {
                // Clients also send it for producers that went with their transport.
                if let Ok(producer) = self.producer_of(&members) {
                    let mut state = self.room().lock();
                    producer.close_in(&mut state, remote, app_data, true);
                }
            }
            "enableProducerStats" => {
                let producer = self.producer_of(&members)?;
                producer.enable_stats(interval_ms(&members)?);
            }
            "disableProducerStats" => self.producer_of(&members)?.disable_stats(),
            "pauseConsumer" => self
                .consumer_of(&members)?
                .set_paused(remote, true, app_data),
            "resumeConsumer" => self
                .consumer_of(&members)?
                .set_paused(remote, false, app_data),
            "setConsumerPreferredProfile" => {
                let consumer = self.consumer_of(&members)?;
                let profile = protocol::profile(&members, "profile")?
                    .ok_or_else(|| Error::wrong_type("missing profile"))?;
                consumer.prefer_remotely(profile).await?;
            }
            "enableConsumerStats" => {
                let consumer = self.consumer_of(&members)?;
                consumer.enable_stats(interval_ms(&members)?);
            }
            "disableConsumerStats" => self.consumer_of(&members)?.disable_stats(),
            other => {
                let text = format!("unknown notification method \"{other}\"");
                return Err(Error::other(text));
            }
        }
        Ok(())
    }

    /// DTLS parameters or the remote address; a transport that refuses them is closed.
    async fn update_transport(&self, members: &Members) -> Result<()> {
        let transport = self.transport_of(members, "id")?;
        let updated = if let Some(given) = protocol::given(members, "dtlsParameters") {
            let transport = transport.web_rtc()?;
            match protocol::dtls_parameters(given) {
                Ok(parameters) => transport.set_remote_dtls_parameters(parameters).await,
                Err(error) => Err(error),
            }
        } else if let Some(given) = protocol::given(members, "plainRtpParameters") {
            let transport = transport.plain()?;
            match protocol::remote_parameters(given) {
                Ok(remote) => transport.set_remote_parameters(remote).await,
                Err(error) => Err(error),
            }
        } else {
            return Ok(());
        };
        if updated.is_err() {
            transport.close(None);
        }
        updated
    }

    pub(super) fn transport_of(&self, members: &Members, member: &str) -> Result<Transport> {
        let id = protocol::id(members, member)?;
        self.get_transport_by_id(id)
            .ok_or_else(|| Error::other("Transport not found"))
    }

    fn producer_of(&self, members: &Members) -> Result<Producer> {
        let id = protocol::id(members, "id")?;
        self.get_producer_by_id(id)
            .ok_or_else(|| Error::other("Producer not found"))
    }

    pub(super) fn consumer_of(&self, members: &Members) -> Result<Consumer> {
        let id = protocol::id(members, "id")?;
        self.get_consumer_by_id(id)
            .ok_or_else(|| Error::other("Consumer not found"))
    }
}

fn interval_ms(members: &Members) -> Result<u64> {
    match members.get("interval") {
        None | Some(Value::Null) => Ok(STATS_INTERVAL_MS),
        // Not below zero, and without a fraction: the cast saturates.
        Some(interval) => match interval.as_f64() {
            Some(interval) => Ok(interval as u64),
            None => Err(Error::wrong_type("interval must be a number")),
        },
    }
}
