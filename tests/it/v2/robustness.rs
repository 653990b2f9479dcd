//! A worker dies of nothing that arrives on its channel, answers whatever has an id, and keeps
//! nothing of what is closed.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::Duration;

use broth_ipc::V2_PAYLOAD_BYTES_MAX;
use broth_replay::process::V2Worker;
use broth_replay::script::{self, Payload};
use serde_json::{Value, json};

/// Ports for the workers' transports.
const PORTS: (u16, u16) = (44_000, 44_999);
/// Times that everything is created and closed.
const CYCLES: usize = 2_000;
/// What a worker may hold for a controller that does not read.
const UNREAD_GROWTH_BYTES_MAX: u64 = 4 << 20;
/// Cases of a script that are sent without waiting for answers.
const CASES_AT_ONCE: usize = 20;
/// What a worker may keep of them: pages of the allocator, not objects.
const GROWTH_BYTES_MAX: u64 = 1 << 20;

fn start() -> V2Worker {
    V2Worker::start(env!("CARGO_BIN_EXE_broth-test-worker"), PORTS).unwrap()
}

#[test]
fn nothing_is_left_of_what_is_closed() {
    let mut worker = start();
    // What a worker keeps for later is there after a first round.
    cycle(&mut worker, CYCLES / 4);
    let before = Footprint::of(&mut worker);
    cycle(&mut worker, CYCLES);
    let after = Footprint::of(&mut worker);
    println!("{CYCLES} cycles: {before:?}, then {after:?}");
    after.assert_like(&before);
}

#[test]
fn nothing_is_left_of_hostile_requests() {
    let mut worker = start();
    hostile(&mut worker);
    let before = Footprint::of(&mut worker);
    hostile(&mut worker);
    let after = Footprint::of(&mut worker);
    println!("hostile requests: {before:?}, then {after:?}");
    after.assert_like(&before);
}

#[test]
fn ten_thousand_requests_are_answered_though_nobody_reads_meanwhile() {
    let mut worker = start();
    set_up(&mut worker);
    let before = Footprint::of(&mut worker);
    let count = 10_000;
    let ids = json!({ "routerId": 1, "transportId": 2 });
    let mut bytes = Vec::new();
    for id in 1..=count {
        let request = json!({ "id": id, "method": "transport.getStats", "internal": ids });
        broth_ipc::netstring::encode(request.to_string().as_bytes(), &mut bytes);
    }
    let mut writer = worker.writer().unwrap();
    let writing = thread::spawn(move || writer.write_all(&bytes));
    thread::sleep(Duration::from_millis(300));
    let reaction = worker.read_until(|message| message["id"] == count).unwrap();
    writing.join().unwrap().unwrap();
    let ids = reaction
        .messages
        .iter()
        .map(|message| message["id"].as_u64());
    assert!(
        ids.eq((1..count).map(Some)),
        "every request is answered once, in order"
    );
    let after = Footprint::of(&mut worker);
    let growth = after.rss_bytes.saturating_sub(before.rss_bytes);
    assert!(
        growth <= UNREAD_GROWTH_BYTES_MAX,
        "{growth} bytes for answers"
    );
}

#[test]
fn half_a_message_and_the_end_of_the_channel_end_a_worker_in_order() {
    let whole = br#"50:{"id":1,"method":"worker.dump","#;
    for cut in [0, 1, 3, 20, whole.len()] {
        let mut worker = start();
        assert!(worker.ask(&json!({ "method": "worker.dump" })).is_ok());
        worker.write(&whole[..cut]).unwrap();
        worker.hang_up().unwrap();
        let status = worker.wait().unwrap();
        assert_eq!(status.code(), Some(0), "after {cut} bytes");
    }
}

#[test]
fn a_request_that_is_too_big_ends_the_channel_and_the_largest_is_answered() {
    let mut worker = start();
    let request = |padding: usize| {
        let start = r#"{"id":7,"method":"worker.dump","data":{"padding":""#;
        format!("{start}{}\"}}}}", "x".repeat(padding))
    };
    let largest = V2_PAYLOAD_BYTES_MAX - request(0).len();
    let reaction = worker.tell(request(largest).as_bytes()).unwrap();
    assert!(is_accepted(&reaction.messages));
    let reaction = worker.tell(request(largest + 1).as_bytes()).unwrap();
    assert!(
        reaction.is_dead && reaction.messages.is_empty(),
        "{reaction:?}"
    );
    // An error, for whoever looks at the status.
    assert_eq!(worker.wait().unwrap().code(), Some(1));
}

#[test]
fn a_reply_that_is_too_big_is_refused() {
    let mut worker = start();
    let router = json!({ "routerId": 1 });
    worker
        .ask(&json!({ "method": "worker.createRouter", "internal": router }))
        .unwrap();
    for transport in 100..200 {
        let ids = json!({ "routerId": 1, "transportId": transport });
        let create = json!({ "method": "router.createWebRtcTransport", "internal": ids });
        assert!(is_accepted(&worker.ask(&create).unwrap().messages));
    }
    let reaction = worker
        .ask(&json!({ "method": "router.dump", "internal": router }))
        .unwrap();
    let [answer] = reaction.messages.as_slice() else {
        panic!("{reaction:?}");
    };
    assert_eq!(answer["reason"], "reply too big");
    let close = json!({ "method": "router.close", "internal": router });
    assert!(is_accepted(&worker.ask(&close).unwrap().messages));
}

/// What a worker holds.
#[derive(Debug)]
struct Footprint {
    rss_bytes: u64,
    descriptors: usize,
    dump: Value,
}

impl Footprint {
    fn of(worker: &mut V2Worker) -> Self {
        let reaction = worker.ask(&json!({ "method": "worker.dump" })).unwrap();
        let process = format!("/proc/{}", worker.pid());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let rss_kb: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
        Self {
            rss_bytes: rss_kb * 1024,
            descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count(),
            dump: reaction.messages[0].clone(),
        }
    }

    fn assert_like(&self, before: &Self) {
        assert_eq!(self.dump, before.dump);
        assert_eq!(self.dump["data"]["routers"], json!([]));
        assert_eq!(self.descriptors, before.descriptors);
        let growth = self.rss_bytes.saturating_sub(before.rss_bytes);
        assert!(
            growth <= GROWTH_BYTES_MAX,
            "{growth} bytes more than before"
        );
    }
}

fn is_accepted(messages: &[Value]) -> bool {
    messages.iter().any(|message| message["accepted"] == true)
}

/// Every case of every script, then its objects are closed.
fn hostile(worker: &mut V2Worker) {
    for script in script::all() {
        set_up(worker);
        for cases in script.cases.chunks(CASES_AT_ONCE) {
            let payloads = cases.iter().flat_map(|case| &case.payloads);
            let reaction = worker.tell_all(payloads).unwrap();
            assert!(
                !reaction.is_dead,
                "died of {} or what follows",
                cases[0].name
            );
        }
        // Those that a case made in place of the usual one, too.
        for router in [0, 1, 8, 9, 255, u32::MAX] {
            let ids = json!({ "routerId": router });
            worker
                .ask(&json!({ "method": "router.close", "internal": ids }))
                .unwrap();
        }
    }
}

fn set_up(worker: &mut V2Worker) {
    for request in script::setup() {
        assert!(
            is_accepted(&worker.ask(&request).unwrap().messages),
            "{request}"
        );
    }
}

/// Creates a router with everything in it and closes it, again and again.
fn cycle(worker: &mut V2Worker, times: usize) {
    let mut requests = script::setup();
    requests.push(json!({ "method": "router.close", "internal": { "routerId": 1 } }));
    let requests: Vec<Payload> = requests.into_iter().map(Payload::from).collect();
    for _ in 0..times {
        let reaction = worker.tell_all(&requests).unwrap();
        let accepted = reaction
            .messages
            .iter()
            .filter(|message| message["accepted"] == true);
        assert_eq!(accepted.count(), requests.len());
    }
}
