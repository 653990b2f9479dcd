//! STUN messages as ICE uses them (RFC 8489, RFC 8445 §16).
//!
//! Reads and writes bytes. Never decides what to answer; that is `ice`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::{u16_at, u32_at};

const HEADER_LEN: usize = 20;
const COOKIE: u32 = 0x2112_A442;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const INTEGRITY_LEN: usize = 20;
const USERNAME_LEN_MAX: usize = 513;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

/// The method "Binding".
pub const BINDING: u16 = 1;

/// Why a STUN message is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// The bytes do not start like STUN.
    #[error("not a STUN message")]
    NotStun,
    /// The length field contradicts the datagram or is no multiple of four.
    #[error("length field is wrong")]
    Length,
    /// An attribute reaches over the end, or has a size its type cannot have.
    #[error("attribute has an impossible size")]
    Attribute,
    /// An attribute stands behind one that must be the last.
    #[error("attribute behind the protected part")]
    Order,
    /// The checksum does not match.
    #[error("fingerprint does not match")]
    Fingerprint,
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Answers with success.
    Success,
    /// Answers with an error.
    Error,
}

/// Whether the bytes can only be STUN among the protocols sharing the port.
pub fn is_stun(buf: &[u8]) -> bool {
    buf.len() >= HEADER_LEN && buf[0] < 4 && u32_at(buf, 4) == Some(COOKIE)
}

/// The local ufrag in the USERNAME of a binding request; checks nothing else.
pub fn ufrag_of(buf: &[u8]) -> Option<&str> {
    if !is_stun(buf) || u16_at(buf, 0) != Some(BINDING_REQUEST) {
        return None;
    }
    let mut at = HEADER_LEN;
    loop {
        let len = usize::from(u16_at(buf, at + 2)?);
        if u16_at(buf, at)? == USERNAME {
            let name = buf.get(at + 4..at + 4 + len)?;
            let colon = name.iter().position(|&byte| byte == b':')?;
            return std::str::from_utf8(&name[..colon]).ok();
        }
        at += 4 + len.next_multiple_of(4);
    }
}

/// A checked message. Where an attribute repeats, the first counts.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    buf: &'a [u8],
    transaction_id: [u8; 12],
    username: Option<&'a [u8]>,
    priority: Option<u32>,
    use_candidate: bool,
    fingerprint: bool,
    integrity_at: Option<usize>,
    mapped: Option<SocketAddr>,
    error_code: Option<u16>,
}

impl<'a> Message<'a> {
    /// Reads a whole datagram or frame.
    ///
    /// # Errors
    /// The message must be discarded without an answer.
    pub fn parse(buf: &'a [u8]) -> Result<Self, StunError> {
        if !is_stun(buf) {
            return Err(StunError::NotStun);
        }
        let len = usize::from(u16_at(buf, 2).ok_or(StunError::NotStun)?);
        if len != buf.len() - HEADER_LEN || !len.is_multiple_of(4) {
            return Err(StunError::Length);
        }
        let mut message = Self {
            buf,
            transaction_id: *buf[8..].first_chunk().ok_or(StunError::NotStun)?,
            username: None,
            priority: None,
            use_candidate: false,
            fingerprint: false,
            integrity_at: None,
            mapped: None,
            error_code: None,
        };
        let mut at = HEADER_LEN;
        while at < buf.len() {
            let kind = u16_at(buf, at).ok_or(StunError::Attribute)?;
            let len = usize::from(u16_at(buf, at + 2).ok_or(StunError::Attribute)?);
            let end = at + 4 + len.next_multiple_of(4);
            if end > buf.len() {
                return Err(StunError::Attribute);
            }
            message.take(at, kind, &buf[at + 4..at + 4 + len])?;
            at = end;
        }
        Ok(message)
    }

    fn take(&mut self, at: usize, kind: u16, value: &'a [u8]) -> Result<(), StunError> {
        if self.fingerprint || (self.integrity_at.is_some() && kind != FINGERPRINT) {
            return Err(StunError::Order);
        }
        let size_is = |wanted| {
            if value.len() == wanted {
                Ok(())
            } else {
                Err(StunError::Attribute)
            }
        };
        match kind {
            USERNAME if value.len() > USERNAME_LEN_MAX => return Err(StunError::Attribute),
            USERNAME => {
                self.username.get_or_insert(value);
            }
            PRIORITY => {
                size_is(4)?;
                self.priority = self.priority.or_else(|| u32_at(value, 0));
            }
            USE_CANDIDATE => {
                size_is(0)?;
                self.use_candidate = true;
            }
            ICE_CONTROLLED | ICE_CONTROLLING => size_is(8)?,
            MESSAGE_INTEGRITY => {
                size_is(INTEGRITY_LEN)?;
                self.integrity_at = Some(at);
            }
            FINGERPRINT => {
                size_is(4)?;
                if u32_at(value, 0) != Some(crc32(&self.buf[..at]) ^ FINGERPRINT_XOR) {
                    return Err(StunError::Fingerprint);
                }
                self.fingerprint = true;
            }
            XOR_MAPPED_ADDRESS => {
                let mapped = unmask(value, self.transaction_id).ok_or(StunError::Attribute)?;
                self.mapped.get_or_insert(mapped);
            }
            ERROR_CODE => {
                let &[_, _, class, number, ..] = value else {
                    return Err(StunError::Attribute);
                };
                let code = u16::from(class & 7) * 100 + u16::from(number);
                self.error_code.get_or_insert(code);
            }
            _ => {}
        }
        Ok(())
    }

    /// The method number, [`BINDING`] for one.
    pub fn method(&self) -> u16 {
        let kind = u16::from_be_bytes([self.buf[0], self.buf[1]]);
        (kind & 0x000f) | (kind & 0x00e0) >> 1 | (kind & 0x3e00) >> 2
    }

    /// What the message is for.
    pub fn class(&self) -> Class {
        match (self.buf[0] & 1, self.buf[1] & 0x10) {
            (0, 0) => Class::Request,
            (0, _) => Class::Indication,
            (_, 0) => Class::Success,
            _ => Class::Error,
        }
    }

    /// Ties an answer to its request.
    pub fn transaction_id(&self) -> [u8; 12] {
        self.transaction_id
    }

    /// USERNAME.
    pub fn username(&self) -> Option<&'a [u8]> {
        self.username
    }

    /// PRIORITY.
    pub fn priority(&self) -> Option<u32> {
        self.priority
    }

    /// Whether USE-CANDIDATE is there.
    pub fn has_use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// Whether a FINGERPRINT is there; it has been checked then.
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// Whether MESSAGE-INTEGRITY is there; nobody has checked it yet.
    pub fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    /// Whether MESSAGE-INTEGRITY is there and was made with this password.
    pub fn verify_integrity(&self, password: &[u8]) -> bool {
        let Some(at) = self.integrity_at else {
            return false;
        };
        let tag = &self.buf[at + 4..at + 4 + INTEGRITY_LEN];
        integrity(&self.buf[..at], password)
            .verify_slice(tag)
            .is_ok()
    }

    /// XOR-MAPPED-ADDRESS.
    pub fn xor_mapped_address(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// ERROR-CODE.
    pub fn error_code(&self) -> Option<u16> {
        self.error_code
    }
}

/// Appends the answer to a valid binding request.
pub fn write_success(out: &mut Vec<u8>, txid: [u8; 12], mapped: SocketAddr, password: &[u8]) {
    let start = begin(out, BINDING_SUCCESS, txid);
    let mask = mask(txid);
    let port = mapped.port() ^ (COOKIE >> 16) as u16;
    let mut value = [0; 20];
    value[2..4].copy_from_slice(&port.to_be_bytes());
    let len = match mapped.ip() {
        IpAddr::V4(ip) => {
            value[1] = 1;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = 2;
            value[4..].copy_from_slice(&ip.octets());
            20
        }
    };
    for (byte, other) in value[4..len].iter_mut().zip(mask) {
        *byte ^= other;
    }
    attribute(out, XOR_MAPPED_ADDRESS, &value[..len]);
    seal(out, start, password);
    finish(out, start);
}

/// Appends the answer to a binding request that is refused.
pub fn write_error(out: &mut Vec<u8>, txid: [u8; 12], code: u16) {
    let start = begin(out, BINDING_ERROR, txid);
    attribute(
        out,
        ERROR_CODE,
        &[0, 0, (code / 100) as u8, (code % 100) as u8],
    );
    finish(out, start);
}

/// Appends the check of a controlling client.
pub fn write_binding_request(
    out: &mut Vec<u8>,
    txid: [u8; 12],
    username: &str,
    priority: u32,
    use_candidate: bool,
    tiebreaker: u64,
    password: &[u8],
) {
    let start = begin(out, BINDING_REQUEST, txid);
    attribute(out, USERNAME, username.as_bytes());
    attribute(out, PRIORITY, &priority.to_be_bytes());
    attribute(out, ICE_CONTROLLING, &tiebreaker.to_be_bytes());
    if use_candidate {
        attribute(out, USE_CANDIDATE, &[]);
    }
    seal(out, start, password);
    finish(out, start);
}

fn begin(out: &mut Vec<u8>, kind: u16, txid: [u8; 12]) -> usize {
    let start = out.len();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&COOKIE.to_be_bytes());
    out.extend_from_slice(&txid);
    start
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    let padding = value.len().next_multiple_of(4) - value.len();
    out.extend_from_slice(&[0; 3][..padding]);
}

fn seal(out: &mut Vec<u8>, start: usize, password: &[u8]) {
    let tag = integrity(&out[start..], password).finalize().into_bytes();
    attribute(out, MESSAGE_INTEGRITY, &tag);
}

/// Sets the length, which FINGERPRINT covers, and appends FINGERPRINT.
fn finish(out: &mut Vec<u8>, start: usize) {
    let len = (out.len() - start - HEADER_LEN + 8) as u16;
    out[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
    let crc = crc32(&out[start..]) ^ FINGERPRINT_XOR;
    attribute(out, FINGERPRINT, &crc.to_be_bytes());
}

/// Runs over what stands before the attribute, with a length that ends behind it.
fn integrity(before: &[u8], password: &[u8]) -> Hmac<Sha1> {
    let len = (before.len() - HEADER_LEN + 4 + INTEGRITY_LEN) as u16;
    let mut mac =
        <Hmac<Sha1> as Mac>::new_from_slice(password).expect("HMAC takes keys of any length");
    mac.update(&before[..2]);
    mac.update(&len.to_be_bytes());
    mac.update(&before[4..]);
    mac
}

fn mask(txid: [u8; 12]) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&txid);
    mask
}

fn unmask(value: &[u8], txid: [u8; 12]) -> Option<SocketAddr> {
    let port = u16_at(value, 2)? ^ (COOKIE >> 16) as u16;
    let ip = match (value[1], value.len()) {
        (1, 8) => Ipv4Addr::from(u32_at(value, 4)? ^ COOKIE).into(),
        (2, 20) => {
            let masked = u128::from_be_bytes(*value[4..].first_chunk()?);
            Ipv6Addr::from(masked ^ u128::from_be_bytes(mask(txid))).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (crc >> 8) ^ CRC_TABLE[usize::from(crc as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

    /// RFC 5769 §2.1.
    const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\
        \xfa\x87\xdf\xae\x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\
        \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY   \
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\
        \xc1\xb5\x71\xa2\x80\x28\x00\x04\xe5\x7a\x3b\xcf";

    /// RFC 5769 §2.2.
    const RESPONSE: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\
        \xfa\x87\xdf\xae\x80\x22\x00\x0btest vector \x00\x20\x00\x08\x00\x01\xa1\x47\
        \xe1\x12\xa6\x43\x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\
        \x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\x80\x28\x00\x04\xc0\x7d\x4c\x96";

    #[test]
    fn the_request_of_rfc_5769_is_read() {
        let message = Message::parse(REQUEST).unwrap();
        assert_eq!(
            (message.method(), message.class()),
            (BINDING, Class::Request)
        );
        assert_eq!(message.username(), Some(&b"evtj:h6vY"[..]));
        assert_eq!(message.priority(), Some(0x6e00_01ff));
        assert!(message.has_fingerprint());
        assert!(message.verify_integrity(PASSWORD));
        assert!(!message.verify_integrity(b"other"));
        assert_eq!(ufrag_of(REQUEST), Some("evtj"));
    }

    #[test]
    fn the_response_of_rfc_5769_is_read() {
        let message = Message::parse(RESPONSE).unwrap();
        assert_eq!(message.class(), Class::Success);
        assert!(message.verify_integrity(PASSWORD));
        let mapped = "192.0.2.1:32853".parse().ok();
        assert_eq!(message.xor_mapped_address(), mapped);
    }

    #[test]
    fn what_is_written_is_read() {
        for mapped in ["1.2.3.4:5", "[2001:db8::1]:443"] {
            let mapped = mapped.parse().unwrap();
            let mut out = Vec::new();
            write_success(&mut out, [7; 12], mapped, b"pw");
            let message = Message::parse(&out).unwrap();
            assert_eq!(message.xor_mapped_address(), Some(mapped));
            assert!(message.verify_integrity(b"pw") && message.has_fingerprint());
        }
        let mut out = Vec::new();
        write_error(&mut out, [7; 12], 401);
        let message = Message::parse(&out).unwrap();
        assert_eq!(
            (message.class(), message.error_code()),
            (Class::Error, Some(401))
        );
        assert!(message.has_fingerprint() && !message.has_integrity());
    }

    #[test]
    fn any_flipped_bit_or_missing_byte_is_noticed() {
        for at in 0..REQUEST.len() * 8 {
            let mut damaged = REQUEST.to_vec();
            damaged[at / 8] ^= 1 << (at % 8);
            let intact = Message::parse(&damaged).is_ok_and(|message| message.has_fingerprint());
            assert!(!intact, "bit {at}");
        }
        for len in 0..REQUEST.len() {
            assert!(Message::parse(&REQUEST[..len]).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in 0u16..0x4000, body in prop::collection::vec(any::<u8>(), 0..128)) {
            let mut buf = Vec::new();
            begin(&mut buf, kind, [1; 12]);
            buf.extend_from_slice(&body);
            buf[2..4].copy_from_slice(&(body.len() as u16).to_be_bytes());
            let _ = Message::parse(&buf).map(|message| message.verify_integrity(b"pw"));
            let _ = ufrag_of(&buf);
            let _ = Message::parse(&body);
            let _ = ufrag_of(&body);
        }
    }
}
