//! Recordings of the original controller and worker with live media, and of hand-made requests.
//!
//! One JSON line per `request` (or `text` that is no request) and per `message` of the worker,
//! as they were seen; `start` is a new worker, `died` the end of one.

use std::fs;
use std::io;

use serde_json::Value;

use crate::normal::normalise;
use crate::recording::path;

/// Recordings of this kind.
pub const TRACES: [&str; 4] = [
    "trace-conference",
    "trace-simulcast",
    "trace-extended",
    "trace-probe",
];

/// Events that need no media.
const EVENTS: [&str; 3] = ["close", "sourcepaused", "sourceresumed"];
/// Members that are there, or have their value, because of media, or of how the worker was started.
const MEDIA: [&str; 14] = [
    "workerId",
    "ip",
    "bitrate",
    "iceSelectedTuple",
    "iceState",
    "iceConnectionState",
    "dtlsState",
    "rtpStreamInfos",
    "effectiveProfile",
    "lossPercentage",
    "bytesReceived",
    "bytesSent",
    "inboundRtpId",
    "ssrcs",
];

/// What one worker was sent.
#[derive(Debug, Default)]
pub struct Session {
    /// What it is about.
    pub name: String,
    /// In order.
    pub steps: Vec<Step>,
}

/// A payload, and what came of it.
#[derive(Debug)]
pub struct Step {
    /// What was sent.
    pub payload: String,
    /// The request's id.
    pub id: Option<u64>,
    /// The answer without what depends on media.
    pub answer: Option<Value>,
    /// Whom its events were about, in no order: `close 7`.
    pub events: Vec<String>,
}

/// Reads a recording.
///
/// # Errors
/// There is none, or it is damaged.
pub fn read(name: &str) -> io::Result<Vec<Session>> {
    let mut sessions: Vec<Session> = Vec::new();
    let mut events = Vec::new();
    for line in fs::read_to_string(path(name))?.lines() {
        let mut line: Value = serde_json::from_str(line)?;
        if let Some(start) = line["start"].as_str() {
            let name = start.to_owned();
            sessions.push(Session {
                name,
                ..Session::default()
            });
            continue;
        }
        let Some(session) = sessions.last_mut() else {
            continue;
        };
        let message = line["message"].take();
        if let Some(request) = line.get("request") {
            session
                .steps
                .push(Step::new(request.to_string(), request["id"].as_u64()));
        } else if let Some(text) = line["text"].as_str() {
            session.steps.push(Step::new(text.into(), None));
        } else if message["event"].is_string() {
            events.extend(event(&message));
        } else if let Some(step) = session.step(message["id"].as_u64()) {
            step.events = std::mem::take(&mut events);
            step.events.sort();
            step.answer = Some(without_media(message));
        }
    }
    Ok(sessions)
}

/// The data of the recorded answers to a method, as they were.
///
/// # Errors
/// There is no such recording, or it is damaged.
pub fn answers(name: &str, method: &str) -> io::Result<Vec<Value>> {
    let mut ids = Vec::new();
    let mut answers = Vec::new();
    for line in fs::read_to_string(path(name))?.lines() {
        let mut line: Value = serde_json::from_str(line)?;
        if line["request"]["method"] == method {
            ids.push(line["request"]["id"].take());
        } else if ids.contains(&line["message"]["id"]) {
            answers.push(line["message"]["data"].take());
        }
    }
    Ok(answers)
}

impl Session {
    fn step(&mut self, id: Option<u64>) -> Option<&mut Step> {
        let id = id?;
        self.steps.iter_mut().rev().find(|step| step.id == Some(id))
    }
}

impl Step {
    fn new(payload: String, id: Option<u64>) -> Self {
        Self {
            payload,
            id,
            answer: None,
            events: Vec::new(),
        }
    }

    /// Puts a worker's messages into the same form.
    pub fn with_messages(&self, messages: Vec<Value>) -> Self {
        let mut step = Self::new(self.payload.clone(), self.id);
        for message in messages {
            if message["event"].is_string() {
                step.events.extend(event(&message));
            } else {
                step.answer = Some(without_media(message));
            }
        }
        step.events.sort();
        step
    }
}

fn event(message: &Value) -> Option<String> {
    let event = message["event"].as_str()?;
    EVENTS
        .contains(&event)
        .then(|| format!("{event} {}", message["targetId"]))
}

fn without_media(mut message: Value) -> Value {
    strip(&mut message);
    normalise(&mut message);
    message
}

/// Takes out what depends on media: members, stats of received streams, and counters.
fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !MEDIA.contains(&name.as_str()));
            // An SSRC that was learnt is media's, too.
            if let Some(Value::Object(table)) = members.get_mut("ssrcTable") {
                table.clear();
            }
            let is_stats = members.contains_key("packetCount") || members.contains_key("timestamp");
            for member in members.values_mut() {
                match member {
                    Value::Number(number) if is_stats => *number = 0.into(),
                    member => strip(member),
                }
            }
        }
        Value::Array(items) => {
            items.retain(|item| item["type"] != "inbound-rtp");
            items.iter_mut().for_each(strip);
        }
        _ => {}
    }
}
