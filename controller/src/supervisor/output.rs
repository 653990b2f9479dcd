//! What a worker writes to its standard output and error, into the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{ChildStderr, ChildStdout};

use crate::lock;

/// Longest line kept; the rest of it is logged as another.
const LINE_BYTES_MAX: usize = 8192;

/// Lines kept of what a worker said.
const LINES_MAX: usize = 50;

/// Frames kept of where it crashed.
const FRAMES_MAX: usize = 128;

/// What a crashing worker says before it says where it was (`net/fatal` there).
const BACKTRACE: &str = "backtrace:";

/// What a worker said last, which often tells why it died.
#[derive(Clone, Default)]
pub(crate) struct LastWords(Arc<Mutex<Words>>);

#[derive(Default)]
struct Words {
    /// The last complaint: where it panicked and why, or its last line.
    text: String,
    /// Lines of a panic taken; what follows them says no more.
    panic_lines: u32,
    lines: VecDeque<String>,
    /// Where it crashed, once it has said that it did.
    frames: Option<Vec<String>>,
}

impl LastWords {
    pub(crate) fn get(&self) -> String {
        lock(&self.0).text.clone()
    }

    /// The last lines, and the frames of the crash, innermost first.
    pub(crate) fn all(&self) -> (Vec<String>, Vec<String>) {
        let words = lock(&self.0);
        let lines = words.lines.iter().cloned().collect();
        (lines, words.frames.clone().unwrap_or_default())
    }

    /// A line that is no complaint.
    pub(crate) fn note(&self, line: &str) {
        let lines = &mut lock(&self.0).lines;
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line.into());
    }

    /// A complaint; returns whether it is one for people, not a frame of a crash.
    fn hear(&self, line: &str) -> bool {
        let mut words = lock(&self.0);
        if let Some(frames) = &mut words.frames {
            if frames.len() < FRAMES_MAX {
                frames.push(line.into());
            }
            return false;
        }
        if line == BACKTRACE {
            words.frames = Some(Vec::new());
            return false;
        }
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
        drop(words);
        self.note(line);
        true
    }
}

/// Logs the lines of both pipes until the worker closes them.
pub(crate) fn log(id: &str, stdout: ChildStdout, stderr: ChildStderr) -> LastWords {
    let words = LastWords::default();
    let (last, last_too) = (words.clone(), words.clone());
    let (worker, worker_too) = (id.to_owned(), id.to_owned());
    read(stdout, move |line| {
        tracing::info!(target: "broth_worker", worker, "{line}");
        last.note(&line);
    });
    read(stderr, move |line| match last_too.hear(&line) {
        true => tracing::warn!(target: "broth_worker", worker = worker_too, "{line}"),
        false => tracing::debug!(target: "broth_worker", worker = worker_too, "{line}"),
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
        let rows: [(&[&str], &str); 4] = [
            (&[], ""),
            (&["one", "two"], "two"),
            (&["one", "crashed", "backtrace:", "a", "b"], "crashed"),
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

    #[test]
    fn the_last_lines_and_the_frames_are_kept_apart_and_within_bounds() {
        let words = LastWords::default();
        for line in 0..100 {
            words.note(&format!("note {line}"));
        }
        assert!(words.hear("thread 'main' panicked at a.rs:1:2:"));
        assert!(words.hear("too bad"));
        assert!(!words.hear("backtrace:"));
        for frame in 0..1000 {
            assert!(!words.hear(&format!("frame {frame}")));
        }
        let (lines, frames) = words.all();
        assert_eq!((lines.len(), frames.len()), (50, 128));
        assert_eq!(lines[0], "note 52");
        assert_eq!(
            lines[48..],
            ["thread 'main' panicked at a.rs:1:2:", "too bad"]
        );
        assert_eq!(frames[..2], ["frame 0", "frame 1"]);
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
