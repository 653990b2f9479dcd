//! A plain RTP transport: RTP and RTCP in the clear, on a UDP port of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use broth_ipc::body::{
    PlainRtpTransportDump, PlainRtpTransportOptions, RemoteParameters, TransportTuple,
};
use broth_ipc::{Call, Ids, TransportId};
use serde_json::{Value, json};

use super::{Base, Transport, closing_api, common_api};
use crate::error::{Error, Result};
use crate::lock;
use crate::peer::Peer;
use crate::protocol::PlainOptions;
use crate::room::Room;
use crate::room::recovery::{Part, Step};
use crate::sockets::BoundSocket;
use crate::worker_channel::Requests;

/// A plain RTP transport. A cheap handle; dropping it closes nothing.
///
/// It takes packets from any address: whoever opens one must see to it that only friends reach
/// its port.
#[derive(Clone)]
pub struct PlainRtpTransport(Arc<Inner>);

struct Inner {
    base: Base,
    local_ip: IpAddr,
    local_port: u16,
    tuple: Mutex<Option<TransportTuple>>,
    /// Where the worker was last told to send.
    remote: Mutex<Option<SocketAddr>>,
    /// Kept until it closes, so that the socket outlives the worker; `None` if the worker bound
    /// it.
    socket: Mutex<Option<BoundSocket>>,
}

common_api!(PlainRtpTransport);
closing_api!(PlainRtpTransport, Plain);

impl PlainRtpTransport {
    /// Makes one in the worker, for a peer or for a streamer.
    pub(crate) async fn create(
        room: &Room,
        peer: Option<Peer>,
        id: TransportId,
        options: PlainOptions,
        app_data: Value,
    ) -> Result<Self> {
        let PlainOptions {
            remote,
            local_ip,
            prefer,
        } = options;
        let remote_ip = remote.map(|remote| remote.ip());
        let socket = room.bind_towards(remote_ip, local_ip, prefer)?;
        let shared = socket.as_ref().map(BoundSocket::share).transpose();
        let (described, fd) = shared.map_err(Error::passing)?.unzip();
        let call = Call::CreatePlainRtpTransport(PlainRtpTransportOptions {
            remote_ip: remote_ip.map(|ip| ip.to_string()),
            remote_port: remote.map(|remote| remote.port()),
            local_ip: local_ip.map(|ip| ip.to_string()),
            socket: described,
            prefer_ipv4: prefer.ipv4,
            prefer_ipv6: prefer.ipv6,
        });
        let base = Base::new(id, room.clone(), peer, app_data);
        let fds = Vec::from_iter(fd);
        let created = room
            .channel()
            .request_then(base.ids(), call, fds, move |answer| {
                let dump: PlainRtpTransportDump = crate::parsed(answer?)?;
                let transport = Self(Arc::new(Inner {
                    base,
                    local_ip: dump.local_ip,
                    local_port: dump.local_port,
                    tuple: Mutex::new(dump.tuple),
                    remote: Mutex::new(remote),
                    socket: Mutex::new(socket),
                }));
                Transport::from(transport.clone()).register()?;
                Ok(transport)
            });
        created.await
    }

    /// The bound address.
    pub fn local_ip(&self) -> IpAddr {
        self.0.local_ip
    }

    /// The bound port, for RTP and RTCP both ways (RFC 5761).
    pub fn local_port(&self) -> u16 {
        self.0.local_port
    }

    /// The path in use, once the remote address is known.
    pub fn tuple(&self) -> Option<TransportTuple> {
        lock(&self.0.tuple).clone()
    }

    /// Sends to this address from now on.
    ///
    /// # Errors
    /// It is closed, or the address is unusable on its socket; then the old one stays.
    pub async fn set_remote_parameters(&self, remote: SocketAddr) -> Result<()> {
        self.check_open()?;
        let call = Call::SetRemoteParameters(RemoteParameters {
            ip: remote.ip().to_string(),
            port: remote.port(),
        });
        let (transport, base) = (self.clone(), self.base());
        // Noted as soon as the answer is read: another worker may be told a moment later.
        let channel = base.room.channel();
        let told = channel.request_then(base.ids(), call, vec![], move |answer| {
            answer?;
            *lock(&transport.0.remote) = Some(remote);
            Ok(())
        });
        told.await?;
        let dump = self.dump().await?;
        *lock(&self.0.tuple) = dump.tuple;
        Ok(())
    }

    /// What the worker knows about it.
    ///
    /// # Errors
    /// It is closed, or the worker is gone.
    pub async fn dump(&self) -> Result<PlainRtpTransportDump> {
        self.check_open()?;
        let call = Call::DumpTransport(Default::default());
        crate::parsed(self.base().request(call, vec![]).await?)
    }

    /// What makes it again in another worker.
    pub(super) fn steps(&self, ids: Ids, part: Part) -> io::Result<Vec<Step>> {
        let socket = lock(&self.0.socket);
        let (described, fd) = socket.as_ref().map(BoundSocket::share).transpose()?.unzip();
        let remote = *lock(&self.0.remote);
        let call = Call::CreatePlainRtpTransport(PlainRtpTransportOptions {
            remote_ip: remote.map(|remote| remote.ip().to_string()),
            remote_port: remote.map(|remote| remote.port()),
            socket: described,
            ..PlainRtpTransportOptions::default()
        });
        Ok(vec![Step {
            fds: Vec::from_iter(fd),
            ..Step::new(ids, call, part)
        }])
    }

    /// The answer to the client that asked for it.
    pub(crate) fn to_response(&self) -> Value {
        let (ip, port) = (self.0.local_ip, self.0.local_port);
        json!({ "plainRtpParameters": { "ip": ip, "port": port } })
    }

    pub(super) fn base(&self) -> &Base {
        &self.0.base
    }

    /// Gives the port back; the worker has a copy until it closes the transport too.
    pub(super) fn end(&self) {
        lock(&self.0.socket).take();
    }
}
