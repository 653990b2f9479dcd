//! What the original controller asked of the original worker, asked again.

use broth_replay::process::V2Worker;
use broth_replay::trace::{self, TRACES};

/// Ports for the worker's transports.
const PORTS: (u16, u16) = (43_000, 43_999);

/// Sessions and requests that are answered differently on purpose, and how.
const DIFFERENT: [(&str, u64, &str); 7] = [
    // A transport that was never there does not close.
    ("main", 1016, "could not open any IP:port"),
    ("main", 1075, "invalid destination IP 'x'"),
    // The original keeps a stale reference to the first transport.
    ("main", 1070, "Consumer already enabled"),
    // The original dies of these.
    (
        "setRemoteParameters on WebRtcTransport",
        1003,
        "wrong Transport type",
    ),
    (
        "setRemoteDtlsParameters on PlainRtpTransport",
        1003,
        "wrong Transport type",
    ),
    (
        "changeUfragPwd on PlainRtpTransport",
        1003,
        "wrong Transport type",
    ),
    (
        "setMaxBitrate on PlainRtpTransport",
        1003,
        "wrong Transport type",
    ),
];

#[test]
fn requests_of_the_original_controller_are_answered_as_by_the_original_worker() {
    let mut wrong = Vec::new();
    let (mut requests, mut different) = (0, 0);
    for name in TRACES {
        for session in trace::read(name).unwrap() {
            let mut worker =
                V2Worker::start(env!("CARGO_BIN_EXE_broth-test-worker"), PORTS).unwrap();
            for step in session.steps {
                requests += 1;
                let reaction = worker.tell(step.payload.as_bytes()).unwrap();
                assert!(!reaction.is_dead, "{name} died of {}", step.payload);
                let ours = step.with_messages(reaction.messages);
                let mut listed = DIFFERENT.iter();
                let listed =
                    listed.find(|(start, id, _)| *start == session.name && Some(*id) == step.id);
                let reason = ours
                    .answer
                    .as_ref()
                    .and_then(|answer| answer["reason"].as_str());
                if listed.is_some_and(|(_, _, expected)| reason == Some(expected)) {
                    different += 1;
                } else if (&ours.answer, &ours.events) != (&step.answer, &step.events) {
                    wrong.push(format!(
                        "{name}: {}\n  ours:   {:?} {}\n  theirs: {:?} {}",
                        step.payload,
                        ours.events,
                        ours.answer.unwrap_or_default(),
                        step.events,
                        step.answer.unwrap_or_default(),
                    ));
                }
            }
        }
    }
    println!("{requests} requests, {different} with a listed difference");
    assert_eq!(different, DIFFERENT.len());
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
