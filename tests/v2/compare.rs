//! A worker's reactions beside the recorded ones.

use serde_json::Value;

use crate::differences::{self, DIFFERENCES, Difference, Ours};
use crate::normal::has_same_shape;
use crate::process::Reaction;
use crate::recording::Recording;

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Report {
    /// Payloads sent.
    pub requests: usize,
    /// Reactions that are the same, message by message.
    pub same: usize,
    /// Answers and notifications in them.
    pub messages: usize,
    /// Reactions that differ as they should, by what lists them.
    pub listed: Vec<&'static str>,
    /// Payloads that were not compared, as they follow a difference in their case.
    pub skipped: usize,
    /// Whatever else differs.
    pub wrong: Vec<String>,
}

impl Report {
    /// Adds a case.
    pub fn add(&mut self, script: &str, case: &str, ours: &[Reaction], recording: &Recording) {
        let Some(theirs) = recording.cases.get(case) else {
            self.wrong.push(format!("{script}/{case} is not recorded"));
            return;
        };
        self.requests += ours.len();
        for (at, reaction) in ours.iter().enumerate() {
            let recorded = theirs.get(at);
            let listed = differences::of(script, case);
            if Some(reaction) == recorded {
                self.same += 1;
                self.messages += reaction.messages.len();
                continue;
            }
            if let Some((
                Difference {
                    ours: Ours::DiffersIn(member),
                    ..
                },
                start,
            )) = listed
                && recorded.is_some_and(|recorded| is_same_without(member, reaction, recorded))
            {
                self.listed.push(start);
                continue;
            }
            match listed {
                Some((difference, start)) if does(difference.ours, reaction) => {
                    self.listed.push(start);
                }
                _ => self.wrong.push(format!(
                    "{script}/{case}, request {at}{}:\n  ours:   {}\n  theirs: {}",
                    shape(reaction, recorded),
                    text(Some(reaction)),
                    text(recorded),
                )),
            }
            // What is there now is not what was there in the recording.
            self.skipped += ours.len() - at - 1;
            return;
        }
    }
}

impl Report {
    /// What is listed, but was not found.
    pub fn unused(&self) -> Vec<&'static str> {
        let listed = DIFFERENCES.iter().flat_map(|difference| difference.cases);
        listed
            .filter(|start| !self.listed.contains(start))
            .copied()
            .collect()
    }
}

fn does(expected: Ours, reaction: &Reaction) -> bool {
    let answer = reaction.messages.last();
    let is = |name: &str| answer.is_some_and(|answer| answer[name] == true);
    match expected {
        _ if reaction.is_dead => false,
        Ours::DiffersIn(_) => false,
        Ours::Accepts => is("accepted"),
        Ours::IsSilent => reaction.messages.is_empty(),
        Ours::Rejects(reason) => {
            let given = answer.and_then(|answer| answer["reason"].as_str());
            is("rejected") && given.is_some_and(|given| given.starts_with(reason))
        }
    }
}

fn is_same_without(member: &str, ours: &Reaction, theirs: &Reaction) -> bool {
    let strip = |reaction: &Reaction| {
        let mut reaction = reaction.clone();
        let messages = reaction.messages.iter_mut();
        messages.for_each(|message| remove(message, member));
        reaction
    };
    strip(ours) == strip(theirs)
}

fn remove(value: &mut Value, member: &str) {
    match value {
        Value::Object(members) => {
            members.remove(member);
            members.values_mut().for_each(|value| remove(value, member));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| remove(item, member)),
        _ => {}
    }
}

fn shape(ours: &Reaction, theirs: Option<&Reaction>) -> &'static str {
    let Some(theirs) = theirs else {
        return "";
    };
    let is_same = ours.messages.len() == theirs.messages.len()
        && ours
            .messages
            .iter()
            .zip(&theirs.messages)
            .all(|(o, t)| has_same_shape(o, t));
    if is_same { " (other values)" } else { "" }
}

fn text(reaction: Option<&Reaction>) -> String {
    match reaction {
        None => "was dead already".into(),
        Some(reaction) => {
            let messages: Vec<String> = reaction.messages.iter().map(Value::to_string).collect();
            let end = if reaction.is_dead { " and died" } else { "" };
            format!("{}{end}", messages.join(" "))
        }
    }
}
