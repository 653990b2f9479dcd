//! A worker's reactions beside the recorded ones.

use serde_json::Value;

use crate::differences::{self, DIFFERENCES, Ours};
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
        let same = ours
            .iter()
            .zip(theirs)
            .take_while(|(ours, theirs)| ours == theirs);
        let same = same.count();
        self.same += same;
        self.messages += ours[..same].iter().map(|r| r.messages.len()).sum::<usize>();
        if same == ours.len() {
            return;
        }
        let (ours_next, theirs_next) = (&ours[same], theirs.get(same));
        self.skipped += ours.len() - same - 1;
        match differences::of(script, case) {
            Some((difference, start)) if does(difference.ours, ours_next) => {
                self.listed.push(start);
            }
            _ => self.wrong.push(format!(
                "{script}/{case}, request {same}{}:\n  ours:   {}\n  theirs: {}",
                shape(ours_next, theirs_next),
                text(Some(ours_next)),
                text(theirs_next),
            )),
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
        Ours::Accepts => is("accepted"),
        Ours::IsSilent => reaction.messages.is_empty(),
        Ours::Rejects(reason) => {
            let given = answer.and_then(|answer| answer["reason"].as_str());
            is("rejected") && given.is_some_and(|given| given.starts_with(reason))
        }
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
