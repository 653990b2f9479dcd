//! How the worker talks to its controller: in exactly mediasoup v2's shapes and limits until the
//! controller says `worker.hello`, with broth's additions from then on.

use broth_ipc::{
    ErrorCode, Event, Notification, PAYLOAD_BYTES_MAX, Rejection, Response, Scope, Target,
    V2_PAYLOAD_BYTES_MAX,
};

use crate::log::{Level, Line};

/// Longest log line mediasoup v2's worker writes.
const V2_LINE_BYTES_MAX: usize = 9999;

type Payload = serde_json::Result<Vec<u8>>;

/// The shapes and limits of the channel's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// What mediasoup v2's controller understands.
    #[default]
    V2,
    /// Coded refusals, notifications that name router and scope, log events, big messages.
    Broth,
}

impl Dialect {
    /// Largest payload in both directions.
    pub fn payload_bytes_max(self) -> usize {
        match self {
            Self::V2 => V2_PAYLOAD_BYTES_MAX,
            Self::Broth => PAYLOAD_BYTES_MAX,
        }
    }

    /// Serializes an answer; one that is too big for the channel becomes a refusal.
    pub fn response(self, response: Response) -> Payload {
        let to_payload = |response: &Response| match self {
            Self::V2 => response.to_v2_payload(),
            Self::Broth => response.to_payload(),
        };
        let payload = to_payload(&response)?;
        if payload.len() <= self.payload_bytes_max() {
            return Ok(payload);
        }
        to_payload(&Response {
            id: response.id,
            result: Err(Rejection::new(ErrorCode::TooBig, "reply too big")),
        })
    }

    /// Serializes a notification.
    pub fn notification(self, notification: &Notification) -> Payload {
        match self {
            Self::V2 => notification.to_v2_payload(),
            Self::Broth => notification.to_payload(),
        }
    }

    /// Serializes a log line of a worker.
    pub fn line(self, worker_id: &str, line: &Line) -> Payload {
        match self {
            Self::V2 => Ok(v2_line(worker_id, line)),
            Self::Broth => Notification {
                target: Target {
                    target_id: 0,
                    router_id: None,
                    scope: Some(Scope::Worker),
                },
                event: Event::Log {
                    level: line.level.name().into(),
                    message: line.text.clone(),
                },
            }
            .to_payload(),
        }
    }
}

fn v2_line(worker_id: &str, line: &Line) -> Vec<u8> {
    let letter = match line.level {
        Level::Debug => 'D',
        Level::Warn => 'W',
        Level::Error | Level::None => 'E',
    };
    let (place, text) = (line.place, &line.text);
    let mut payload = format!("{letter}[id:{worker_id}] {place}() | {text}").into_bytes();
    payload.truncate(V2_LINE_BYTES_MAX);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(level: Level) -> Line {
        Line {
            level,
            place: "Settings::SetLogLevel",
            text: "throwing MediaSoupError | no".into(),
        }
    }

    #[test]
    fn log_lines_are_text_for_v2_and_events_for_broth() {
        let text = |payload: Payload| String::from_utf8(payload.unwrap()).unwrap();
        for (level, letter) in [(Level::Debug, 'D'), (Level::Warn, 'W'), (Level::Error, 'E')] {
            assert_eq!(
                text(Dialect::V2.line("w#1", &line(level))),
                format!("{letter}[id:w#1] Settings::SetLogLevel() | throwing MediaSoupError | no")
            );
        }
        let event = text(Dialect::Broth.line("w#1", &line(Level::Warn)));
        assert!(event.contains(r#""event":"log""#), "{event}");
        assert!(event.contains(r#""level":"warn""#), "{event}");
        let long = Line {
            text: "x".repeat(20_000),
            ..line(Level::Error)
        };
        let len = Dialect::V2.line("w#1", &long).unwrap().len();
        assert_eq!(len, V2_LINE_BYTES_MAX);
    }

    #[test]
    fn a_reply_above_the_limit_becomes_a_refusal() {
        let sized = |len: usize| Response {
            id: 1,
            result: Ok(json!("x".repeat(len))),
        };
        let overhead = sized(0).to_payload().unwrap().len();
        for dialect in [Dialect::V2, Dialect::Broth] {
            let fits = dialect.payload_bytes_max() - overhead;
            let payload = dialect.response(sized(fits)).unwrap();
            assert_eq!(payload.len(), dialect.payload_bytes_max());
            let payload = dialect.response(sized(fits + 1)).unwrap();
            assert!(payload.len() < 100, "a refusal");
        }
        let refusal = Dialect::V2.response(sized(70_000)).unwrap();
        let expected = r#"{"id":1,"reason":"reply too big","rejected":true}"#;
        assert_eq!(String::from_utf8(refusal).unwrap(), expected);
    }
}
