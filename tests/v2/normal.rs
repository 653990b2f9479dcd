//! What is the same in every run of a script.

use serde_json::Value;

/// Members whose values are random, the time, or given out by the system.
const VOLATILE: [&str; 6] = [
    "usernameFragment",
    "password",
    "port",
    "localPort",
    "timestamp",
    "value",
];
/// Members whose lists have no order of their own.
const UNORDERED: [&str; 3] = ["transports", "producers", "consumers"];

/// Replaces random values by a fixed one of their type, and orders lists that have no order.
///
/// Integers written as `1.0` become `1`: the controller cannot tell them apart.
pub fn normalise(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let is_stats = members.contains_key("packetCount");
            for (name, member) in members.iter_mut() {
                if VOLATILE.contains(&name.as_str()) || is_stats && name == "id" {
                    blank(member);
                }
                normalise(member);
                match member {
                    Value::Array(items) if UNORDERED.contains(&name.as_str()) => sort(items),
                    Value::Object(lists) if name == "mapProducerConsumers" => {
                        let lists = lists.values_mut().filter_map(Value::as_array_mut);
                        lists.for_each(|list| sort(list));
                    }
                    _ => {}
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0) {
                *value = (float as i64).into();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn sort(items: &mut [Value]) {
    items.sort_by_key(Value::to_string);
}

fn blank(value: &mut Value) {
    match value {
        Value::String(text) => text.clear(),
        Value::Number(number) => *number = 0.into(),
        _ => {}
    }
}

/// Orders what consumers are told of the same event: the original has no order there.
pub fn order_events(messages: &mut [Value]) {
    let is_told_to_all = |message: &Value| {
        let event = message["event"].as_str();
        ["sourcepaused", "sourceresumed"].contains(&event.unwrap_or_default())
    };
    for run in
        messages.chunk_by_mut(|one, other| is_told_to_all(one) && one["event"] == other["event"])
    {
        run.sort_by_key(|message| message["targetId"].as_u64());
    }
}

/// Whether two messages have the same members of the same types, whatever the values.
pub fn has_same_shape(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| {
                    let same = other.get(name);
                    same.is_some_and(|other| has_same_shape(value, other))
                })
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| has_same_shape(one, other))
        }
        (Value::Null, Value::Null)
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => true,
        _ => false,
    }
}
