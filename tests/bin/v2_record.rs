//! Records what a worker answers to the scripts: `v2-record /path/to/mediasoup-worker`.

use std::env;
use std::io::{Write, stdout};

use anyhow::Context;
use broth_replay::process::V2Worker;
use broth_replay::{recording, script};

/// Ports for the worker's transports.
const PORTS: (u16, u16) = (41_000, 41_999);

fn main() -> anyhow::Result<()> {
    let executable = env::args_os().nth(1).context("which worker?")?;
    let mut start = || V2Worker::start(&executable, PORTS);
    for script in script::all() {
        let mut worker = recording::prepare(&script, &mut start)?;
        let mut cases = Vec::new();
        let mut deaths = 0;
        for case in &script.cases {
            let reactions = recording::run(&mut worker, case).with_context(|| case.name.clone())?;
            if reactions.last().is_some_and(|last| last.is_dead) {
                deaths += 1;
                worker = recording::prepare(&script, &mut start)?;
            }
            cases.push((case.name.clone(), reactions));
        }
        recording::write(script.name, &cases)?;
        let requests: usize = cases.iter().map(|(_, reactions)| reactions.len()).sum();
        let name = script.name;
        writeln!(
            stdout(),
            "{name}: {} cases, {requests} requests, {deaths} deaths",
            cases.len()
        )?;
    }
    Ok(())
}
