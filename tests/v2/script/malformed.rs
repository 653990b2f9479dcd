//! Payloads that are no requests, or strange ones.

use super::{Case, Payload};

/// Each payload by itself.
pub(super) fn cases() -> Vec<Case> {
    let texts = [
        "",
        " ",
        "{",
        "}",
        "{bad json",
        "{\"id\":1",
        "{\"id\":1,}",
        "nul",
        "null",
        "true",
        "3",
        "\"text\"",
        "[]",
        "[1]",
        "[{}]",
        "{}",
        "\0",
        "\u{feff}{}",
        r#"{"id":7}"#,
        r#"{"method":"worker.dump"}"#,
        r#"{"id":null,"method":"worker.dump"}"#,
        r#"{"id":"7","method":"worker.dump"}"#,
        r#"{"id":-1,"method":"worker.dump"}"#,
        r#"{"id":1.5,"method":"worker.dump"}"#,
        r#"{"id":true,"method":"worker.dump"}"#,
        r#"{"id":[],"method":"worker.dump"}"#,
        r#"{"id":{},"method":"worker.dump"}"#,
        r#"{"id":4294967296,"method":"worker.updateSettings"}"#,
        r#"{"id":1e300,"method":"worker.updateSettings"}"#,
        r#"{"id":0,"method":"worker.updateSettings"}"#,
        r#"{"id":4294967295,"method":"worker.updateSettings"}"#,
        r#"{"id":1.0,"method":"worker.updateSettings"}"#,
        r#"{"id":1e2,"method":"worker.updateSettings"}"#,
        r#"{"id":7,"method":null}"#,
        r#"{"id":7,"method":7}"#,
        r#"{"id":7,"method":[]}"#,
        r#"{"id":7,"method":""}"#,
        r#"{"id":7,"method":"nope"}"#,
        r#"{"id":7,"method":"Worker.dump"}"#,
        r#"{"id":7,"method":"worker.dump "}"#,
        r#"{"id":7,"method":"worker.updateSettings"} trailing"#,
        r#"{"id":7,"method":"worker.updateSettings"}{"id":8}"#,
        r#" {"id":7,"method":"worker.updateSettings"} "#,
        r#"{"id":7,"id":8,"method":"worker.updateSettings"}"#,
        r#"{"id":7,"method":"nope","method":"worker.updateSettings"}"#,
        r#"{"id":7,/* comment */"method":"worker.updateSettings"}"#,
        "{\"id\":7,// comment\n\"method\":\"worker.updateSettings\"}",
        r#"{"id":7,"method":"worker.updateSettings","extra":1}"#,
        r#"{"id":7,"method":"worker.updateSettings","internal":7,"data":7}"#,
        r#"{"id":7,"method":"worker.updateSettings","data":{"logLevel":"chicken"}}"#,
        r#"{"id":7,"method":"worker.updateSettings","data":{"logLevel":"NONE"}}"#,
        r#"{"id":7,"method":"worker.updateSettings","data":{"logLevel":"CHICKEN"}}"#,
        r#"{"id":7,"method":"worker.updateSettings","data":{"logTags":["ice","bogus",7,null]}}"#,
        r#"{"id":7,"method":"router.dump","internal":{"routerId":99}}"#,
        r#"{"id":7,"method":"router.dump","internal":{"routerId":1.0,"x":"\u0000"}}"#,
    ];
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let data = format!(r#"{{"deep":{open}{close}}}"#);
        case(&format!("nested {depth} deep"), settings_with(&data))
    };
    let long = format!(r#"{{"long":"{}"}}"#, "x".repeat(60_000));
    let mut cases: Vec<Case> = texts
        .into_iter()
        .map(|text| case(&text.escape_default().to_string(), text.into()))
        .collect();
    cases.extend([50, 120, 900, 1100].map(nested));
    cases.push(case("long", settings_with(&long)));
    cases
}

fn settings_with(data: &str) -> String {
    format!(r#"{{"id":7,"method":"worker.updateSettings","data":{data}}}"#)
}

fn case(name: &str, text: String) -> Case {
    Case {
        name: name.into(),
        payloads: vec![Payload::Text(text)],
    }
}
