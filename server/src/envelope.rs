//! The envelope around the mediasoup protocol: pairs responses with requests. Pure; knows nothing
//! of what is inside.
//!
//! ```text
//! { "request": true, "id": 7, "data": { "method": …, "target": … } }
//! { "response": true, "id": 7, "ok": true, "data": … }
//! { "response": true, "id": 7, "ok": false, "error": "…" }
//! { "notification": true, "data": { … } }
//! ```

use serde::Deserialize;
use serde_json::{Value, json};

/// A message of a client.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    Request { id: u64, data: Value },
    Notification { data: Value },
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    request: bool,
    #[serde(default)]
    notification: bool,
    id: Option<u64>,
    data: Option<Value>,
}

/// Reads a message; the error says what the client did wrong, in at most 100 bytes.
pub(crate) fn parse(text: &str) -> Result<Incoming, &'static str> {
    let value: Value = serde_json::from_str(text).map_err(|_| "the message is no JSON")?;
    // An array would do for a struct, too.
    let raw = Some(value).filter(Value::is_object).map(Raw::deserialize);
    let Some(Ok(raw)) = raw else {
        return Err("the message is no envelope");
    };
    let Some(data) = raw.data.filter(Value::is_object) else {
        return Err("the message has no data object");
    };
    match (raw.request, raw.notification, raw.id) {
        (true, false, Some(id)) => Ok(Incoming::Request { id, data }),
        (true, false, None) => Err("the request has no numeric id"),
        (false, true, _) => Ok(Incoming::Notification { data }),
        _ => Err("the message is neither a request nor a notification"),
    }
}

/// Answers a request.
pub(crate) fn response(id: u64, answer: Result<Value, String>) -> String {
    match answer {
        Ok(data) => json!({ "response": true, "id": id, "ok": true, "data": data }),
        Err(error) => json!({ "response": true, "id": id, "ok": false, "error": error }),
    }
    .to_string()
}

/// Tells a client something unasked.
pub(crate) fn notification(data: &Value) -> String {
    json!({ "notification": true, "data": data }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_notifications_are_told_apart() {
        let data = json!({ "method": "queryRoom", "target": "room" });
        let request = json!({ "request": true, "id": 7, "data": data }).to_string();
        let notification = json!({ "notification": true, "data": data }).to_string();
        assert_eq!(
            parse(&request),
            Ok(Incoming::Request {
                id: 7,
                data: data.clone()
            })
        );
        assert_eq!(parse(&notification), Ok(Incoming::Notification { data }));
    }

    #[test]
    fn every_fault_has_its_text() {
        let rows = [
            ("", "the message is no JSON"),
            ("{", "the message is no JSON"),
            ("[]", "the message is no envelope"),
            ("7", "the message is no envelope"),
            (
                r#"{"request":1,"id":1,"data":{}}"#,
                "the message is no envelope",
            ),
            (
                r#"{"request":true,"id":-1,"data":{}}"#,
                "the message is no envelope",
            ),
            (
                r#"{"request":true,"id":1}"#,
                "the message has no data object",
            ),
            (
                r#"{"request":true,"id":1,"data":[]}"#,
                "the message has no data object",
            ),
            (
                r#"{"request":true,"data":{}}"#,
                "the request has no numeric id",
            ),
            (
                r#"{"request":true,"notification":true,"id":1,"data":{}}"#,
                "the message is neither a request nor a notification",
            ),
            (
                r#"{"id":1,"data":{}}"#,
                "the message is neither a request nor a notification",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let deep = format!("{}{}", r#"{"data":"#.repeat(50_000), "}".repeat(50_000));
        assert_eq!(parse(&deep), Err("the message is no JSON"));
    }

    #[test]
    fn answers_say_whether_they_are_good() {
        let good: Value = serde_json::from_str(&response(3, Ok(Value::Null))).unwrap();
        assert_eq!(
            good,
            json!({ "response": true, "id": 3, "ok": true, "data": null })
        );
        let bad: Value = serde_json::from_str(&response(4, Err("no".into()))).unwrap();
        assert_eq!(
            bad,
            json!({ "response": true, "id": 4, "ok": false, "error": "no" })
        );
    }
}
