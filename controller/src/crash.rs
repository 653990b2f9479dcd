//! Reports of workers' deaths, for people: a directory with one directory each
//! (`docs/recovery.md` says how to read them).

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use broth_ipc::PROTOCOL;
use broth_ipc::black_box::{InHand, Work};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Reports kept; of more the oldest are dropped.
const REPORTS_MAX: usize = 100;

/// Begins the name of a report that is not complete.
const UNFINISHED: &str = ".unfinished-";

/// What is known of a death.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) at: SystemTime,
    pub(crate) worker: Dead,
    pub(crate) status: ExitStatus,
    /// It stood still and was ended for that.
    pub(crate) stood_still: bool,
    /// For how long it took rooms; `None` if it never did.
    pub(crate) served: Option<Duration>,
    /// What it had in hand, or why that is not known.
    pub(crate) in_hand: Result<Option<InHand>, String>,
    /// The name of the peer whose transport is in hand.
    pub(crate) peer: Option<String>,
    /// What followed for those in hand.
    pub(crate) consequence: &'static str,
    pub(crate) lines: Vec<String>,
    pub(crate) backtrace: Vec<String>,
}

/// Which worker died.
#[derive(Clone, Debug)]
pub(crate) struct Dead {
    pub(crate) idx: usize,
    pub(crate) id: String,
    pub(crate) pid: u32,
    pub(crate) cpu: usize,
    /// The executable.
    pub(crate) bin: PathBuf,
    /// What it said of itself.
    pub(crate) version: String,
}

impl Report {
    /// The name of its directory: in the order of time.
    fn name(&self) -> String {
        let time: String = utc(self.at)
            .chars()
            .filter(|c| !matches!(c, '-' | ':'))
            .collect();
        format!("{time}-worker-{}-{}", self.worker.idx, self.worker.pid)
    }

    /// The datagram in hand.
    fn datagram(&self) -> Option<&[u8]> {
        let in_hand = self.in_hand.as_ref().ok()?.as_ref()?;
        (in_hand.work == Work::Datagram).then_some(&in_hand.bytes[..])
    }

    fn to_json(&self) -> Value {
        let in_hand = match &self.in_hand {
            Ok(None) => Value::Null,
            Ok(Some(in_hand)) => described(in_hand, self.peer.as_deref()),
            Err(error) => json!({ "unreadable": error }),
        };
        let signal = self.status.signal().map(|number| {
            let name = Signal::try_from(number).map(Signal::as_str);
            name.map_or_else(|_| number.to_string(), Into::into)
        });
        json!({
            "time": utc(self.at),
            "versions": {
                "controller": env!("CARGO_PKG_VERSION"),
                "worker": self.worker.version,
                "protocol": PROTOCOL,
            },
            "worker": {
                "idx": self.worker.idx,
                "id": self.worker.id,
                "pid": self.worker.pid,
                "cpu": self.worker.cpu,
                "executable": self.worker.bin,
                "servedMs": self.served.map(|served| served.as_millis() as u64),
            },
            "end": {
                "exitStatus": self.status.code(),
                "signal": signal,
                "coreDumped": self.status.core_dumped(),
                "stoodStill": self.stood_still,
            },
            "inHand": in_hand,
            "consequence": self.consequence,
            "lastLines": self.lines,
            "backtrace": self.backtrace,
        })
    }
}

fn described(in_hand: &InHand, peer: Option<&str>) -> Value {
    let mut value = json!({
        "work": in_hand.work.name(),
        "room": in_hand.router,
        "transport": in_hand.transport,
        "peer": peer,
    });
    let more = match in_hand.work {
        Work::Datagram => json!({
            "remote": in_hand.remote.map(|remote| remote.to_string()),
            "bytes": in_hand.len,
            "bytesSaved": in_hand.bytes.len(),
        }),
        Work::Request => json!({ "method": String::from_utf8_lossy(&in_hand.bytes) }),
        Work::Connection | Work::Timer | Work::Forwarding => json!({}),
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

/// Makes the directory of the reports, unless it is there, and tries whether reports can be
/// written to it. What is left of reports that were never finished goes.
///
/// # Errors
/// It cannot be made or written to.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    private_directory().recursive(true).create(directory)?;
    for name in names(directory)? {
        if name.strip_prefix(UNFINISHED).is_some_and(is_report) {
            fs::remove_dir_all(directory.join(name))?;
        }
    }
    let trial = directory.join(format!("{UNFINISHED}{}", std::process::id()));
    private_directory().create(&trial)?;
    fs::remove_dir(trial)
}

/// Writes a report and drops those that are too many; returns where it is. It appears complete.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(directory: &Path, report: &Report) -> io::Result<PathBuf> {
    let name = report.name();
    let unfinished = directory.join(format!("{UNFINISHED}{name}"));
    private_directory().create(&unfinished)?;
    let finished = directory.join(name);
    let written = fill(&unfinished, report).and_then(|()| fs::rename(&unfinished, &finished));
    if let Err(error) = written {
        // The disk may be full; that is what is told.
        let _ = fs::remove_dir_all(&unfinished);
        return Err(error);
    }
    for name in surplus(names(directory)?, REPORTS_MAX) {
        fs::remove_dir_all(directory.join(name))?;
    }
    Ok(finished)
}

fn fill(directory: &Path, report: &Report) -> io::Result<()> {
    let file = |name: &str, content: &[u8]| {
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        options.open(directory.join(name))?.write_all(content)
    };
    if let Some(datagram) = report.datagram() {
        file("datagram.bin", datagram)?;
    }
    let text = serde_json::to_string_pretty(&report.to_json())?;
    file("report.json", format!("{text}\n").as_bytes())
}

/// What is in a directory.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.flatten();
    Ok(entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

/// The oldest of a directory's reports, so that no more than `kept` stay. What is no report stays.
fn surplus(mut names: Vec<String>, kept: usize) -> Vec<String> {
    names.retain(|name| is_report(name));
    // Their names begin with the time.
    names.sort();
    names.truncate(names.len().saturating_sub(kept));
    names
}

/// Whether a name is one that [`Report::name`] makes.
fn is_report(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let Some((time, worker)) = name.split_once("-worker-") else {
        return false;
    };
    let time = time.strip_suffix('Z').and_then(|time| time.split_once('T'));
    let time = time.and_then(|(day, time)| Some((day, time.split_once('.')?)));
    let is_time = time.is_some_and(|(day, (second, millis))| {
        (day.len(), second.len(), millis.len()) == (8, 6, 3)
            && [day, second, millis].into_iter().all(is_number)
    });
    let worker = worker.split_once('-');
    is_time && worker.is_some_and(|(idx, pid)| is_number(idx) && is_number(pid))
}

fn private_directory() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// A time as RFC 3339 has it, with milliseconds.
fn utc(time: SystemTime) -> String {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
    let since_epoch = since_epoch.unwrap_or_default();
    let (seconds, millis) = (since_epoch.as_secs(), since_epoch.subsec_millis());
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date so many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March have the leap day at their end; 400 of them have 146 097 days,
    // and 719 468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // The months from March have 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31 days.
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
