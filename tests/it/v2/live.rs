//! The shapes that only live media gives, beside those of the recorded original.

use broth_ipc::body::Empty;
use broth_ipc::rtp::Profile as Layer;
use broth_ipc::{Call, Ids, TransportId};
use broth_replay::normal::has_same_shape;
use broth_replay::trace;
use broth_worker::srtp::Profile;
use serde_json::Value;

use crate::support::{CONSUMER, PRODUCER, ROUTER, Room, receive_rtp};

#[test]
fn stats_and_dumps_of_running_streams_have_the_originals_members() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    for seq in 0..5 {
        room.send(seq, seq == 0);
        receive_rtp(&mut room.receiver).unwrap();
    }
    let own = Ids::router(ROUTER);
    let empty = Empty {};
    let rows = [
        (
            "transport.getStats",
            own.transport(TransportId(1)),
            Call::GetTransportStats(empty),
        ),
        (
            "producer.getStats",
            own.producer(PRODUCER),
            Call::GetProducerStats(empty),
        ),
        (
            "consumer.getStats",
            own.consumer(CONSUMER),
            Call::GetConsumerStats(empty),
        ),
    ];
    for (method, ids, call) in rows {
        let ours = room.worker.call(ids, call).unwrap();
        let theirs = trace::answers("trace-extended", method).unwrap();
        assert!(
            theirs
                .iter()
                .any(|theirs| has_same_shape(&ours, &without_ssrcs(theirs))),
            "{method}: {ours} is like none of {theirs:?}"
        );
    }
    let ours = room
        .worker
        .call(own.transport(TransportId(1)), Call::DumpTransport(empty))
        .unwrap();
    let theirs = trace::answers("trace-extended", "transport.dump").unwrap();
    for member in [
        "iceSelectedTuple",
        "iceState",
        "dtlsState",
        "iceLocalParameters",
    ] {
        let theirs = theirs
            .iter()
            .find(|dump| dump["iceSelectedTuple"].is_object())
            .unwrap();
        assert!(
            has_same_shape(&ours[member], &theirs[member]),
            "{member}: {ours}"
        );
    }
    let ours = room
        .worker
        .call(own.producer(PRODUCER), Call::DumpProducer(empty))
        .unwrap();
    let theirs = trace::answers("trace-extended", "producer.dump").unwrap();
    let theirs = theirs
        .iter()
        .find(|dump| dump["rtpStreamInfos"][0].is_object())
        .unwrap();
    let infos = |dump: &Value| dump["rtpStreamInfos"][0].clone();
    assert!(has_same_shape(&infos(&ours), &infos(theirs)), "{ours}");
}

#[test]
fn a_pause_is_no_change_of_the_layer() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    room.send(0, true);
    receive_rtp(&mut room.receiver).unwrap();
    let consumer = Ids::router(ROUTER).consumer(CONSUMER);
    let pauses = [
        Call::PauseConsumer(Empty {}),
        Call::ResumeConsumer(Empty {}),
    ];
    for call in pauses {
        room.worker.call(consumer, call).unwrap();
        let dump = Call::DumpConsumer(Empty {});
        let dump = room.worker.call(consumer, dump).unwrap();
        assert_eq!(dump["effectiveProfile"], "default");
    }
    room.send(1, true);
    receive_rtp(&mut room.receiver).unwrap();
    assert_eq!(room.layers(), [Layer::Default]);
}

/// The original sends REMB without a limit, too.
fn without_ssrcs(stats: &Value) -> Value {
    let mut stats = stats.clone();
    if let Some(bandwidth) = stats[0].get_mut("localAvailableSendBw") {
        bandwidth["ssrcs"] = Value::Array(Vec::new());
    }
    stats
}
