//! The ports the worker opens itself: those of transports whose controller hands over no sockets,
//! as mediasoup v2's does not (`spec: media.md` §1).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use broth_ipc::body::{Protocol, RouterSocket};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, RcvBuf, ReuseAddr, SndBuf};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen,
    setsockopt, socket,
};
use thiserror::Error;

use super::host::Machine;
use crate::io::Io;
use crate::ports::RtcPorts;
use crate::settings::{Family, FamilySettings, Host, Listen, RtcSettings};

/// Free ports that may turn out to be somebody else's before the search is given up.
const BIND_ATTEMPTS_MAX: usize = 20;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;
/// Room for a burst of packets; the kernel grants what its limits allow.
const BUFFER_BYTES: usize = 1 << 20;

/// Why a port could not be opened, in mediasoup v2's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The family is switched off, or no address of it was found.
    #[error("{} family not available for RTC", .0.name())]
    NoFamily(Family),
    /// All ports of the range are taken.
    #[error("no more available ports for IP '{0}'")]
    Exhausted(IpAddr),
    /// Others have the ports of this range.
    #[error("uv_{}_bind() fails more than {BIND_ATTEMPTS_MAX} times for IP '{ip}'", prefix(*.protocol))]
    TooManyAttempts {
        /// UDP or TCP.
        protocol: Protocol,
        /// The address.
        ip: IpAddr,
    },
    /// The process has no descriptor left.
    #[error("uv_{}_bind() fails due to many open files", prefix(*.0))]
    ManyOpenFiles(Protocol),
    /// It is no address at all.
    #[error("invalid binding IP '{0}'")]
    InvalidIp(String),
    /// The operating system refused.
    #[error("uv_udp_bind() failed: {0}")]
    Refused(String),
}

fn prefix(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "udp",
        Protocol::Tcp => "tcp",
    }
}

/// Opens ports and remembers which are open.
#[derive(Debug)]
pub struct Binder {
    ipv4: FamilySettings,
    ipv6: FamilySettings,
    ports: RtcPorts,
}

impl Default for Binder {
    fn default() -> Self {
        Self::new(RtcSettings::default())
    }
}

impl Binder {
    /// Opens ports of the settings' range. Asks nothing of the machine yet.
    pub fn new(settings: RtcSettings) -> Self {
        Self {
            ipv4: settings.ipv4,
            ipv6: settings.ipv6,
            ports: RtcPorts::new(settings.ports),
        }
    }

    /// The address of a family; `None` if the family is off.
    pub fn ip(&mut self, family: Family) -> Option<IpAddr> {
        let listen = &mut self.settings_mut(family).listen;
        if *listen == Listen::Auto {
            *listen = Machine.detect(family).map_or(Listen::Off, Listen::On);
        }
        match *listen {
            Listen::On(ip) => Some(ip),
            Listen::Off | Listen::Auto => None,
        }
    }

    /// What candidates of a family say instead of the address.
    pub fn announced(&self, family: Family) -> Option<&str> {
        let settings = match family {
            Family::V4 => &self.ipv4,
            Family::V6 => &self.ipv6,
        };
        settings.announced.as_deref()
    }

    /// Opens a port of the range.
    ///
    /// # Errors
    /// None is to be had.
    pub fn open(
        &mut self,
        protocol: Protocol,
        family: Family,
    ) -> Result<(RouterSocket, OwnedFd), OpenError> {
        let ip = self.ip(family).ok_or(OpenError::NoFamily(family))?;
        let random = u16::from_ne_bytes(Io::random());
        let mut free = self.ports.free(protocol, ip, random).enumerate();
        let found = free.find_map(|(attempt, port)| {
            let address = SocketAddr::new(ip, port);
            match bind_to(protocol, address) {
                Ok(fd) => Some(Ok((address, fd))),
                Err(Errno::EMFILE | Errno::ENFILE) => Some(Err(OpenError::ManyOpenFiles(protocol))),
                Err(_) if attempt == BIND_ATTEMPTS_MAX => {
                    Some(Err(OpenError::TooManyAttempts { protocol, ip }))
                }
                Err(_) => None,
            }
        });
        drop(free);
        let (address, fd) = found.unwrap_or(Err(OpenError::Exhausted(ip)))?;
        self.ports.take(protocol, address);
        let announced_ip = self.announced(family).map(Into::into);
        Ok((described(protocol, address, announced_ip), fd))
    }

    /// Opens a UDP port of the system's choice on an address that is not in the settings.
    ///
    /// # Errors
    /// It is no address of this machine.
    pub fn open_at(&self, ip: &str) -> Result<(RouterSocket, OwnedFd), OpenError> {
        let parsed = ip
            .parse()
            .map_err(|_| OpenError::InvalidIp(ip.to_owned()))?;
        let refused = |error| OpenError::Refused(uv_text(error));
        let fd = bind_to(Protocol::Udp, SocketAddr::new(parsed, 0)).map_err(refused)?;
        let bound: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(refused)?;
        let v4 = bound.as_sockaddr_in().map(|v4| v4.port());
        let v6 = bound.as_sockaddr_in6().map(|v6| v6.port());
        let address = SocketAddr::new(parsed, v4.or(v6).unwrap_or_default());
        Ok((described(Protocol::Udp, address, None), fd))
    }

    /// Remembers that a port is closed; nothing happens if it was not opened here.
    pub fn release(&mut self, protocol: Protocol, address: SocketAddr) {
        self.ports.release(protocol, address);
    }

    fn settings_mut(&mut self, family: Family) -> &mut FamilySettings {
        match family {
            Family::V4 => &mut self.ipv4,
            Family::V6 => &mut self.ipv6,
        }
    }
}

fn described(
    protocol: Protocol,
    address: SocketAddr,
    announced_ip: Option<String>,
) -> RouterSocket {
    RouterSocket {
        protocol,
        ip: address.ip(),
        port: address.port(),
        announced_ip,
    }
}

/// A bound UDP socket or a listening TCP socket; one of IPv6 does not take IPv4 as well.
fn bind_to(protocol: Protocol, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let kind = match protocol {
        Protocol::Udp => SockType::Datagram,
        Protocol::Tcp => SockType::Stream,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, None)?;
    if address.is_ipv6() {
        setsockopt(&fd, Ipv6V6Only, &true)?;
    }
    match protocol {
        Protocol::Udp => {
            let _ = setsockopt(&fd, RcvBuf, &BUFFER_BYTES);
            let _ = setsockopt(&fd, SndBuf, &BUFFER_BYTES);
            bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        }
        Protocol::Tcp => {
            // Connections of the transport that had the port before do not keep it busy.
            setsockopt(&fd, ReuseAddr, &true)?;
            bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
            listen(&fd, Backlog::new(BACKLOG)?)?;
        }
    }
    Ok(fd)
}

/// libuv's words, which mediasoup v2's worker repeats.
fn uv_text(error: Errno) -> String {
    match error {
        Errno::EADDRNOTAVAIL => "address not available".into(),
        Errno::EADDRINUSE => "address already in use".into(),
        Errno::EACCES => "permission denied".into(),
        Errno::EMFILE => "too many open files".into(),
        Errno::EINVAL => "invalid argument".into(),
        other => io::Error::from(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Tcp, Udp};
    use std::net::{Ipv4Addr, UdpSocket};
    use std::ops::RangeInclusive;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn binder(ports: RangeInclusive<u16>) -> Binder {
        Binder::new(RtcSettings {
            ipv4: FamilySettings {
                listen: Listen::On(LOOPBACK),
                announced: Some("9.9.9.9".into()),
            },
            ipv6: FamilySettings {
                listen: Listen::Off,
                announced: None,
            },
            ports,
        })
    }

    #[test]
    fn ports_come_from_the_range_and_are_reusable_at_once() {
        let mut binder = binder(21_310..=21_311);
        for protocol in [Udp, Tcp] {
            for _ in 0..3 {
                let (one, first) = binder.open(protocol, Family::V4).unwrap();
                let (two, _second) = binder.open(protocol, Family::V4).unwrap();
                assert_ne!(one.port, two.port);
                assert_eq!(one.announced_ip.as_deref(), Some("9.9.9.9"));
                let error = binder.open(protocol, Family::V4).unwrap_err();
                let text = "no more available ports for IP '127.0.0.1'";
                assert_eq!(error.to_string(), text);
                drop(first);
                binder.release(protocol, SocketAddr::new(one.ip, one.port));
                let (again, _third) = binder.open(protocol, Family::V4).unwrap();
                assert_eq!(again.port, one.port);
                for socket in [again, two] {
                    binder.release(protocol, SocketAddr::new(socket.ip, socket.port));
                }
            }
        }
        let error = binder.open(Udp, Family::V6).unwrap_err();
        assert_eq!(error.to_string(), "IPv6 family not available for RTC");
    }

    #[test]
    fn ports_of_others_are_passed_over_but_not_for_ever() {
        let others: Vec<UdpSocket> = (21_320..21_350)
            .filter_map(|port| UdpSocket::bind((LOOPBACK, port)).ok())
            .collect();
        assert_eq!(others.len(), 30);
        let error = binder(21_320..=21_349).open(Udp, Family::V4).unwrap_err();
        let text = "uv_udp_bind() fails more than 20 times for IP '127.0.0.1'";
        assert_eq!(error.to_string(), text);
        let error = binder(21_320..=21_321).open(Udp, Family::V4).unwrap_err();
        assert_eq!(error, OpenError::Exhausted(LOOPBACK));
        assert!(binder(21_340..=21_351).open(Udp, Family::V4).is_ok());
    }

    #[test]
    fn any_address_of_the_machine_can_be_asked_for() {
        let binder = binder(21_360..=21_361);
        for ip in ["127.0.0.1", "::1"] {
            let (socket, _fd) = binder.open_at(ip).unwrap();
            assert!(socket.ip.to_string() == ip && socket.port != 0);
        }
        for (ip, text) in [
            ("x", "invalid binding IP 'x'"),
            ("192.0.2.1", "uv_udp_bind() failed: address not available"),
        ] {
            assert_eq!(binder.open_at(ip).unwrap_err().to_string(), text);
        }
    }
}
