use proptest::prelude::*;

use super::kdf::{Label, derive};
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn derived(key: &str, salt: &str, label: Label, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    derive(&hex(key), &hex(salt), label, &mut out).unwrap();
    out
}

#[test]
fn rfc_3711_b3_key_derivation() {
    let key = "E1F97A0D3E018BE0D64FA32C06DE4139";
    let salt = "0EC675AD498AFEEBB6960B3AABE6";
    assert_eq!(
        derived(key, salt, Label::RtpEncryption, 16),
        hex("C61E7A93744F39EE10734AFE3FF7A087")
    );
    assert_eq!(
        derived(key, salt, Label::RtpSalt, 14),
        hex("30CBBC08863D8C85D49DB34A9AE1")
    );
    assert_eq!(
        derived(key, salt, Label::RtpAuth, 94),
        hex(
            "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE
             E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25
             6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2"
        )
    );
}

#[test]
fn rfc_6188_7_2_key_derivation_with_aes_256() {
    let key = "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6";
    let salt = "3b04803de51ee7c96423ab5b78d2";
    assert_eq!(
        derived(key, salt, Label::RtpEncryption, 32),
        hex("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4")
    );
    assert_eq!(
        derived(key, salt, Label::RtpSalt, 14),
        hex("fa31791685ca444a9e07c6c64e93")
    );
}

#[test]
fn rfc_3711_b2_keystream() {
    let key = CmKey::from_session(
        &hex("2B7E151628AED2A6ABF7158809CF4F3C"),
        &hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"),
    );
    assert_eq!(
        key.keystream(0, 0, 48),
        hex("E03EAD0935C95E80E166B16DD92B4EB4
             D23513162B02D0F72A43A2FE4A5F97AB
             41E95B3BB0A2E8DD477901E4FCA894C0")
    );
}

const RFC_7714_RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973
    20646976 69736120 696e2070 61727465 73207472 6573";
const RFC_7714_RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930
    4c756e61 deadbeef deadbeef deadbeef deadbeef deadbeef";

/// The vectors of RFC 7714 name session keys, not master keys.
fn rfc_7714_cipher(profile: Profile) -> Cipher {
    let key: Vec<u8> = (0..profile.key_len() as u8).collect();
    Cipher::Gcm(Box::new(GcmKey::from_session(&key, *b"Quid pro quo")))
}

fn check_rfc_7714_rtp(profile: Profile, sealed: &str) {
    let plain = hex(RFC_7714_RTP);
    let seal = SealKey {
        profile,
        cipher: rfc_7714_cipher(profile),
    };
    let mut packet = plain.clone();
    packet.resize(plain.len() + TAG_LEN_MAX, 0);
    let len = seal
        .protect_rtp(0, &mut packet, RTP_HEADER_LEN, plain.len())
        .unwrap();
    assert_eq!(packet[..len], hex(sealed));

    let open = OpenKey {
        profile,
        cipher: rfc_7714_cipher(profile),
    };
    let len = open
        .unprotect_rtp(&mut RecvIndex::new(), &mut packet, RTP_HEADER_LEN)
        .unwrap();
    assert_eq!(packet[..len], plain);
}

fn check_rfc_7714_rtcp(profile: Profile, sealed: &str) {
    let seal = SealKey {
        profile,
        cipher: rfc_7714_cipher(profile),
    };
    let mut packet = hex(RFC_7714_RTCP);
    seal.protect_rtcp(0x5d4, &mut packet).unwrap();
    assert_eq!(packet, hex(sealed));

    let open = OpenKey {
        profile,
        cipher: rfc_7714_cipher(profile),
    };
    let mut replay = RtcpReplay::new();
    let len = open.unprotect_rtcp(&mut replay, &mut packet).unwrap();
    assert_eq!(packet[..len], hex(RFC_7714_RTCP));
    assert_eq!(replay.highest(), Some(0x5d4));
}

#[test]
fn rfc_7714_16_1_rtp_aes_128() {
    check_rfc_7714_rtp(
        Profile::AeadAes128Gcm,
        "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f
         42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
    );
}

#[test]
fn rfc_7714_16_2_rtp_aes_256() {
    check_rfc_7714_rtp(
        Profile::AeadAes256Gcm,
        "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3
         b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
    );
}

#[test]
fn rfc_7714_17_1_rtcp_aes_128() {
    check_rfc_7714_rtcp(
        Profile::AeadAes128Gcm,
        "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1
         730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
    );
}

#[test]
fn rfc_7714_17_2_rtcp_aes_256() {
    check_rfc_7714_rtcp(
        Profile::AeadAes256Gcm,
        "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1
         110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
    );
}

const HEADER_LEN: usize = 20;

struct Pair {
    profile: Profile,
    seal: SealKey,
    open: OpenKey,
}

fn pair(profile: Profile) -> Pair {
    let key: Vec<u8> = (1..=profile.key_len() as u8).collect();
    let salt: Vec<u8> = (101..=100 + profile.salt_len() as u8).collect();
    Pair {
        profile,
        seal: SealKey::new(profile, &key, &salt).unwrap(),
        open: OpenKey::new(profile, &key, &salt).unwrap(),
    }
}

/// A packet with an extension block, so that the header is not the fixed one.
fn plain_rtp(ssrc: u32, index: u64) -> Vec<u8> {
    let mut packet = vec![0x90, 96];
    packet.extend_from_slice(&(index as u16).to_be_bytes());
    packet.extend_from_slice(&[1, 2, 3, 4]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[0xBE, 0xDE, 0, 1, 0x10, 7, 0, 0]);
    packet.extend((0..50).map(|byte| byte ^ index as u8));
    packet
}

impl Pair {
    fn sealed(&self, ssrc: u32, index: u64) -> Vec<u8> {
        let mut packet = plain_rtp(ssrc, index);
        let len = packet.len();
        packet.resize(len + TAG_LEN_MAX, 0);
        let sealed_len = self
            .seal
            .protect_rtp((index >> 16) as u32, &mut packet, HEADER_LEN, len)
            .unwrap();
        assert_eq!(sealed_len, len + self.profile.rtp_tag_len());
        packet.truncate(sealed_len);
        packet
    }

    fn sealed_rtcp(&self, index: u32) -> Vec<u8> {
        let mut packet = hex("80c90001 0000002a 81c80001 09090909");
        self.seal.protect_rtcp(index, &mut packet).unwrap();
        packet
    }

    fn receive(&self, recv_index: &mut RecvIndex, index: u64) -> Result<(), SrtpError> {
        let mut packet = self.sealed(42, index);
        let len = self
            .open
            .unprotect_rtp(recv_index, &mut packet, HEADER_LEN)?;
        assert_eq!(packet[..len], plain_rtp(42, index));
        Ok(())
    }
}

#[test]
fn packets_pass_in_any_order_and_over_the_wrap_of_the_sequence_number() {
    for profile in Profile::ALL {
        let pair = pair(profile);
        let mut recv_index = RecvIndex::new();
        for index in [
            65_530, 65_532, 65_531, 65_536, 65_535, 65_540, 98_000, 130_000, 131_072,
        ] {
            pair.receive(&mut recv_index, index).unwrap();
        }
        assert_eq!(recv_index.highest(), Some(131_072));
    }
}

#[test]
fn payload_is_hidden_and_header_is_not() {
    for profile in Profile::ALL {
        let sealed = pair(profile).sealed(42, 7);
        let plain = plain_rtp(42, 7);
        assert_eq!(sealed[..HEADER_LEN], plain[..HEADER_LEN]);
        assert_ne!(sealed[HEADER_LEN..plain.len()], plain[HEADER_LEN..]);
    }
}

#[test]
fn replayed_and_late_packets_are_refused() {
    for profile in Profile::ALL {
        let pair = pair(profile);
        let mut recv_index = RecvIndex::new();
        let rows = [
            (2000, Ok(())),
            (2000, Err(SrtpError::Replayed)),
            (2000 - 1023, Ok(())),
            (2000 - 1023, Err(SrtpError::Replayed)),
            (2000 - 1024, Err(SrtpError::TooOld)),
        ];
        for (index, expected) in rows {
            assert_eq!(pair.receive(&mut recv_index, index), expected, "{index}");
        }
    }
}

#[test]
fn a_flip_of_any_byte_is_noticed_and_leaves_no_trace() {
    for profile in Profile::ALL {
        let pair = pair(profile);
        let sealed = pair.sealed(42, 9);
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 0x10;
            let mut recv_index = RecvIndex::new();
            assert_eq!(
                pair.open
                    .unprotect_rtp(&mut recv_index, &mut forged, HEADER_LEN),
                Err(SrtpError::AuthFailed),
                "{profile:?} byte {at}"
            );
            assert_eq!(recv_index, RecvIndex::new());
        }
    }
}

#[test]
fn a_stream_that_rolled_over_once_before_it_was_seen_is_opened() {
    for profile in Profile::ALL {
        let pair = pair(profile);
        let mut recv_index = RecvIndex::new();
        // What was sent before the rollover may still come.
        for index in [65_536 + 5, 65_535, 65_536, 65_536 + 6, 2 * 65_536 - 40_000] {
            pair.receive(&mut recv_index, index).unwrap();
        }
        let late = pair.receive(&mut recv_index, 65_536 + 6);
        assert_eq!(late, Err(SrtpError::TooOld));
    }
}

#[test]
fn another_rollover_count_does_not_authenticate() {
    for profile in Profile::ALL {
        let pair = pair(profile);
        let mut fresh = RecvIndex::new();
        let twice = pair.receive(&mut fresh, 2 * 65_536 + 5);
        assert_eq!(twice, Err(SrtpError::AuthFailed));
        assert_eq!(fresh, RecvIndex::new());
        // Later packets have one rollover count alone.
        let mut begun = RecvIndex::new();
        pair.receive(&mut begun, 4).unwrap();
        let jump = pair.receive(&mut begun, 65_536 + 5);
        assert_eq!(jump, Err(SrtpError::AuthFailed));
    }
}

#[test]
fn rtcp_is_sealed_with_a_long_tag_in_every_profile() {
    for profile in Profile::ALL {
        let pair = pair(profile);
        let mut replay = RtcpReplay::new();
        let mut packet = pair.sealed_rtcp(3);
        let mut again = packet.clone();
        assert_eq!(packet.len(), 16 + profile.rtcp_tag_len() + 4);
        assert_ne!(packet[8..16], [0x81, 0xC8, 0, 1, 9, 9, 9, 9]);
        let len = pair.open.unprotect_rtcp(&mut replay, &mut packet).unwrap();
        assert_eq!(packet[..len], hex("80c90001 0000002a 81c80001 09090909"));
        assert_eq!(
            pair.open.unprotect_rtcp(&mut replay, &mut again),
            Err(SrtpError::Replayed)
        );
    }
}

#[test]
fn a_flip_of_any_byte_of_rtcp_is_noticed_and_leaves_no_trace() {
    for profile in Profile::ALL {
        let pair = pair(profile);
        let sealed = pair.sealed_rtcp(3);
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 0x80;
            let mut replay = RtcpReplay::new();
            assert!(matches!(
                pair.open.unprotect_rtcp(&mut replay, &mut forged),
                Err(SrtpError::AuthFailed | SrtpError::NotEncrypted)
            ));
            assert_eq!(replay, RtcpReplay::new());
        }
    }
}

#[test]
fn an_rtcp_index_beyond_31_bits_is_refused() {
    let pair = pair(Profile::AeadAes128Gcm);
    let mut packet = vec![0; 8];
    assert_eq!(
        pair.seal.protect_rtcp(RTCP_INDEX_MAX + 1, &mut packet),
        Err(SrtpError::KeyExhausted)
    );
    assert_eq!(packet, [0; 8]);
}

#[test]
fn keys_of_the_wrong_length_are_refused() {
    for profile in Profile::ALL {
        let key = vec![1; profile.key_len()];
        let salt = vec![2; profile.salt_len()];
        assert!(SealKey::new(profile, &key[1..], &salt).is_err());
        assert!(OpenKey::new(profile, &key, &salt[1..]).is_err());
    }
}

#[test]
fn only_authentic_packets_enter_the_ssrc_table_and_it_is_bounded() {
    let profile = Profile::Aes128CmSha1_80;
    let sender = pair(profile);
    let mut inbound = SrtpInbound::new(pair(profile).open);
    for ssrc in 0..SSRCS_MAX as u32 {
        let mut forged = sender.sealed(ssrc + 1000, 1);
        forged[30] ^= 1;
        assert_eq!(
            inbound.unprotect_rtp(&mut forged, HEADER_LEN),
            Err(SrtpError::AuthFailed)
        );
        inbound
            .unprotect_rtp(&mut sender.sealed(ssrc, 1), HEADER_LEN)
            .unwrap();
    }
    assert_eq!(inbound.recv_indices().count(), SSRCS_MAX);
    assert_eq!(
        inbound.unprotect_rtp(&mut sender.sealed(5000, 1), HEADER_LEN),
        Err(SrtpError::TooManySsrcs)
    );
    inbound
        .unprotect_rtp(&mut sender.sealed(7, 2), HEADER_LEN)
        .unwrap();
}

#[test]
fn a_successor_goes_on_from_the_exported_state() {
    let sender = pair(Profile::AeadAes256Gcm);
    let mut first = SrtpInbound::new(pair(sender.profile).open);
    for index in [65_535, 65_537] {
        first
            .unprotect_rtp(&mut sender.sealed(5, index), HEADER_LEN)
            .unwrap();
    }
    let mut successor = SrtpInbound::new(pair(sender.profile).open);
    for (ssrc, recv_index) in first.recv_indices() {
        successor.resume_rtp(ssrc, recv_index).unwrap();
    }
    assert_eq!(
        successor.unprotect_rtp(&mut sender.sealed(5, 65_537), HEADER_LEN),
        Err(SrtpError::Replayed)
    );
    successor
        .unprotect_rtp(&mut sender.sealed(5, 65_536), HEADER_LEN)
        .unwrap();
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_open_and_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        header_len in 0usize..140,
    ) {
        for profile in Profile::ALL {
            let mut inbound = SrtpInbound::new(pair(profile).open);
            prop_assert!(inbound.unprotect_rtp(&mut bytes.clone(), header_len).is_err());
            prop_assert!(inbound.unprotect_rtcp(&mut bytes.clone()).is_err());
            prop_assert_eq!(inbound.recv_indices().count(), 0);
        }
    }

    #[test]
    fn sealing_succeeds_exactly_when_header_and_tag_fit(
        header_len in 0usize..80, len in 0usize..80, room in 0usize..80,
    ) {
        let mut packet = vec![0; room];
        for profile in Profile::ALL {
            let fits = header_len >= 12 && len >= header_len && room >= len + profile.rtp_tag_len();
            let sealed = pair(profile).seal.protect_rtp(0, &mut packet, header_len, len);
            prop_assert_eq!(sealed.is_ok(), fits);
        }
    }
}
