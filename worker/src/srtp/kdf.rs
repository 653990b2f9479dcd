//! Session keys from master keys: the AES-CM pseudo-random function of
//! RFC 3711 §4.3 (AES-256 by RFC 6188), key derivation rate zero.

use aes::cipher::{KeyIvInit, StreamCipher};
use aes::{Aes128, Aes256};
use ctr::Ctr128BE;

use super::SrtpError;

/// What a derived key is for (RFC 3711 §4.3.1, §4.3.2).
#[derive(Clone, Copy, Debug)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuth = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuth = 4,
    RtcpSalt = 5,
}

/// Fills `out` with the key of `label`.
///
/// Salts shorter than 112 bits (GCM) count as followed by zeros (RFC 7714 §11).
pub(super) fn derive(
    key: &[u8],
    salt: &[u8],
    label: Label,
    out: &mut [u8],
) -> Result<(), SrtpError> {
    let mut iv = [0; 16];
    for (byte, salt_byte) in iv[..14].iter_mut().zip(salt) {
        *byte = *salt_byte;
    }
    iv[7] ^= label as u8;
    out.fill(0);
    match key.len() {
        16 => Ctr128BE::<Aes128>::new(key.into(), &iv.into()).apply_keystream(out),
        32 => Ctr128BE::<Aes256>::new(key.into(), &iv.into()).apply_keystream(out),
        _ => return Err(SrtpError::WrongKeyLength),
    }
    Ok(())
}
