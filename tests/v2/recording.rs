//! Recordings: one JSON line per distinct message, and one per case that refers to them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::normal::{normalise, order_events};
use crate::process::{Reaction, V2Worker};
use crate::script::{Case, Payload, Script};

/// What a worker did in each case of a script, normalised.
#[derive(Default)]
pub struct Recording {
    /// Reactions by case, one per payload.
    pub cases: HashMap<String, Vec<Reaction>>,
}

/// A worker that is made ready for the cases of a script.
///
/// # Errors
/// It cannot be started, or does not survive the setup.
pub fn prepare(
    script: &Script,
    start: &mut impl FnMut() -> io::Result<V2Worker>,
) -> io::Result<V2Worker> {
    let mut worker = start()?;
    for request in &script.setup {
        let reaction = worker.ask(request)?;
        let is_accepted = reaction.messages.iter().any(|m| m["accepted"] == true);
        if !is_accepted {
            return Err(io::Error::other(format!("{request} gave {reaction:?}")));
        }
    }
    Ok(worker)
}

/// Runs one case; a worker that dies takes no more of it.
///
/// # Errors
/// The worker lives, but is silent.
pub fn run(worker: &mut V2Worker, case: &Case) -> io::Result<Vec<Reaction>> {
    let mut reactions = Vec::new();
    for payload in &case.payloads {
        let mut reaction = match payload {
            Payload::Request(request) => worker.ask(request)?,
            Payload::Text(text) => worker.tell(text.as_bytes())?,
        };
        reaction.messages.retain(|m| m["event"] != "audiolevels");
        reaction.messages.iter_mut().for_each(normalise);
        order_events(&mut reaction.messages);
        let is_dead = reaction.is_dead;
        reactions.push(reaction);
        if is_dead {
            break;
        }
    }
    Ok(reactions)
}

/// Reads the recording of a script.
///
/// # Errors
/// There is none, or it is damaged.
pub fn read(script: &str) -> io::Result<Recording> {
    let mut messages: Vec<Value> = Vec::new();
    let mut recording = Recording::default();
    for line in fs::read_to_string(path(script))?.lines() {
        let mut line: Value = serde_json::from_str(line)?;
        let Some(name) = line["case"].as_str().map(str::to_owned) else {
            messages.push(line["message"].take());
            continue;
        };
        let lists = line["reactions"].as_array().into_iter().flatten();
        let mut reactions: Vec<Reaction> = lists
            .map(|list| Reaction {
                messages: list
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|at| messages.get(at.as_u64()? as usize).cloned())
                    .collect(),
                is_dead: false,
            })
            .collect();
        if let Some(last) = reactions.last_mut() {
            last.is_dead = line["isDead"] == true;
        }
        recording.cases.insert(name, reactions);
    }
    Ok(recording)
}

/// Writes the reactions of a script's cases, in the order of the script.
///
/// # Errors
/// The file cannot be written.
pub fn write(script: &str, cases: &[(String, Vec<Reaction>)]) -> io::Result<()> {
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut out = String::new();
    for (name, reactions) in cases {
        let mut lists = Vec::new();
        for reaction in reactions {
            let mut list = Vec::new();
            for message in &reaction.messages {
                let next = known.len();
                let text = message.to_string();
                let number = *known.entry(text).or_insert_with(|| {
                    out.push_str(&json!({ "message": message }).to_string());
                    out.push('\n');
                    next
                });
                list.push(number);
            }
            lists.push(list);
        }
        let mut line = json!({ "case": name, "reactions": lists });
        if reactions.last().is_some_and(|last| last.is_dead) {
            line["isDead"] = true.into();
        }
        out.push_str(&line.to_string());
        out.push('\n');
    }
    fs::write(path(script), out)
}

/// Where a recording is kept.
pub(crate) fn path(script: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("v2/recordings");
    directory.join(format!("{script}.jsonl"))
}
