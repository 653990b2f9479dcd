//! What is asked for on the command line.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use broth::chaos::{Direction, Fault, Order, Plan};
use broth::{Settings, WorkerBin};
use broth_client::send_track::Media;
use clap::{Args, ValueEnum};

use crate::cli::ports;

/// Bytes of a packet of opus.
const AUDIO_PACKET_LEN: usize = 92;
/// Longest media packet: with a tag it is no longer than a datagram on most ways.
const PACKET_LEN_MAX: usize = 1200;
/// Longest window in which a gap is looked for.
const WINDOW_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Chaos {
    /// Rooms.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    rooms: u16,
    /// Participants of a room who send video and audio.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    producers: u16,
    /// Participants of a room who receive all of that.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    consumers: u16,
    /// Worker processes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Worker executable [default: this executable].
    #[arg(long, env = "BROTH_WORKER", value_name = "FILE")]
    worker_bin: Option<PathBuf>,
    /// Without another worker ready behind each.
    #[arg(long)]
    no_standby: bool,
    /// Ports for media, one per room.
    #[arg(long, value_name = "MIN-MAX", value_parser = ports)]
    rtc_ports: Option<RangeInclusive<u16>>,

    /// What is done to workers, several with commas between.
    #[arg(long, value_delimiter = ',', default_value = "kill", value_enum)]
    faults: Vec<Name>,
    /// How many times something is done.
    #[arg(long, default_value_t = 20)]
    count: usize,
    /// Seconds from one fault to the next, give or take a third.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    every: Duration,
    /// Which of the faults comes next.
    #[arg(long, value_enum, default_value_t = Turn::Turn)]
    order: Turn,
    /// Of the dice: the same seed rolls the same moments, workers and faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How much memory a memory hog takes, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    hog_mib: u32,
    /// What a slow channel adds to each message, in ms; from 250 on the worker is taken for one
    /// that stands still.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    slow_ms: u32,
    /// How long a channel is slow.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    slow_for: Duration,

    /// Video frames per second and sender.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
    frames: u16,
    /// Packets of a video frame.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    frame_packets: u16,
    /// Bytes of a video packet.
    #[arg(long, value_name = "BYTES", default_value_t = 800)]
    packet_bytes: usize,
    /// Audio packets per second and sender.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    audio: u16,

    /// Takes down all SRTP, checks that no index is used twice and that everything opens, and
    /// after the run that nothing was left over.
    #[arg(long)]
    pub(super) verify: bool,
    /// Reports in JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// A fault, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// SIGABRT.
    Abort,
    /// It takes memory until it gets no more.
    MemoryHog,
    /// Each message between controller and worker takes longer.
    SlowChannel,
    /// Bytes that are no message, from the controller.
    Garbage,
    /// Bytes that are no message, from the worker.
    GarbageBack,
    /// Nothing bad: another worker takes its place.
    Replace,
    /// Nothing bad: its rooms are moved to other workers; needs --workers 2.
    Move,
}

/// Which fault comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Turn {
    /// One after the other.
    Turn,
    /// Any.
    Random,
}

/// How the clients are laid out, and what they send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) rooms: usize,
    pub(super) producers: usize,
    pub(super) consumers: usize,
    pub(super) video: Media,
    pub(super) audio: Media,
    /// Between two frames of video, and two packets of audio.
    pub(super) intervals: [Duration; 2],
}

impl Load {
    /// Streams that are received in a room: video and audio of each sender, at each receiver.
    pub(super) fn streams(&self) -> usize {
        2 * self.producers * self.consumers
    }

    /// The streams of a room among those of all rooms.
    pub(super) fn streams_of(&self, room: usize) -> std::ops::Range<usize> {
        room * self.streams()..(room + 1) * self.streams()
    }

    /// Packets that are due at the receivers of a room in a second.
    pub(super) fn due_per_second(&self) -> f64 {
        let frame_packets = match self.video {
            Media::Vp8 { frame_packets, .. } => f64::from(frame_packets),
            Media::Opus { .. } => 1.0,
        };
        let [video, audio] = self.intervals.map(|interval| 1.0 / interval.as_secs_f64());
        (self.producers * self.consumers) as f64 * (video * frame_packets + audio)
    }
}

impl Chaos {
    /// What the server is started with.
    pub(super) fn settings(&self) -> Settings {
        let this = WorkerBin::ThisExecutable;
        let mut settings = Settings {
            num_workers: Some(self.workers.into()),
            standby: !self.no_standby,
            listen: vec![IpAddr::from(Ipv4Addr::LOCALHOST).into()],
            worker_bin: self.worker_bin.clone().map_or(this, WorkerBin::Path),
            chaos: true,
            ..Settings::default()
        };
        if let Some(ports) = &self.rtc_ports {
            settings.rtc_ports = ports.clone();
        }
        settings
    }

    /// What is done to its workers.
    pub(super) fn plan(&self) -> Plan {
        let fault = |name: &Name| match name {
            Name::Kill => Fault::Kill,
            Name::Stop => Fault::Stop,
            Name::Abort => Fault::Abort,
            Name::MemoryHog => Fault::MemoryHog {
                bytes: u64::from(self.hog_mib) << 20,
            },
            Name::SlowChannel => Fault::SlowChannel {
                delay: Duration::from_millis(self.slow_ms.into()),
                duration: self.slow_for,
            },
            Name::Garbage => Fault::Garbage(Direction::ToWorker),
            Name::GarbageBack => Fault::Garbage(Direction::FromWorker),
            Name::Replace => Fault::Replace,
            Name::Move => Fault::Move,
        };
        Plan {
            faults: self.faults.iter().map(fault).collect(),
            order: match self.order {
                Turn::Turn => Order::InTurn,
                Turn::Random => Order::Random,
            },
            count: self.count,
            every: self.every,
            seed: self.seed,
        }
    }

    /// What is in the rooms.
    ///
    /// # Errors
    /// A packet is too short or too long.
    pub(super) fn load(&self) -> anyhow::Result<Load> {
        let packet_len = self.packet_bytes;
        ensure!(
            (64..=PACKET_LEN_MAX).contains(&packet_len),
            "--packet-bytes {packet_len}: give 64 to {PACKET_LEN_MAX}"
        );
        Ok(Load {
            rooms: self.rooms.into(),
            producers: self.producers.into(),
            consumers: self.consumers.into(),
            video: Media::Vp8 {
                frame_packets: self.frame_packets,
                packet_len,
            },
            audio: Media::Opus {
                packet_len: AUDIO_PACKET_LEN,
            },
            intervals: [self.frames, self.audio].map(|rate| Duration::from_secs(1) / rate.into()),
        })
    }

    /// How long the windows are in which a gap is looked for: two fit between two faults.
    pub(super) fn window(&self) -> Duration {
        (self.every / 3).min(WINDOW_MAX)
    }
}

/// The name of a fault on the command line.
pub(super) fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Kill => "kill",
        Fault::Stop => "stop",
        Fault::Abort => "abort",
        Fault::MemoryHog { .. } => "memory-hog",
        Fault::SlowChannel { .. } => "slow-channel",
        Fault::Garbage(Direction::ToWorker) => "garbage",
        Fault::Garbage(Direction::FromWorker) => "garbage-back",
        Fault::Replace => "replace",
        Fault::Move => "move",
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.05..=86_400.0).contains(seconds));
    let seconds = seconds.ok_or("give seconds, from 0.05 to 86400")?;
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(args: &[&str]) -> Result<Chaos, String> {
        let all = ["broth", "chaos"].iter().chain(args);
        match Cli::try_parse_from(all) {
            Ok(Cli {
                command: Command::Chaos(chaos),
            }) => Ok(*chaos),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn faults_are_called_what_they_are_called_in_reports() {
        for name in Name::value_variants() {
            let text = name.to_possible_value().unwrap().get_name().to_owned();
            let plan = parse(&["--faults", &text]).unwrap().plan();
            let names: Vec<_> = plan.faults.into_iter().map(super::name).collect();
            assert_eq!(names, [text]);
        }
    }

    #[test]
    fn plans_are_what_was_asked_for() {
        let args = "--faults kill,slow-channel,memory-hog --count 7 --every 0.5 --order random \
            --seed 9 --slow-ms 300 --slow-for 1 --hog-mib 2";
        let args: Vec<_> = args.split_whitespace().collect();
        let chaos = parse(&args).unwrap();
        let slow = Fault::SlowChannel {
            delay: Duration::from_millis(300),
            duration: Duration::from_secs(1),
        };
        let plan = chaos.plan();
        let hog = Fault::MemoryHog { bytes: 2 << 20 };
        assert_eq!(plan.faults, [Fault::Kill, slow, hog]);
        assert_eq!((plan.count, plan.order, plan.seed), (7, Order::Random, 9));
        assert_eq!(plan.every, Duration::from_millis(500));
        assert_eq!(chaos.window(), plan.every / 3);
        let plan = parse(&[]).unwrap().plan();
        assert_eq!((plan.faults, plan.count), (vec![Fault::Kill], 20));
    }

    #[test]
    fn the_load_says_what_is_due() {
        let args = "--rooms 5 --producers 2 --consumers 8 --frames 10 --frame-packets 3 --audio 20";
        let args: Vec<_> = args.split_whitespace().collect();
        let load = parse(&args).unwrap().load().unwrap();
        assert_eq!(load.streams(), 32);
        assert_eq!(load.streams_of(2), 64..96);
        assert!((load.due_per_second() - 16.0 * 50.0).abs() < 1e-6);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (args, expected) in [
            (&["--faults", "kil"][..], "invalid value 'kil'"),
            (&["--every", "0"], "give seconds, from 0.05"),
            (&["--every", "soon"], "give seconds"),
            (&["--rooms", "0"], "0 is not in"),
            (&["--producers", "101"], "101 is not in"),
            (&["--audio", "0"], "0 is not in"),
            (&["--rtc-ports", "9-1"], "9 is above 1"),
        ] {
            let refused = parse(args).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
        for bytes in ["63", "1201"] {
            let refused = parse(&["--packet-bytes", bytes]).unwrap().load();
            assert!(refused.unwrap_err().to_string().contains("give 64 to 1200"));
        }
    }
}
