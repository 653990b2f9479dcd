//! Bodies of requests and answers (`spec: channel.md` §6–§8).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::rtp::{MediaKind, Profile, RtpMapping, RtpParameters, dump};
use crate::{ConsumerId, ProducerId, TransportId};

/// No members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Opens a channel between broth's own ends: the first request of a broth controller.
///
/// A worker that never gets it keeps to mediasoup v2's limits and shapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// [`crate::PROTOCOL`] of the controller.
    pub protocol: u32,
    /// Certificate and key of every DTLS transport; absent: the worker makes its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtls: Option<DtlsIdentity>,
    /// Whether the worker is to obey `worker.misbehave`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub chaos: bool,
    /// Whether the descriptor of a [black box](crate::black_box) comes with it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub black_box: bool,
    /// How many microseconds, at most 1000, the beginning of a video frame may wait for the rest;
    /// absent: as the worker thinks best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_us: Option<u32>,
}

/// `worker.misbehave`: carried out once it is answered, by a worker that was told to obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "lowercase")]
pub enum Misbehave {
    /// Takes memory until it has so much more than before, and aborts when it gets no more.
    Hog {
        /// How much more.
        bytes: u64,
    },
    /// Sends bytes that are no message.
    Garbage,
}

/// A DTLS certificate and its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DtlsIdentity {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub private_key: String,
}

impl std::fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DtlsIdentity").finish_non_exhaustive()
    }
}

/// The worker's answer to [`Hello`]: it is pinned, checked and ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// [`crate::PROTOCOL`] of the worker.
    pub protocol: u32,
    /// Version of the worker's package.
    pub version: String,
    /// Process id as the worker sees it.
    pub pid: u32,
    /// CPUs the worker may run on.
    pub cpus: Vec<usize>,
    /// The certificate and key it made for itself, if it was given none: what a successor needs so
    /// that clients recognise it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtls: Option<DtlsIdentity>,
    /// Whether it can continue the routers of a worker that died.
    #[serde(default)]
    pub restores: bool,
    /// Version of the flight recorder's layout: rooms go on only where it is the same.
    #[serde(default)]
    pub recorder_version: u32,
}

/// `worker.updateSettings`: absent members stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSettings {
    /// `debug`, `warn`, `error` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Replaces the set of enabled tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tags: Option<Vec<String>>,
}

/// The worker's own load (`worker.getLoad`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// User CPU time since start, in milliseconds.
    pub cpu_user_ms: u64,
    /// System CPU time since start, in milliseconds.
    pub cpu_system_ms: u64,
    /// Share of the time since the last question that the event loop was not asleep, 0…1.
    pub busy: f64,
    /// Longest turn of the event loop since the last question, in microseconds.
    pub loop_us_max: u64,
    /// Datagrams received since start.
    pub datagrams_received: u64,
    /// Calls since start that received datagrams; one call may bring many. 0 from a worker that
    /// does not count them.
    #[serde(default)]
    pub recv_calls: u64,
    /// Datagrams sent since start.
    pub datagrams_sent: u64,
    /// Send calls since start; one call may carry many datagrams.
    pub send_calls: u64,
    /// Datagrams since start that had to wait until the kernel had room for them.
    #[serde(default)]
    pub datagrams_delayed: u64,
    /// Datagrams dropped since start, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Routers alive.
    pub routers: usize,
    /// Transports alive.
    pub transports: usize,
    /// Producers alive.
    pub producers: usize,
    /// Consumers alive.
    pub consumers: usize,
}

/// UDP or TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// `worker.createRouter`.
///
/// The descriptors of `sockets` travel with the request, in the same order. Without sockets
/// the worker opens ports of its own per transport, as mediasoup v2 does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateRouter {
    /// Sockets shared by all WebRTC transports of the router.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<RouterSocket>,
    /// Whether one more descriptor comes behind the sockets': the router's flight recorder.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recorder: bool,
    /// The recorder was written by an earlier worker, whose router this one continues. The sockets
    /// are not read before `router.resume`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restore: bool,
}

/// A bound socket handed to a router: a UDP socket or a TCP listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterSocket {
    /// UDP socket or TCP listener.
    pub protocol: Protocol,
    /// Address the socket is bound to.
    pub ip: IpAddr,
    /// Port the socket is bound to.
    pub port: u16,
    /// Address or host name for ICE candidates instead of `ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_ip: Option<String>,
}

/// `router.createWebRtcTransport`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebRtcTransportOptions {
    /// Offer UDP candidates.
    pub udp: bool,
    /// Offer TCP candidates.
    pub tcp: bool,
    /// Raise the priority of IPv4 candidates.
    #[serde(rename = "preferIPv4")]
    pub prefer_ipv4: bool,
    /// Raise the priority of IPv6 candidates.
    #[serde(rename = "preferIPv6")]
    pub prefer_ipv6: bool,
    /// Raise the priority of UDP candidates.
    pub prefer_udp: bool,
    /// Raise the priority of TCP candidates.
    pub prefer_tcp: bool,
    /// Continue a transport of an earlier worker, with these ICE credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<IceParameters>,
}

impl Default for WebRtcTransportOptions {
    fn default() -> Self {
        Self {
            udp: true,
            tcp: true,
            prefer_ipv4: false,
            prefer_ipv6: false,
            prefer_udp: false,
            prefer_tcp: false,
            restore: None,
        }
    }
}

/// `router.createPlainRtpTransport`.
///
/// The descriptor of `socket` travels with the request; without one the worker opens a port of its
/// own, as mediasoup v2 does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainRtpTransportOptions {
    /// Where to send; may come later by `transport.setRemoteParameters`.
    #[serde(default, rename = "remoteIP", skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<String>,
    /// Where to send; needed with `remoteIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<u16>,
    /// Local address; absent: the router's. For whoever binds the socket.
    #[serde(default, rename = "localIP", skip_serializing_if = "Option::is_none")]
    pub local_ip: Option<String>,
    /// The UDP socket, bound by the controller, for RTP and RTCP both ways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<RouterSocket>,
    /// Prefer IPv4 when `remoteIP` is absent.
    #[serde(default, rename = "preferIPv4")]
    pub prefer_ipv4: bool,
    /// Prefer IPv6 when `remoteIP` is absent.
    #[serde(default, rename = "preferIPv6")]
    pub prefer_ipv6: bool,
}

/// `transport.setRemoteParameters` of a plain RTP transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteParameters {
    /// Remote address.
    pub ip: String,
    /// Remote port.
    pub port: u16,
}

/// `router.createProducer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateProducer {
    /// Audio or video.
    pub kind: MediaKind,
    /// What the producer sends.
    pub rtp_parameters: RtpParameters,
    /// How its numbers map to the room's.
    pub rtp_mapping: RtpMapping,
    /// Start paused.
    #[serde(default)]
    pub paused: bool,
}

/// `router.createConsumer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateConsumer {
    /// Must be the producer's.
    pub kind: MediaKind,
}

/// `consumer.enable`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnableConsumer {
    /// What the consumer is to be sent.
    pub rtp_parameters: RtpParameters,
}

/// `producer.setPreferredProfile` and `consumer.setPreferredProfile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPreferredProfile {
    /// The wanted layer.
    pub profile: Profile,
}

/// `consumer.setEncodingPreferences`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EncodingPreferences {
    /// Highest temporal layer to forward; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporal_layer: Option<u8>,
}

/// `router.setAudioLevelsEvent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAudioLevelsEvent {
    /// Whether to report audio levels every 500 ms.
    pub enabled: bool,
}

/// `transport.setMaxBitrate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetMaxBitrate {
    /// In bits per second; 0 removes the limit, 1…9999 count as 10000.
    pub bitrate: u32,
}

/// `transport.startMirroring`.
///
/// The descriptor of `socket` travels with the request; without one the worker opens a port of its
/// own, as mediasoup v2 does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartMirroring {
    /// Where the copies go.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// Where the copies go.
    pub remote_port: u16,
    /// Local address; absent: the router's.
    #[serde(default, rename = "localIP", skip_serializing_if = "Option::is_none")]
    pub local_ip: Option<String>,
    /// The UDP socket the copies leave through, bound by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<RouterSocket>,
    /// Copy RTP that is sent.
    #[serde(default = "yes")]
    pub send_rtp: bool,
    /// Copy RTCP that is sent.
    #[serde(default = "yes")]
    pub send_rtcp: bool,
    /// Copy RTP that is received.
    #[serde(default = "yes")]
    pub recv_rtp: bool,
    /// Copy RTCP that is received.
    #[serde(default = "yes")]
    pub recv_rtcp: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn yes() -> bool {
    true
}

/// A DTLS role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtlsRole {
    /// Not decided yet.
    #[default]
    Auto,
    /// Sends the ClientHello.
    Client,
    /// Waits for the ClientHello.
    Server,
}

/// The hash of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// `sha-1`, `sha-224`, `sha-256`, `sha-384` or `sha-512`.
    pub algorithm: String,
    /// Upper-case colon-separated hex.
    pub value: String,
}

impl Fingerprint {
    /// Whether the algorithm is one that certificates can be verified by.
    pub fn is_known(&self) -> bool {
        ["sha-1", "sha-224", "sha-256", "sha-384", "sha-512"].contains(&self.algorithm.as_str())
    }
}

/// DTLS parameters of either side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DtlsParameters {
    /// The side's role.
    #[serde(default)]
    pub role: DtlsRole,
    /// The side's certificate by several algorithms.
    pub fingerprints: Vec<Fingerprint>,
}

/// Answer of `transport.setRemoteDtlsParameters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDtlsRole {
    /// Our resulting role.
    pub role: DtlsRole,
}

/// Answer of `transport.changeUfragPwd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IceCredentials {
    /// 16 characters.
    pub username_fragment: String,
    /// 32 characters.
    pub password: String,
}

/// Our ICE credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IceParameters {
    /// 16 characters.
    pub username_fragment: String,
    /// 32 characters.
    pub password: String,
    /// Always true.
    #[serde(default = "yes")]
    pub ice_lite: bool,
}

/// A host candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IceCandidate {
    /// `udpcandidate` or `tcpcandidate`.
    pub foundation: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// RFC 8445 §5.1.2.
    pub priority: u32,
    /// The announced address if there is one.
    pub ip: String,
    /// Port.
    pub port: u16,
    /// Always `host`.
    #[serde(rename = "type")]
    pub kind: String,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// `passive` for TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_type: Option<String>,
}

/// The path in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportTuple {
    /// Bound address, never the announced one.
    #[serde(rename = "localIP")]
    pub local_ip: IpAddr,
    /// Bound port.
    pub local_port: u16,
    /// The peer's address.
    #[serde(rename = "remoteIP")]
    pub remote_ip: IpAddr,
    /// The peer's port.
    pub remote_port: u16,
    /// UDP or TCP.
    pub protocol: Protocol,
}

/// State of ICE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IceState {
    /// No valid check yet.
    #[default]
    New,
    /// A valid check was answered.
    Connected,
    /// The peer nominated a path.
    Completed,
    /// The selected path is gone.
    Disconnected,
    /// The transport is closed; only the controller says so.
    Closed,
}

/// State of DTLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtlsState {
    /// Not started.
    #[default]
    New,
    /// Handshake under way.
    Connecting,
    /// Handshake done, fingerprint verified, keys exported.
    Connected,
    /// Handshake failed.
    Failed,
    /// The peer closed.
    Closed,
}

/// Dump of a WebRTC transport, also the answer of its creation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebRtcTransportDump {
    /// Id.
    pub transport_id: TransportId,
    /// Always `controlled`.
    pub ice_role: String,
    /// Our credentials.
    pub ice_local_parameters: IceParameters,
    /// Our candidates.
    pub ice_local_candidates: Vec<IceCandidate>,
    /// The path in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ice_selected_tuple: Option<TransportTuple>,
    /// State of ICE.
    pub ice_state: IceState,
    /// Our DTLS parameters.
    pub dtls_local_parameters: DtlsParameters,
    /// State of DTLS.
    pub dtls_state: DtlsState,
    /// Known header extension ids by name.
    #[serde(default)]
    pub header_extension_ids: BTreeMap<String, u8>,
    /// How received packets find their producer.
    #[serde(default)]
    pub rtp_listener: RtpListenerDump,
}

/// Dump of a plain RTP transport, also the answer of its creation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainRtpTransportDump {
    /// Id.
    pub transport_id: TransportId,
    /// Bound address.
    #[serde(rename = "localIP")]
    pub local_ip: IpAddr,
    /// Bound port.
    pub local_port: u16,
    /// The path in use, once the remote address is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuple: Option<TransportTuple>,
    /// How received packets find their producer.
    #[serde(default)]
    pub rtp_listener: RtpListenerDump,
}

/// How received packets find their producer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpListenerDump {
    /// SSRC → producer.
    pub ssrc_table: BTreeMap<String, String>,
    /// MID → producer.
    pub mux_id_table: BTreeMap<String, String>,
    /// RID → producer.
    pub rid_table: BTreeMap<String, String>,
}

/// Dump of a router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterDump {
    /// Id.
    pub router_id: crate::RouterId,
    /// Transport dumps, WebRTC and plain.
    pub transports: Vec<serde_json::Value>,
    /// Producer dumps.
    pub producers: Vec<ProducerDump>,
    /// Consumer dumps.
    pub consumers: Vec<ConsumerDump>,
    /// Producer → its consumers.
    pub map_producer_consumers: BTreeMap<String, Vec<String>>,
    /// Consumer → its producer.
    pub map_consumer_producer: BTreeMap<String, String>,
    /// Whether audio levels are reported.
    pub audio_levels_event_enabled: bool,
}

/// Dump of a producer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerDump {
    /// Id.
    pub producer_id: ProducerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// What it sends.
    #[serde(serialize_with = "dump::serialize")]
    pub rtp_parameters: RtpParameters,
    /// Streams received so far.
    pub rtp_stream_infos: Vec<RtpStreamInfo>,
    /// Mean loss over the streams, in percent.
    pub loss_percentage: f64,
    /// Room header extension ids by name.
    pub header_extension_ids: BTreeMap<String, u8>,
    /// Whether paused.
    pub paused: bool,
}

/// A stream received for a producer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpStreamInfo {
    /// The stream.
    pub rtp_stream: RtpStreamDump,
    /// RID, or empty.
    pub rid: String,
    /// Layer.
    pub profile: Profile,
    /// RTX SSRC, 0 for none.
    pub rtx_ssrc: u32,
    /// Whether it sent anything in the last second.
    pub active: bool,
}

/// A stream's parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtpStreamDump {
    /// Parameters.
    pub params: RtpStreamParams,
}

/// A stream's parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpStreamParams {
    /// SSRC.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// Codec.
    pub mime_type: String,
    /// In Hz.
    pub clock_rate: u32,
    /// Whether lost packets are asked for again.
    pub use_nack: bool,
    /// Whether key frames can be asked for by PLI.
    pub use_pli: bool,
}

/// Dump of a consumer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerDump {
    /// Id.
    pub consumer_id: ConsumerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// What feeds it.
    pub source_producer_id: ProducerId,
    /// What it is sent, once enabled.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "dump::serialize_some"
    )]
    pub rtp_parameters: Option<RtpParameters>,
    /// The outgoing stream, once enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_stream: Option<RtpStreamDump>,
    /// Loss in percent, as its receiver reports, beyond what its source lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_percentage: Option<f64>,
    /// Whether paused.
    pub paused: bool,
    /// Whether its producer is paused.
    pub source_paused: bool,
    /// The wanted layer, combined with the producer's.
    pub preferred_profile: Profile,
    /// The layer being forwarded.
    pub effective_profile: Profile,
}

/// Stats of a WebRTC transport.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportStats {
    /// Always `transport`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Monotonic milliseconds of the worker's host.
    pub timestamp: u64,
    /// Id.
    pub id: TransportId,
    /// Bytes received on the selected path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_received: Option<u64>,
    /// Bytes sent on the selected path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_sent: Option<u64>,
    /// The path in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ice_selected_tuple: Option<TransportTuple>,
    /// State of DTLS.
    pub dtls_state: DtlsState,
    /// State of ICE.
    pub ice_connection_state: IceState,
    /// The last REMB sent to the client.
    pub local_available_send_bw: SendBandwidth,
    /// The last REMB received from the client.
    pub remote_available_send_bw: SendBandwidth,
}

/// A bandwidth estimate as carried by REMB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SendBandwidth {
    /// The limit set by `setMaxBitrate`, 0 for none; absent in what was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bitrate: Option<u32>,
    /// In bits per second.
    pub bitrate: u64,
    /// SSRCs it covers.
    pub ssrcs: Vec<u32>,
}

/// Stats of one RTP stream of a producer (`inbound-rtp`) or consumer (`outbound-rtp`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpStreamStats {
    /// Stable name of the stream.
    pub id: String,
    /// `inbound-rtp` or `outbound-rtp`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Monotonic milliseconds of the worker's host.
    pub timestamp: u64,
    /// SSRC.
    pub ssrc: u32,
    /// `audio` or `video`.
    pub media_type: MediaKind,
    /// The same as `mediaType`.
    #[serde(rename = "kind")]
    pub media_kind: MediaKind,
    /// Codec.
    pub mime_type: String,
    /// RTP packets.
    pub packet_count: u64,
    /// Bytes of whole RTP packets.
    pub byte_count: u64,
    /// In bits per second over the last second.
    pub bitrate: u64,
    /// Packets lost.
    pub packets_lost: u64,
    /// Loss of the last interval in 1/256.
    pub fraction_lost: u8,
    /// Packets that could not belong to the stream.
    pub packets_discarded: u64,
    /// Packets recovered by, or resent for, a NACK.
    pub packets_repaired: u64,
    /// FIRs sent (inbound) or received (outbound).
    pub fir_count: u64,
    /// PLIs sent (inbound) or received (outbound).
    pub pli_count: u64,
    /// NACK packets sent (inbound) or received (outbound).
    pub nack_count: u64,
    /// Always 0.
    pub sli_count: u64,
    /// RFC 3550 interarrival jitter in timestamp units; inbound only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<u32>,
    /// In milliseconds; outbound only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_time: Option<f64>,
    /// The transport of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_id: Option<TransportId>,
    /// The stream that is being forwarded; outbound only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound_rtp_id: Option<String>,
}

/// Dump of a whole worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerDump {
    /// The id given on the command line.
    pub worker_id: String,
    /// Router dumps.
    pub routers: Vec<RouterDump>,
}
