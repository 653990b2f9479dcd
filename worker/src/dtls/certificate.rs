//! The worker's certificate and the fingerprints of any certificate (RFC 8122).

use broth_ipc::body::{DtlsIdentity, Fingerprint};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameBuilder, X509Ref};

/// Validity; browsers do not look at it, but some stacks do.
const VALID_DAYS: u32 = 3650;
/// Backdated for peers whose clock is behind.
const BACKDATED_SECONDS: i64 = 24 * 3600;
/// Hash algorithms of fingerprints, in the order they are told.
const ALGORITHMS: [&str; 5] = ["sha-1", "sha-224", "sha-256", "sha-384", "sha-512"];

/// A certificate and its key.
#[derive(Clone)]
pub struct Certificate {
    x509: X509,
    key: PKey<Private>,
    fingerprints: Vec<Fingerprint>,
}

impl Certificate {
    /// Makes a self-signed ECDSA P-256 certificate.
    ///
    /// # Errors
    /// OpenSSL fails.
    pub fn generate() -> Result<Self, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_text("CN", "broth")?;
        let name = name.build();
        let mut serial = BigNum::new()?;
        serial.rand(64, MsbOption::MAYBE_ZERO, false)?;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs().cast_signed());

        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_not_before(Asn1Time::from_unix(now - BACKDATED_SECONDS)?.as_ref())?;
        builder.set_not_after(Asn1Time::days_from_now(VALID_DAYS)?.as_ref())?;
        builder.set_pubkey(&key)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self::new(builder.build(), key))
    }

    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// One of them is no PEM of its kind.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, ErrorStack> {
        Ok(Self::new(
            X509::from_pem(certificate.as_bytes())?,
            PKey::private_key_from_pem(key.as_bytes())?,
        ))
    }

    fn new(x509: X509, key: PKey<Private>) -> Self {
        let fingerprints = ALGORITHMS
            .iter()
            .filter_map(|&algorithm| {
                Some(Fingerprint {
                    algorithm: algorithm.into(),
                    value: fingerprint_of(&x509, algorithm)?,
                })
            })
            .collect();
        Self {
            x509,
            key,
            fingerprints,
        }
    }

    /// The certificate and its key as PEM.
    ///
    /// # Errors
    /// OpenSSL fails.
    pub fn to_identity(&self) -> Result<DtlsIdentity, ErrorStack> {
        let text = |pem: Vec<u8>| String::from_utf8_lossy(&pem).into_owned();
        Ok(DtlsIdentity {
            certificate: text(self.x509.to_pem()?),
            private_key: text(self.key.private_key_to_pem_pkcs8()?),
        })
    }

    /// The fingerprints by every known algorithm.
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.fingerprints.clone()
    }

    pub(super) fn x509(&self) -> &X509Ref {
        &self.x509
    }

    pub(super) fn key(&self) -> &PKey<Private> {
        &self.key
    }
}

/// The digest of an algorithm name as it stands in SDP.
pub(super) fn digest(algorithm: &str) -> Option<MessageDigest> {
    Some(match algorithm {
        "sha-1" => MessageDigest::sha1(),
        "sha-224" => MessageDigest::sha224(),
        "sha-256" => MessageDigest::sha256(),
        "sha-384" => MessageDigest::sha384(),
        "sha-512" => MessageDigest::sha512(),
        _ => return None,
    })
}

/// The upper-case colon-separated hash of a certificate.
pub(super) fn fingerprint_of(certificate: &X509Ref, algorithm: &str) -> Option<String> {
    let hash = certificate.digest(digest(algorithm)?).ok()?;
    let hex: Vec<String> = hash.iter().map(|byte| format!("{byte:02X}")).collect();
    Some(hex.join(":"))
}
