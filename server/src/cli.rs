//! The command line and the environment, turned into settings once.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use broth::{ListenAddr, Rebalance, Recycle, Settings, WorkerBin};
use clap::{Args, Parser, Subcommand};

use crate::tools::chaos::Chaos;
use crate::tools::publish::Publish;
use crate::tools::record::Record;

/// A conference server: rooms over HTTP and WebSocket, media in one pinned process per core.
#[derive(Debug, Parser)]
#[command(name = "broth", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves the web page, the signalling and the media.
    Serve(Serve),
    /// Sends a file into a room as a participant, by ffmpeg and plain RTP.
    Publish(Publish),
    /// Writes what a participant sends to a file, by ffmpeg and plain RTP.
    Record(Record),
    /// Kills workers of a server full of native clients, and reports what those notice.
    Chaos(Box<Chaos>),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where the page and the signalling are served.
    #[arg(long, env = "BROTH_LISTEN", default_value = "127.0.0.1:3000")]
    pub(crate) listen: SocketAddr,
    /// Address media is received at; may be given several times [default: the host's first].
    #[arg(long, env = "BROTH_RTC_IP", value_delimiter = ',')]
    rtc_ip: Vec<IpAddr>,
    /// Address or name told to clients instead, one per --rtc-ip, for a server behind a NAT.
    #[arg(long, env = "BROTH_ANNOUNCED_IP", value_delimiter = ',')]
    announced_ip: Vec<String>,
    /// Ports for media, one per room and address.
    #[arg(long, env = "BROTH_RTC_PORTS", value_name = "MIN-MAX", value_parser = ports)]
    rtc_ports: Option<RangeInclusive<u16>>,
    /// Worker processes [default: one per core].
    #[arg(long, env = "BROTH_WORKERS")]
    workers: Option<usize>,
    /// Worker executable, of broth or of mediasoup 2.6 [default: this executable].
    #[arg(long, env = "BROTH_WORKER", value_name = "FILE")]
    worker_bin: Option<PathBuf>,
    /// Move rooms from busy workers to idle ones.
    #[arg(long, env = "BROTH_REBALANCE")]
    rebalance: bool,
    /// Replace workers that take more memory than that and are older than ten minutes.
    #[arg(long, env = "BROTH_RECYCLE_RSS", value_name = "MIB")]
    recycle_rss: Option<u64>,
    /// Replace workers that are older than that.
    #[arg(long, env = "BROTH_RECYCLE_AGE", value_name = "SECONDS")]
    recycle_age: Option<u64>,
    /// Where reports of workers' deaths are written [default: nowhere].
    #[arg(long, env = "BROTH_CRASH_DIR", value_name = "DIR")]
    crash_dir: Option<PathBuf>,
    /// Microseconds, at most 1000, that the beginning of a video frame may wait for the rest, so
    /// that each viewer is sent both in one go; 0: none.
    #[arg(long, env = "BROTH_HOLD_US", value_name = "US", default_value_t = 400)]
    hold_us: u16,
    /// Certificate chain (PEM) for HTTPS; without it plain HTTP is served.
    #[arg(long, env = "BROTH_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate.
    #[arg(long, env = "BROTH_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Adds a panel to the page that ends workers in the middle of a call, for demonstrations.
    /// Anybody who can open the page can press its buttons.
    #[arg(long, env = "BROTH_CHAOS")]
    pub(crate) chaos: bool,
}

/// Where certificate and key of the HTTPS server are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Serve {
    /// What the media side is started with.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings {
            num_workers: self.workers,
            worker_bin: self
                .worker_bin
                .clone()
                .map_or(WorkerBin::ThisExecutable, WorkerBin::Path),
            rebalance: self.rebalance.then(Rebalance::default),
            recycle: Recycle {
                rss_bytes: self.recycle_rss.map(|mib| mib.saturating_mul(1 << 20)),
                age: self.recycle_age.map(Duration::from_secs),
            },
            crash_dir: self.crash_dir.clone(),
            hold: Duration::from_micros(self.hold_us.into()),
            chaos: self.chaos,
            ..Settings::default()
        };
        if !self.rtc_ip.is_empty() {
            settings.listen = self.rtc_ip.iter().copied().map(ListenAddr::from).collect();
        }
        if let Some(ports) = &self.rtc_ports {
            settings.rtc_ports = ports.clone();
        }
        if self.announced_ip.len() > settings.listen.len() {
            bail!(
                "{} announced addresses for {} media addresses: give a --rtc-ip for each",
                self.announced_ip.len(),
                settings.listen.len()
            );
        }
        for (listen, announced) in settings.listen.iter_mut().zip(&self.announced_ip) {
            listen.announced = Some(announced.clone());
        }
        Ok(settings)
    }

    /// Where the executable of workers is found when they are to be replaced: it may be another file
    /// than at the start.
    pub(crate) fn worker_path(&self) -> anyhow::Result<PathBuf> {
        match &self.worker_bin {
            Some(path) => Ok(path.clone()),
            None => std::env::current_exe().context("where this executable is, is not known"),
        }
    }

    /// The files for HTTPS, if it is wanted.
    pub(crate) fn tls(&self) -> anyhow::Result<Option<TlsFiles>> {
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some(TlsFiles {
                cert: cert.clone(),
                key: key.clone(),
            })),
            (Some(_), None) => bail!("--tls-cert is given without --tls-key: HTTPS needs both"),
            (None, Some(_)) => bail!("--tls-key is given without --tls-cert: HTTPS needs both"),
        }
    }
}

/// Reads a range of ports, as in `40000-49999`.
pub(crate) fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|&port| port > 0);
    let range = text.split_once('-');
    match range.and_then(|(min, max)| Some((number(min)?, number(max)?))) {
        Some((min, max)) if min <= max => Ok(min..=max),
        Some((min, max)) => Err(format!("{min} is above {max}: give min-max")),
        None => Err("give min-max with ports from 1 to 65535, as in 40000-49999".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(args: &[&str]) -> Result<Serve, clap::Error> {
        let all = ["broth", "serve"].iter().chain(args);
        Cli::try_parse_from(all).map(|Cli { command }| match command {
            Command::Serve(serve) => serve,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn each_media_address_gets_its_announced_one() {
        let args = [
            "--rtc-ip",
            "127.0.0.1",
            "--rtc-ip",
            "127.0.0.2",
            "--announced-ip",
            "a.example",
        ];
        let settings = serve(&args).unwrap().settings().unwrap();
        let announced: Vec<_> = settings
            .listen
            .iter()
            .map(|l| l.announced.as_deref())
            .collect();
        assert_eq!(announced, [Some("a.example"), None]);
    }

    #[test]
    fn more_announced_than_media_addresses_are_refused() {
        let args = [
            "--rtc-ip",
            "127.0.0.1",
            "--announced-ip",
            "a.example,b.example",
        ];
        let error = serve(&args).unwrap().settings().unwrap_err();
        assert!(
            error.to_string().contains("2 announced addresses for 1"),
            "{error}"
        );
    }

    #[test]
    fn workers_are_this_executable_unless_another_is_named() {
        let named = ["--worker-bin", "/opt/mediasoup-worker"];
        for (args, expected) in [
            (&[][..], WorkerBin::ThisExecutable),
            (&named, WorkerBin::Path("/opt/mediasoup-worker".into())),
        ] {
            let settings = serve(args).unwrap().settings().unwrap();
            assert_eq!(settings.worker_bin, expected);
        }
    }

    #[test]
    fn workers_are_moved_and_replaced_only_if_that_is_wanted() {
        let settings = serve(&[]).unwrap().settings().unwrap();
        assert_eq!(
            (settings.rebalance, settings.recycle),
            (None, Recycle::default())
        );
        let wanted = [
            "--rebalance",
            "--recycle-rss",
            "512",
            "--recycle-age",
            "86400",
        ];
        let settings = serve(&wanted).unwrap().settings().unwrap();
        let recycle = Recycle {
            rss_bytes: Some(512 << 20),
            age: Some(Duration::from_secs(86_400)),
        };
        assert_eq!(settings.recycle, recycle);
        assert_eq!(settings.rebalance, Some(Rebalance::default()));
    }

    #[test]
    fn crash_reports_are_written_where_it_is_said() {
        assert_eq!(serve(&[]).unwrap().settings().unwrap().crash_dir, None);
        let given = serve(&["--crash-dir", "/var/crash/broth"]).unwrap();
        let expected = Some("/var/crash/broth".into());
        assert_eq!(given.settings().unwrap().crash_dir, expected);
    }

    #[test]
    fn workers_obey_only_for_chaos() {
        for (args, expected) in [(&[][..], false), (&["--chaos"], true)] {
            let settings = serve(args).unwrap().settings().unwrap();
            assert_eq!(settings.chaos, expected);
        }
    }

    #[test]
    fn half_a_tls_pair_is_refused() {
        for (given, missing) in [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")] {
            let error = serve(&[given, "file.pem"]).unwrap().tls().unwrap_err();
            assert!(
                error.to_string().contains(&format!("without {missing}")),
                "{error}"
            );
        }
        assert_eq!(serve(&[]).unwrap().tls().unwrap(), None);
    }

    #[test]
    fn port_ranges_are_checked() {
        assert_eq!(ports("40000-40010"), Ok(40000..=40010));
        assert_eq!(ports("7-7"), Ok(7..=7));
        for text in ["", "1", "2000-1000", "0-10", "1-65536", "a-b", "-5-9"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }
}
