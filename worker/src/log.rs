//! What the worker has to say to people: lines that are collected here and leave by the channel,
//! in the shape its controller expects ([`Dialect`](crate::dialect::Dialect)).
//!
//! Levels and tags are those of mediasoup v2 (`spec: channel.md` §1.2, §3). Nothing that a single
//! packet can cause is ever said: packets that go no further are counted.

mod places;

use std::io::Write;

pub use places::thrown_at;

/// How much is said; each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// What went wrong.
    #[default]
    Error,
    /// What looks wrong, of the enabled tags.
    Warn,
    /// What happens, of the enabled tags.
    Debug,
}

impl Level {
    /// Reads a level's name in any case.
    ///
    /// # Errors
    /// mediasoup v2's sentence about an unknown name.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name.to_lowercase().as_str() {
            "none" => Ok(Self::None),
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "debug" => Ok(Self::Debug),
            other => Err(format!("invalid value '{other}' for logLevel")),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Debug => "debug",
        }
    }
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The process and its settings.
    Info,
    /// Connectivity.
    Ice,
    /// Key agreement.
    Dtls,
}

/// The names of all tags of mediasoup v2, in the order of their bits.
const TAGS: [&str; 9] = [
    "info", "ice", "dtls", "rtp", "srtp", "rtcp", "rtx", "rbe", "tmp",
];

/// A set of tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags(u16);

impl Tags {
    /// The known ones of some names; unknown names are ignored.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        names
            .into_iter()
            .filter_map(|name| TAGS.iter().position(|tag| *tag == name))
            .fold(Self(0), |tags, bit| Self(tags.0 | 1 << bit))
    }

    /// The names, comma-separated.
    pub fn names(self) -> String {
        let is_in = |&(bit, _): &(usize, _)| self.0 >> bit & 1 == 1;
        let names = TAGS.iter().copied().enumerate().filter(is_in);
        names.map(|(_, name)| name).collect::<Vec<_>>().join(",")
    }

    fn has(self, tag: Tag) -> bool {
        self.0 >> (tag as u16) & 1 == 1
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How bad it is; never [`Level::None`].
    pub level: Level,
    /// The place in mediasoup v2's words, `Class::function`, without parentheses.
    pub place: &'static str,
    /// What is said.
    pub text: String,
}

/// Collects lines and forgets those nobody wants.
#[derive(Debug, Default)]
pub struct Log {
    worker_id: String,
    level: Level,
    tags: Tags,
    lines: Vec<Line>,
}

impl Log {
    /// The log of a worker, saying what went wrong.
    pub fn of(worker_id: String) -> Self {
        Self {
            worker_id,
            ..Self::default()
        }
    }

    /// Says what went wrong.
    pub fn error(&mut self, place: &'static str, text: impl Into<String>) {
        if self.level >= Level::Error {
            self.lines.push(Line {
                level: Level::Error,
                place,
                text: text.into(),
            });
        }
    }

    /// Says what happens, if anybody wants to know.
    pub fn debug(&mut self, tag: Tag, place: &'static str, text: impl FnOnce() -> String) {
        if self.is_enabled(tag) {
            self.lines.push(Line {
                level: Level::Debug,
                place,
                text: text(),
            });
        }
    }

    /// Whether anybody wants to know what happens.
    pub fn is_enabled(&self, tag: Tag) -> bool {
        self.level >= Level::Debug && self.tags.has(tag)
    }

    /// Says it to stderr, at once: what must be heard even if the channel is lost.
    pub fn complain(&self, place: &str, text: &str) {
        complain(&format!("[id:{}] {place}() | {text}", self.worker_id));
    }

    /// Takes the lines collected.
    pub fn take(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// The level and the tags.
    pub fn settings(&self) -> (Level, Tags) {
        (self.level, self.tags)
    }

    /// Says more or less from now on.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// Replaces the enabled tags.
    pub fn set_tags(&mut self, tags: Tags) {
        self.tags = tags;
    }
}

/// Writes a line to stderr.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_tags_decide_what_is_said() {
        let rows = [
            (Level::None, "ice", 0),
            (Level::Error, "ice", 1),
            (Level::Warn, "ice", 1),
            (Level::Debug, "", 1),
            (Level::Debug, "dtls", 1),
            (Level::Debug, "ice", 2),
        ];
        for (level, tags, expected) in rows {
            let mut log = Log::of("test#1".into());
            log.set_level(level);
            log.set_tags(Tags::of([tags]));
            log.error("A::b", "wrong");
            log.debug(Tag::Ice, "C::d", || "fine".into());
            assert_eq!(log.take().len(), expected, "{level:?} {tags}");
            assert!(log.take().is_empty());
        }
    }

    #[test]
    fn names_are_read_and_unknown_ones_are_treated_as_v2_does() {
        assert_eq!(Level::parse("WARN"), Ok(Level::Warn));
        let refused = Level::parse("Chicken").unwrap_err();
        assert_eq!(refused, "invalid value 'chicken' for logLevel");
        for level in [Level::None, Level::Error, Level::Warn, Level::Debug] {
            assert_eq!(Level::parse(level.name()), Ok(level));
        }
        assert_eq!(Tags::of(["tmp", "ICE", "x", "info"]).names(), "info,tmp");
        for tag in [Tag::Info, Tag::Ice, Tag::Dtls] {
            assert!(Tags::of(TAGS).has(tag));
            assert_eq!(TAGS[tag as usize], format!("{tag:?}").to_lowercase());
        }
    }
}
