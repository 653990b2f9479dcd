//! What a worker makes of its options.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::support::Process;

#[test]
fn bad_settings_are_told_as_v2s_worker_tells_them() {
    let rows = [
        (
            "--logLevel=chicken",
            "Settings::SetLogLevel",
            "invalid value 'chicken' for logLevel",
        ),
        (
            "--rtcMinPort=1",
            "Settings::SetRtcPorts",
            "rtcMinPort must be greater or equal than 1024",
        ),
        (
            "--logLevel",
            "Settings::SetConfiguration",
            "unknown configuration parameter: (null)",
        ),
        (
            "--rtcIPv4=192.0.2.1",
            "Settings::SetRtcIPv4",
            "cannot bind on '192.0.2.1' for rtcIPv4: Cannot assign requested address",
        ),
    ];
    for (argument, place, text) in rows {
        let mut worker = Process::start(&["w#1", argument]);
        let expected = format!("E[id:w#1] {place}() | throwing MediaSoupError | {text}");
        assert_eq!(worker.read_text(), expected);
        let expected = format!("E[id:w#1] main::main() | configuration error: {text}");
        assert_eq!(worker.read_text(), expected);
        assert_eq!(worker.wait().status.code(), Some(1), "{argument}");
    }
}

#[test]
fn what_the_settings_are_is_told_to_whoever_asks_for_that_much() {
    let mut worker = Process::start(&[
        "w#1",
        "--logLevel=debug",
        "--logTag=info",
        "--rtcIPv4=127.0.0.1",
        "--rtcIPv6=false",
    ]);
    let place = "D[id:w#1] Settings::PrintConfiguration() | ";
    for expected in [
        "logLevel: debug",
        "logTags: info",
        "rtcIPv4: 127.0.0.1",
        "rtcIPv6: (unavailable)",
    ] {
        assert_eq!(worker.read_text(), format!("{place}{expected}"));
    }
    assert!(worker.read_text().contains("starting broth-worker"));
    let update = |data| json!({"id": 1, "method": "worker.updateSettings", "data": data});
    let (lines, _) = worker.ask_all(&update(json!({})));
    assert_eq!(lines.len(), 4);
    let quiet = update(json!({"logLevel": "none"}));
    assert!(worker.ask_all(&quiet).0.is_empty());
    let (lines, answer) = worker.ask_all(&update(json!({"logLevel": "chicken"})));
    assert_eq!(answer["rejected"], true);
    assert!(lines.is_empty(), "not even what went wrong: {lines:?}");
}

#[test]
fn the_certificate_is_read_from_files() {
    let directory = std::env::temp_dir().join(format!("broth-pem-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let write = |name: &str, pem: &str| -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, pem).unwrap();
        path
    };
    let (certificate, key) = openssl_identity();
    let certificate = write("certificate.pem", &certificate);
    let key = write("key.pem", &key);
    let arguments = |certificate: &PathBuf, key: &PathBuf| {
        [
            format!("--dtlsCertificateFile={}", certificate.display()),
            format!("--dtlsPrivateKeyFile={}", key.display()),
        ]
    };
    let start = |[certificate, key]: [String; 2]| {
        Process::start(&["w#1", "--rtcIPv4=127.0.0.1", &certificate, &key])
    };

    let fingerprints: Vec<_> = (0..2)
        .map(|_| {
            let mut worker = start(arguments(&certificate, &key));
            let ids = json!({"routerId": 1, "transportId": 2});
            worker.accepted(&json!({"id": 1, "method": "worker.createRouter", "internal": ids}));
            let create = "router.createWebRtcTransport";
            let dump = worker.accepted(&json!({"id": 2, "method": create, "internal": ids}));
            dump["dtlsLocalParameters"]["fingerprints"].clone()
        })
        .collect();
    assert_eq!(fingerprints[0], fingerprints[1], "not made at the start");

    let mut worker = start(arguments(&key, &certificate));
    let line = worker.read_text();
    let place = "E[id:w#1] RTC::DtlsTransport::ReadCertificateAndPrivateKeyFromFiles()";
    assert!(line.starts_with(place), "{line}");
    let output = worker.wait();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "[id:w#1] main::main() | failure exit: \
                    error reading DTLS certificate and private key PEM files\n";
    assert_eq!(said, expected);

    let missing = directory.join("none.pem");
    let mut worker = start(arguments(&missing, &key));
    let line = worker.read_text();
    let place = "E[id:w#1] Settings::SetDtlsCertificateAndPrivateKeyFiles() | ";
    assert!(line.starts_with(place), "{line}");
    assert_eq!(worker.wait().status.code(), Some(1));
    fs::remove_dir_all(directory).unwrap();
}

/// A self-signed certificate and its key.
fn openssl_identity() -> (String, String) {
    use openssl::asn1::Asn1Time;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::x509::X509;

    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut builder = X509::builder().unwrap();
    let (begin, end) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(1));
    builder.set_not_before(&begin.unwrap()).unwrap();
    builder.set_not_after(&end.unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let text = |pem| String::from_utf8(pem).unwrap();
    let certificate = builder.build().to_pem().unwrap();
    let key = key.private_key_to_pem_pkcs8().unwrap();
    (text(certificate), text(key))
}
