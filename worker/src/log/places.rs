//! Where mediasoup v2's worker throws what it refuses a request with: its log names the place
//! before the answer leaves. Only people read it, so that an approximate place does no harm.

/// Reasons by their beginnings, and where they are thrown; the first that fits counts. An empty
/// place: refused without a log line.
const PLACES: [(&str, &str); 35] = [
    (
        "Request has not numeric internal.routerId",
        "Worker::GetRouterFromRequest",
    ),
    ("Router ", ""),
    ("unknown method", ""),
    ("Request has invalid data.enabled", ""),
    ("missing data.", ""),
    ("missing remote", ""),
    ("wrong fingerprint", ""),
    ("unknown profile", ""),
    ("invalid profile", ""),
    (
        "Request has not numeric internal.transportId",
        "RTC::Router::GetTransportFromRequest",
    ),
    (
        "Request has not numeric internal.producerId",
        "RTC::Router::GetProducerFromRequest",
    ),
    (
        "Request has not numeric internal.consumerId",
        "RTC::Router::GetConsumerFromRequest",
    ),
    (
        "Transport not found",
        "RTC::Router::GetTransportFromRequest",
    ),
    ("Producer not found", "RTC::Router::GetProducerFromRequest"),
    ("Consumer not found", "RTC::Router::GetConsumerFromRequest"),
    (
        "a Transport with",
        "RTC::Router::GetNewTransportIdFromRequest",
    ),
    (
        "a Producer with",
        "RTC::Router::GetNewProducerIdFromRequest",
    ),
    (
        "a Consumer with",
        "RTC::Router::GetNewConsumerIdFromRequest",
    ),
    (
        "Transport is already mirroring",
        "RTC::Transport::StartMirroring",
    ),
    (
        "Transport already has",
        "RTC::WebRtcTransport::SetRemoteDtlsParameters",
    ),
    (
        "unsupported remote fingerprint",
        "RTC::WebRtcTransport::SetRemoteDtlsParameters",
    ),
    (
        "invalid remote role",
        "RTC::WebRtcTransport::SetRemoteDtlsParameters",
    ),
    (
        "could not open any",
        "RTC::WebRtcTransport::WebRtcTransport",
    ),
    (
        "invalid destination IP",
        "RTC::PlainRtpTransport::PlainRtpTransport",
    ),
    ("IPv4 disabled", "RTC::PlainRtpTransport::PlainRtpTransport"),
    ("IPv6 disabled", "RTC::PlainRtpTransport::PlainRtpTransport"),
    ("no more available ports", "RTC::UdpSocket::GetRandomPort"),
    ("uv_udp_bind() failed", "UdpSocket::UdpSocket"),
    ("invalid binding IP", "UdpSocket::UdpSocket"),
    ("invalid media kind", "RTC::Media::GetKind"),
    ("ssrc already exists", "RTC::RtpListener::AddProducer"),
    ("muxId already exists", "RTC::RtpListener::AddProducer"),
    ("rid already exists", "RTC::RtpListener::AddProducer"),
    ("empty rtpParameters", "RTC::RtpParameters::RtpParameters"),
    ("invalid value '", "Settings::SetLogLevel"),
];

/// Where it would be if it is none of those.
const ELSEWHERE: &str = "RTC::Router::HandleRequest";

/// Where mediasoup v2 throws a reason; `None` if it refuses without a word in the log.
pub fn thrown_at(reason: &str) -> Option<&'static str> {
    let place = PLACES
        .iter()
        .find(|(beginning, _)| reason.starts_with(beginning))
        .map_or(ELSEWHERE, |(_, place)| *place);
    (!place.is_empty()).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_log_lines_of_the_original_worker_are_met() {
        let rows = [
            ("Router does not exist", None),
            ("missing data.kind", None),
            ("unknown profile", None),
            (
                "Request has not numeric internal.routerId",
                Some("Worker::GetRouterFromRequest"),
            ),
            (
                "Transport not found",
                Some("RTC::Router::GetTransportFromRequest"),
            ),
            (
                "invalid value 'chicken' for logLevel",
                Some("Settings::SetLogLevel"),
            ),
            (
                "ssrc already exists in RTP listener [ssrc:111]",
                Some("RTC::RtpListener::AddProducer"),
            ),
            ("not matching kind", Some(ELSEWHERE)),
        ];
        for (reason, place) in rows {
            assert_eq!(thrown_at(reason), place, "{reason}");
        }
    }
}
