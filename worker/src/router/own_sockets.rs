//! Sockets that one transport has for itself: handed over with the request that needs them, or
//! opened here for a controller that hands over none.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use broth_ipc::body::{
    PlainRtpTransportOptions, Protocol, RouterSocket, StartMirroring, WebRtcTransportOptions,
};
use broth_ipc::{ErrorCode, Rejection};

use crate::io::Io;
use crate::net::binder::{Binder, OpenError};
use crate::net::sockets::Owner;
use crate::settings::Family;
use crate::transport::{Plain, remote_address};

/// The sockets of a WebRTC transport, in the order of its candidates. What cannot be opened is
/// left out and logged.
pub(super) fn open_candidates(
    io: &mut Io,
    options: &WebRtcTransportOptions,
    owner: Owner,
) -> Vec<RouterSocket> {
    let wanted = [
        (options.udp, Protocol::Udp, Family::V4, "UDP socket"),
        (options.udp, Protocol::Udp, Family::V6, "UDP socket"),
        (options.tcp, Protocol::Tcp, Family::V4, "TCP server"),
        (options.tcp, Protocol::Tcp, Family::V6, "TCP server"),
    ];
    let mut sockets = Vec::new();
    for (is_wanted, protocol, family, what) in wanted {
        if !is_wanted || io.binder.ip(family).is_none() {
            continue;
        }
        match open_candidate(io, protocol, family, owner) {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                let text = format!("error adding {} {what}: {error}", family.name());
                io.log.error("RTC::WebRtcTransport::WebRtcTransport", text);
            }
        }
    }
    sockets
}

fn open_candidate(
    io: &mut Io,
    protocol: Protocol,
    family: Family,
    owner: Owner,
) -> Result<RouterSocket, String> {
    let opened = io.binder.open(protocol, family);
    let (socket, fd) = opened.map_err(|error| error.to_string())?;
    io.sockets.add(protocol, fd, owner).map_err(|error| {
        let address = SocketAddr::new(socket.ip, socket.port);
        io.binder.release(protocol, address);
        error.to_string()
    })?;
    Ok(socket)
}

/// The socket of a plain transport, registered, and the transport's peer if it is told already.
pub(super) fn open_plain(
    io: &mut Io,
    options: &PlainRtpTransportOptions,
    fds: Vec<OwnedFd>,
    may_open: bool,
    owner: Owner,
) -> Result<Plain, Rejection> {
    let remote_ip = given(&options.remote_ip);
    let (socket, fd) = match handed_over(&options.socket, fds, may_open)? {
        Some(handed_over) => handed_over,
        None => {
            let family = plain_family(&mut io.binder, options)?;
            open(&mut io.binder, family, given(&options.local_ip))?
        }
    };
    let remote = match remote_ip {
        None => Ok(None),
        Some(ip) => options
            .remote_port
            .ok_or_else(|| Rejection::invalid("missing data.remotePort"))
            .and_then(|port| remote_address(socket.ip, ip, port))
            .map(Some),
    };
    let remote = remote.inspect_err(|_| release(&mut io.binder, &socket))?;
    let key = io
        .sockets
        .add(socket.protocol, fd, owner)
        .map_err(|error| unusable(&mut io.binder, &socket, &error))?;
    Ok(Plain::new(socket, key, remote))
}

/// The socket of a mirror, registered to send only, and where the copies go.
pub(super) fn open_mirror(
    io: &mut Io,
    request: &StartMirroring,
    fds: Vec<OwnedFd>,
    may_open: bool,
    owner: Owner,
) -> Result<(u32, SocketAddr), Rejection> {
    let (socket, fd) = match handed_over(&request.socket, fds, may_open)? {
        Some(handed_over) => handed_over,
        None => {
            let family = Family::of(destination(&request.remote_ip)?);
            let local_ip = given(&request.local_ip);
            if local_ip.is_none() && io.binder.ip(family).is_none() {
                return Err(disabled(family));
            }
            open(&mut io.binder, family, local_ip)?
        }
    };
    let remote = remote_address(socket.ip, &request.remote_ip, request.remote_port)
        .inspect_err(|_| release(&mut io.binder, &socket))?;
    let key = io
        .sockets
        .add_send_only(fd, owner)
        .map_err(|error| unusable(&mut io.binder, &socket, &error))?;
    Ok((key, remote))
}

/// Closes sockets, whose ports can be opened again at once.
pub(super) fn close(io: &mut Io, keys: &[u32]) {
    if keys.is_empty() {
        return;
    }
    // Last words may be waiting to leave through them.
    io.sockets.flush();
    for &key in keys {
        if let Some((protocol, address)) = io.sockets.remove(key) {
            io.binder.release(protocol, address);
        }
    }
}

/// The one UDP socket that came with a request. Only routers that were handed none at all may do
/// without.
fn handed_over(
    described: &Option<RouterSocket>,
    mut fds: Vec<OwnedFd>,
    may_open: bool,
) -> Result<Option<(RouterSocket, OwnedFd)>, Rejection> {
    match (described, fds.pop(), fds.is_empty()) {
        (None, None, _) if may_open => Ok(None),
        (Some(socket), Some(_), true) if socket.protocol != Protocol::Udp => {
            Err(Rejection::invalid("the request needs a UDP socket"))
        }
        (Some(socket), Some(fd), true) => Ok(Some((socket.clone(), fd))),
        _ => Err(Rejection::invalid(
            "the request needs one socket, bound by the controller, and its description",
        )),
    }
}

fn plain_family(
    binder: &mut Binder,
    options: &PlainRtpTransportOptions,
) -> Result<Family, Rejection> {
    if let Some(ip) = given(&options.remote_ip) {
        let family = Family::of(destination(ip)?);
        // Without an address to bind to the port says so.
        return match binder.ip(family) {
            None if given(&options.local_ip).is_some() => Err(disabled(family)),
            _ => Ok(family),
        };
    }
    let preferred = [
        (options.prefer_ipv4, Family::V4),
        (options.prefer_ipv6, Family::V6),
    ];
    if let Some((_, family)) = preferred
        .into_iter()
        .find(|(is_preferred, _)| *is_preferred)
    {
        return match binder.ip(family) {
            Some(_) => Ok(family),
            None => Err(disabled(family)),
        };
    }
    Ok(match binder.ip(Family::V4) {
        Some(_) => Family::V4,
        None => Family::V6,
    })
}

fn open(
    binder: &mut Binder,
    family: Family,
    local_ip: Option<&str>,
) -> Result<(RouterSocket, OwnedFd), Rejection> {
    let opened = match local_ip {
        Some(ip) => binder.open_at(ip),
        None => binder.open(Protocol::Udp, family),
    };
    opened.map_err(|error| match error {
        OpenError::InvalidIp(_) => Rejection::invalid(error.to_string()),
        _ => Rejection::new(ErrorCode::Unavailable, error.to_string()),
    })
}

fn release(binder: &mut Binder, socket: &RouterSocket) {
    binder.release(socket.protocol, SocketAddr::new(socket.ip, socket.port));
}

fn unusable(binder: &mut Binder, socket: &RouterSocket, error: &std::io::Error) -> Rejection {
    release(binder, socket);
    let reason = format!("socket {}:{}: {error}", socket.ip, socket.port);
    Rejection::new(ErrorCode::Unavailable, reason)
}

fn destination(ip: &str) -> Result<IpAddr, Rejection> {
    ip.parse()
        .map_err(|_| Rejection::invalid(format!("invalid destination IP '{ip}'")))
}

fn disabled(family: Family) -> Rejection {
    Rejection::state(format!("{} disabled", family.name()))
}

/// mediasoup v2 takes empty text for none.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}
