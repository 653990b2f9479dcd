//! Every request that the original worker was recorded with, good and bad.

use broth_replay::compare::Report;
use broth_replay::process::{Reaction, V2Worker};
use broth_replay::{recording, script};

/// Ports for the worker's transports.
const PORTS: (u16, u16) = (42_000, 42_999);

#[test]
fn requests_of_every_make_are_answered_as_by_the_original_worker() {
    let mut report = Report::default();
    for script in script::all() {
        let recording = recording::read(script.name).unwrap();
        let mut start = || V2Worker::start(env!("CARGO_BIN_EXE_broth-test-worker"), PORTS);
        let mut worker = recording::prepare(&script, &mut start).unwrap();
        for case in &script.cases {
            let reactions = recording::run(&mut worker, case).unwrap();
            report.add(script.name, &case.name, &reactions, &recording);
            let is_dead = |list: &[Reaction]| list.last().is_some_and(|last| last.is_dead);
            let recorded = recording.cases.get(&case.name).map(Vec::as_slice);
            // The original went on as a new process, so this one does as well.
            if is_dead(&reactions) || is_dead(recorded.unwrap_or_default()) {
                worker = recording::prepare(&script, &mut start).unwrap();
            }
        }
    }
    let Report {
        requests,
        same,
        messages,
        skipped,
        ..
    } = report;
    let listed = report.listed.len();
    println!("{requests} requests: {same} answered the same ({messages} messages),");
    println!("{listed} with a listed difference, {skipped} after one in the same case");
    let unused = report.unused();
    assert!(
        report.wrong.is_empty() && unused.is_empty(),
        "{} unlisted differences:\n{}\nlisted, but not there: {unused:#?}",
        report.wrong.len(),
        report.wrong.join("\n"),
    );
}
