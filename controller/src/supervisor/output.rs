//! What a worker writes to its standard output and error, into the log.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{ChildStderr, ChildStdout};

use crate::lock;

/// Longest line kept; the rest of it is logged as another.
const LINE_BYTES_MAX: usize = 8192;

/// The last complaint of a worker, which often says why it died: where it panicked and why, or
/// its last line.
#[derive(Clone, Default)]
pub(crate) struct LastWords(Arc<Mutex<Words>>);

#[derive(Default)]
struct Words {
    text: String,
    /// Lines of a panic taken; what follows them is a backtrace.
    panic_lines: u32,
}

impl LastWords {
    pub(crate) fn get(&self) -> String {
        lock(&self.0).text.clone()
    }

    fn hear(&self, line: &str) {
        let mut words = lock(&self.0);
        match words.panic_lines {
            0 => {
                words.panic_lines = line.contains("panicked at").into();
                words.text = line.into();
            }
            1 => {
                words.panic_lines = 2;
                words.text = format!("{} {line}", words.text);
            }
            _ => {}
        }
    }
}

/// Logs the lines of both pipes until the worker closes them.
pub(crate) fn log(id: &str, stdout: ChildStdout, stderr: ChildStderr) -> LastWords {
    let words = LastWords::default();
    let last = words.clone();
    let (worker, worker_too) = (id.to_owned(), id.to_owned());
    read(
        stdout,
        move |line| tracing::info!(target: "broth_worker", worker, "{line}"),
    );
    read(stderr, move |line| {
        tracing::warn!(target: "broth_worker", worker = worker_too, "{line}");
        last.hear(&line);
    });
    words
}

fn read(
    pipe: impl AsyncRead + Send + Unpin + 'static,
    mut handle: impl FnMut(String) + Send + 'static,
) {
    tokio::spawn(async move {
        let mut reader = BufReader::with_capacity(LINE_BYTES_MAX, pipe);
        while let Some(line) = next_line(&mut reader).await {
            if !line.is_empty() {
                handle(line);
            }
        }
    });
}

/// The next line, cut at the capacity of the buffer.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let buffer = reader.fill_buf().await.ok()?;
    if buffer.is_empty() {
        return None;
    }
    let mut line = Vec::new();
    loop {
        let buffer = reader.fill_buf().await.ok()?;
        let (part, is_end) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&buffer[..=end], true),
            None => (buffer, buffer.is_empty()),
        };
        line.extend_from_slice(part);
        let read = part.len();
        reader.consume(read);
        if is_end || line.len() >= LINE_BYTES_MAX {
            return Some(String::from_utf8_lossy(&line).trim_end().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_panic_or_the_last_line() {
        let rows: [(&[&str], &str); 3] = [
            (&[], ""),
            (&["one", "two"], "two"),
            (
                &[
                    "one",
                    "thread 'main' panicked at a.rs:1:2:",
                    "too bad",
                    "note: run with",
                    "0: x",
                ],
                "thread 'main' panicked at a.rs:1:2: too bad",
            ),
        ];
        for (lines, expected) in rows {
            let words = LastWords::default();
            for line in lines {
                words.hear(line);
            }
            assert_eq!(words.get(), expected);
        }
    }

    #[tokio::test]
    async fn lines_are_split_and_long_ones_are_cut() {
        let long = "x".repeat(LINE_BYTES_MAX + 10);
        let text = format!("one\n\ntwo\n{long}\nend");
        let mut reader = BufReader::with_capacity(LINE_BYTES_MAX, text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut reader).await {
            lines.push(line);
        }
        assert_eq!(lines[..3], ["one", "", "two"]);
        assert_eq!(lines.last().map(String::as_str), Some("end"));
        assert_eq!(lines.concat().len(), "onetwoend".len() + long.len());
    }
}
