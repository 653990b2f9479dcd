//! AES-GCM by whichever library is the fastest on this CPU (`docs/performance.md`): AWS-LC where
//! there are AES instructions on 512 bits, which it uses and *ring* does not, *ring* elsewhere.
//!
//! AWS-LC also seals from one place to another, which spares a copy.

use aws_lc_rs::aead as lc;
use ring::aead as ring;

use super::SrtpError;

pub(super) const NONCE_LEN: usize = 12;
pub(super) const TAG_LEN: usize = 16;

/// A key, for AES-128 or AES-256 by its length.
#[allow(
    clippy::large_enum_variant,
    reason = "a process has keys of one kind only"
)]
pub(super) enum AeadKey {
    Ring(ring::LessSafeKey),
    AwsLc(lc::LessSafeKey),
}

impl AeadKey {
    pub(super) fn new(key: &[u8]) -> Result<Self, SrtpError> {
        if has_wide_aes() {
            Self::aws_lc(key)
        } else {
            Self::ring(key)
        }
    }

    pub(super) fn ring(key: &[u8]) -> Result<Self, SrtpError> {
        let algorithm = match key.len() {
            32 => &ring::AES_256_GCM,
            _ => &ring::AES_128_GCM,
        };
        let key = ring::UnboundKey::new(algorithm, key).map_err(|_| SrtpError::WrongKeyLength)?;
        Ok(Self::Ring(ring::LessSafeKey::new(key)))
    }

    pub(super) fn aws_lc(key: &[u8]) -> Result<Self, SrtpError> {
        let algorithm = match key.len() {
            32 => &lc::AES_256_GCM,
            _ => &lc::AES_128_GCM,
        };
        let key = lc::UnboundKey::new(algorithm, key).map_err(|_| SrtpError::WrongKeyLength)?;
        Ok(Self::AwsLc(lc::LessSafeKey::new(key)))
    }

    /// Seals `body` in place, whose last bytes are room for the tag. Of the plain text in front of
    /// it the end is still to come: `rest`, for which there is room, too.
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        body: &mut [u8],
        rest: &[u8],
    ) -> Result<(), SrtpError> {
        let plain_len = body.len() - TAG_LEN;
        let own_len = plain_len - rest.len();
        let sealed = match self {
            Self::AwsLc(key) => {
                let (own, out) = body.split_at_mut(own_len);
                let nonce = lc::Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_scatter(nonce, lc::Aad::from(aad), own, rest, out)
                    .ok()
            }
            Self::Ring(key) => {
                body[own_len..plain_len].copy_from_slice(rest);
                let (plain, room) = body.split_at_mut(plain_len);
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_separate_tag(nonce, ring::Aad::from(aad), plain)
                    .map(|tag| room.copy_from_slice(tag.as_ref()))
                    .ok()
            }
        };
        sealed.ok_or(SrtpError::KeyExhausted)
    }

    /// Opens what [`seal`](Self::seal) sealed, in place.
    pub(super) fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        body: &mut [u8],
    ) -> Result<(), SrtpError> {
        let opened = match self {
            Self::AwsLc(key) => {
                let nonce = lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, lc::Aad::from(aad), body).is_ok()
            }
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring::Aad::from(aad), body).is_ok()
            }
        };
        if opened {
            Ok(())
        } else {
            Err(SrtpError::AuthFailed)
        }
    }
}

/// Whether the CPU has AES instructions on 512 bits.
fn has_wide_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("vaes")
            && std::arch::is_x86_feature_detected!("vpclmulqdq")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_libraries_seal_alike_wherever_the_text_lies() {
        let text: Vec<u8> = (0..200).map(|n| n as u8).collect();
        let (nonce, aad) = ([5; NONCE_LEN], [6; 20]);
        for key in [&[1; 16][..], &[2; 32]] {
            let keys = [AeadKey::ring(key).unwrap(), AeadKey::aws_lc(key).unwrap()];
            let mut all = Vec::new();
            for key in &keys {
                for own_len in [0, 1, 2, 15, 16, 17, 100, 200] {
                    let mut body = vec![0; text.len() + TAG_LEN];
                    body[..own_len].copy_from_slice(&text[..own_len]);
                    key.seal(nonce, &aad, &mut body, &text[own_len..]).unwrap();
                    all.push(body);
                }
            }
            assert!(all.iter().all(|sealed| *sealed == all[0]));
            assert_ne!(all[0][..text.len()], text);
            for key in &keys {
                let mut body = all[0].clone();
                key.open(nonce, &aad, &mut body).unwrap();
                assert_eq!(body[..text.len()], text);
                let mut forged = all[0].clone();
                forged[7] ^= 1;
                let opened = key.open(nonce, &aad, &mut forged);
                assert_eq!(opened, Err(SrtpError::AuthFailed));
            }
        }
    }
}
