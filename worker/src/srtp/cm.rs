//! The AES-CM with HMAC-SHA1 transforms (RFC 3711 §4.1.1, §4.2.1).

use aes::Aes128Enc;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher};
use ctr::cipher::StreamCipherCoreWrapper;
use ctr::{CtrCore, flavors};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::kdf::{Label, derive};
use super::{RTCP_E_FLAG, RTCP_HEADER_LEN, RTCP_TRAILER_LEN, SrtpError, read_u32};

const SALT_LEN: usize = 14;
const AUTH_KEY_LEN: usize = 20;
const RTCP_TAG_LEN: usize = 10;

pub(super) struct CmKey {
    rtp: Session,
    rtcp: Session,
    rtp_tag_len: usize,
}

struct Session {
    cipher: Aes128Enc,
    /// Already keyed: cloned per packet, which spares two hash blocks.
    mac: Hmac<Sha1>,
    salt: [u8; SALT_LEN],
}

impl CmKey {
    pub(super) fn new(key: &[u8], salt: &[u8], rtp_tag_len: usize) -> Result<Self, SrtpError> {
        Ok(Self {
            rtp: Session::derive(
                key,
                salt,
                [Label::RtpEncryption, Label::RtpAuth, Label::RtpSalt],
            )?,
            rtcp: Session::derive(
                key,
                salt,
                [Label::RtcpEncryption, Label::RtcpAuth, Label::RtcpSalt],
            )?,
            rtp_tag_len,
        })
    }

    /// Seals a packet whose last bytes are room for the tag.
    #[inline(never)]
    pub(super) fn seal_rtp(&self, roc: u32, packet: &mut [u8], header_len: usize) {
        let plain_len = packet.len() - self.rtp_tag_len;
        let (packet, room) = packet.split_at_mut(plain_len);
        self.rtp
            .apply_keystream(rtp_ssrc(packet), rtp_index(roc, packet), packet, header_len);
        let tag = self.rtp.tag(packet, roc).finalize().into_bytes();
        room.copy_from_slice(&tag[..room.len()]);
    }

    #[inline(never)]
    pub(super) fn open_rtp(
        &self,
        roc: u32,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<(), SrtpError> {
        let plain_len = packet.len() - self.rtp_tag_len;
        let (packet, tag) = packet.split_at_mut(plain_len);
        self.rtp
            .tag(packet, roc)
            .verify_truncated_left(tag)
            .map_err(|_| SrtpError::AuthFailed)?;
        self.rtp
            .apply_keystream(rtp_ssrc(packet), rtp_index(roc, packet), packet, header_len);
        Ok(())
    }

    pub(super) fn seal_rtcp(&self, index: u32, packet: &mut Vec<u8>) {
        let trailer = RTCP_E_FLAG | index;
        let ssrc = read_u32(packet, 4);
        self.rtcp
            .apply_keystream(ssrc, u64::from(index), packet, RTCP_HEADER_LEN);
        let tag = self.rtcp.tag(packet, trailer).finalize().into_bytes();
        packet.extend_from_slice(&trailer.to_be_bytes());
        packet.extend_from_slice(&tag[..RTCP_TAG_LEN]);
    }

    /// Opens a packet that is still followed by `trailer` and tag.
    pub(super) fn open_rtcp(&self, trailer: u32, packet: &mut [u8]) -> Result<(), SrtpError> {
        let tag_at = packet.len() - RTCP_TAG_LEN;
        let (packet, tag) = packet.split_at_mut(tag_at);
        let packet = &mut packet[..tag_at - RTCP_TRAILER_LEN];
        self.rtcp
            .tag(packet, trailer)
            .verify_truncated_left(tag)
            .map_err(|_| SrtpError::AuthFailed)?;
        let index = u64::from(trailer & !RTCP_E_FLAG);
        let ssrc = read_u32(packet, 4);
        self.rtcp
            .apply_keystream(ssrc, index, packet, RTCP_HEADER_LEN);
        Ok(())
    }
}

impl Session {
    fn derive(key: &[u8], salt: &[u8], labels: [Label; 3]) -> Result<Self, SrtpError> {
        let [enc, auth, salting] = labels;
        let mut session_key = [0; 16];
        derive(key, salt, enc, &mut session_key)?;
        let mut auth_key = [0; AUTH_KEY_LEN];
        derive(key, salt, auth, &mut auth_key)?;
        let mut session_salt = [0; SALT_LEN];
        derive(key, salt, salting, &mut session_salt)?;
        Ok(Self {
            cipher: Aes128Enc::new(&session_key.into()),
            mac: <Hmac<Sha1> as Mac>::new_from_slice(&auth_key)
                .map_err(|_| SrtpError::WrongKeyLength)?,
            salt: session_salt,
        })
    }

    /// `(salt * 2^16) xor (SSRC * 2^64) xor (index * 2^16)` (RFC 3711 §4.1.1).
    fn apply_keystream(&self, ssrc: u32, index: u64, packet: &mut [u8], from: usize) {
        let mut iv = [0; 16];
        iv[..SALT_LEN].copy_from_slice(&self.salt);
        for (byte, other) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *byte ^= other;
        }
        for (byte, other) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *byte ^= other;
        }
        let core = CtrCore::<_, flavors::Ctr128BE>::inner_iv_init(&self.cipher, &iv.into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(&mut packet[from..]);
    }

    /// The tag runs over the packet and one more word: the ROC, or the trailer.
    fn tag(&self, packet: &[u8], word: u32) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        mac.update(packet);
        mac.update(&word.to_be_bytes());
        mac
    }
}

fn rtp_ssrc(packet: &[u8]) -> u32 {
    read_u32(packet, 8)
}

fn rtp_index(roc: u32, packet: &[u8]) -> u64 {
    u64::from(roc) << 16 | u64::from(u16::from_be_bytes([packet[2], packet[3]]))
}

#[cfg(test)]
impl CmKey {
    /// Takes session keys as they are, as the vectors of RFC 3711 B.2 do.
    pub(super) fn from_session(key: &[u8], salt: &[u8]) -> Self {
        let session = || Session {
            cipher: Aes128Enc::new_from_slice(key).unwrap(),
            mac: <Hmac<Sha1> as Mac>::new_from_slice(&[]).unwrap(),
            salt: salt.try_into().unwrap(),
        };
        Self {
            rtp: session(),
            rtcp: session(),
            rtp_tag_len: 10,
        }
    }

    pub(super) fn keystream(&self, ssrc: u32, index: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.rtp.apply_keystream(ssrc, index, &mut out, 0);
        out
    }
}
