//! SRTP and SRTCP (RFC 3711, RFC 7714): keys in, packets sealed or opened in
//! place.
//!
//! Owns the ciphers alone. The packet index never lives in here when sealing:
//! the caller counts, so that a flight recorder can hold the count and a
//! successor can go on without ever using an index twice. Receiving state
//! ([`RecvIndex`], [`RtcpReplay`]) is plain `Copy` data for the same reason.
//! No allocation per RTP packet but the first of an SSRC. Ciphers are never inlined into what
//! calls them: `scripts/ratchet` counts instructions without theirs, which differ among CPUs.

mod aead;
mod cm;
mod gcm;
mod inbound;
mod kdf;
mod replay;
#[cfg(test)]
mod tests;

pub use inbound::{SSRCS_MAX, SrtpInbound};
pub use replay::{RecvIndex, RtcpReplay};

use cm::CmKey;
use gcm::GcmKey;

/// Length of the fixed RTP header, the least a packet can have.
const RTP_HEADER_LEN: usize = 12;
/// What SRTCP leaves in the clear: first word and sender SSRC.
const RTCP_HEADER_LEN: usize = 8;
/// E flag and SRTCP index, behind the packet.
const RTCP_TRAILER_LEN: usize = 4;
const RTCP_E_FLAG: u32 = 1 << 31;
/// SRTCP indices have 31 bits (RFC 3711 §3.4).
pub const RTCP_INDEX_MAX: u32 = RTCP_E_FLAG - 1;
/// The longest tag of all profiles: room to leave behind a packet to be sealed.
pub const TAG_LEN_MAX: usize = 16;

/// A protection profile, as negotiated by `use_srtp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// AEAD_AES_128_GCM (RFC 7714).
    AeadAes128Gcm,
    /// AEAD_AES_256_GCM (RFC 7714).
    AeadAes256Gcm,
    /// AES128_CM_HMAC_SHA1_80 (RFC 3711).
    Aes128CmSha1_80,
    /// AES128_CM_HMAC_SHA1_32 (RFC 3711); its SRTCP tag still has 80 bits.
    Aes128CmSha1_32,
}

impl Profile {
    /// All profiles, the preferred ones first.
    pub const ALL: [Self; 4] = [
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::Aes128CmSha1_80,
        Self::Aes128CmSha1_32,
    ];

    /// The name OpenSSL gives to the profile.
    pub fn openssl_name(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
            Self::Aes128CmSha1_80 => "SRTP_AES128_CM_SHA1_80",
            Self::Aes128CmSha1_32 => "SRTP_AES128_CM_SHA1_32",
        }
    }

    /// Finds a profile by the name OpenSSL gives to it.
    pub fn from_openssl_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.openssl_name() == name)
    }

    /// Length of the master key.
    pub fn key_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Length of the master salt.
    pub fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
            Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 14,
        }
    }

    /// Bytes an RTP packet grows by.
    pub fn rtp_tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::Aes128CmSha1_80 => 10,
            Self::Aes128CmSha1_32 => 4,
        }
    }

    /// Length of the tag of an RTCP packet, which also grows by the index word.
    pub fn rtcp_tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 10,
        }
    }
}

/// Why a packet could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// The index was received before.
    #[error("replayed packet")]
    Replayed,
    /// The index lies behind the replay window.
    #[error("packet behind the replay window")]
    TooOld,
    /// The tag does not match: forged, damaged, or sealed with other keys.
    #[error("authentication failed")]
    AuthFailed,
    /// The packet, or the room for its tag, is shorter than it must be.
    #[error("packet too short")]
    TooShort,
    /// The SRTCP packet says it is not encrypted, which we never negotiated.
    #[error("SRTCP packet not encrypted")]
    NotEncrypted,
    /// The peer uses more SSRCs than [`SSRCS_MAX`].
    #[error("too many SSRCs")]
    TooManySsrcs,
    /// Master key or salt have not the length of the profile.
    #[error("wrong key length")]
    WrongKeyLength,
    /// All indices of this key are used: it must not seal another packet.
    #[error("key exhausted")]
    KeyExhausted,
}

/// The session keys of one direction; boxed, as either set takes over a kilobyte.
enum Cipher {
    Gcm(Box<GcmKey>),
    Cm(Box<CmKey>),
}

impl Cipher {
    fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(SrtpError::WrongKeyLength);
        }
        Ok(match profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                Self::Gcm(Box::new(GcmKey::new(key, salt)?))
            }
            Profile::Aes128CmSha1_80 | Profile::Aes128CmSha1_32 => {
                Self::Cm(Box::new(CmKey::new(key, salt, profile.rtp_tag_len())?))
            }
        })
    }
}

/// Seals packets we send.
pub struct SealKey {
    profile: Profile,
    cipher: Cipher,
}

impl SealKey {
    /// Derives the session keys from master key and salt.
    ///
    /// # Errors
    /// The lengths are not those of the profile.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        Ok(Self {
            profile,
            cipher: Cipher::new(profile, key, salt)?,
        })
    }

    /// The profile the key was made for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Seals `packet[..len]` in place and returns the new length.
    ///
    /// `header_len` counts everything before the payload: fixed header, CSRCs
    /// and extension block. Behind `len` there must be room for the tag. The
    /// caller counts the index (`roc << 16 | seq`) and must never pass two
    /// different packets with the same one.
    ///
    /// # Errors
    /// [`SrtpError::TooShort`] only.
    pub fn protect_rtp(
        &self,
        roc: u32,
        packet: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize, SrtpError> {
        self.protect_rtp_with(roc, packet, header_len, len, &[])
    }

    /// As [`protect_rtp`](Self::protect_rtp), with the end of the payload, `rest`, still lying
    /// somewhere else: it is not copied before it is sealed, where the library can do without.
    ///
    /// # Errors
    /// As there.
    pub fn protect_rtp_with(
        &self,
        roc: u32,
        packet: &mut [u8],
        header_len: usize,
        len: usize,
        rest: &[u8],
    ) -> Result<usize, SrtpError> {
        let plain_len = len.saturating_add(rest.len());
        let sealed_len = plain_len.saturating_add(self.profile.rtp_tag_len());
        if header_len < RTP_HEADER_LEN || len < header_len || packet.len() < sealed_len {
            return Err(SrtpError::TooShort);
        }
        let packet = &mut packet[..sealed_len];
        match &self.cipher {
            Cipher::Gcm(key) => key.seal_rtp(roc, packet, header_len, rest)?,
            Cipher::Cm(key) => {
                packet[len..plain_len].copy_from_slice(rest);
                key.seal_rtp(roc, packet, header_len);
            }
        }
        Ok(sealed_len)
    }

    /// Seals a compound RTCP packet; `index` counts the packets of the sender SSRC.
    ///
    /// # Errors
    /// [`SrtpError::TooShort`], or [`SrtpError::KeyExhausted`] above [`RTCP_INDEX_MAX`].
    pub fn protect_rtcp(&self, index: u32, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        if packet.len() < RTCP_HEADER_LEN {
            return Err(SrtpError::TooShort);
        }
        if index > RTCP_INDEX_MAX {
            return Err(SrtpError::KeyExhausted);
        }
        match &self.cipher {
            Cipher::Gcm(key) => key.seal_rtcp(index, packet),
            Cipher::Cm(key) => {
                key.seal_rtcp(index, packet);
                Ok(())
            }
        }
    }
}

/// Opens packets we receive.
pub struct OpenKey {
    profile: Profile,
    cipher: Cipher,
}

impl OpenKey {
    /// Derives the session keys from master key and salt.
    ///
    /// # Errors
    /// The lengths are not those of the profile.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        Ok(Self {
            profile,
            cipher: Cipher::new(profile, key, salt)?,
        })
    }

    /// The profile the key was made for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Opens an RTP packet in place and returns its length without the tag.
    ///
    /// The replay check comes before any cryptography; `recv_index` changes
    /// only once the packet proved authentic. After an error the payload bytes
    /// are unspecified. The first packet of a stream is tried with the rollover
    /// counts 0 and 1.
    ///
    /// # Errors
    /// [`SrtpError::Replayed`], [`SrtpError::TooOld`], [`SrtpError::AuthFailed`],
    /// [`SrtpError::TooShort`], [`SrtpError::KeyExhausted`] after the last index.
    pub fn unprotect_rtp(
        &self,
        recv_index: &mut RecvIndex,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<usize, SrtpError> {
        let plain_len = packet
            .len()
            .checked_sub(self.profile.rtp_tag_len())
            .filter(|&len| header_len >= RTP_HEADER_LEN && len >= header_len)
            .ok_or(SrtpError::TooShort)?;
        let seq = u16::from_be_bytes([packet[2], packet[3]]);
        let index = recv_index.guess(seq);
        recv_index.check(index)?;
        let index = if recv_index.highest().is_some() {
            self.open_rtp(index, packet, header_len)?;
            index
        } else {
            self.open_first(index, packet, header_len)?
        };
        recv_index.record(index);
        Ok(plain_len)
    }

    /// Opens the first packet of a stream, whose numbers may have rolled over once before it:
    /// those up to there were lost, or a worker died with what it knew of them. Returns the index.
    fn open_first(
        &self,
        index: u64,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<u64, SrtpError> {
        // Opening in vain spoils the payload.
        let payload = packet[header_len..].to_vec();
        if self.open_rtp(index, packet, header_len).is_ok() {
            return Ok(index);
        }
        packet[header_len..].copy_from_slice(&payload);
        let index = index + (1 << 16);
        self.open_rtp(index, packet, header_len)?;
        Ok(index)
    }

    fn open_rtp(&self, index: u64, packet: &mut [u8], header_len: usize) -> Result<(), SrtpError> {
        let roc = (index >> 16) as u32;
        match &self.cipher {
            Cipher::Gcm(key) => key.open_rtp(roc, packet, header_len),
            Cipher::Cm(key) => key.open_rtp(roc, packet, header_len),
        }
    }

    /// Opens a compound RTCP packet in place and returns its length without
    /// index and tag.
    ///
    /// # Errors
    /// As [`unprotect_rtp`](Self::unprotect_rtp), or [`SrtpError::NotEncrypted`].
    pub fn unprotect_rtcp(
        &self,
        replay: &mut RtcpReplay,
        packet: &mut [u8],
    ) -> Result<usize, SrtpError> {
        let tag_len = self.profile.rtcp_tag_len();
        let plain_len = packet
            .len()
            .checked_sub(tag_len + RTCP_TRAILER_LEN)
            .filter(|&len| len >= RTCP_HEADER_LEN)
            .ok_or(SrtpError::TooShort)?;
        // The index word stands behind the AEAD tag but before the HMAC tag.
        let trailer_at = match &self.cipher {
            Cipher::Gcm(_) => plain_len + tag_len,
            Cipher::Cm(_) => plain_len,
        };
        let trailer = read_u32(packet, trailer_at);
        if trailer & RTCP_E_FLAG == 0 {
            return Err(SrtpError::NotEncrypted);
        }
        let index = u64::from(trailer & RTCP_INDEX_MAX);
        replay.check(index)?;
        match &self.cipher {
            Cipher::Gcm(key) => key.open_rtcp(trailer, packet)?,
            Cipher::Cm(key) => key.open_rtcp(trailer, packet)?,
        }
        replay.record(index);
        Ok(plain_len)
    }
}

/// Reads a word at an offset the caller has checked.
fn read_u32(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}
