//! The shapes of traffic: who sends how much to whom. Pure.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// What producers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// VP8 in bursts, as the packets of frames.
    Video,
    /// Opus.
    Audio,
}

/// A shape of traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What it is called.
    pub(crate) name: String,
    /// Rooms, all alike.
    pub(crate) rooms: u32,
    /// Producers of each room, with a transport each.
    pub(crate) producers: u32,
    /// Viewers of each room, with a transport each.
    pub(crate) consumers: u32,
    /// Everybody sends and sees everybody else, so viewers do not consume the producer of the same
    /// number; otherwise viewers do not send, and consume every producer of their room.
    pub(crate) is_mesh: bool,
    /// What producers send.
    pub(crate) media: Media,
    /// Packets per second of each producer.
    pub(crate) rate: u32,
    /// Packets that leave together.
    pub(crate) burst: u32,
    /// Bytes of one RTP packet.
    pub(crate) size: usize,
    /// Viewers per second that join for a while, beside those who stay.
    pub(crate) churn: u32,
    /// Percent of the packets that viewers take for lost and ask for again.
    pub(crate) loss: u32,
}

impl Plan {
    /// Video from `producers` to `consumers` in one room.
    fn video(name: &str, producers: u32, consumers: u32) -> Self {
        Self {
            name: name.into(),
            rooms: 1,
            producers,
            consumers,
            is_mesh: producers > 1 && producers == consumers,
            media: Media::Video,
            rate: 300,
            burst: 10,
            size: 1200,
            churn: 0,
            loss: 0,
        }
    }

    /// Producers of all rooms.
    pub(crate) fn senders(&self) -> u32 {
        self.rooms * self.producers
    }

    /// Viewers of all rooms.
    pub(crate) fn viewers(&self) -> u32 {
        self.rooms * self.consumers
    }

    /// Consumers of all viewers.
    pub(crate) fn streams(&self) -> u32 {
        self.senders() * self.fan_out()
    }

    /// How many viewers get what one producer sends.
    pub(crate) fn fan_out(&self) -> u32 {
        self.consumers - u32::from(self.is_mesh)
    }

    /// The room of a producer.
    pub(crate) fn room_of_sender(&self, sender: u32) -> u32 {
        sender / self.producers
    }

    /// The room of a viewer.
    pub(crate) fn room_of_viewer(&self, viewer: u32) -> u32 {
        viewer / self.consumers
    }

    /// The producers that a viewer of a room consumes; `viewer` is `None` for one who stays for a
    /// while only.
    pub(crate) fn seen_by(&self, room: u32, viewer: Option<u32>) -> Vec<u32> {
        let own = viewer.filter(|_| self.is_mesh);
        let all = room * self.producers..(room + 1) * self.producers;
        all.filter(|sender| Some(*sender) != own).collect()
    }

    /// Says it in a line.
    pub(crate) fn describe(&self) -> String {
        let (rooms, who) = match (self.rooms, self.is_mesh) {
            (1, false) => (
                String::new(),
                format!("{} x {}", self.producers, self.consumers),
            ),
            (1, true) => (String::new(), format!("{} all to all", self.producers)),
            (n, true) => (
                format!("{n} rooms of "),
                format!("{} all to all", self.producers),
            ),
            (n, false) => (
                format!("{n} rooms of "),
                format!("{} x {}", self.producers, self.consumers),
            ),
        };
        let packets = match self.burst {
            1 => "one at a time".into(),
            n => format!("in bursts of {n}"),
        };
        let churn = match self.churn {
            0 => String::new(),
            n => format!(", {n} joins and leaves per second"),
        };
        let loss = match self.loss {
            0 => String::new(),
            n => format!(", {n} % lost and asked for again"),
        };
        let (rate, size) = (self.rate, self.size);
        format!("{rooms}{who}, {rate} packets/s of {size} bytes each {packets}{churn}{loss}")
    }
}

impl FromStr for Plan {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            // Thumbnails: five frames of three packets a second.
            "hosting" => Self {
                rooms: 200,
                rate: 15,
                burst: 3,
                ..Self::video(name, 4, 4)
            },
            "audio" => Self {
                rooms: 10,
                media: Media::Audio,
                rate: 50,
                burst: 1,
                size: 120,
                ..Self::video(name, 5, 100)
            },
            "churn" => Self {
                churn: 5,
                ..Self::video(name, 1, 50)
            },
            "paced" => Self {
                burst: 1,
                ..Self::video(name, 1, 50)
            },
            _ => {
                let known = "hosting, audio, churn, paced, or producers and viewers as 1x50";
                let parts = name.split_once('x');
                let (producers, consumers) =
                    parts.with_context(|| format!("unknown shape: give {known}"))?;
                let (producers, consumers) = (producers.parse()?, consumers.parse()?);
                if !(1..=100).contains(&producers) || !(1..=10_000).contains(&consumers) {
                    bail!("at most 100 producers and 10000 viewers, at least one of each");
                }
                Self::video(name, producers, consumers)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_their_numbers() {
        // Name, senders, viewers, streams, forwarded packets per second.
        let rows = [
            ("1x10", 1, 10, 10, 3000),
            ("1x200", 1, 200, 200, 60_000),
            ("10x10", 10, 10, 90, 27_000),
            ("hosting", 800, 800, 2400, 36_000),
            ("audio", 50, 1000, 5000, 250_000),
            ("churn", 1, 50, 50, 15_000),
            ("paced", 1, 50, 50, 15_000),
        ];
        for (name, senders, viewers, streams, packets) in rows {
            let plan: Plan = name.parse().unwrap();
            let numbers = (plan.senders(), plan.viewers(), plan.streams());
            assert_eq!(numbers, (senders, viewers, streams), "{name}");
            assert_eq!(plan.streams() * plan.rate, packets, "{name}");
        }
    }

    #[test]
    fn everybody_sees_the_others_of_the_room() {
        let hosting: Plan = "hosting".parse().unwrap();
        assert_eq!(hosting.room_of_viewer(5), 1);
        assert_eq!(hosting.seen_by(1, Some(5)), [4, 6, 7]);
        let audio: Plan = "audio".parse().unwrap();
        assert_eq!(audio.room_of_viewer(199), 1);
        assert_eq!(audio.seen_by(1, Some(7)), [5, 6, 7, 8, 9]);
        for plan in [hosting, audio] {
            let seen = (0..plan.viewers()).map(|n| plan.seen_by(plan.room_of_viewer(n), Some(n)));
            assert_eq!(seen.flatten().count(), plan.streams() as usize);
        }
    }

    #[test]
    fn unknown_shapes_are_refused() {
        for name in ["", "x", "0x1", "1x0", "1x10001", "101x1", "lots", "-1x5"] {
            assert!(name.parse::<Plan>().is_err(), "{name}");
        }
    }
}
