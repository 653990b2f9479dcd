//! A room's sockets: bound here, used by the worker, kept here.

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

/// One UDP socket and one TCP listener per listen address.
///
/// The room keeps its own descriptors until it closes, so that the sockets outlive the worker.
#[derive(Debug)]
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
    pub(crate) fn bind(listen: &[ListenAddr], ports: &RangeInclusive<u16>) -> Result<Self> {
        let (mut described, mut fds) = (Vec::new(), Vec::new());
        for address in listen {
            let start = rand::rng().random_range(ports.clone());
            for (protocol, port, socket) in bind_pair(address.ip, ports, start)? {
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
        for port in ports_from(ports, start) {
            if let Some(socket) = bind_if_free(ip, port, protocol)? {
                return Ok((protocol, port, socket));
            }
        }
        Err(Error::other(format!(
            "no more available ports for IP '{ip}'"
        )))
    };
    Ok([any(Protocol::Udp)?, any(Protocol::Tcp)?])
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

    #[test]
    fn every_port_is_tried_once() {
        let seen: Vec<_> = ports_from(&(10..=13), 12).collect();
        assert_eq!(seen, [12, 13, 10, 11]);
        let last: Vec<_> = ports_from(&(65534..=65535), 65535).collect();
        assert_eq!(last, [65535, 65534]);
    }

    #[test]
    fn both_protocols_share_a_port_until_the_range_is_used_up() {
        let ports = 21_210..=21_211;
        let listen = [ListenAddr::from(LOOPBACK)];
        let one = RoomSockets::bind(&listen, &ports).unwrap();
        let two = RoomSockets::bind(&listen, &ports).unwrap();
        assert_eq!(one.described[0].port, one.described[1].port);
        assert_ne!(one.described[0].port, two.described[0].port);
        let error = RoomSockets::bind(&listen, &ports).unwrap_err();
        let text = "no more available ports for IP '127.0.0.1'";
        assert_eq!(error.to_string(), text);
        drop(one);
        RoomSockets::bind(&listen, &ports).unwrap();
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
