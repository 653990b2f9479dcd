use std::os::fd::AsFd;

use super::*;
use crate::body::{IceParameters, Protocol};
use crate::{ConsumerId, RouterId, TransportId};

fn parse(text: &str) -> Result<Incoming, Discard> {
    Request::parse(text.as_bytes())
}

#[test]
fn a_request_survives_the_wire() {
    let request = Request {
        id: 7,
        ids: Ids::router(RouterId(1)).transport(TransportId(2)),
        call: Call::CreateWebRtcTransport(WebRtcTransportOptions {
            tcp: false,
            restore: Some(IceParameters {
                username_fragment: "a".into(),
                password: "b".into(),
                ice_lite: true,
            }),
            ..WebRtcTransportOptions::default()
        }),
    };
    let incoming = Request::parse(&request.to_payload(2).unwrap()).unwrap();
    assert_eq!((incoming.id, incoming.fds), (7, 2));
    assert_eq!(incoming.request.unwrap(), request);
}

#[test]
fn recorded_requests_of_the_original_controller_are_understood() {
    let text = r#"{"id":36456998,"method":"worker.createRouter","internal":{"routerId":42789935}}"#;
    let request = parse(text).unwrap().request.unwrap();
    assert_eq!(request.ids, Ids::router(RouterId(42_789_935)));
    assert_eq!(request.call, Call::CreateRouter(CreateRouter::default()));

    let text = r#"{"id":1.0,"method":"consumer.enable","internal":{"routerId":1,"consumerId":3,
        "producerId":4,"transportId":2},"data":{"rtpParameters":{"codecs":[{"name":"opus",
        "mimeType":"audio/opus","clockRate":48000,"payloadType":100,"channels":2,
        "rtcpFeedback":[],"parameters":{}}],"headerExtensions":[],"encodings":[{"ssrc":5}],
        "rtcp":{"cname":"x","reducedSize":true,"mux":true}}}}"#;
    let request = parse(text).unwrap().request.unwrap();
    assert_eq!(request.ids.consumer_id, Some(ConsumerId(3)));
    assert!(matches!(request.call, Call::EnableConsumer(_)));
}

#[test]
fn what_has_no_id_or_method_is_discarded() {
    for text in [
        "",
        "null",
        "[]",
        "3",
        "\"x\"",
        "{}",
        "{",
        r#"{"id":-1}"#,
        r#"{"id":1.5}"#,
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(parse(&deep), Err(Discard::Json(_))));
    assert_eq!(parse(r#"{"id":1}"#).unwrap_err(), Discard::Method);
    assert_eq!(
        parse(r#"{"id":1,"method":4}"#).unwrap_err(),
        Discard::Method
    );
}

#[test]
fn wrong_data_is_refused_with_a_code_and_v2s_words() {
    let refusal = |text: &str| parse(text).unwrap().request.unwrap_err();
    let unknown = refusal(r#"{"id":1,"method":"worker.fly"}"#);
    assert_eq!(unknown.code, ErrorCode::UnknownMethod);
    assert_eq!(unknown.reason, "unknown method");
    let missing = refusal(r#"{"id":1,"method":"router.createConsumer","data":7}"#);
    assert_eq!(missing.code, ErrorCode::InvalidRequest);
    assert_eq!(missing.reason, "missing data.kind");
}

#[test]
fn what_cannot_be_read_is_answered_if_it_has_an_id() {
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    let deep = format!(r#"{{"id":1,"method":"worker.dump","data":{deep}}}"#);
    let payloads: [&[u8]; 3] = [
        deep.as_bytes(),
        b"{\"id\":1,\"method\":\"worker.dump\",\"data\":\"\xFF\"}",
        br#"{"id":1,"method":"worker.dump","data":"\ud800"}"#,
    ];
    for payload in payloads {
        let incoming = Request::parse(payload).unwrap();
        assert_eq!(incoming.id, 1);
        let rejection = incoming.request.unwrap_err();
        assert!(
            rejection.reason.starts_with("JSON parsing error: "),
            "{rejection}"
        );
    }
    // What follows the value is nobody's business.
    let text = r#"{"id":1,"method":"worker.dump"} and more"#;
    assert!(parse(text).unwrap().request.is_ok());
}

#[test]
fn requests_say_which_objects_they_need() {
    let text = r#"{"id":1,"method":"consumer.enable","data":{}}"#;
    let incoming = parse(text).unwrap();
    let expected = [Subject::Router, Subject::Consumer, Subject::Transport];
    assert_eq!(incoming.subjects, expected);
    assert!(incoming.request.is_err());
}

#[test]
fn ids_of_the_wrong_type_count_as_absent() {
    let text = r#"{"id":1,"method":"router.dump","internal":{"routerId":"5","transportId":-1}}"#;
    assert_eq!(parse(text).unwrap().request.unwrap().ids, Ids::NONE);
}

#[test]
fn responses_have_v2s_shape() {
    let accepted = Response {
        id: 1,
        result: Ok(json!({})),
    };
    assert_eq!(
        String::from_utf8(accepted.to_payload().unwrap()).unwrap(),
        r#"{"accepted":true,"data":{},"id":1}"#
    );
    let rejected = Response {
        id: 2,
        result: Err(Rejection::not_found("Router does not exist")),
    };
    let payload = rejected.to_payload().unwrap();
    assert_eq!(
        FromWorker::parse(&payload),
        Ok(FromWorker::Response(rejected))
    );
}

#[test]
fn notifications_survive_the_wire_and_v2s_are_understood() {
    let notification = Notification {
        target: Target {
            target_id: 9,
            router_id: Some(RouterId(1)),
            scope: Some(Scope::Transport),
        },
        event: Event::IceSelectedTupleChange {
            ice_selected_tuple: TransportTuple {
                local_ip: [127, 0, 0, 1].into(),
                local_port: 1,
                remote_ip: [127, 0, 0, 1].into(),
                remote_port: 2,
                protocol: Protocol::Udp,
            },
            connection: None,
        },
    };
    let payload = notification.to_payload().unwrap();
    assert_eq!(
        FromWorker::parse(&payload),
        Ok(FromWorker::Notification(notification.clone(), 0))
    );

    let mut over_tcp = notification.clone();
    over_tcp
        .event
        .set_fds(vec![io::stdin().as_fd().try_clone_to_owned().unwrap()]);
    let payload = over_tcp.to_payload().unwrap();
    assert_eq!(
        FromWorker::parse(&payload),
        Ok(FromWorker::Notification(notification, 1))
    );
    assert_eq!(over_tcp.event.into_fds().unwrap().len(), 1);

    let v2 = |text: &str| match FromWorker::parse(text.as_bytes()) {
        Ok(FromWorker::Notification(notification, 0)) => notification.event,
        other => panic!("{other:?}"),
    };
    assert_eq!(v2(r#"{"event":"close","targetId":5}"#), Event::Close);
    assert_eq!(
        v2(r#"{"data":{"iceState":"completed"},"event":"icestatechange","targetId":5}"#),
        Event::IceStateChange {
            ice_state: IceState::Completed
        }
    );
    assert_eq!(
        v2(r#"{"data":{"entries":[[7,-12]]},"event":"audiolevels","targetId":5}"#),
        Event::AudioLevels {
            entries: vec![(ProducerId(7), -12)]
        }
    );
    assert_eq!(
        v2(r#"{"data":{"profile":"low"},"event":"effectiveprofilechange","targetId":5}"#),
        Event::EffectiveProfileChange {
            profile: Profile::Low
        }
    );
}

#[test]
fn v2_log_lines_and_garbage_are_told_apart() {
    assert_eq!(
        FromWorker::parse(b"Wcareful"),
        Ok(FromWorker::LogLine("warn", "careful".into()))
    );
    assert!(FromWorker::parse(b"").is_err());
    assert!(FromWorker::parse(b"x").is_err());
    assert!(FromWorker::parse(b"{}").is_err());
    assert!(FromWorker::parse(br#"{"id":1}"#).is_err());
}
