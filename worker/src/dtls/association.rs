//! What is left of an association once its keys are exported: a goodbye either way, and our last
//! flight for a peer that did not get it (RFC 6347 §4.1, §4.2.4, RFC 5246 §6.3, §7.2).
//!
//! OpenSSL keeps some 40 KiB of buffers for each peer to do this, and has no way to let go of
//! them. Knows DTLS 1.2 with an AEAD, which is all that is negotiated, and nothing of handshakes.
//!
//! ```text
//!  type:8 │ version:16 │ epoch:16 │ sequence number:48 │ length:16 │ nonce:64 (GCM) │ sealed …
//! ```

use openssl::ssl::{SslRef, SslVersion};
use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use ring::hmac::{self, HMAC_SHA256, HMAC_SHA384};

use super::DtlsRole;

const HEADER_LEN: usize = 13;
const TAG_LEN: usize = 16;
const VERSION: [u8; 2] = [0xFE, 0xFD];
/// Record types.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// Everything sealed is of the first epoch with keys, as nothing is negotiated twice.
const EPOCH: u64 = 1;
/// Far above what the handshake used, so that no number is used twice.
const SEQ_FIRST: u64 = 1 << 32;
/// A warning that says that the connection is over.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const FATAL: u8 = 2;
/// RFC 5246 §6.3.
const LABEL: &[u8; 13] = b"key expansion";
const MASTER_SECRET_LEN: usize = 48;
const RANDOM_LEN: usize = 32;
const KEY_LEN_MAX: usize = 32;
const IV_LEN_MAX: usize = 12;
/// What GCM's nonces begin with (RFC 5288 §3); the rest is in the record.
const GCM_IV_LEN: usize = 4;

/// What a datagram of the peer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing of interest, or nothing authentic.
    Nothing,
    /// The peer still waits for the end of the handshake.
    Waiting,
    /// The peer is gone.
    Goodbye,
}

/// An association whose handshake is over.
pub(super) struct Association {
    seal: Direction,
    open: Direction,
    seq_next: u64,
    /// The datagrams that ended the handshake, if they were ours.
    pub(super) last_flight: Vec<Vec<u8>>,
}

/// Keys of one direction; what is sealed with them is rare, so they are kept as they are.
#[derive(Clone, Copy)]
struct Direction {
    algorithm: &'static Algorithm,
    key: [u8; KEY_LEN_MAX],
    iv: [u8; IV_LEN_MAX],
}

impl Association {
    /// Takes over from OpenSSL; `None` where it negotiated what is not known here.
    pub(super) fn take_over(
        ssl: &SslRef,
        role: DtlsRole,
        last_flight: Vec<Vec<u8>>,
    ) -> Option<Self> {
        if ssl.version2() != Some(SslVersion::DTLS1_2) {
            return None;
        }
        let name = ssl.current_cipher()?.name();
        let (algorithm, hash) = if name.ends_with("AES128-GCM-SHA256") {
            (&AES_128_GCM, HMAC_SHA256)
        } else if name.ends_with("AES256-GCM-SHA384") {
            (&AES_256_GCM, HMAC_SHA384)
        } else if name.ends_with("CHACHA20-POLY1305") {
            (&CHACHA20_POLY1305, HMAC_SHA256)
        } else {
            return None;
        };
        let mut master_secret = [0; MASTER_SECRET_LEN];
        if ssl.session()?.master_key(&mut master_secret) != MASTER_SECRET_LEN {
            return None;
        }
        let mut seed = [0; LABEL.len() + 2 * RANDOM_LEN];
        seed[..LABEL.len()].copy_from_slice(LABEL);
        let (server_random, client_random) = seed[LABEL.len()..].split_at_mut(RANDOM_LEN);
        ssl.server_random(server_random);
        ssl.client_random(client_random);
        let (client, server) = directions(algorithm, hash, &master_secret, &seed);
        let (seal, open) = match role {
            DtlsRole::Client => (client, server),
            DtlsRole::Server | DtlsRole::Auto => (server, client),
        };
        Some(Self {
            seal,
            open,
            seq_next: SEQ_FIRST,
            last_flight,
        })
    }

    /// The datagram that says goodbye.
    pub(super) fn say_goodbye(&mut self) -> Option<Vec<u8>> {
        let number = EPOCH << 48 | self.seq_next;
        self.seq_next += 1;
        self.seal.seal(number, ALERT, &CLOSE_NOTIFY)
    }

    /// Takes a datagram of the peer.
    pub(super) fn hear(&self, datagram: &[u8]) -> Heard {
        let mut rest = datagram;
        let mut heard = Heard::Nothing;
        while let Some((record, behind)) = split_record(rest) {
            rest = behind;
            match record[0] {
                ALERT if self.open.open(record).is_some_and(|alert| is_end(&alert)) => {
                    return Heard::Goodbye;
                }
                HANDSHAKE if self.open.open(record).is_some() => heard = Heard::Waiting,
                _ => {}
            }
        }
        heard
    }
}

fn is_end(alert: &[u8]) -> bool {
    alert.first() == Some(&FATAL) || alert == CLOSE_NOTIFY
}

/// The first record of a datagram, and what is behind it.
fn split_record(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = datagram.get(HEADER_LEN - 2..)?.first_chunk()?;
    datagram.split_at_checked(HEADER_LEN + usize::from(u16::from_be_bytes(*len)))
}

/// Cuts the key block (RFC 5246 §6.3), client's and server's by turns.
fn directions(
    algorithm: &'static Algorithm,
    hash: hmac::Algorithm,
    master_secret: &[u8],
    seed: &[u8],
) -> (Direction, Direction) {
    let mut block = [0; 2 * (KEY_LEN_MAX + IV_LEN_MAX)];
    expand(hash, master_secret, seed, &mut block);
    let key_len = algorithm.key_len();
    let iv_len = if algorithm == &CHACHA20_POLY1305 {
        IV_LEN_MAX
    } else {
        GCM_IV_LEN
    };
    let (keys, ivs) = block.split_at(2 * key_len);
    let direction = |n: usize| {
        let mut direction = Direction {
            algorithm,
            key: [0; KEY_LEN_MAX],
            iv: [0; IV_LEN_MAX],
        };
        direction.key[..key_len].copy_from_slice(&keys[n * key_len..][..key_len]);
        direction.iv[..iv_len].copy_from_slice(&ivs[n * iv_len..][..iv_len]);
        direction
    };
    (direction(0), direction(1))
}

/// The pseudo-random function of TLS 1.2 (RFC 5246 §5); `seed` begins with its label.
fn expand(hash: hmac::Algorithm, secret: &[u8], seed: &[u8], out: &mut [u8]) {
    let key = hmac::Key::new(hash, secret);
    let mut a = hmac::sign(&key, seed);
    for chunk in out.chunks_mut(a.as_ref().len()) {
        let mut context = hmac::Context::with_key(&key);
        context.update(a.as_ref());
        context.update(seed);
        chunk.copy_from_slice(&context.sign().as_ref()[..chunk.len()]);
        a = hmac::sign(&key, a.as_ref());
    }
}

impl Direction {
    /// A whole record; `number` is its epoch and sequence number.
    fn seal(&self, number: u64, kind: u8, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let explicit = number.to_be_bytes();
        let aad = Aad::from(aad(number, kind, plain.len()));
        let tag = self
            .key()?
            .seal_in_place_separate_tag(self.nonce(explicit), aad, &mut sealed)
            .ok()?;
        let explicit = if self.has_explicit_nonce() {
            &explicit[..]
        } else {
            &[]
        };
        let len = explicit.len() + sealed.len() + TAG_LEN;
        let mut record = vec![kind];
        record.extend_from_slice(&VERSION);
        record.extend_from_slice(&number.to_be_bytes());
        record.extend_from_slice(&(len as u16).to_be_bytes());
        record.extend_from_slice(explicit);
        record.extend_from_slice(&sealed);
        record.extend_from_slice(tag.as_ref());
        Some(record)
    }

    /// What is in a whole record, if it is authentic.
    fn open(&self, record: &[u8]) -> Option<Vec<u8>> {
        let (header, fragment) = record.split_at_checked(HEADER_LEN)?;
        let number = u64::from_be_bytes(*header.get(3..)?.first_chunk()?);
        if header[1..3] != VERSION || number >> 48 != EPOCH {
            return None;
        }
        let (explicit, sealed) = if self.has_explicit_nonce() {
            let (explicit, sealed) = fragment.split_first_chunk()?;
            (*explicit, sealed)
        } else {
            (number.to_be_bytes(), fragment)
        };
        let plain_len = sealed.len().checked_sub(TAG_LEN)?;
        let aad = Aad::from(aad(number, header[0], plain_len));
        let mut opened = sealed.to_vec();
        self.key()?
            .open_in_place(self.nonce(explicit), aad, &mut opened)
            .ok()?;
        opened.truncate(plain_len);
        Some(opened)
    }

    fn key(&self) -> Option<LessSafeKey> {
        let key = &self.key[..self.algorithm.key_len()];
        Some(LessSafeKey::new(UnboundKey::new(self.algorithm, key).ok()?))
    }

    fn has_explicit_nonce(&self) -> bool {
        self.algorithm != &CHACHA20_POLY1305
    }

    /// RFC 5288 §3: joined; RFC 7905 §2: mixed.
    fn nonce(&self, explicit: [u8; 8]) -> Nonce {
        let mut nonce = self.iv;
        for (byte, other) in nonce[GCM_IV_LEN..].iter_mut().zip(explicit) {
            *byte ^= other;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// RFC 5246 §6.2.3.3.
fn aad(number: u64, kind: u8, plain_len: usize) -> [u8; HEADER_LEN] {
    let mut aad = [0; HEADER_LEN];
    aad[..8].copy_from_slice(&number.to_be_bytes());
    aad[8] = kind;
    aad[9..11].copy_from_slice(&VERSION);
    aad[11..].copy_from_slice(&(plain_len as u16).to_be_bytes());
    aad
}
