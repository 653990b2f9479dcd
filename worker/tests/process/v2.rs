//! The worker of a mediasoup v2 controller: ports of its own, v2's shapes, its end.

use std::net::UdpSocket;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::Process;

const ROUTER: u32 = 1;

/// A worker with a router, listening on both loopback addresses.
fn worker(ports: &str) -> Process {
    let (min, max) = ports.split_once('-').unwrap();
    let mut worker = Process::start(&[
        "w#1",
        "--rtcIPv4=127.0.0.1",
        "--rtcIPv6=::1",
        "--rtcAnnouncedIPv4=9.9.9.9",
        &format!("--rtcMinPort={min}"),
        &format!("--rtcMaxPort={max}"),
    ]);
    worker.accepted(&request("worker.createRouter", json!({}), json!({})));
    worker
}

fn request(method: &str, ids: Value, data: Value) -> Value {
    let mut internal = ids;
    internal["routerId"] = ROUTER.into();
    json!({"id": 7, "method": method, "internal": internal, "data": data})
}

fn create(transport: u32, data: Value) -> Value {
    let ids = json!({"transportId": transport});
    request("router.createWebRtcTransport", ids, data)
}

fn create_plain(transport: u32, data: Value) -> Value {
    let ids = json!({"transportId": transport});
    request("router.createPlainRtpTransport", ids, data)
}

fn close(transport: u32) -> Value {
    let ids = json!({"transportId": transport});
    request("transport.close", ids, json!({}))
}

fn candidates(answer: &Value) -> Vec<(String, String, String, u16)> {
    let text = |candidate: &Value, name: &str| candidate[name].as_str().unwrap().to_owned();
    let candidates = answer["iceLocalCandidates"].as_array().unwrap();
    let of = |candidate: &Value| {
        let port = candidate["port"].as_u64().unwrap() as u16;
        let (protocol, family) = (text(candidate, "protocol"), text(candidate, "family"));
        (protocol, family, text(candidate, "ip"), port)
    };
    candidates.iter().map(of).collect()
}

#[test]
fn each_transport_opens_ports_of_its_own_and_gives_them_back() {
    let mut worker = worker("21400-21409");
    let answer = worker.accepted(&create(2, json!({})));
    let own = candidates(&answer);
    let expected = [
        ("udp", "ipv4", "9.9.9.9"),
        ("udp", "ipv6", "::1"),
        ("tcp", "ipv4", "9.9.9.9"),
        ("tcp", "ipv6", "::1"),
    ];
    assert_eq!(own.len(), expected.len());
    for ((protocol, family, ip, port), expected) in own.iter().zip(expected) {
        assert_eq!((&**protocol, &**family, &**ip), expected);
        assert!((21_400..=21_409).contains(port));
    }
    let others = candidates(&worker.accepted(&create(3, json!({"tcp": false}))));
    assert_eq!(others.len(), 2);
    assert_ne!(own[0].3, others[0].3);
    let address = ("127.0.0.1", own[0].3);
    assert!(UdpSocket::bind(address).is_err());
    let (notes, answer) = worker.ask_all(&close(2));
    assert_eq!(notes, [r#"{"event":"close","targetId":2}"#]);
    assert_eq!(answer, json!({"accepted": true, "data": {}, "id": 7}));
    assert!(UdpSocket::bind(address).is_ok());
}

#[test]
fn ports_run_out_and_are_reusable_at_once() {
    let mut worker = worker("21410-21411");
    let udp4 = |transport| create_plain(transport, json!({"preferIPv4": true}));
    for round in 0..3 {
        for transport in [10, 11] {
            worker.accepted(&udp4(transport));
        }
        let (lines, answer) = worker.ask_all(&udp4(12));
        let reason = "no more available ports for IP '127.0.0.1'";
        assert_eq!(answer["reason"], reason);
        let line = format!(
            "E[id:w#1] RTC::UdpSocket::GetRandomPort() | throwing MediaSoupError | {reason}"
        );
        assert_eq!(lines, [line], "and no stray close");
        // What can be opened is offered.
        let (lines, answer) = worker.ask_all(&create(13, json!({})));
        let place = "E[id:w#1] RTC::WebRtcTransport::WebRtcTransport() | ";
        let line = format!("{place}error adding IPv4 UDP socket: {reason}");
        assert_eq!(lines, [line]);
        let families: Vec<_> = candidates(&answer["data"])
            .into_iter()
            .map(|(protocol, family, ..)| protocol + &family)
            .collect();
        assert_eq!(families, ["udpipv6", "tcpipv4", "tcpipv6"]);
        let nothing = create(14, json!({"udp": false, "tcp": false}));
        let (lines, answer) = worker.ask_all(&nothing);
        assert_eq!(answer["reason"], "could not open any IP:port");
        assert_eq!(lines.len(), 1, "{lines:?}");
        for transport in [10, 11, 13] {
            worker.accepted(&close(transport));
        }
        assert!(round < 3);
    }
}

#[test]
fn plain_transports_choose_their_socket_as_v2s_do() {
    let mut both = worker("21420-21429");
    let mut only_ipv4 = Process::start(&["w#1", "--rtcIPv4=127.0.0.1", "--rtcIPv6=false"]);
    only_ipv4.accepted(&request("worker.createRouter", json!({}), json!({})));
    let to = |ip: &str| json!({"remoteIP": ip, "remotePort": 9});
    let rows = [
        (json!({}), "127.0.0.1", "127.0.0.1"),
        (json!({"preferIPv6": true}), "::1", "IPv6 disabled"),
        (to("127.0.0.1"), "127.0.0.1", "127.0.0.1"),
        (to("::1"), "::1", "IPv6 family not available for RTC"),
        (
            to("x"),
            "invalid destination IP 'x'",
            "invalid destination IP 'x'",
        ),
        (json!({"localIP": "127.0.0.2"}), "127.0.0.2", "127.0.0.2"),
        (
            json!({"localIP": "y"}),
            "invalid binding IP 'y'",
            "invalid binding IP 'y'",
        ),
        (
            json!({"localIP": "192.0.2.1"}),
            "uv_udp_bind() failed: address not available",
            "uv_udp_bind() failed: address not available",
        ),
        (
            json!({"localIP": "::1", "remoteIP": "::1", "remotePort": 9}),
            "::1",
            "IPv6 disabled",
        ),
        (
            json!({"remoteIP": "", "localIP": ""}),
            "127.0.0.1",
            "127.0.0.1",
        ),
    ];
    for (data, with_both, with_ipv4) in rows {
        for (worker, expected) in [(&mut both, with_both), (&mut only_ipv4, with_ipv4)] {
            let (notes, answer) = worker.ask_all(&create_plain(5, data.clone()));
            let got = answer["data"]["localIP"]
                .as_str()
                .or_else(|| answer["reason"].as_str());
            assert_eq!(got, Some(expected), "{data}");
            assert!(notes.iter().all(|note| note.starts_with('E')), "{notes:?}");
            if answer["accepted"] == true {
                worker.accepted(&close(5));
            }
        }
    }
}

#[test]
fn ids_of_notifications_are_unique_in_the_worker() {
    let mut worker = worker("21430-21439");
    let udp = json!({"tcp": false});
    worker.accepted(&create(2, udp.clone()));
    let taken = |id| format!("targetId already in use in this Worker [targetId:{id}]");
    let rows = [
        (
            create(2, udp.clone()),
            "a Transport with same transportId already exists".into(),
        ),
        (create(ROUTER, udp.clone()), taken(ROUTER)),
        (
            json!({"id": 7, "method": "worker.createRouter", "internal": {"routerId": 2}}),
            taken(2),
        ),
        (
            request("worker.createRouter", json!({}), json!({})),
            "Router already exists".into(),
        ),
    ];
    for (request, reason) in rows {
        let (_, answer) = worker.ask_all(&request);
        assert_eq!(answer["reason"], reason);
    }
    let other = json!({"id": 7, "method": "worker.createRouter", "internal": {"routerId": 3}});
    worker.accepted(&other);
    let mut elsewhere = create(2, udp);
    elsewhere["internal"]["routerId"] = 3.into();
    let (_, answer) = worker.ask_all(&elsewhere);
    assert_eq!(answer["reason"], taken(2));
}

#[test]
fn sigterm_closes_everything_and_says_so() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut worker = worker("21440-21449");
        for ignored in [
            Signal::SIGPIPE,
            Signal::SIGHUP,
            Signal::SIGALRM,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            worker.signal(ignored);
        }
        let parameters = json!({
            "muxId": "1",
            "codecs": [{"mimeType": "audio/opus", "clockRate": 48000, "payloadType": 100,
                "channels": 2, "rtcpFeedback": [], "parameters": {}}],
            "encodings": [{"ssrc": 1111}],
            "headerExtensions": [],
            "rtcp": {"cname": "x"},
        });
        let mapping = json!({"codecPayloadTypes": [[100, 100]], "headerExtensionIds": []});
        worker.accepted(&create(2, json!({})));
        let ids = json!({"transportId": 2, "producerId": 3});
        let data = json!({"kind": "audio", "rtpParameters": parameters, "rtpMapping": mapping});
        worker.accepted(&request("router.createProducer", ids, data));
        let ids = json!({"producerId": 3, "consumerId": 4});
        worker.accepted(&request(
            "router.createConsumer",
            ids,
            json!({"kind": "audio"}),
        ));
        worker.signal(signal);
        for expected in [
            r#"{"event":"close","targetId":4}"#,
            r#"{"event":"close","targetId":2}"#,
        ] {
            assert_eq!(worker.read_text(), expected);
        }
        let output = worker.wait();
        assert_eq!(output.status.code(), Some(0));
        assert!(
            output.stderr.is_empty(),
            "{:?}",
            String::from_utf8(output.stderr)
        );
    }
}
