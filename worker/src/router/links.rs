//! Creating and closing transports, and what is asked of their links.

use std::os::fd::OwnedFd;

use broth_ipc::body::{
    DtlsParameters, DtlsRole, IceCredentials, IceParameters, PlainRtpTransportOptions,
    RemoteParameters, StartMirroring, WebRtcTransportOptions,
};
use broth_ipc::{Event, Ids, Rejection};
use serde_json::Value;

use super::subjects::transport_id;
use super::{Router, own_sockets};
use crate::ice::Credentials;
use crate::io::Io;
use crate::net::sockets::{Owner, Path};
use crate::transport::{Link, Mirror, Transport};

/// The least bitrate a peer can be limited to (`spec: channel.md` §6.4).
const BITRATE_MIN: u32 = 10_000;

impl Router {
    /// Creates a WebRTC transport. If one is restored whose path was a TCP connection, that came
    /// with the request.
    pub fn create_transport(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        options: &WebRtcTransportOptions,
        fds: Vec<OwnedFd>,
    ) -> Result<Value, Rejection> {
        let id = transport_id(ids)?;
        let owner = self.owner(self.transports.vacant_key());
        let created = if self.opens_ports() {
            let sockets = own_sockets::open_candidates(io, options, owner);
            Transport::webrtc(io, id, options, &sockets)
        } else {
            Transport::webrtc(io, id, options, &self.sockets)
        };
        let mut transport = created.inspect_err(|_| close_sockets(io, owner))?;
        self.restore_transport(io, &mut transport, options, fds.into_iter().next());
        let ufrag = transport.webrtc_mut()?.ice.credentials().ufrag.clone();
        let (key, dump) = self.insert_transport(io, transport);
        self.by_ufrag.insert(ufrag, key);
        self.find_resumed(key);
        Ok(dump)
    }

    /// Creates a plain RTP transport on the socket that came with the request, or on its own.
    pub fn create_plain_transport(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        options: &PlainRtpTransportOptions,
        fds: Vec<OwnedFd>,
    ) -> Result<Value, Rejection> {
        let id = transport_id(ids)?;
        let owner = self.owner(self.transports.vacant_key());
        let plain = own_sockets::open_plain(io, options, fds, self.opens_ports(), owner)?;
        let (_, dump) = self.insert_transport(io, Transport::new(io, id, Link::Plain(plain)));
        Ok(dump)
    }

    /// Whoever was handed no sockets opens ports for each transport.
    fn opens_ports(&self) -> bool {
        self.sockets.is_empty()
    }

    fn owner(&self, transport: usize) -> Owner {
        Owner {
            router: self.key,
            transport: Some(transport),
        }
    }

    fn insert_transport(&mut self, io: &Io, transport: Transport) -> (usize, Value) {
        let (id, dump) = (transport.id, transport.dump(io));
        let key = self.transports.insert(transport);
        self.transport_keys.insert(id, key);
        self.touch(key);
        (key, dump)
    }

    /// Tells a transport its peer's DTLS parameters and returns our role.
    pub fn set_remote_dtls(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        parameters: &DtlsParameters,
    ) -> Result<DtlsRole, Rejection> {
        let key = self.transport_key(ids)?;
        let webrtc = self.transports[key].webrtc_mut()?;
        let role = webrtc
            .dtls
            .set_remote(io.now, parameters.role, &parameters.fingerprints)
            .map_err(|error| Rejection::invalid(error.to_string()))?;
        webrtc.start_dtls(io.now);
        self.drain(io, key);
        Ok(role)
    }

    /// Tells a plain transport where its peer is.
    pub fn set_remote_parameters(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        remote: &RemoteParameters,
    ) -> Result<(), Rejection> {
        let key = self.transport_key(ids)?;
        let plain = self.transports[key].plain_mut()?;
        plain.set_remote(&remote.ip, remote.port)?;
        // Whoever listens there has seen nothing yet.
        self.request_keyframes_for(io, key);
        Ok(())
    }

    /// Gives a transport new ICE credentials.
    pub fn change_credentials(&mut self, ids: &Ids) -> Result<IceCredentials, Rejection> {
        let key = self.transport_key(ids)?;
        let webrtc = self.transports[key].webrtc_mut()?;
        self.by_ufrag.remove(&webrtc.ice.credentials().ufrag);
        webrtc.ice.restart(Credentials::from_random(&Io::random()));
        let ufrag = webrtc.ice.credentials().ufrag.clone();
        self.by_ufrag.insert(ufrag, key);
        let IceParameters {
            username_fragment,
            password,
            ..
        } = webrtc.ice_parameters();
        Ok(IceCredentials {
            username_fragment,
            password,
        })
    }

    /// Limits what the peer of a transport is told to send; 0 removes the limit.
    pub fn set_bitrate_max(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        bitrate: u32,
    ) -> Result<(), Rejection> {
        let key = self.transport_key(ids)?;
        self.transports[key].webrtc_mut()?;
        self.transports[key].bitrate_max = match bitrate {
            0 => 0,
            limit => limit.max(BITRATE_MIN),
        };
        self.send_remb(io, key);
        Ok(())
    }

    /// Starts to copy a transport's clear packets.
    pub fn start_mirroring(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        request: &StartMirroring,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Rejection> {
        let key = self.transport_key(ids)?;
        let (owner, may_open) = (self.owner(key), self.opens_ports());
        let transport = &mut self.transports[key];
        transport.webrtc_mut()?;
        if transport.mirror.is_some() {
            return Err(Rejection::state("Transport is already mirroring"));
        }
        let (socket, remote) = own_sockets::open_mirror(io, request, fds, may_open, owner)?;
        transport.mirror = Some(Mirror::new(socket, remote, request));
        Ok(())
    }

    /// Stops to copy; nothing happens if nothing is copied.
    pub fn stop_mirroring(&mut self, io: &mut Io, ids: &Ids) -> Result<(), Rejection> {
        let key = self.transport_key(ids)?;
        if let Some(mirror) = self.transports[key].mirror.take() {
            own_sockets::close(io, &[mirror.key()]);
        }
        Ok(())
    }

    /// Closes a transport and its producers; consumers on it are only disabled.
    pub fn close_transport(&mut self, io: &mut Io, ids: &Ids) -> Result<(), Rejection> {
        let key = self.transport_key(ids)?;
        self.remove_transport(io, key);
        Ok(())
    }

    pub(super) fn remove_transport(&mut self, io: &mut Io, key: usize) {
        for producer in self.transports[key].producers.clone() {
            self.remove_producer(io, producer);
        }
        self.forget_keys(key);
        for consumer in std::mem::take(&mut self.transports[key].consumers) {
            let entry = self.consumers[consumer].disable();
            self.forget_consumer(entry);
        }
        if let Ok(webrtc) = self.transports[key].webrtc_mut() {
            webrtc.dtls.close();
        }
        self.drain(io, key);
        let transport = self.transports.remove(key);
        self.transport_keys.remove(&transport.id);
        if let Link::WebRtc(webrtc) = &transport.link {
            self.by_ufrag.remove(&webrtc.ice.credentials().ufrag);
            self.by_path.retain(|_, owner| *owner != key);
        }
        close_sockets(io, self.owner(key));
        io.note_transport(self.id, transport.id, Event::Close);
    }

    /// Forgets a path whose connection is closed.
    pub fn remove_path(&mut self, io: &mut Io, path: Path) {
        if let Some(key) = self.by_path.get(&path).copied() {
            if let Ok(webrtc) = self.transports[key].webrtc_mut() {
                webrtc.ice.remove_tuple(path);
            }
            self.drain(io, key);
        }
    }
}

/// Closes what a transport has for itself.
fn close_sockets(io: &mut Io, owner: Owner) {
    let keys = io.sockets.keys_of(|other| other == owner);
    own_sockets::close(io, &keys);
}
