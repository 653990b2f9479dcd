//! What the benchmark is asked for.

use std::path::PathBuf;
use std::time::Duration;

use broth_worker::srtp::Profile;
use clap::{Parser, ValueEnum};

use crate::plan::Plan;

/// Measures what forwarding costs, side by side: a loop that does nothing else, broth's worker,
/// and the original that broth's stands in for.
#[derive(Parser)]
pub(crate) struct Args {
    /// Shapes, one after the other: 1x50 (producers and viewers; 10x10 is all to all), hosting,
    /// audio, churn, paced.
    #[arg(long, value_delimiter = ',', default_value = "1x50")]
    pub(crate) shape: Vec<Plan>,
    /// Rooms, instead of the shape's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rooms: Option<u32>,
    /// Producers of each room, instead of the shape's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    producers: Option<u32>,
    /// Viewers of each room, instead of the shape's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    consumers: Option<u32>,
    /// Packets per second of each producer, instead of the shape's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Packets that leave together, as those of one video frame, instead of the shape's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=40))]
    burst: Option<u32>,
    /// Bytes of one RTP packet, instead of the shape's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(60..=1400))]
    size: Option<u32>,
    /// Joins and leaves per second, instead of the shape's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=50))]
    churn: Option<u32>,
    /// Percent of the video packets that viewers take for lost and ask for again. The limit repeats
    /// nothing and is left out.
    #[arg(long, default_value_t = 0, conflicts_with = "most",
          value_parser = clap::value_parser!(u32).range(..=20))]
    loss: u32,

    /// Instead of a rate: the share of its core, in percent, that each server is to use.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) load: Option<u32>,
    /// Instead of a number of viewers: how many each server can carry, losing less than 0.1 % and
    /// with a p99 below 20 ms.
    #[arg(long, conflicts_with = "load")]
    pub(crate) most: bool,
    /// Seconds of a window, after warming up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Windows of each server; the medians are reported.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// What the clients speak.
    #[arg(long, value_enum, default_value_t = Kind::Webrtc)]
    transport: Kind,
    /// SRTP profiles, one after the other. The original knows only cm-sha1.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "gcm128")]
    srtp: Vec<Srtp>,
    /// How the viewers take what the kernel has for them.
    #[arg(long, value_enum, default_value_t = Receivers::Both)]
    pub(crate) receivers: Receivers,

    /// Milliseconds between two connectivity checks of a client, as Chromium makes them.
    #[arg(long, value_name = "MS", default_value_t = 2500,
          value_parser = clap::value_parser!(u32).range(100..=25_000))]
    check_every: u32,

    /// The servers to compare, instead of all there are.
    #[arg(long, value_enum, value_delimiter = ',')]
    servers: Vec<Which>,
    /// The original's worker, as scripts/v2-worker builds it.
    #[arg(long, env = "BROTH_ORIGINAL_WORKER")]
    pub(crate) original: Option<PathBuf>,
    /// Compares broth without a flight recorder, too.
    #[arg(long)]
    unrecorded: bool,
    /// CPU of the servers; the load runs on the others.
    #[arg(long, default_value_t = 0)]
    pub(crate) cpu: usize,

    /// Writes all windows there as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draws the costs there, as PNG.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// What clients speak.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// ICE, DTLS and SRTP.
    Webrtc,
    /// RTP in the clear, a socket of the worker for each client.
    Plain,
}

/// An SRTP profile.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Srtp {
    /// AEAD_AES_128_GCM.
    Gcm128,
    /// AEAD_AES_256_GCM.
    Gcm256,
    /// AES_CM_128_HMAC_SHA1_80.
    CmSha1,
}

/// How viewers receive.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Receivers {
    /// Packet by packet.
    Plain,
    /// Coalesced by the kernel (`UDP_GRO`).
    Gro,
    /// A window of each.
    Both,
}

/// A server to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// Opens, seals, sends, and nothing else.
    Limit,
    /// broth's worker.
    Broth,
    /// broth's worker without a flight recorder.
    Unrecorded,
    /// mediasoup v2's worker.
    Original,
}

/// How packets are protected, and what that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    /// For people.
    pub(crate) name: &'static str,
    /// `None`: plain RTP.
    pub(crate) profile: Option<Profile>,
}

impl Args {
    /// Between two connectivity checks of a client.
    pub(crate) fn check_interval(&self) -> Duration {
        Duration::from_millis(self.check_every.into())
    }

    /// The shapes, changed as asked.
    pub(crate) fn plans(&self) -> Vec<Plan> {
        let change = |plan: &Plan| {
            let mut plan = plan.clone();
            let set = |value: &mut u32, given: Option<u32>| *value = given.unwrap_or(*value);
            set(&mut plan.rooms, self.rooms);
            set(&mut plan.producers, self.producers);
            set(&mut plan.consumers, self.consumers);
            set(&mut plan.rate, self.rate);
            set(&mut plan.burst, self.burst);
            set(&mut plan.churn, self.churn);
            plan.loss = self.loss;
            plan.size = self.size.map_or(plan.size, |size| size as usize);
            plan.is_mesh &= plan.producers == plan.consumers;
            plan
        };
        self.shape.iter().map(change).collect()
    }

    /// The protections to be measured.
    pub(crate) fn protections(&self) -> Vec<Protection> {
        if self.transport == Kind::Plain {
            let (name, profile) = ("plain RTP", None);
            return vec![Protection { name, profile }];
        }
        let protection = |srtp: &Srtp| {
            let (name, profile) = match srtp {
                Srtp::Gcm128 => ("AEAD_AES_128_GCM", Profile::AeadAes128Gcm),
                Srtp::Gcm256 => ("AEAD_AES_256_GCM", Profile::AeadAes256Gcm),
                Srtp::CmSha1 => ("AES_CM_128_HMAC_SHA1_80", Profile::Aes128CmSha1_80),
            };
            let profile = Some(profile);
            Protection { name, profile }
        };
        self.srtp.iter().map(protection).collect()
    }

    /// The servers to be measured, and why others are not.
    pub(crate) fn servers(&self, protection: Protection) -> (Vec<Which>, Vec<String>) {
        let (mut chosen, mut why) = (Vec::new(), Vec::new());
        for &which in Which::value_variants() {
            let is_wanted = match which {
                _ if self.servers.contains(&which) => true,
                Which::Unrecorded => self.unrecorded,
                _ => self.servers.is_empty(),
            };
            if !is_wanted {
                continue;
            }
            let is_gcm = !matches!(protection.profile, None | Some(Profile::Aes128CmSha1_80));
            if which == Which::Limit && self.loss > 0 {
                why.push("limit left out: it repeats nothing".into());
            } else if which == Which::Original && self.original.is_none() {
                why.push("original left out: --original names no worker".into());
            } else if which == Which::Original && is_gcm {
                why.push("original left out: it does not know this profile".into());
            } else {
                chosen.push(which);
            }
        }
        (chosen, why)
    }
}

impl Which {
    /// What reports call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Broth => "broth",
            Self::Unrecorded => "broth, unrecorded",
            Self::Original => "original",
        }
    }
}

impl Receivers {
    /// Whether the viewers coalesce, in each window.
    pub(crate) fn windows(self) -> &'static [bool] {
        match self {
            Self::Plain => &[false],
            Self::Gro => &[true],
            Self::Both => &[false, true],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Args {
        Args::try_parse_from(std::iter::once("bench").chain(text.split_whitespace())).unwrap()
    }

    #[test]
    fn shapes_are_changed_as_asked() {
        let plans = args("--shape 10x10,audio --rate 20 --consumers 7").plans();
        let numbers = |plan: &Plan| (plan.producers, plan.consumers, plan.rate, plan.is_mesh);
        let numbers: Vec<_> = plans.iter().map(numbers).collect();
        assert_eq!(numbers, [(10, 7, 20, false), (5, 7, 20, false)]);
        assert!(args("--shape 10x10").plans()[0].is_mesh);
    }

    #[test]
    fn the_original_is_there_where_it_can_be() {
        use Which::{Broth, Limit, Original, Unrecorded};
        let rows: [(&str, bool, &[Which], usize); 7] = [
            ("--srtp cm-sha1", false, &[Limit, Broth], 1),
            ("--srtp cm-sha1", true, &[Limit, Broth, Original], 0),
            ("", true, &[Limit, Broth], 1),
            (
                "--unrecorded --transport plain",
                true,
                &[Limit, Broth, Unrecorded, Original],
                0,
            ),
            ("--servers limit", true, &[Limit], 0),
            ("--loss 1 --servers limit,broth", true, &[Broth], 1),
            ("--servers limit,original", false, &[Limit], 1),
        ];
        for (text, has_original, expected, left_out) in rows {
            let mut args = args(text);
            // The environment may name one.
            args.original = has_original.then(|| "worker".into());
            let (chosen, why) = args.servers(args.protections()[0]);
            assert_eq!((&chosen[..], why.len()), (expected, left_out), "{text}");
        }
    }
}
