//! The plain way to reach a peer: RTP and RTCP in the clear, on one UDP socket of its own.
//!
//! Takes packets from any address (`spec: media.md` §16): whoever opens such a transport must
//! see to it that only friends reach its port.

use std::net::{IpAddr, SocketAddr};

use broth_ipc::Rejection;
use broth_ipc::body::RouterSocket;

use crate::consumer::Way;
use crate::net::sockets::Path;

/// A socket, and the one peer it sends to.
pub struct Plain {
    pub(super) socket: RouterSocket,
    key: u32,
    remote: Option<SocketAddr>,
}

impl Plain {
    /// Takes over the socket registered under `key`.
    pub fn new(socket: RouterSocket, key: u32, remote: Option<SocketAddr>) -> Self {
        Self {
            socket,
            key,
            remote,
        }
    }

    /// Sends to this address from now on.
    ///
    /// # Errors
    /// The address is unusable on this socket; the old one stays.
    pub fn set_remote(&mut self, ip: &str, port: u16) -> Result<(), Rejection> {
        self.remote = Some(remote_address(self.socket.ip, ip, port)?);
        Ok(())
    }

    /// Where to; `None` until told.
    pub(super) fn path(&self) -> Option<Path> {
        let socket = self.key;
        self.remote.map(|remote| Path { socket, remote })
    }

    pub(super) fn way(&self) -> Option<Way<'_>> {
        let path = self.path()?;
        Some(Way {
            path,
            seal: None,
            mirror: None,
        })
    }
}

/// The address of a peer.
///
/// # Errors
/// It is none that packets can be sent to from a local address.
pub fn remote_address(local: IpAddr, ip: &str, port: u16) -> Result<SocketAddr, Rejection> {
    let remote: IpAddr = ip
        .parse()
        .map_err(|_| Rejection::invalid(format!("invalid destination IP '{ip}'")))?;
    if port == 0 {
        return Err(Rejection::invalid("invalid destination port 0"));
    }
    match (local, remote) {
        (IpAddr::V4(_), IpAddr::V6(_)) => Err(Rejection::invalid("IPv6 disabled")),
        (IpAddr::V6(_), IpAddr::V4(_)) => Err(Rejection::invalid("IPv4 disabled")),
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            Ok(SocketAddr::new(remote, port))
        }
    }
}
