//! What is told of a consumer.

use broth_ipc::TransportId;
use broth_ipc::body::{ConsumerDump, RtpStreamDump, RtpStreamParams, RtpStreamStats};

use super::{Consumer, Sending};
use crate::io::Io;
use crate::producer::{Producer, Stream};

impl Consumer {
    /// Everything about the consumer.
    pub fn dump(&self, producer: &Producer) -> ConsumerDump {
        let sending = self.sending.as_deref();
        ConsumerDump {
            consumer_id: self.id,
            kind: self.kind,
            source_producer_id: producer.id,
            rtp_parameters: sending.map(|sending| sending.parameters.clone()),
            rtp_stream: sending.map(Sending::dump),
            loss_percentage: sending.map(|sending| {
                let own = f64::from(sending.stream.fraction_lost) * 100.0 / 256.0;
                let source = self.source(producer).map(Stream::loss_percentage);
                source.map_or(0.0, |source| (own - source).max(0.0))
            }),
            paused: self.paused,
            source_paused: self.source_paused,
            preferred_profile: self.combined_preference(producer),
            effective_profile: self.effective,
        }
    }

    /// The stream of the layer being forwarded.
    fn source<'p>(&self, producer: &'p Producer) -> Option<&'p Stream> {
        let mut streams = producer.streams.iter();
        streams.find(|stream| stream.profile == self.effective)
    }

    /// Stats: what is being forwarded, and what is sent.
    pub fn stats(
        &self,
        io: &Io,
        producer: &Producer,
        transport: TransportId,
    ) -> Vec<RtpStreamStats> {
        let Some(sending) = &self.sending else {
            return Vec::new();
        };
        let source = self.source(producer);
        let mut outbound = sending.stats(io, transport);
        outbound.inbound_rtp_id = source.map(|stream| stream.stats_id());
        source
            .map(|stream| stream.stats(io))
            .into_iter()
            .chain([outbound])
            .collect()
    }
}

impl Sending {
    fn dump(&self) -> RtpStreamDump {
        RtpStreamDump {
            params: RtpStreamParams {
                ssrc: self.ssrc,
                payload_type: self.pt,
                mime_type: self.mime_type.clone(),
                clock_rate: self.clock_rate,
                use_nack: self.has_nack,
                use_pli: self.has_pli,
            },
        }
    }

    fn stats(&self, io: &Io, transport: TransportId) -> RtpStreamStats {
        let stream = &self.stream;
        RtpStreamStats {
            id: format!("outbound-{}", self.ssrc),
            kind: "outbound-rtp".into(),
            timestamp: io.now_ms(),
            ssrc: self.ssrc,
            media_type: self.media,
            media_kind: self.media,
            mime_type: self.mime_type.clone(),
            packet_count: stream.packets,
            byte_count: stream.bytes,
            bitrate: stream.bitrate(io.now),
            packets_lost: stream.packets_lost,
            fraction_lost: stream.fraction_lost,
            packets_discarded: 0,
            packets_repaired: stream.repaired,
            fir_count: stream.firs,
            pli_count: stream.plis,
            nack_count: stream.nacks,
            sli_count: 0,
            jitter: None,
            round_trip_time: Some(stream.rtt_ms()),
            transport_id: Some(transport),
            inbound_rtp_id: None,
        }
    }
}
