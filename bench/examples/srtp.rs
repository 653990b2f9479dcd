//! What sealing one RTP packet costs with each library that could do it, and what its parts cost:
//! nanoseconds, all candidates in alternating rounds of one run.
//!
//! `cargo run --release -p broth-bench --features crypto-candidates --example srtp`
//!
//! Sealing here is what the worker does for one viewer: the payload comes from where all viewers
//! share it, header and ciphertext go to a place of their own in an arena that is larger than the
//! caches of the core.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use aes::Aes128Enc;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher};
use anyhow::{Context, Result, anyhow};
use aws_lc_rs::cipher as lc_cipher;
use broth_worker::srtp::{Profile, SealKey};
use ctr::cipher::StreamCipherCoreWrapper;
use ctr::{CtrCore, flavors};
use hmac::{Hmac, Mac};
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use sha1::Sha1;

const HEADER: usize = 12;
/// What is rewritten for each viewer: the block with the payload descriptor.
const HEAD: usize = 16;
/// Room for one packet, and so many of them.
const SLOT: usize = 1280;
const SLOTS: usize = 1024;
/// One round of one candidate, and how many there are: the median is reported.
const ROUND: Duration = Duration::from_millis(20);
const ROUNDS: usize = 15;

/// Seals a payload into a slot behind its header, with room for the tag.
type Seal<'k> = Box<dyn FnMut(&[u8], &mut [u8]) + 'k>;

fn main() -> Result<()> {
    for payload_len in [1200 - HEADER, 120 - HEADER] {
        let mut out = std::io::stdout();
        writeln!(out, "packets of {} bytes, ns", payload_len + HEADER)?;
        compare("AEAD_AES_128_GCM", gcm(16)?, payload_len)?;
        compare("AEAD_AES_256_GCM", gcm(32)?, payload_len)?;
        compare("AES_CM_128_HMAC_SHA1_80", cm()?, payload_len)?;
        compare("parts of AES-CM", cm_parts()?, payload_len)?;
    }
    Ok(())
}

fn gcm(key_len: usize) -> Result<Vec<(&'static str, Seal<'static>)>> {
    let (profile, key) = match key_len {
        16 => (Profile::AeadAes128Gcm, &[7; 32][..16]),
        _ => (Profile::AeadAes256Gcm, &[7; 32][..]),
    };
    let worker = SealKey::new(profile, key, &[9; 12])?;
    let (ring_algorithm, lc_algorithm, cipher) = match key_len {
        16 => (
            &ring::aead::AES_128_GCM,
            &aws_lc_rs::aead::AES_128_GCM,
            Cipher::aes_128_gcm(),
        ),
        _ => (
            &ring::aead::AES_256_GCM,
            &aws_lc_rs::aead::AES_256_GCM,
            Cipher::aes_256_gcm(),
        ),
    };
    let ring_key = ring::aead::UnboundKey::new(ring_algorithm, key).map_err(|e| anyhow!("{e}"))?;
    let ring_key = ring::aead::LessSafeKey::new(ring_key);
    let lc_key = || -> Result<_> {
        let key = aws_lc_rs::aead::UnboundKey::new(lc_algorithm, key);
        Ok(aws_lc_rs::aead::LessSafeKey::new(
            key.map_err(|e| anyhow!("{e}"))?,
        ))
    };
    let (lc_in_place, lc_apart, lc_headed) = (lc_key()?, lc_key()?, lc_key()?);
    let mut ctx = CipherCtx::new()?;
    ctx.encrypt_init(Some(cipher), Some(key), None)?;
    let mut nonces: (Nonces, Nonces, Nonces, Nonces, Nonces) = Default::default();
    Ok(vec![
        ("the worker's own", {
            Box::new(move |payload, slot| {
                let sealed = worker.protect_rtp_with(0, slot, HEADER, HEADER, payload);
                black_box(sealed.is_ok());
            })
        }),
        ("copy, ring in place", {
            Box::new(move |payload, slot| {
                let (header, body) = slot.split_at_mut(HEADER);
                body[..payload.len()].copy_from_slice(payload);
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonces.0.next());
                let aad = ring::aead::Aad::from(&*header);
                let body_text = &mut body[..payload.len()];
                let tag = ring_key.seal_in_place_separate_tag(nonce, aad, body_text);
                let tag = tag.expect("short enough");
                body[payload.len()..payload.len() + 16].copy_from_slice(tag.as_ref());
            })
        }),
        ("copy, aws-lc in place", {
            Box::new(move |payload, slot| {
                let (header, body) = slot.split_at_mut(HEADER);
                body[..payload.len()].copy_from_slice(payload);
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonces.1.next());
                let aad = aws_lc_rs::aead::Aad::from(&*header);
                let body_text = &mut body[..payload.len()];
                let tag = lc_in_place.seal_in_place_separate_tag(nonce, aad, body_text);
                let tag = tag.expect("short enough");
                body[payload.len()..payload.len() + 16].copy_from_slice(tag.as_ref());
            })
        }),
        ("aws-lc, from one place to another", {
            Box::new(move |payload, slot| {
                let (header, body) = slot.split_at_mut(HEADER);
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonces.2.next());
                let aad = aws_lc_rs::aead::Aad::from(&*header);
                let out = &mut body[..payload.len() + 16];
                let sealed = lc_apart.seal_in_place_scatter(nonce, aad, &mut [], payload, out);
                sealed.expect("short enough");
            })
        }),
        ("aws-lc, all but a head from one place to another", {
            Box::new(move |payload, slot| {
                let (header, body) = slot.split_at_mut(HEADER);
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonces.4.next());
                let aad = aws_lc_rs::aead::Aad::from(&*header);
                let (head, rest) = payload.split_at(HEAD);
                let (own, out) = body[..payload.len() + 16].split_at_mut(HEAD);
                own.copy_from_slice(head);
                let sealed = lc_headed.seal_in_place_scatter(nonce, aad, own, rest, out);
                sealed.expect("short enough");
            })
        }),
        ("openssl, from one place to another", {
            Box::new(move |payload, slot| {
                let (header, body) = slot.split_at_mut(HEADER);
                let nonce = nonces.3.next();
                let (text, tag) = body.split_at_mut(payload.len());
                let mut seal = || {
                    ctx.encrypt_init(None, None, Some(&nonce))?;
                    ctx.cipher_update(header, None)?;
                    ctx.cipher_update(payload, Some(text))?;
                    ctx.cipher_final(&mut [])?;
                    ctx.tag(&mut tag[..16])
                };
                seal().expect("a stream cipher");
            })
        }),
    ])
}

/// A nonce per packet.
#[derive(Default)]
struct Nonces(u64);

impl Nonces {
    fn next(&mut self) -> [u8; 12] {
        self.0 += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.0.to_be_bytes());
        nonce
    }
}

fn cm() -> Result<Vec<(&'static str, Seal<'static>)>> {
    let profile = Profile::Aes128CmSha1_80;
    let worker = SealKey::new(profile, &[7; 16], &[9; 14])?;
    let (mut ctr, mac) = (openssl_ctr()?, OpensslMac::new());
    let (mut ctr_mixed, mac_mixed) = (openssl_ctr()?, rust_mac()?);
    Ok(vec![
        ("the worker's own (RustCrypto)", {
            Box::new(move |payload, slot| {
                let sealed = worker.protect_rtp_with(0, slot, HEADER, HEADER, payload);
                black_box(sealed.is_ok());
            })
        }),
        ("openssl CTR apart, openssl SHA-1", {
            Box::new(move |payload, slot| {
                ctr(payload, &mut slot[HEADER..]);
                let end = HEADER + payload.len();
                let tag = mac.sign(&slot[..end]);
                slot[end..end + 10].copy_from_slice(&tag[..10]);
            })
        }),
        ("openssl CTR apart, RustCrypto SHA-1", {
            Box::new(move |payload, slot| {
                ctr_mixed(payload, &mut slot[HEADER..]);
                let end = HEADER + payload.len();
                let mut mac = mac_mixed.clone();
                mac.update(&slot[..end]);
                mac.update(&[0; 4]);
                let tag = mac.finalize().into_bytes();
                slot[end..end + 10].copy_from_slice(&tag[..10]);
            })
        }),
    ])
}

fn cm_parts() -> Result<Vec<(&'static str, Seal<'static>)>> {
    let cipher = Aes128Enc::new(&[7; 16].into());
    let apart = cipher.clone();
    let iv = [1; 16];
    let mut openssl = openssl_ctr()?;
    let lc_key = lc_cipher::UnboundCipherKey::new(&lc_cipher::AES_128, &[7; 16]);
    let lc_key = lc_cipher::EncryptingKey::ctr(lc_key.map_err(|e| anyhow!("{e}"))?);
    let lc_key = lc_key.map_err(|e| anyhow!("{e}"))?;
    let rust_mac = rust_mac()?;
    let openssl_mac = OpensslMac::new();
    let lc_mac =
        aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[3; 20]);
    let ring_mac = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[3; 20]);
    Ok(vec![
        ("copy", {
            Box::new(|payload, slot| slot[HEADER..HEADER + payload.len()].copy_from_slice(payload))
        }),
        ("copy, RustCrypto CTR", {
            Box::new(move |payload, slot| {
                let text = &mut slot[HEADER..HEADER + payload.len()];
                text.copy_from_slice(payload);
                let core = CtrCore::<_, flavors::Ctr128BE>::inner_iv_init(&cipher, &iv.into());
                StreamCipherCoreWrapper::from_core(core).apply_keystream(text);
            })
        }),
        ("RustCrypto CTR, from one place to another", {
            Box::new(move |payload, slot| {
                let text = &mut slot[HEADER..HEADER + payload.len()];
                let core = CtrCore::<_, flavors::Ctr128BE>::inner_iv_init(&apart, &iv.into());
                let mut ctr = StreamCipherCoreWrapper::from_core(core);
                ctr.apply_keystream_b2b(payload, text)
                    .expect("equal lengths");
            })
        }),
        ("openssl CTR, from one place to another", {
            Box::new(move |payload, slot| openssl(payload, &mut slot[HEADER..]))
        }),
        ("copy, aws-lc CTR", {
            Box::new(move |payload, slot| {
                let text = &mut slot[HEADER..HEADER + payload.len()];
                text.copy_from_slice(payload);
                let context = lc_cipher::EncryptionContext::Iv128(iv.into());
                let sealed = lc_key.less_safe_encrypt(text, context);
                black_box(sealed.is_ok());
            })
        }),
        ("RustCrypto HMAC", {
            Box::new(move |payload, slot| {
                let mut mac = rust_mac.clone();
                mac.update(payload);
                mac.update(&[0; 4]);
                slot[..20].copy_from_slice(&mac.finalize().into_bytes());
            })
        }),
        ("openssl SHA-1 with kept states", {
            Box::new(move |payload, slot| slot[..20].copy_from_slice(&openssl_mac.sign(payload)))
        }),
        ("aws-lc HMAC", {
            Box::new(move |payload, slot| {
                let mut mac = aws_lc_rs::hmac::Context::with_key(&lc_mac);
                mac.update(payload);
                mac.update(&[0; 4]);
                slot[..20].copy_from_slice(mac.sign().as_ref());
            })
        }),
        ("ring HMAC", {
            Box::new(move |payload, slot| {
                let mut mac = ring::hmac::Context::with_key(&ring_mac);
                mac.update(payload);
                mac.update(&[0; 4]);
                slot[..20].copy_from_slice(mac.sign().as_ref());
            })
        }),
    ])
}

fn rust_mac() -> Result<Hmac<Sha1>> {
    <Hmac<Sha1> as Mac>::new_from_slice(&[3; 20]).context("a key of any length will do")
}

/// AES-CTR with one context for all packets.
fn openssl_ctr() -> Result<impl FnMut(&[u8], &mut [u8])> {
    let mut ctx = CipherCtx::new()?;
    ctx.encrypt_init(Some(Cipher::aes_128_ctr()), Some(&[7; 16]), None)?;
    Ok(move |payload: &[u8], out: &mut [u8]| {
        let mut seal = || {
            ctx.encrypt_init(None, None, Some(&[1; 16]))?;
            ctx.cipher_update(payload, Some(out))
        };
        seal().expect("a stream cipher");
    })
}

/// HMAC with the hash states behind both pads, copied for each packet.
struct OpensslMac {
    inner: openssl::sha::Sha1,
    outer: openssl::sha::Sha1,
}

impl OpensslMac {
    fn new() -> Self {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block[..20].iter_mut().for_each(|b| *b ^= 3);
            let mut sha1 = openssl::sha::Sha1::new();
            sha1.update(&block);
            sha1
        };
        Self {
            inner: pad(0x36),
            outer: pad(0x5C),
        }
    }

    fn sign(&self, packet: &[u8]) -> [u8; 20] {
        let mut inner = self.inner.clone();
        inner.update(packet);
        inner.update(&[0; 4]);
        let mut outer = self.outer.clone();
        outer.update(&inner.finish());
        outer.finish()
    }
}

/// Runs the candidates one after the other, again and again.
fn compare(
    what: &str,
    mut candidates: Vec<(&'static str, Seal<'_>)>,
    payload_len: usize,
) -> Result<()> {
    let payload = vec![0x5A; payload_len];
    let mut arena = vec![0; SLOT * SLOTS];
    let mut took = vec![Vec::new(); candidates.len()];
    for _ in 0..ROUNDS {
        for ((_, seal), took) in candidates.iter_mut().zip(&mut took) {
            let (begin, mut packets) = (Instant::now(), 0_u32);
            while begin.elapsed() < ROUND {
                for slot in arena.chunks_exact_mut(SLOT).take(256) {
                    slot[..HEADER].fill(0x80);
                    seal(black_box(&payload), slot);
                }
                packets += 256;
            }
            took.push(begin.elapsed().as_nanos() as f64 / f64::from(packets));
        }
    }
    let mut out = std::io::stdout();
    writeln!(out, "  {what}")?;
    for ((name, _), took) in candidates.iter().zip(&mut took) {
        took.sort_by(f64::total_cmp);
        let (least, median) = (took[0], took[ROUNDS / 2]);
        writeln!(out, "    {name:<48} {median:7.0}   (least {least:.0})")?;
    }
    Ok(())
}
