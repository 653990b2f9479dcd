//! The options of a worker process, `--key=value`, as mediasoup v2's controller passes them
//! (`spec: channel.md` §1.2, §1.3). Pure: what only the machine can tell is asked of a [`Host`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::log::{Level, Tags};

/// First port without privileges.
const PORT_MIN: i64 = 1024;
/// Ports a worker uses if it is told nothing.
const PORTS: (i64, i64) = (10_000, 59_999);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As it is written in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// What the checks ask of the machine.
pub trait Host {
    /// The first address of a family that others can reach.
    fn detect(&self, family: Family) -> Option<IpAddr>;
    /// Whether a UDP socket can be bound to an address; the error says why not.
    fn check_bind(&self, ip: IpAddr) -> Result<(), String>;
    /// Whether a file can be read; the error is a sentence.
    fn check_file(&self, path: &Path) -> Result<(), String>;
}

/// Where the worker's own sockets of one family are bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// To the first address that others can reach, found out when it is needed.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// Here.
    On(IpAddr),
}

/// One address family of the worker's own sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilySettings {
    /// Where sockets are bound.
    pub listen: Listen,
    /// What candidates say instead.
    pub announced: Option<String>,
}

impl FamilySettings {
    /// Detects the address if there is no other family. With both left to detection nothing is
    /// asked yet: who is handed its sockets needs none.
    fn settle(&mut self, family: Family, is_alone: bool, host: &impl Host) {
        if is_alone && self.listen == Listen::Auto {
            self.listen = host.detect(family).map_or(Listen::Off, Listen::On);
        }
        if self.listen == Listen::Off {
            self.announced = None;
        }
    }
}

/// What a worker needs to open ports of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtcSettings {
    /// IPv4.
    pub ipv4: FamilySettings,
    /// IPv6.
    pub ipv6: FamilySettings,
    /// From an even port to an odd one.
    pub ports: RangeInclusive<u16>,
}

impl Default for RtcSettings {
    fn default() -> Self {
        Self {
            ipv4: FamilySettings::default(),
            ipv6: FamilySettings::default(),
            ports: PORTS.0 as u16..=PORTS.1 as u16,
        }
    }
}

/// Paths of a certificate and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
}

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How much the worker says.
    pub log_level: Level,
    /// About what.
    pub log_tags: Tags,
    /// For ports of its own.
    pub rtc: RtcSettings,
    /// Certificate and key; the worker makes its own without.
    pub identity: Option<IdentityFiles>,
}

/// Why a worker cannot be started with these options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// Where mediasoup v2's worker finds it out.
    pub place: &'static str,
    /// What is wrong, in its words.
    pub text: String,
}

type Checked<T = ()> = Result<T, SettingsError>;

fn fail<T>(place: &'static str, text: impl Into<String>) -> Checked<T> {
    let text = text.into();
    Err(SettingsError { place, text })
}

/// The options as they come, before they are checked against each other.
struct Options<'o> {
    settings: Settings,
    tags: Vec<&'o str>,
    ports: (i64, i64),
    certificate: &'o str,
    private_key: &'o str,
}

impl Settings {
    /// Reads and checks the options.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn parse(arguments: &[String], host: &impl Host) -> Checked<Self> {
        let mut options = Options {
            settings: Self::default(),
            tags: Vec::new(),
            ports: PORTS,
            certificate: "",
            private_key: "",
        };
        for argument in arguments {
            options.read(argument, host)?;
        }
        options.finish(host)
    }
}

impl<'o> Options<'o> {
    fn read(&mut self, argument: &'o str, host: &impl Host) -> Checked {
        let option = argument
            .strip_prefix("--")
            .and_then(|option| option.split_once('='));
        let (name, value) = option.unwrap_or_default();
        let rtc = &mut self.settings.rtc;
        match name {
            "logLevel" => {
                self.settings.log_level =
                    Level::parse(value).or_else(|text| fail("Settings::SetLogLevel", text))?;
            }
            "logTag" => self.tags.push(value),
            "rtcIPv4" => set_listen(&mut rtc.ipv4.listen, Family::V4, value, host)?,
            "rtcIPv6" => set_listen(&mut rtc.ipv6.listen, Family::V6, value, host)?,
            "rtcAnnouncedIPv4" => rtc.ipv4.announced = Some(value.into()),
            "rtcAnnouncedIPv6" => rtc.ipv6.announced = Some(value.into()),
            "rtcMinPort" => self.ports.0 = port(name, value)?,
            "rtcMaxPort" => self.ports.1 = port(name, value)?,
            "dtlsCertificateFile" => self.certificate = value,
            "dtlsPrivateKeyFile" => self.private_key = value,
            _ => {
                let text = "unknown configuration parameter: (null)";
                return fail("Settings::SetConfiguration", text);
            }
        }
        Ok(())
    }

    fn finish(self, host: &impl Host) -> Checked<Settings> {
        let mut settings = self.settings;
        settings.log_tags = Tags::of(self.tags);
        let rtc = &mut settings.rtc;
        let is_off = (
            rtc.ipv4.listen == Listen::Off,
            rtc.ipv6.listen == Listen::Off,
        );
        rtc.ipv4.settle(Family::V4, is_off.1, host);
        rtc.ipv6.settle(Family::V6, is_off.0, host);
        if rtc.ipv4.listen == Listen::Off && rtc.ipv6.listen == Listen::Off {
            let text = "at least rtcIPv4 or rtcIPv6 must be enabled";
            return fail("Settings::SetConfiguration", text);
        }
        rtc.ports = port_range(self.ports)?;
        if !self.certificate.is_empty() && !self.private_key.is_empty() {
            for (name, path) in [
                ("dtlsCertificateFile", self.certificate),
                ("dtlsPrivateKeyFile", self.private_key),
            ] {
                host.check_file(Path::new(path)).or_else(|text| {
                    let place = "Settings::SetDtlsCertificateAndPrivateKeyFiles";
                    fail(place, format!("{name}: {text}"))
                })?;
            }
            settings.identity = Some(IdentityFiles {
                certificate: self.certificate.into(),
                private_key: self.private_key.into(),
            });
        }
        Ok(settings)
    }
}

fn set_listen(listen: &mut Listen, family: Family, value: &str, host: &impl Host) -> Checked {
    let name = family.name();
    let place = match family {
        Family::V4 => "Settings::SetRtcIPv4",
        Family::V6 => "Settings::SetRtcIPv6",
    };
    let ip: IpAddr = match value {
        "true" => return Ok(()),
        "" | "false" => {
            *listen = Listen::Off;
            return Ok(());
        }
        text => text
            .parse()
            .or_else(|_| fail(place, format!("invalid value '{text}' for rtc{name}")))?,
    };
    if Family::of(ip) != family {
        let other = Family::of(ip).name();
        return fail(place, format!("invalid {other} '{value}' for rtc{name}"));
    }
    if ip == Ipv4Addr::UNSPECIFIED || ip == Ipv6Addr::UNSPECIFIED {
        return fail(place, format!("rtc{name} cannot be '{ip}'"));
    }
    host.check_bind(ip).or_else(|error| {
        fail(
            place,
            format!("cannot bind on '{value}' for rtc{name}: {error}"),
        )
    })?;
    *listen = Listen::On(ip);
    Ok(())
}

fn port(name: &str, value: &str) -> Checked<i64> {
    let number = value.parse().ok();
    number
        .filter(|port| *port <= i64::from(u16::MAX))
        .map_or_else(
            || {
                let text = format!("invalid value '{value}' for {name}");
                fail("Settings::SetConfiguration", text)
            },
            Ok,
        )
}

/// Widened to begin with an even port, narrowed to end with an odd one.
fn port_range((min, max): (i64, i64)) -> Checked<RangeInclusive<u16>> {
    let refuse = |text| fail("Settings::SetRtcPorts", text);
    if min < PORT_MIN {
        return refuse("rtcMinPort must be greater or equal than 1024");
    }
    if max == 0 {
        return refuse("rtcMaxPort can not be 0");
    }
    let min = min & !1;
    let max = if max % 2 == 0 { max - 1 } else { max };
    if max <= min {
        return refuse("rtcMaxPort must be higher than rtcMinPort");
    }
    Ok(min as u16..=max as u16)
}

#[cfg(test)]
mod tests;
