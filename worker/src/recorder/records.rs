//! What the records say, each as words.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use broth_ipc::body::{DtlsRole, IceState};
use broth_ipc::{ConsumerId, ProducerId, TransportId};

use super::entry::{COUNTER_BITS, Entry, Kind};
use crate::dtls::SrtpKeys;
use crate::srtp::Profile;

/// Counter of a transport: the next SRTCP index to seal under.
pub const SRTCP_INDEX: usize = 0;
/// Counter of a transport: consumers that may have sent under its keys. It is not resumed if
/// fewer of them are found.
pub const SENDERS: usize = 1;
/// Counter of a transport: transport-wide feedback packets sent.
pub const TWCC_COUNT: usize = 2;
/// Counter of a transport: bytes received on it.
pub const BYTES_RECEIVED: usize = 3;
/// Counter of a transport: bytes sent on it.
pub const BYTES_SENT: usize = 4;
/// Counter of a transport over TCP: where in the stream of what is sent the frame in hand ends.
pub const FRAME_END: usize = 5;
/// Counter of a transport over TCP: bytes of that frame.
pub const FRAME_LEN: usize = 6;
/// Counter of what was received: the highest index or number. Of a consumer: one more than the
/// highest index that was sealed under; 0 before the first.
pub const HIGHEST: usize = 0;
/// Counter of a stream: packets that are missing and may still come.
pub const MISSING: usize = 1;
/// Counter of a consumer: the last number of its RTX stream.
pub const RTX_SEQ: usize = 1;
/// Counter of a consumer: the newest timestamp.
pub const NEWEST_TS: usize = 2;
/// Counter of a consumer: the newest picture id and TL0PICIDX.
pub const NEWEST_PICTURE: usize = 3;

/// Counter of a stream or consumer, for its statistics: packets.
pub const PACKETS: usize = 4;
/// Counter of a stream or consumer, for its statistics: bytes of them.
pub const BYTES: usize = 5;
/// Counter of a consumer, for its reports: bytes of payload.
pub const PAYLOAD_BYTES: usize = 6;
/// Counter of a stream or consumer, for its statistics: packets repeated.
pub const REPAIRED: usize = 8;
/// Counter of a stream or consumer, for its statistics: NACKs.
pub const NACKS: usize = 9;
/// Counter of a stream or consumer, for its statistics: PLIs.
pub const PLIS: usize = 10;
/// Counter of a stream or consumer, for its statistics: FIRs.
pub const FIRS: usize = 11;
/// Counter of a consumer, for its statistics: packets lost, as its receiver says.
pub const LOST: usize = 12;
/// Counter of a stream, for its statistics: packets discarded.
pub const DISCARDED: usize = 12;

/// Something that is recorded.
pub trait Record: Sized {
    /// What names the object.
    type Id;
    /// What it is about.
    const KIND: Kind;
    /// The id as it is recorded.
    fn id_word(id: Self::Id) -> u32;
    /// Writes it, replacing what its record said before.
    fn write(&self, entry: &mut Entry);
    /// Reads it; `None` if that cannot have been written.
    fn read(words: &[u64]) -> Option<Self>;
}

/// A transport that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportRecord {
    /// State of ICE.
    pub ice_state: IceState,
    /// Address of our socket.
    pub local: SocketAddr,
    /// Address of the peer.
    pub remote: SocketAddr,
    /// Whether the path is a TCP connection.
    pub is_tcp: bool,
    /// Our DTLS role.
    pub role: DtlsRole,
    /// Master keys and salts.
    pub keys: SrtpKeys,
}

/// What a transport received from an SSRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundRecord {
    /// SSRC.
    pub ssrc: u32,
    /// Whether SRTCP or SRTP.
    pub is_rtcp: bool,
}

/// A stream of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    /// SSRC.
    pub ssrc: u32,
    /// Its place among the producer's streams.
    pub index: u8,
    /// Its encoding among the producer's.
    pub encoding: u8,
    /// The last FIR.
    pub fir_seq: u8,
    /// The number that counting began with.
    pub base_seq: u64,
    /// Packets expected before that.
    pub expected_before_base: u64,
}

/// What a consumer needs to go on numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Its transport.
    pub transport: TransportId,
    /// SSRC.
    pub ssrc: u32,
    /// RTX SSRC.
    pub rtx_ssrc: Option<u32>,
    /// Index of the stream that it forwards.
    pub current: Option<u8>,
    /// What is added to a source number.
    pub seq_offset: i64,
    /// The number before the source's next, when this was written.
    pub reached: u64,
    /// What is added to a timestamp.
    pub ts_offset: u32,
    /// What is added to a picture id.
    pub picture_offset: u16,
    /// What is added to a TL0PICIDX.
    pub tl0_offset: u8,
}

impl Record for TransportRecord {
    type Id = TransportId;
    const KIND: Kind = Kind::Transport;

    fn id_word(id: TransportId) -> u32 {
        id.0
    }

    fn write(&self, entry: &mut Entry) {
        let keys = &self.keys;
        let profile = Profile::ALL.iter().position(|p| *p == keys.profile);
        let state = match self.ice_state {
            IceState::New | IceState::Closed => 0,
            IceState::Connected => 1,
            IceState::Completed => 2,
            IceState::Disconnected => 3,
        };
        let (is_local_v6, local) = ip_words(self.local.ip());
        let (is_remote_v6, remote) = ip_words(self.remote.ip());
        let flags = u64::from(state > 0)
            | state << 1
            | u64::from(self.is_tcp) << 3
            | u64::from(is_local_v6) << 4
            | u64::from(is_remote_v6) << 5
            | u64::from(self.role == DtlsRole::Client) << 6
            | (profile.unwrap_or(0) as u64) << 8
            | u64::from(self.local.port()) << 16
            | u64::from(self.remote.port()) << 32;
        let mut words = [0; 17];
        words[0] = flags;
        words[1..3].copy_from_slice(&local);
        words[3..5].copy_from_slice(&remote);
        put_bytes(&mut words[5..9], &keys.local_key);
        put_bytes(&mut words[9..13], &keys.remote_key);
        put_bytes(&mut words[13..15], &keys.local_salt);
        put_bytes(&mut words[15..17], &keys.remote_salt);
        entry.write(&words);
    }

    fn read(words: &[u64]) -> Option<Self> {
        let flags = words[0];
        let profile = *Profile::ALL.get((flags >> 8) as usize & 0xFF)?;
        let bytes = |words: &[u64], len| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes[..len].to_vec()
        };
        let (key_len, salt_len) = (profile.key_len(), profile.salt_len());
        Some(Self {
            ice_state: match flags >> 1 & 3 {
                1 => IceState::Connected,
                2 => IceState::Completed,
                3 => IceState::Disconnected,
                _ => return None,
            },
            local: SocketAddr::new(ip(flags >> 4, &words[1..3]), (flags >> 16) as u16),
            remote: SocketAddr::new(ip(flags >> 5, &words[3..5]), (flags >> 32) as u16),
            is_tcp: flags >> 3 & 1 == 1,
            role: if flags >> 6 & 1 == 1 {
                DtlsRole::Client
            } else {
                DtlsRole::Server
            },
            keys: SrtpKeys {
                profile,
                local_key: bytes(&words[5..9], key_len),
                remote_key: bytes(&words[9..13], key_len),
                local_salt: bytes(&words[13..15], salt_len),
                remote_salt: bytes(&words[15..17], salt_len),
            },
        })
    }
}

impl Record for InboundRecord {
    type Id = TransportId;
    const KIND: Kind = Kind::Inbound;

    fn id_word(id: TransportId) -> u32 {
        id.0
    }

    fn write(&self, entry: &mut Entry) {
        entry.write(&[u64::from(self.ssrc) | u64::from(self.is_rtcp) << 32]);
    }

    fn read(words: &[u64]) -> Option<Self> {
        Some(Self {
            ssrc: words[0] as u32,
            is_rtcp: words[0] >> 32 & 1 == 1,
        })
    }
}

impl Record for StreamRecord {
    type Id = ProducerId;
    const KIND: Kind = Kind::Stream;

    fn id_word(id: ProducerId) -> u32 {
        id.0
    }

    fn write(&self, entry: &mut Entry) {
        let small = [self.index, self.encoding, self.fir_seq, 0].map(u32::from);
        let [index, encoding, fir_seq, _] = small.map(u64::from);
        let first = u64::from(self.ssrc) | index << 32 | encoding << 40 | fir_seq << 48;
        entry.write(&[first, self.base_seq, self.expected_before_base]);
    }

    fn read(words: &[u64]) -> Option<Self> {
        let [ssrc @ .., index, encoding, fir_seq, _] = words[0].to_le_bytes();
        let is_counted = |word: u64| word < 1 << COUNTER_BITS;
        (is_counted(words[1]) && is_counted(words[2])).then_some(Self {
            ssrc: u32::from_le_bytes(ssrc),
            index,
            encoding,
            fir_seq,
            base_seq: words[1],
            expected_before_base: words[2],
        })
    }
}

impl Record for ConsumerRecord {
    type Id = ConsumerId;
    const KIND: Kind = Kind::Consumer;

    fn id_word(id: ConsumerId) -> u32 {
        id.0
    }

    fn write(&self, entry: &mut Entry) {
        let current = self
            .current
            .map_or(0, |current| 1 << 8 | u64::from(current));
        let has_rtx = u64::from(self.rtx_ssrc.is_some());
        entry.write(&[
            u64::from(self.transport.0) | u64::from(self.ssrc) << 32,
            u64::from(self.rtx_ssrc.unwrap_or(0)) | has_rtx << 32 | current << 40,
            self.seq_offset.cast_unsigned(),
            u64::from(self.ts_offset)
                | u64::from(self.picture_offset) << 32
                | u64::from(self.tl0_offset) << 48,
            self.reached,
        ]);
    }

    fn read(words: &[u64]) -> Option<Self> {
        (words[4] < 1 << COUNTER_BITS).then_some(Self {
            transport: TransportId(words[0] as u32),
            ssrc: (words[0] >> 32) as u32,
            rtx_ssrc: (words[1] >> 32 & 1 == 1).then_some(words[1] as u32),
            current: (words[1] >> 48 & 1 == 1).then_some((words[1] >> 40) as u8),
            seq_offset: words[2].cast_signed(),
            reached: words[4],
            ts_offset: words[3] as u32,
            picture_offset: (words[3] >> 32) as u16,
            tl0_offset: (words[3] >> 48) as u8,
        })
    }
}

/// Whether it is an IPv6 address, and its bytes.
fn ip_words(ip: IpAddr) -> (bool, [u64; 2]) {
    let (is_v6, bits) = match ip {
        IpAddr::V4(v4) => (false, v4.to_ipv6_mapped().to_bits()),
        IpAddr::V6(v6) => (true, v6.to_bits()),
    };
    (is_v6, [(bits >> 64) as u64, bits as u64])
}

fn ip(flags: u64, words: &[u64]) -> IpAddr {
    let v6 = Ipv6Addr::from_bits(u128::from(words[0]) << 64 | u128::from(words[1]));
    match v6.to_ipv4_mapped() {
        Some(v4) if flags & 1 == 0 => v4.into(),
        _ => v6.into(),
    }
}

/// Writes bytes into zeroed words.
fn put_bytes(words: &mut [u64], bytes: &[u8]) {
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
}
