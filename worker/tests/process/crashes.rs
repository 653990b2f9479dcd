//! A worker that crashes says where.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::Process;

#[test]
fn it_says_where_it_was_and_ends_by_the_signal() {
    for (signal, expected) in [
        (Signal::SIGSEGV, "crashed (SIGSEGV at 0x"),
        (Signal::SIGBUS, "crashed (SIGBUS at 0x"),
        (Signal::SIGILL, "crashed (SIGILL at 0x"),
        (Signal::SIGABRT, "aborted (SIGABRT)\n"),
    ] {
        let mut worker = Process::start(&["w#1"]);
        worker.accepted(&json!({"id": 1, "method": "worker.dump"}));
        worker.signal(signal);
        let output = worker.wait();
        assert_eq!(output.status.signal(), Some(signal as i32));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(expected), "{said}");
        let (_, frames) = said.split_once("backtrace:\n").unwrap();
        let own = frames
            .lines()
            .filter(|frame| frame.contains("broth-worker(+0x"));
        assert!(own.count() >= 3, "{said}");
    }
}
