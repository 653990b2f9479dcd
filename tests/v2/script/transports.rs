//! What transports are told after they were created, and how they can be created.

use serde_json::{Value, json};

use super::methods::{OWN, PLAIN, WEBRTC, on, plain, transport, webrtc, with};
use super::sequences::case;
use super::{Case, request};

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = settings();
    cases.extend(wrong_class());
    cases
}

fn settings() -> Vec<Case> {
    let dtls = |role: &str, algorithm: &str| {
        let data = json!({
            "role": role, "fingerprints": [{ "algorithm": algorithm, "value": "AA" }],
        });
        request("transport.setRemoteDtlsParameters", transport(OWN), data)
    };
    let mut requests = vec![
        webrtc(OWN),
        dtls("x", "sha-256"),
        dtls("client", "md5"),
        dtls("client", "SHA-256"),
    ];
    requests.extend([
        with(dtls("x", "x"), json!({ "fingerprints": [] })),
        dtls("auto", "sha-512"),
        on(OWN, "transport.dump"),
        dtls("server", "sha-256"),
        on(OWN, "transport.close"),
        webrtc(OWN),
        dtls("server", "sha-224"),
        on(OWN, "transport.close"),
        webrtc(OWN),
        dtls("client", "sha-384"),
        on(OWN, "transport.dump"),
        on(OWN, "transport.close"),
    ]);
    let remote = |ip: &str, port: u32| {
        let data = json!({ "ip": ip, "port": port });
        request("transport.setRemoteParameters", transport(OWN), data)
    };
    let bitrate = |bps: u32| {
        let data = json!({ "bitrate": bps });
        request("transport.setMaxBitrate", transport(OWN), data)
    };
    let plain_with = |data: Value| with(plain(OWN), data);
    let mirror = |data: Value| request("transport.startMirroring", transport(WEBRTC), data);
    let to = |ip: &str| json!({ "remoteIP": ip, "remotePort": 40_410 });
    let nothing = json!({ "udp": false, "tcp": false });
    vec![
        case("remote DTLS parameters", requests),
        case(
            "no protocol",
            vec![with(webrtc(OWN), nothing), on(OWN, "transport.dump")],
        ),
        case(
            "only UDP, only TCP",
            vec![
                with(webrtc(OWN), json!({ "tcp": false })),
                on(OWN, "transport.close"),
                with(webrtc(OWN), json!({ "udp": false, "preferTcp": true })),
                on(OWN, "transport.close"),
            ],
        ),
        case(
            "remote parameters",
            vec![
                plain(OWN),
                remote("x", 1000),
                remote("::1", 1000),
                remote("", 1000),
                remote("127.0.0.1", 1000),
                on(OWN, "transport.dump"),
                remote("127.0.0.2", 1001),
                on(OWN, "transport.dump"),
                on(OWN, "transport.close"),
            ],
        ),
        case(
            "limits of the bitrate",
            vec![
                webrtc(OWN),
                bitrate(1),
                on(OWN, "transport.getStats"),
                bitrate(10_001),
                on(OWN, "transport.getStats"),
                bitrate(u32::MAX),
                on(OWN, "transport.close"),
            ],
        ),
        case(
            "plain transports",
            vec![
                plain_with(json!({ "preferIPv4": false, "preferIPv6": false })),
                on(OWN, "transport.close"),
                plain_with(json!({ "preferIPv4": false, "preferIPv6": true })),
                plain_with(
                    json!({ "remoteIP": "::1", "remotePort": 1000, "preferIPv4": false,
                    "preferIPv6": false }),
                ),
                plain_with(
                    json!({ "remoteIP": "x", "remotePort": 1000, "preferIPv4": true,
                    "preferIPv6": false }),
                ),
                plain_with(json!({ "localIP": "127.0.0.1", "preferIPv4": true,
                    "preferIPv6": false })),
                on(OWN, "transport.close"),
                plain_with(json!({ "remoteIP": "", "preferIPv4": true, "preferIPv6": false })),
                on(OWN, "transport.close"),
            ],
        ),
        case(
            "mirroring",
            vec![
                on(WEBRTC, "transport.stopMirroring"),
                mirror(to("x")),
                mirror(to("::1")),
                mirror(to("127.0.0.1")),
                mirror(to("127.0.0.1")),
                mirror(to("x")),
                on(WEBRTC, "transport.stopMirroring"),
                on(WEBRTC, "transport.stopMirroring"),
                mirror(to("127.0.0.1")),
                on(WEBRTC, "transport.stopMirroring"),
            ],
        ),
    ]
}

/// Methods of the other class of transport.
fn wrong_class() -> Vec<Case> {
    let dtls = json!({ "fingerprints": [{ "algorithm": "sha-1", "value": "AA" }] });
    let rows = [
        (
            WEBRTC,
            "transport.setRemoteParameters",
            json!({ "ip": "127.0.0.1", "port": 1000 }),
        ),
        (PLAIN, "transport.setRemoteDtlsParameters", dtls),
        (PLAIN, "transport.setMaxBitrate", json!({ "bitrate": 1 })),
        (PLAIN, "transport.changeUfragPwd", json!({})),
        (
            PLAIN,
            "transport.startMirroring",
            json!({ "remoteIP": "127.0.0.1", "remotePort": 40_412 }),
        ),
        (PLAIN, "transport.stopMirroring", json!({})),
    ];
    rows.map(|(id, method, data)| {
        let name = format!("wrong class {method}");
        case(&name, vec![with(on(id, method), data)])
    })
    .into()
}
