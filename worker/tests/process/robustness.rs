//! What no controller should do: the worker survives it, or ends and says why.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use serde_json::{Value, json};

use crate::support::Process;

/// The most that mediasoup v2's controller keeps of what it could not read yet.
const V2_BUFFER_BYTES: usize = 65_543;

fn start() -> Process {
    Process::start(&["w#1", "--rtcIPv4=127.0.0.1", "--rtcIPv6=false"])
}

fn frame(request: &Value) -> Vec<u8> {
    let payload = request.to_string();
    format!("{}:{payload},", payload.len()).into_bytes()
}

/// A worker whose dumps are long.
fn crowded(transports: u32) -> Process {
    let mut worker = start();
    let router = json!({"id": 1, "method": "worker.createRouter", "internal": {"routerId": 1}});
    worker.accepted(&router);
    for id in 0..transports {
        let ids = json!({"routerId": 1, "transportId": 100 + id});
        let method = "router.createPlainRtpTransport";
        worker.accepted(&json!({"id": 2, "method": method, "internal": ids}));
    }
    worker
}

fn dump(id: u32) -> Value {
    json!({"id": id, "method": "worker.dump"})
}

fn resident_bytes(worker: &Process) -> usize {
    let path = format!("/proc/{}/statm", worker.child.id());
    let statm = std::fs::read_to_string(path).unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn requests_wait_while_the_controller_does_not_read() {
    const REQUESTS: u32 = 10_000;
    let mut worker = crowded(10);
    let len = worker.accepted(&dump(1)).to_string().len();
    assert!(len > 1000, "{len}");
    let before = resident_bytes(&worker);
    let mut channel = worker.channel.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for id in 0..REQUESTS {
            channel.write_all(&frame(&dump(id))).unwrap();
        }
    });
    thread::sleep(std::time::Duration::from_millis(500));
    assert!(!writer.is_finished(), "the requests wait in the channel");
    let grown = resident_bytes(&worker).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown}");
    for id in 0..REQUESTS {
        assert_eq!(worker.read()["id"], id);
    }
    writer.join().unwrap();
}

#[test]
fn a_burst_is_never_more_than_v2s_controller_can_take() {
    let mut worker = crowded(100);
    for id in 0..100 {
        worker.channel.write_all(&frame(&dump(id))).unwrap();
    }
    thread::sleep(std::time::Duration::from_millis(300));
    // As that controller reads: what is left of the reading before, and another 64 KiB.
    let mut unread: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 65_536];
    let mut next = 0;
    while next < 100 {
        let len = worker.channel.read(&mut chunk).unwrap();
        let is_appended = !unread.is_empty();
        unread.extend_from_slice(&chunk[..len]);
        assert!(
            !is_appended || unread.len() <= V2_BUFFER_BYTES,
            "thrown away"
        );
        while let Some((payload, rest)) = split_frame(&unread) {
            let answer: Value = serde_json::from_slice(payload).unwrap();
            assert_eq!(answer["id"], next);
            next += 1;
            unread = rest.to_vec();
        }
    }
}

/// The payload of a complete first frame, and what follows.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let len: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let payload = bytes.get(colon + 1..colon + 1 + len)?;
    Some((payload, bytes.get(colon + 2 + len..)?))
}

#[test]
fn a_reply_above_the_limit_is_a_refusal() {
    let mut worker = crowded(700);
    let (_, answer) = worker.ask_all(&dump(5));
    let expected = json!({"id": 5, "reason": "reply too big", "rejected": true});
    assert_eq!(answer, expected);
}

#[test]
fn half_a_message_before_the_end_is_no_error() {
    let mut worker = start();
    worker.ask_all(&dump(1));
    worker.channel.write_all(b"100:{\"id\":").unwrap();
    worker.channel.shutdown(Shutdown::Write).unwrap();
    let output = worker.wait();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "[id:w#1] Worker::OnChannelUnixStreamSocketRemotelyClosed() | \
                    Channel remotely closed, killing myself\n";
    assert_eq!(said, expected);
}

#[test]
fn requests_before_the_end_are_carried_out() {
    let mut worker = start();
    for id in 0..1000 {
        worker.channel.write_all(&frame(&dump(id))).unwrap();
    }
    worker.channel.shutdown(Shutdown::Write).unwrap();
    for id in 0..1000 {
        assert_eq!(worker.read()["id"], id);
    }
    assert_eq!(worker.wait().status.code(), Some(0));
}

#[test]
fn a_stream_that_is_lost_ends_the_worker() {
    let rows = [
        ("x", "NO_LENGTH"),
        ("01:a,", "LEADING_ZERO"),
        ("65537:", "TOO_LONG"),
        ("9999999999:", "TOO_LONG"),
        ("2;{},", "NO_COLON"),
        ("2:{}{", "NO_COMMA"),
    ];
    for (bytes, name) in rows {
        let mut worker = start();
        worker.channel.write_all(bytes.as_bytes()).unwrap();
        let output = worker.wait();
        assert_eq!(output.status.code(), Some(1), "{bytes}");
        let said = String::from_utf8(output.stderr).unwrap();
        let place = "[id:w#1] Channel::UnixStreamSocket::UserOnUnixStreamRead() | ";
        let expected = format!("{place}NETSTRING_ERROR_{name}\n");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn the_longest_request_is_answered() {
    let mut worker = start();
    let mut request = dump(1).to_string();
    request.insert_str(1, &" ".repeat(65_536 - request.len()));
    worker.write(&request);
    assert_eq!(worker.read()["id"], 1);
}
