//! Copies of a transport's clear packets for a recorder or an analyser.

use std::net::SocketAddr;

use broth_ipc::body::StartMirroring;

use crate::net::sockets::Path;

/// What can be copied: received packets as they came, before anything is mapped; sent packets as
/// they leave, before they are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// RTP to the peer.
    SentRtp,
    /// RTCP to the peer.
    SentRtcp,
    /// RTP from the peer.
    ReceivedRtp,
    /// RTCP from the peer.
    ReceivedRtcp,
}

/// Where copies go, and copies of what.
#[derive(Clone, Copy, Debug)]
pub struct Mirror {
    path: Path,
    /// By [`Copied`].
    wanted: [bool; 4],
}

impl Mirror {
    /// Copies through the socket registered under `key`.
    pub fn new(key: u32, remote: SocketAddr, request: &StartMirroring) -> Self {
        Self {
            path: Path {
                socket: key,
                remote,
            },
            wanted: [
                request.send_rtp,
                request.send_rtcp,
                request.recv_rtp,
                request.recv_rtcp,
            ],
        }
    }

    /// Key of the socket.
    pub fn key(&self) -> u32 {
        self.path.socket
    }

    /// Where a copy goes; `None` if it is not wanted.
    pub fn path(&self, copied: Copied) -> Option<Path> {
        self.wanted[copied as usize].then_some(self.path)
    }
}
