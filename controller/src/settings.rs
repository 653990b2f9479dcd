//! What a server is started with, and the checks that run once before anything is started.

use std::env;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broth_ipc::body::DtlsIdentity;
use openssl::pkey::PKey;
use openssl::x509::X509;

use crate::crash;
use crate::error::{Error, Result};

/// Environment variable naming the worker executable for [`WorkerBin::Auto`].
const WORKER_BIN_ENV: &str = "BROTH_WORKER";

/// Youngest age at which workers may be replaced.
const AGE_MIN: Duration = Duration::from_secs(1);
/// Longest time packets may wait to be sent together.
const HOLD_MAX: Duration = Duration::from_millis(1);

/// An address media is received at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// Local address to bind.
    pub ip: IpAddr,
    /// Address or host name to tell clients instead, for a server behind a NAT.
    pub announced: Option<String>,
}

impl From<IpAddr> for ListenAddr {
    fn from(ip: IpAddr) -> Self {
        Self {
            ip,
            announced: None,
        }
    }
}

/// Which executable a worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WorkerBin {
    /// `$BROTH_WORKER`, else `broth-worker` beside the running executable, else in `PATH`.
    #[default]
    Auto,
    /// This file.
    Path(PathBuf),
    /// The running executable, which must call the worker's `run_if_asked` first in `main`.
    ThisExecutable,
}

/// How much a single client may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transports per peer.
    pub transports_max: usize,
    /// Producers per peer.
    pub producers_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transports_max: 16,
            producers_max: 64,
        }
    }
}

/// When a room is moved because one worker has much more to do than another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rebalance {
    /// Difference of CPU time per time between the busiest and the idlest worker, 0…1.
    pub difference: f64,
    /// In so many looks in a row, one a second, it must be larger.
    pub looks: u32,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self {
            difference: 0.3,
            looks: 5,
        }
    }
}

/// When a worker is replaced by a fresh one, to which its rooms go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recycle {
    /// It takes more memory than that and is older than ten minutes: younger ones are big because
    /// of their rooms. `None`: never.
    pub rss_bytes: Option<u64>,
    /// It is older than that. `None`: never.
    pub age: Option<Duration>,
}

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Worker processes; `None`: one per core this process may run on.
    pub num_workers: Option<usize>,
    /// Keep another worker ready behind each, so that taking over waits for no start.
    pub standby: bool,
    /// `debug`, `warn`, `error` or `none`.
    pub log_level: String,
    /// Topics to log, for instance `ice` or `dtls`.
    pub log_tags: Vec<String>,
    /// Where media is received.
    pub listen: Vec<ListenAddr>,
    /// Ports for rooms: one per room and listen address.
    pub rtc_ports: RangeInclusive<u16>,
    /// The worker executable.
    pub worker_bin: WorkerBin,
    /// Certificate and key (PEM) of all DTLS transports; `None`: made at start.
    pub dtls: Option<DtlsIdentity>,
    /// How much a single client may hold.
    pub limits: Limits,
    /// Move rooms from busy workers to idle ones; `None`: leave them where they are.
    pub rebalance: Option<Rebalance>,
    /// When workers are replaced by fresh ones.
    pub recycle: Recycle,
    /// Where reports of workers' deaths are written, at most 100 of them; `None`: nowhere. It is
    /// made if it is not there. A report may hold a datagram of a client (`docs/recovery.md`), so
    /// only this user may read it.
    pub crash_dir: Option<PathBuf>,
    /// Two deaths of workers over the same transport or room within this time are no accident; a
    /// room over which one died stays in a worker of its own for so long. Default: ten minutes.
    pub quarantine: Duration,
    /// How long the beginning of a video frame may wait for the rest, so that each viewer is sent
    /// both in one go (`docs/performance.md`). At most a millisecond; zero: not at all.
    pub hold: Duration,
    /// Workers do to themselves what [`Server::inject`](crate::Server::inject) asks: for tests
    /// only.
    pub chaos: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            num_workers: None,
            standby: true,
            log_level: "error".into(),
            log_tags: Vec::new(),
            listen: vec![default_ip().into()],
            rtc_ports: 10_000..=59_999,
            worker_bin: WorkerBin::Auto,
            dtls: None,
            limits: Limits::default(),
            rebalance: None,
            recycle: Recycle::default(),
            crash_dir: None,
            quarantine: Duration::from_secs(600),
            hold: Duration::from_micros(400),
            chaos: false,
        }
    }
}

/// The host's first IPv4 address that is not loopback, else loopback.
fn default_ip() -> IpAddr {
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let first = addresses
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .find(|ip| !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified());
    first.unwrap_or(Ipv4Addr::LOCALHOST).into()
}

impl Settings {
    /// Checks everything that can be known before a worker runs.
    pub fn validate(&self) -> Result<()> {
        if self.num_workers == Some(0) {
            return fail("num_workers is 0: give at least 1, or none for one per core".into());
        }
        check_log_level(&self.log_level)?;
        if self.rtc_ports.is_empty() || *self.rtc_ports.start() == 0 {
            let (min, max) = (self.rtc_ports.start(), self.rtc_ports.end());
            return fail(format!(
                "RTC port range {min}-{max} is empty: give min-max with 1 <= min <= max"
            ));
        }
        if let Some(Rebalance { difference, looks }) = self.rebalance
            && !(difference > 0.0 && difference < 1.0 && looks > 0)
        {
            return fail(format!(
                "rebalancing at a difference of {difference} in {looks} looks cannot be: give a \
                 share between 0 and 1 and at least one look"
            ));
        }
        if self.recycle.age.is_some_and(|age| age < AGE_MIN) {
            return fail(format!(
                "workers would be replaced all the time: give a recycling age of at least {} s",
                AGE_MIN.as_secs()
            ));
        }
        if self.hold > HOLD_MAX {
            return fail(format!(
                "packets would wait for {:?}: give a hold of at most {HOLD_MAX:?}",
                self.hold
            ));
        }
        if self.listen.is_empty() {
            return fail("no listen address: give at least one local address".into());
        }
        for (index, ListenAddr { ip, .. }) in self.listen.iter().enumerate() {
            if ip.is_unspecified() {
                return fail(format!(
                    "listen address {ip} cannot be told to clients: give a concrete local address"
                ));
            }
            if self.listen[..index].iter().any(|other| other.ip == *ip) {
                return fail(format!("listen address {ip} is given twice"));
            }
            if let Err(error) = UdpSocket::bind((*ip, 0)) {
                return fail(format!(
                    "cannot listen on {ip}: {error}; give an address of this host (see `ip addr`) \
                     and use the announced address for a public one"
                ));
            }
        }
        if let Some(directory) = &self.crash_dir
            && let Err(error) = crash::prepare(directory)
        {
            return fail(format!(
                "cannot write crash reports to {}: {error}",
                directory.display()
            ));
        }
        self.dtls.as_ref().map_or(Ok(()), check_identity)
    }

    /// Finds the worker executable.
    pub fn find_worker_bin(&self) -> Result<PathBuf> {
        match &self.worker_bin {
            WorkerBin::ThisExecutable => Ok("/proc/self/exe".into()),
            WorkerBin::Path(path) => existing(path),
            WorkerBin::Auto => match env::var_os(WORKER_BIN_ENV) {
                Some(path) => existing(Path::new(&path)),
                None => search(),
            },
        }
    }
}

fn fail<T>(text: String) -> Result<T> {
    Err(Error::Settings(text))
}

/// Refuses a level the worker would refuse.
pub(crate) fn check_log_level(level: &str) -> Result<()> {
    match level.to_lowercase().as_str() {
        "debug" | "warn" | "error" | "none" => Ok(()),
        other => fail(format!("invalid value '{other}' for logLevel")),
    }
}

fn check_identity(identity: &DtlsIdentity) -> Result<()> {
    let certificate = X509::from_pem(identity.certificate.as_bytes())
        .map_err(|error| Error::Settings(format!("DTLS certificate is no PEM: {error}")))?;
    let key = PKey::private_key_from_pem(identity.private_key.as_bytes())
        .map_err(|error| Error::Settings(format!("DTLS private key is no PEM: {error}")))?;
    match certificate.public_key() {
        Ok(public) if public.public_eq(&key) => Ok(()),
        _ => fail("DTLS certificate and private key do not belong together".into()),
    }
}

fn existing(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.into());
    }
    fail(format!(
        "worker executable {} does not exist: build it with `cargo build -p broth-worker`",
        path.display()
    ))
}

fn search() -> Result<PathBuf> {
    let own = env::current_exe().unwrap_or_default();
    // Tests and examples of cargo lie one directory below the other executables.
    let beside = own.ancestors().skip(1).take(2).map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .chain(env::split_paths(&path))
        .map(|directory| directory.join("broth-worker"))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            Error::Settings(format!(
                "no worker executable: put broth-worker beside {} or in PATH, or set \
                 {WORKER_BIN_ENV}",
                own.display()
            ))
        })
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;

    use super::*;

    fn loopback() -> Settings {
        Settings {
            listen: vec![IpAddr::from(Ipv4Addr::LOCALHOST).into()],
            ..Settings::default()
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_advice() {
        assert_eq!(loopback().validate(), Ok(()));
        let foreign = IpAddr::from([192, 0, 2, 1]);
        let any = IpAddr::from([0, 0, 0, 0]);
        let local = IpAddr::from([127, 0, 0, 1]);
        type Row<'a> = (&'a dyn Fn(&mut Settings), &'a str);
        let rows: [Row<'_>; 13] = [
            (&|s| s.num_workers = Some(0), "num_workers is 0"),
            (&|s| s.hold = Duration::from_millis(2), "wait for 2ms"),
            (
                &|s| s.log_level = "chicken".into(),
                "'chicken' for logLevel",
            ),
            (
                &|s| s.rtc_ports = RangeInclusive::new(2000, 1800),
                "2000-1800 is empty",
            ),
            (&|s| s.rtc_ports = 0..=10, "0-10 is empty"),
            (&|s| s.listen.clear(), "no listen address"),
            (
                &|s| s.listen = vec![foreign.into()],
                "cannot listen on 192.0.2.1",
            ),
            (
                &|s| s.listen = vec![any.into()],
                "cannot be told to clients",
            ),
            (
                &|s| s.listen = vec![local.into(), local.into()],
                "given twice",
            ),
            (
                &|s| s.recycle.age = Some(Duration::from_millis(10)),
                "recycling age",
            ),
            (
                &|s| {
                    s.rebalance = Some(Rebalance {
                        looks: 0,
                        ..Rebalance::default()
                    })
                },
                "at least one look",
            ),
            (
                &|s| {
                    s.rebalance = Some(Rebalance {
                        difference: f64::NAN,
                        ..Rebalance::default()
                    })
                },
                "a difference of NaN",
            ),
            (
                &|s| s.crash_dir = Some("/dev/null/crashes".into()),
                "cannot write crash reports to /dev/null/crashes",
            ),
        ];
        for (change, expected) in rows {
            let mut settings = loopback();
            change(&mut settings);
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// A key, and a certificate for it that nobody signed.
    fn identity() -> DtlsIdentity {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut certificate = X509::builder().unwrap();
        let now = Asn1Time::days_from_now(0).unwrap();
        certificate.set_not_before(&now).unwrap();
        certificate.set_not_after(&now).unwrap();
        certificate.set_pubkey(&key).unwrap();
        certificate.sign(&key, MessageDigest::sha256()).unwrap();
        let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
        DtlsIdentity {
            certificate: text(certificate.build().to_pem().unwrap()),
            private_key: text(key.private_key_to_pem_pkcs8().unwrap()),
        }
    }

    #[test]
    fn a_certificate_and_its_key_belong_together() {
        let (own, other) = (identity(), identity());
        let with = |certificate: &str, private_key: &str| {
            let settings = Settings {
                dtls: Some(DtlsIdentity {
                    certificate: certificate.into(),
                    private_key: private_key.into(),
                }),
                ..loopback()
            };
            settings.validate().map_err(|error| error.to_string())
        };
        assert_eq!(with(&own.certificate, &own.private_key), Ok(()));
        for (certificate, key, expected) in [
            (
                &own.certificate,
                &other.private_key,
                "do not belong together",
            ),
            (&own.private_key, &own.private_key, "certificate is no PEM"),
            (&own.certificate, &own.certificate, "private key is no PEM"),
        ] {
            let refused = with(certificate, key).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn defaults_are_v2s() {
        let settings = Settings::default();
        assert_eq!(settings.num_workers, None);
        assert_eq!(settings.log_level, "error");
        assert!(settings.log_tags.is_empty());
        assert_eq!(settings.rtc_ports, 10_000..=59_999);
        assert!(settings.dtls.is_none());
        let [ListenAddr { ip, announced }] = &settings.listen[..] else {
            panic!("{:?}", settings.listen);
        };
        assert!(ip.is_ipv4() && !ip.is_unspecified() && announced.is_none());
    }

    #[test]
    fn a_missing_worker_executable_is_named() {
        let settings = Settings {
            worker_bin: WorkerBin::Path("/nonexistent/broth-worker".into()),
            ..loopback()
        };
        let error = settings.find_worker_bin().unwrap_err().to_string();
        assert!(error.contains("/nonexistent/broth-worker"), "{error}");
    }
}
