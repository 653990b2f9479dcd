//! `docs/v2-conformance.md` names a test for every item of the specification: no cell is empty, and
//! the tests are there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const TABLE: &str = "docs/v2-conformance.md";

/// Where the tests of a binary live, by the name nextest prints before theirs.
const BINARIES: [(&str, &str); 6] = [
    ("broth", "controller/src"),
    ("broth-ipc", "ipc/src"),
    ("broth-server", "server/src"),
    ("broth-worker", "worker/src"),
    ("broth-worker::process", "worker/tests/process"),
    ("broth-worker::routing", "worker/tests/routing"),
];

/// Where the scenarios live, which are named without their binary.
const SCENARIOS: &str = "tests/it";

/// Where the tests in browsers and with mediasoup v2's own halves live; their titles are quoted.
const SCRIPTS: [&str; 2] = ["tests/browser", "tests/v2"];

#[test]
fn every_item_of_the_specification_has_a_test() {
    let text = fs::read_to_string(root().join(TABLE)).unwrap();
    let titles = titles();
    let (mut rows, mut wrong) = (0, Vec::new());
    for (line, row) in text
        .lines()
        .zip(1..)
        .filter_map(|(line, at)| Some((at, cells(line)?)))
    {
        rows += 1;
        if let Err(reason) = check(&row, &titles) {
            wrong.push(format!("{TABLE}:{line}: {reason}"));
        }
    }
    writeln!(std::io::stdout(), "{rows} rows").unwrap();
    assert!(rows > 0 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_wrong_with_a_row_is_named() {
    let titles = ["a call".to_owned()];
    let rows = [
        ("| an item | 1.1 | \"a call\" |", None),
        ("| an item | 1.1 |", Some("2 cells")),
        ("| an item || \"a call\" |", Some("cell 2 is empty")),
        ("| a\\|b | 1.1 | \"a call\", a word |", None),
        ("| an item | 1.1 | later |", Some("names no test")),
        (
            "| an item | 1.1 | \"a dream\" |",
            Some("no test \"a dream\""),
        ),
        (
            "| an item | 1.1 | `conformance::nothing` |",
            Some("no test `conformance::nothing`"),
        ),
        (
            "| an item | 1.1 | `conformance::root` |",
            Some("no test `conformance::root`"),
        ),
        (
            "| an item | 1.1 | `broth settings::tests::defaults_are_v2s` |",
            None,
        ),
        (
            "| an item | 1.1 | `broth settings::nowhere::it` |",
            Some("no test"),
        ),
    ];
    for (line, expected) in rows {
        let reason = check(&cells(line).unwrap(), &titles).err();
        match (&reason, expected) {
            (None, None) => {}
            (Some(reason), Some(part)) if reason.contains(part) => {}
            _ => panic!("{line}: {reason:?}"),
        }
    }
    for line in ["| Item | Spec | Test |", "|---|---|---|", "", "Text."] {
        assert_eq!(cells(line), None, "{line}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The cells of a row that is no heading.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    // A bar behind a backslash is none.
    let inner = inner.replace("\\|", "\0");
    let cells: Vec<_> = inner
        .split('|')
        .map(|cell| cell.trim().replace('\0', "|"))
        .collect();
    let is_heading = cells[0] == "Item" || cells.iter().all(|cell| cell.starts_with("---"));
    (!is_heading).then_some(cells)
}

fn check(row: &[String], titles: &[String]) -> Result<(), String> {
    if row.len() != 3 {
        return Err(format!("{} cells", row.len()));
    }
    if let Some(at) = row.iter().position(String::is_empty) {
        return Err(format!("cell {} is empty", at + 1));
    }
    let (paths, quoted) = (between(&row[2], '`'), between(&row[2], '"'));
    if paths.is_empty() && quoted.is_empty() {
        return Err("names no test".into());
    }
    for path in paths {
        if !has_test(path) {
            return Err(format!("no test `{path}`"));
        }
    }
    match quoted
        .iter()
        .find(|title| !titles.iter().any(|known| known == *title))
    {
        Some(title) => Err(format!("no test \"{title}\"")),
        None => Ok(()),
    }
}

/// What stands between pairs of a delimiter.
fn between(text: &str, delimiter: char) -> Vec<&str> {
    text.split(delimiter).skip(1).step_by(2).collect()
}

/// Whether there is a test of that name, as nextest prints it.
fn has_test(name: &str) -> bool {
    let (directory, path) = match name.split_once(' ') {
        Some((binary, path)) => match BINARIES.iter().find(|(known, _)| *known == binary) {
            Some((_, directory)) => (directory, path),
            None => return false,
        },
        None => (&SCENARIOS, name),
    };
    let (module, function) = path.rsplit_once("::").unwrap_or(("main", path));
    let module = module.replace("::", "/");
    // A module of tests may be in the file of what it tests.
    let outer = module.strip_suffix("/tests");
    [Some(module.as_str()), outer]
        .into_iter()
        .flatten()
        .any(|module| {
            [format!("{module}.rs"), format!("{module}/mod.rs")]
                .iter()
                .any(|file| {
                    let source = fs::read_to_string(root().join(directory).join(file));
                    source.is_ok_and(|source| is_test_in(&source, function))
                })
        })
}

/// Whether a source has a function of that name with an attribute that makes it a test.
fn is_test_in(source: &str, function: &str) -> bool {
    let head = format!("fn {function}(");
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.starts_with(&head)
    });
    let attributes = lines[..at.unwrap_or(0)].iter().rev();
    attributes
        .take_while(|line| line.starts_with("#["))
        .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

/// The titles of the tests in JavaScript.
fn titles() -> Vec<String> {
    let mut titles = Vec::new();
    for directory in SCRIPTS {
        let Ok(files) = fs::read_dir(root().join(directory)) else {
            continue;
        };
        for file in files
            .flatten()
            .filter(|file| file.path().to_string_lossy().ends_with(".test.js"))
        {
            let source = fs::read_to_string(file.path()).unwrap();
            for call in source.split("test(").skip(1) {
                let Some(quote) = call.chars().next().filter(|first| "\"`'".contains(*first))
                else {
                    continue;
                };
                titles.extend(call.split(quote).nth(1).map(String::from));
            }
        }
    }
    titles
}
