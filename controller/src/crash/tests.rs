//! Names, texts and the number of reports.

use std::os::unix::fs::PermissionsExt;

use broth_ipc::{RouterId, TransportId};

use super::*;

fn at(seconds: u64, millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis)
}

fn report(in_hand: Result<Option<InHand>, String>) -> Report {
    Report {
        at: at(1_795_765_255, 7),
        worker: Dead {
            idx: 1,
            id: "0badcafe#2".into(),
            pid: 4242,
            cpu: 3,
            bin: "/usr/bin/broth-worker".into(),
            version: "0.1.0".into(),
        },
        status: ExitStatus::from_raw(Signal::SIGSEGV as i32 | 0x80),
        stood_still: false,
        served: Some(Duration::from_millis(1500)),
        in_hand,
        peer: Some("mallory".into()),
        consequence: "transport closed",
        lines: vec!["crashed (SIGSEGV at 0x0)".into()],
        backtrace: vec!["broth-worker(+0x1234)[0x5678]".into()],
    }
}

fn in_hand(work: Work, bytes: &[u8]) -> InHand {
    InHand {
        work,
        router: Some(RouterId(7)),
        transport: Some(TransportId(8)),
        remote: (work == Work::Datagram).then(|| "192.0.2.1:9".parse().unwrap()),
        len: bytes.len() + 1,
        bytes: bytes.into(),
    }
}

/// A directory of this test alone.
fn directory(name: &str) -> PathBuf {
    let name = format!("broth-crash-{name}-{}", std::process::id());
    std::env::temp_dir().join(name)
}

#[test]
fn times_are_utc() {
    for (seconds, millis, expected) in [
        (0, 0, "1970-01-01T00:00:00.000Z"),
        (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
        (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
        (951_868_800, 5, "2000-03-01T00:00:00.005Z"),
        (1_709_164_800, 0, "2024-02-29T00:00:00.000Z"),
        (1_767_225_599, 0, "2025-12-31T23:59:59.000Z"),
        (1_767_225_600, 0, "2026-01-01T00:00:00.000Z"),
        (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(utc(at(seconds, millis)), expected);
    }
}

#[test]
fn a_report_says_what_was_in_hand() {
    let text = report(Ok(Some(in_hand(Work::Datagram, b"poison")))).to_json();
    let expected = json!({
        "time": "2026-11-27T07:40:55.007Z",
        "versions": {
            "controller": env!("CARGO_PKG_VERSION"), "worker": "0.1.0", "protocol": PROTOCOL,
        },
        "worker": {
            "idx": 1, "id": "0badcafe#2", "pid": 4242, "cpu": 3,
            "executable": "/usr/bin/broth-worker", "servedMs": 1500,
        },
        "end": {
            "exitStatus": null, "signal": "SIGSEGV", "coreDumped": true, "stoodStill": false,
        },
        "inHand": {
            "work": "datagram", "room": 7, "transport": 8, "peer": "mallory",
            "remote": "192.0.2.1:9", "bytes": 7, "bytesSaved": 6,
        },
        "consequence": "transport closed",
        "lastLines": ["crashed (SIGSEGV at 0x0)"],
        "backtrace": ["broth-worker(+0x1234)[0x5678]"],
    });
    assert_eq!(text, expected);
    let request = report(Ok(Some(in_hand(Work::Request, b"router.dump"))));
    let described = &request.to_json()["inHand"];
    assert_eq!(described["method"], "router.dump");
    assert!(described["remote"].is_null() && request.datagram().is_none());
    assert!(report(Ok(None)).to_json()["inHand"].is_null());
    let unreadable = report(Err("it is too short".into())).to_json();
    assert_eq!(unreadable["inHand"]["unreadable"], "it is too short");
}

#[test]
fn only_reports_are_dropped_and_the_oldest_first() {
    let name = |day: u32| format!("202601{day:02}T000000.000Z-worker-0-{day}");
    let others = [
        "notes",
        "20260101",
        "x-worker-0-1",
        "20260101T000000.000Z-worker-0-x",
    ];
    let mut names: Vec<String> = others.iter().copied().map(Into::into).collect();
    names.extend([3, 1, 4, 2].map(name));
    assert_eq!(surplus(names.clone(), 4), [] as [&str; 0]);
    assert_eq!(surplus(names.clone(), 2), [1, 2].map(name));
    assert_eq!(surplus(names, 0), [1, 2, 3, 4].map(name));
    assert!(is_report(&report(Ok(None)).name()));
}

#[test]
fn reports_are_private_and_their_number_is_limited() {
    let directory = directory("written");
    prepare(&directory).unwrap();
    // Once more, as at the next start.
    prepare(&directory).unwrap();
    let mut report = report(Ok(Some(in_hand(Work::Datagram, b"poison"))));
    for second in 0..REPORTS_MAX as u64 + 3 {
        report.at = at(second, 0);
        write(&directory, &report).unwrap();
    }
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), REPORTS_MAX);
    assert_eq!(names[0], "19700101T000003.000Z-worker-1-4242");
    let path = directory.join(&names[0]);
    assert_eq!(fs::read(path.join("datagram.bin")).unwrap(), b"poison");
    let text = fs::read(path.join("report.json")).unwrap();
    let text: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(text["time"], "1970-01-01T00:00:03.000Z");
    for (path, expected) in [
        (directory.clone(), 0o700),
        (path.clone(), 0o700),
        (path.join("report.json"), 0o600),
        (path.join("datagram.bin"), 0o600),
    ] {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, expected, "{path:?}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn of_reports_that_were_not_finished_nothing_stays() {
    let directory = directory("unfinished");
    prepare(&directory).unwrap();
    let report = report(Ok(None));
    write(&directory, &report).unwrap();
    let complete = [report.name()];
    // There is one of that name already.
    assert!(write(&directory, &report).is_err());
    assert_eq!(names(&directory).unwrap(), complete);
    let others = directory.join(format!("{UNFINISHED}{}", report.name()));
    fs::create_dir(&others).unwrap();
    fs::write(others.join("report.json"), "{").unwrap();
    prepare(&directory).unwrap();
    assert_eq!(names(&directory).unwrap(), complete);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_directory_that_cannot_be_is_refused() {
    assert!(prepare(Path::new("/dev/null/crashes")).is_err());
    let gone = directory("gone");
    assert!(write(&gone, &report(Ok(None))).is_err());
}
