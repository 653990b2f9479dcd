//! The AEAD_AES_128_GCM and AEAD_AES_256_GCM transforms (RFC 7714).

use super::aead::{AeadKey, NONCE_LEN, TAG_LEN};
use super::kdf::{Label, derive};
use super::{RTCP_E_FLAG, RTCP_HEADER_LEN, RTCP_TRAILER_LEN, SrtpError, read_u32};

const SALT_LEN: usize = NONCE_LEN;

pub(super) struct GcmKey {
    rtp: Session,
    rtcp: Session,
}

struct Session {
    key: AeadKey,
    salt: [u8; SALT_LEN],
}

impl GcmKey {
    /// Derives both sessions; the key length chooses AES-128 or AES-256.
    pub(super) fn new(key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        Ok(Self {
            rtp: Session::derive(key, salt, Label::RtpEncryption, Label::RtpSalt)?,
            rtcp: Session::derive(key, salt, Label::RtcpEncryption, Label::RtcpSalt)?,
        })
    }

    /// Seals a packet whose last 16 bytes are room for the tag; before it there is room for `rest`.
    #[inline(never)]
    pub(super) fn seal_rtp(
        &self,
        roc: u32,
        packet: &mut [u8],
        header_len: usize,
        rest: &[u8],
    ) -> Result<(), SrtpError> {
        let nonce = self.rtp.rtp_nonce(roc, packet);
        let (header, body) = packet.split_at_mut(header_len);
        self.rtp.key.seal(nonce, header, body, rest)
    }

    #[inline(never)]
    pub(super) fn open_rtp(
        &self,
        roc: u32,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<(), SrtpError> {
        let nonce = self.rtp.rtp_nonce(roc, packet);
        let (header, body) = packet.split_at_mut(header_len);
        self.rtp.key.open(nonce, header, body)
    }

    pub(super) fn seal_rtcp(&self, index: u32, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let trailer = RTCP_E_FLAG | index;
        let nonce = self.rtcp.rtcp_nonce(index, packet);
        let aad = rtcp_aad(packet, trailer);
        packet.extend_from_slice(&[0; TAG_LEN]);
        let body = &mut packet[RTCP_HEADER_LEN..];
        self.rtcp.key.seal(nonce, &aad, body, &[])?;
        packet.extend_from_slice(&trailer.to_be_bytes());
        Ok(())
    }

    /// Opens a packet that is still followed by `trailer`.
    pub(super) fn open_rtcp(&self, trailer: u32, packet: &mut [u8]) -> Result<(), SrtpError> {
        let nonce = self.rtcp.rtcp_nonce(trailer & !RTCP_E_FLAG, packet);
        let aad = rtcp_aad(packet, trailer);
        let end = packet.len() - RTCP_TRAILER_LEN;
        let body = &mut packet[RTCP_HEADER_LEN..end];
        self.rtcp.key.open(nonce, &aad, body)
    }
}

impl Session {
    fn derive(key: &[u8], salt: &[u8], enc: Label, salting: Label) -> Result<Self, SrtpError> {
        let mut session_key = [0; 32];
        let session_key = &mut session_key[..key.len().min(32)];
        derive(key, salt, enc, session_key)?;
        let mut session_salt = [0; SALT_LEN];
        derive(key, salt, salting, &mut session_salt)?;
        Self::new(session_key, session_salt)
    }

    fn new(key: &[u8], salt: [u8; SALT_LEN]) -> Result<Self, SrtpError> {
        let key = AeadKey::new(key)?;
        Ok(Self { key, salt })
    }

    /// `00 00 | SSRC | ROC | SEQ`, xor salt (RFC 7714 §8.1).
    fn rtp_nonce(&self, roc: u32, packet: &[u8]) -> [u8; NONCE_LEN] {
        let mut iv = self.salt;
        xor(&mut iv[2..6], &packet[8..12]);
        xor(&mut iv[6..10], &roc.to_be_bytes());
        xor(&mut iv[10..12], &packet[2..4]);
        iv
    }

    /// `00 00 | SSRC | 00 00 | 0 + SRTCP index`, xor salt (RFC 7714 §9.1).
    fn rtcp_nonce(&self, index: u32, packet: &[u8]) -> [u8; NONCE_LEN] {
        let mut iv = self.salt;
        xor(&mut iv[2..6], &packet[4..8]);
        xor(&mut iv[8..12], &index.to_be_bytes());
        iv
    }
}

/// First two words and the trailer (RFC 7714 §9.2).
fn rtcp_aad(packet: &[u8], trailer: u32) -> [u8; RTCP_HEADER_LEN + RTCP_TRAILER_LEN] {
    let mut aad = [0; RTCP_HEADER_LEN + RTCP_TRAILER_LEN];
    aad[..4].copy_from_slice(&read_u32(packet, 0).to_be_bytes());
    aad[4..8].copy_from_slice(&read_u32(packet, 4).to_be_bytes());
    aad[8..].copy_from_slice(&trailer.to_be_bytes());
    aad
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (byte, other) in into.iter_mut().zip(with) {
        *byte ^= other;
    }
}

#[cfg(test)]
impl GcmKey {
    /// Takes session keys as they are, as the vectors of RFC 7714 §16 do.
    pub(super) fn from_session(key: &[u8], salt: [u8; SALT_LEN]) -> Self {
        Self {
            rtp: Session::new(key, salt).unwrap(),
            rtcp: Session::new(key, salt).unwrap(),
        }
    }
}
