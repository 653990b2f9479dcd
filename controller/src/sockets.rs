//! Sockets for media: bound here, used by the worker, kept here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use broth_ipc::body::{Protocol, RouterSocket};
use rand::Rng;
use socket2::{Domain, Socket, Type};

use crate::error::{Error, Result};
use crate::lock;
use crate::settings::ListenAddr;

/// Wanted size of the UDP buffers; the kernel may give less.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 256;

/// Where sockets may be bound.
#[derive(Debug)]
pub(crate) struct Ports {
    /// Addresses media is received at.
    pub(crate) listen: Vec<ListenAddr>,
    /// Ports to choose from.
    pub(crate) range: RangeInclusive<u16>,
}

/// A socket for one purpose, for instance a plain RTP transport.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    described: RouterSocket,
    fd: OwnedFd,
}

impl BoundSocket {
    /// What to tell the worker, and a copy of the descriptor for it.
    pub(crate) fn share(&self) -> Result<(RouterSocket, OwnedFd)> {
        let fd = self.fd.try_clone().map_err(|error| {
            Error::other(format!("cannot duplicate a socket's descriptor: {error}"))
        })?;
        Ok((self.described.clone(), fd))
    }

    /// What to tell the worker, and the descriptor for it.
    pub(crate) fn into_parts(self) -> (RouterSocket, OwnedFd) {
        (self.described, self.fd)
    }
}

/// The wished family of a socket whose remote address is not known yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prefer {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
}

impl Ports {
    /// Binds a UDP socket that can reach `remote`: on `local` if it is given, with any port, else
    /// on the first listen address of the family (`spec: channel.md` §6.3).
    ///
    /// # Errors
    /// The family is not listened on, or no port is free.
    pub(crate) fn bind_towards(
        &self,
        remote: Option<IpAddr>,
        local: Option<IpAddr>,
        prefer: Prefer,
    ) -> Result<BoundSocket> {
        let listens = |is_ipv6| self.listen.iter().any(|own| own.ip.is_ipv6() == is_ipv6);
        let is_ipv6 = match remote.or(local) {
            Some(ip) => ip.is_ipv6(),
            None if prefer.ipv4 => false,
            None => prefer.ipv6 || !listens(false),
        };
        let listen = self.listen.iter().find(|own| own.ip.is_ipv6() == is_ipv6);
        let Some(listen) = listen else {
            let family = if is_ipv6 { "IPv6" } else { "IPv4" };
            return Err(Error::other(format!("{family} disabled")));
        };
        let (ip, port, socket) = match local {
            Some(ip) if ip.is_ipv6() != is_ipv6 => {
                return Err(Error::other(format!(
                    "{ip} cannot reach the remote address"
                )));
            }
            Some(ip) => {
                let socket = bind_if_free(ip, 0, Protocol::Udp)?;
                let socket = socket.ok_or_else(|| no_port(ip))?;
                let bound = socket.local_addr().ok().and_then(|at| at.as_socket());
                let port = bound.ok_or_else(|| no_port(ip))?.port();
                (ip, port, socket)
            }
            None => {
                let start = rand::rng().random_range(self.range.clone());
                let (port, socket) = any_port(listen.ip, &self.range, start, Protocol::Udp)?;
                (listen.ip, port, socket)
            }
        };
        let described = RouterSocket {
            protocol: Protocol::Udp,
            ip,
            port,
            announced_ip: None,
        };
        let fd = socket.into();
        Ok(BoundSocket { described, fd })
    }
}

/// One UDP socket and one TCP listener per listen address; none if the worker binds its own.
///
/// The room keeps its own descriptors until it closes, so that the sockets outlive the worker.
#[derive(Debug, Default)]
pub(crate) struct RoomSockets {
    /// What to tell the worker, in the order of the descriptors.
    pub(crate) described: Vec<RouterSocket>,
    fds: Mutex<Vec<OwnedFd>>,
}

impl RoomSockets {
    /// Binds a UDP socket and a TCP listener on each address.
    ///
    /// # Errors
    /// An address cannot be used, or no port of the range is free.
    pub(crate) fn bind(ports: &Ports) -> Result<Self> {
        let (mut described, mut fds) = (Vec::new(), Vec::new());
        for address in &ports.listen {
            let start = rand::rng().random_range(ports.range.clone());
            for (protocol, port, socket) in bind_pair(address.ip, &ports.range, start)? {
                described.push(RouterSocket {
                    protocol,
                    ip: address.ip,
                    port,
                    announced_ip: address.announced.clone(),
                });
                fds.push(socket.into());
            }
        }
        Ok(Self {
            described,
            fds: Mutex::new(fds),
        })
    }

    /// Copies of the descriptors, in the order of `described`.
    pub(crate) fn try_clone_fds(&self) -> io::Result<Vec<OwnedFd>> {
        lock(&self.fds).iter().map(OwnedFd::try_clone).collect()
    }

    /// Gives the ports back; the worker has copies until it closes the room too.
    pub(crate) fn release(&self) {
        lock(&self.fds).clear();
    }
}

/// Every port of the range once, from `start` on.
fn ports_from(ports: &RangeInclusive<u16>, start: u16) -> impl Iterator<Item = u16> + use<> {
    (start..=*ports.end()).chain(*ports.start()..start)
}

/// Binds both protocols, to the same port if there is one.
fn bind_pair(
    ip: IpAddr,
    ports: &RangeInclusive<u16>,
    start: u16,
) -> Result<[(Protocol, u16, Socket); 2]> {
    for port in ports_from(ports, start) {
        if let Some(udp) = bind_if_free(ip, port, Protocol::Udp)?
            && let Some(tcp) = bind_if_free(ip, port, Protocol::Tcp)?
        {
            return Ok([(Protocol::Udp, port, udp), (Protocol::Tcp, port, tcp)]);
        }
    }
    let any = |protocol| {
        let (port, socket) = any_port(ip, ports, start, protocol)?;
        Ok::<_, Error>((protocol, port, socket))
    };
    Ok([any(Protocol::Udp)?, any(Protocol::Tcp)?])
}

/// Binds the first free port from `start` on.
fn any_port(
    ip: IpAddr,
    ports: &RangeInclusive<u16>,
    start: u16,
    protocol: Protocol,
) -> Result<(u16, Socket)> {
    for port in ports_from(ports, start) {
        if let Some(socket) = bind_if_free(ip, port, protocol)? {
            return Ok((port, socket));
        }
    }
    Err(no_port(ip))
}

fn no_port(ip: IpAddr) -> Error {
    Error::other(format!("no more available ports for IP '{ip}'"))
}

/// Binds a port; `None` if it cannot be had, which another one may.
fn bind_if_free(ip: IpAddr, port: u16, protocol: Protocol) -> Result<Option<Socket>> {
    match bind(ip, port, protocol) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) => match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Ok(None),
            _ => Err(Error::other(format!("cannot open {ip}:{port}: {error}"))),
        },
    }
}

fn bind(ip: IpAddr, port: u16, protocol: Protocol) -> io::Result<Socket> {
    let address = SocketAddr::new(ip, port);
    let kind = match protocol {
        Protocol::Udp => Type::DGRAM,
        Protocol::Tcp => Type::STREAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    match protocol {
        Protocol::Udp => {
            let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
            let _ = socket.set_send_buffer_size(BUFFER_BYTES);
            socket.bind(&address.into())?;
        }
        Protocol::Tcp => {
            // Connections of the room that had the port before do not keep it busy.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
        }
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn ports(range: RangeInclusive<u16>) -> Ports {
        let listen = vec![LOOPBACK.into()];
        Ports { listen, range }
    }

    #[test]
    fn a_socket_of_its_own_follows_the_remote_address() {
        let ports = ports(21_230..=21_239);
        let v6 = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
        let prefer = Prefer::default();
        let prefer_v6 = Prefer {
            ipv6: true,
            ..prefer
        };
        let bind = |remote, local, prefer| {
            let bound = ports.bind_towards(remote, local, prefer);
            let bound = bound.map(|socket| (socket.described.ip, socket.described.port));
            bound.map_err(|error| error.to_string())
        };
        let rows = [
            (Some(LOOPBACK), prefer),
            (None, prefer),
            (Some(LOOPBACK), prefer_v6),
        ];
        for (remote, prefer) in rows {
            let (ip, port) = bind(remote, None, prefer).unwrap();
            assert!(ip == LOOPBACK && ports.range.contains(&port), "{remote:?}");
        }
        let disabled = Err("IPv6 disabled".to_owned());
        assert_eq!(bind(Some(v6), None, prefer), disabled);
        assert_eq!(bind(None, None, prefer_v6), disabled);
        let (ip, port) = bind(None, Some(LOOPBACK), prefer).unwrap();
        assert!(ip == LOOPBACK && port != 0 && !ports.range.contains(&port));
        let foreign = bind(None, Some(IpAddr::from([192, 0, 2, 1])), prefer).unwrap_err();
        assert!(foreign.contains("cannot open 192.0.2.1"), "{foreign}");
        let v6_alone = Ports {
            listen: vec![v6.into()],
            range: 1..=1,
        };
        let refused = v6_alone.bind_towards(Some(LOOPBACK), None, prefer);
        assert_eq!(refused.unwrap_err().to_string(), "IPv4 disabled");
    }

    #[test]
    fn every_port_is_tried_once() {
        let seen: Vec<_> = ports_from(&(10..=13), 12).collect();
        assert_eq!(seen, [12, 13, 10, 11]);
        let last: Vec<_> = ports_from(&(65534..=65535), 65535).collect();
        assert_eq!(last, [65535, 65534]);
    }

    #[test]
    fn both_protocols_share_a_port_until_the_range_is_used_up() {
        let ports = ports(21_210..=21_211);
        let one = RoomSockets::bind(&ports).unwrap();
        let two = RoomSockets::bind(&ports).unwrap();
        assert_eq!(one.described[0].port, one.described[1].port);
        assert_ne!(one.described[0].port, two.described[0].port);
        let error = RoomSockets::bind(&ports).unwrap_err();
        let text = "no more available ports for IP '127.0.0.1'";
        assert_eq!(error.to_string(), text);
        drop(one);
        RoomSockets::bind(&ports).unwrap();
    }

    #[test]
    fn a_busy_tcp_port_does_not_cost_the_udp_one() {
        let ports = 21_220..=21_221;
        let _busy = bind(LOOPBACK, 21_220, Protocol::Tcp).unwrap();
        let [udp, tcp] = bind_pair(LOOPBACK, &ports, 21_220).unwrap();
        assert_eq!((udp.1, tcp.1), (21_221, 21_221));
        let [udp, tcp] = {
            let _busy_udp = udp;
            drop(tcp);
            bind_pair(LOOPBACK, &ports, 21_220).unwrap()
        };
        assert_eq!((udp.1, tcp.1), (21_220, 21_221));
    }
}
