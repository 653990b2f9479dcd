//! The requests: a table of valid ones, and everything that can be wrong with each member.

mod malformed;
mod methods;
mod rtp;
mod sequences;
mod transports;

use serde_json::{Value, json};

/// What takes the place of every member of every request, besides its absence.
const WRONG: [&str; 13] = [
    "null",
    "true",
    "-1",
    "0",
    "255",
    "1.5",
    "4294967295",
    "4294967296",
    r#""""#,
    r#""x""#,
    "[]",
    "[1]",
    "{}",
];

/// Cases left out: the original takes what is absent there from uninitialised memory, so what it
/// answers is chance.
const CHANCE: [&str; 2] = [
    "router.createPlainRtpTransport data absent",
    "router.createPlainRtpTransport data = ",
];

/// Requests for one worker, in order.
pub struct Script {
    /// Name of its recording.
    pub name: &'static str,
    /// Makes the objects that the cases need; also after a worker has died of a case.
    pub setup: Vec<Value>,
    /// Each leaves the worker as it was.
    pub cases: Vec<Case>,
}

/// Requests that belong together.
pub struct Case {
    /// Unique in its script.
    pub name: String,
    /// In order.
    pub payloads: Vec<Payload>,
}

/// What is sent.
pub enum Payload {
    /// A request, under an id of its own.
    Request(Value),
    /// Whatever it is.
    Text(String),
}

impl From<Value> for Payload {
    fn from(request: Value) -> Self {
        Self::Request(request)
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// A method with a valid request.
struct Row {
    before: Vec<Value>,
    request: Value,
    after: Vec<Value>,
}

/// All scripts.
pub fn all() -> Vec<Script> {
    vec![
        Script {
            name: "methods",
            setup: setup(),
            cases: cases(methods::rows()),
        },
        Script {
            name: "rtp-parameters",
            setup: setup(),
            cases: cases(rtp::rows()).into_iter().chain(rtp::cases()).collect(),
        },
        Script {
            name: "sequences",
            setup: setup(),
            cases: sequences::cases()
                .into_iter()
                .chain(transports::cases())
                .collect(),
        },
        Script {
            name: "malformed",
            setup: setup(),
            cases: malformed::cases(),
        },
    ]
}

/// Creates one router with a bit of everything in it, number 1.
pub fn setup() -> Vec<Value> {
    methods::setup()
}

/// A request of `method` to the objects with these ids.
fn request(method: &str, internal: Value, data: Value) -> Value {
    json!({ "method": method, "internal": internal, "data": data })
}

/// Each valid request, then that request with every member replaced or left out.
fn cases(rows: Vec<Row>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for row in rows {
        let method = row.request["method"].as_str().unwrap_or_default();
        let others = cases.iter().filter(|case| case.name == method).count();
        let mut requests = vec![(method.to_owned(), row.request.clone())];
        for name in ["internal", "data"] {
            vary(
                &row.request,
                &mut vec![Key::Name(name.into())],
                &mut requests,
            );
        }
        for (mut name, request) in requests {
            if others > 0 {
                name.push_str(" of another");
            }
            let before = row.before.iter().cloned();
            let after = row.after.iter().cloned();
            // What a request made under another id is gone afterwards, too.
            let other = row
                .after
                .iter()
                .filter_map(|after| renamed(after, &row.request, &request));
            let all = before.chain([request.clone()]).chain(after).chain(other);
            cases.push(Case {
                name,
                payloads: all.map(Payload::from).collect(),
            });
        }
    }
    cases.retain(|case| !CHANCE.iter().any(|chance| case.name.starts_with(chance)));
    cases
}

/// The request `after` about the object that `variant` is about instead of `original`'s.
fn renamed(after: &Value, original: &Value, variant: &Value) -> Option<Value> {
    let ids = variant["internal"].as_object()?;
    let (name, id) = ids
        .iter()
        .find(|(name, id)| id.is_u64() && original["internal"][name.as_str()] != **id)?;
    let mut renamed = after.clone();
    *renamed["internal"].get_mut(name)? = id.clone();
    Some(renamed)
}

/// One step into a value.
#[derive(Clone)]
enum Key {
    Name(String),
    Index(usize),
}

/// Adds every variant of `request` at and below `path`.
fn vary(request: &Value, path: &mut Vec<Key>, variants: &mut Vec<(String, Value)>) {
    let name = name_of(request, path);
    let mut copy = request.clone();
    if remove(&mut copy, path) {
        variants.push((format!("{name} absent"), copy));
    }
    for wrong in WRONG {
        let mut copy = request.clone();
        if let Some(place) = at(&mut copy, path) {
            *place = serde_json::from_str(wrong).unwrap_or_default();
        }
        if copy != *request {
            variants.push((format!("{name} = {wrong}"), copy));
        }
    }
    let mut copy = request.clone();
    let keys: Vec<Key> = match at(&mut copy, path) {
        Some(Value::Object(members)) => members.keys().cloned().map(Key::Name).collect(),
        Some(Value::Array(items)) => (0..items.len()).map(Key::Index).collect(),
        _ => Vec::new(),
    };
    for key in keys {
        path.push(key);
        vary(request, path, variants);
        path.pop();
    }
}

fn name_of(request: &Value, path: &[Key]) -> String {
    let mut name = request["method"].as_str().unwrap_or_default().to_owned();
    for (depth, key) in path.iter().enumerate() {
        match key {
            Key::Name(member) if depth == 0 => name = format!("{name} {member}"),
            Key::Name(member) => name = format!("{name}.{member}"),
            Key::Index(index) => name = format!("{name}[{index}]"),
        }
    }
    name
}

fn at<'v>(value: &'v mut Value, path: &[Key]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, key| match key {
        Key::Name(name) => value.get_mut(name),
        Key::Index(index) => value.get_mut(index),
    })
}

fn remove(value: &mut Value, path: &[Key]) -> bool {
    let Some((last, parents)) = path.split_last() else {
        return false;
    };
    match (at(value, parents), last) {
        (Some(Value::Object(members)), Key::Name(name)) => members.remove(name).is_some(),
        (Some(Value::Array(items)), Key::Index(index)) => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}
