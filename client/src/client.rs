//! A client over either kind of transport, and the plain one: RTP in the clear on a socket.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::Result;
use broth_ipc::body::{PlainRtpTransportOptions, Protocol, RouterSocket};
use broth_ipc::{Call, Ids, RouterId, TransportId};
use broth_worker::srtp::Profile;

use crate::peer::Peer;
use crate::rtp;
use crate::worker::DrivenWorker;

/// Send buffer asked for a plain transport's socket, as a room's.
const SEND_BYTES: usize = 4 << 20;

/// The SSRC of a client as a receiver.
const RECEIVER: u32 = 1;

/// A client.
pub enum Client {
    /// ICE, DTLS and SRTP.
    WebRtc(Box<Peer>),
    /// RTP in the clear.
    Plain(PlainPeer),
}

/// A client of a plain RTP transport.
pub struct PlainPeer {
    /// Connected to the transport's socket.
    pub socket: UdpSocket,
    /// Its transport in the worker.
    pub transport: TransportId,
}

impl PlainPeer {
    /// Creates a plain transport in the worker that sends to this client.
    ///
    /// # Errors
    /// No socket, or the worker refused.
    pub fn connect(
        worker: &mut DrivenWorker,
        router: RouterId,
        transport: TransportId,
    ) -> Result<Self> {
        let theirs = UdpSocket::bind("127.0.0.1:0")?;
        nix::sys::socket::setsockopt(&theirs, nix::sys::socket::sockopt::SndBuf, &SEND_BYTES)?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.connect(theirs.local_addr()?)?;
        let ours = socket.local_addr()?;
        let options = PlainRtpTransportOptions {
            remote_ip: Some(ours.ip().to_string()),
            remote_port: Some(ours.port()),
            socket: Some(RouterSocket {
                protocol: Protocol::Udp,
                ip: theirs.local_addr()?.ip(),
                port: theirs.local_addr()?.port(),
                announced_ip: None,
            }),
            ..PlainRtpTransportOptions::default()
        };
        let ids = Ids::router(router).transport(transport);
        let call = Call::CreatePlainRtpTransport(options);
        worker.call_with(ids, call, vec![theirs.into()])?;
        Ok(Self { socket, transport })
    }
}

impl Client {
    /// Connects by ICE, DTLS and SRTP with a profile, or plainly without one.
    ///
    /// # Errors
    /// The worker refused, or the handshake did not finish.
    pub fn connect(
        worker: &mut DrivenWorker,
        router: RouterId,
        transport: TransportId,
        profile: Option<Profile>,
    ) -> Result<Self> {
        Ok(match profile {
            Some(profile) => {
                let peer = Peer::connect(worker, router, transport, profile)?;
                Self::WebRtc(Box::new(peer))
            }
            None => Self::Plain(PlainPeer::connect(worker, router, transport)?),
        })
    }

    /// The socket, connected to the worker's.
    pub fn socket(&self) -> &UdpSocket {
        match self {
            Self::WebRtc(peer) => &peer.socket,
            Self::Plain(peer) => &peer.socket,
        }
    }

    /// Tells the worker that the client is still there, where it must be told.
    ///
    /// # Errors
    /// The socket failed.
    pub fn keep_alive(&self) -> Result<()> {
        match self {
            Self::WebRtc(peer) => peer.keep_alive(),
            Self::Plain(_) => Ok(()),
        }
    }

    /// Seals `buffer[..len]` in place, where there are keys, and returns the new length.
    ///
    /// # Errors
    /// There is no room for the tag.
    pub fn seal(
        &self,
        roc: u32,
        buffer: &mut [u8],
        header_len: usize,
        len: usize,
    ) -> Result<usize> {
        match self {
            Self::WebRtc(peer) => peer.seal(roc, buffer, header_len, len),
            Self::Plain(_) => Ok(len),
        }
    }

    /// Asks for packets of `ssrc` again, in a message with the SRTCP index `index`, which must be
    /// higher each time.
    ///
    /// # Errors
    /// The socket failed, or all indices are used.
    pub fn nack(&self, index: u32, ssrc: u32, seqs: &[u16]) -> Result<()> {
        let mut packet = rtp::nack(RECEIVER, ssrc, seqs);
        if let Self::WebRtc(peer) = self {
            peer.srtp.seal.protect_rtcp(index, &mut packet)?;
        }
        self.socket().send(&packet)?;
        Ok(())
    }

    /// Opens a packet in place whatever came before it; `None` if it is not authentic.
    pub fn open_any(&self, packet: &mut [u8], header_len: usize) -> Option<usize> {
        match self {
            Self::WebRtc(peer) => peer.open_any(packet, header_len),
            Self::Plain(_) => Some(packet.len()),
        }
    }
}
