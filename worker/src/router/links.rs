//! Creating and closing transports, and what is asked of their links.

use std::os::fd::OwnedFd;

use broth_ipc::body::{
    DtlsParameters, DtlsRole, IceCredentials, IceParameters, PlainRtpTransportOptions,
    RemoteParameters, WebRtcTransportOptions,
};
use broth_ipc::{ErrorCode, Event, Ids, Rejection};
use serde_json::Value;

use super::Router;
use super::subjects::transport_id;
use crate::ice::Credentials;
use crate::io::Io;
use crate::net::sockets::Path;
use crate::transport::{Link, Plain, Transport};

/// The least bitrate a peer can be limited to (`spec: channel.md` §6.4).
const BITRATE_MIN: u32 = 10_000;

impl Router {
    /// Creates a WebRTC transport.
    pub fn create_transport(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        options: &WebRtcTransportOptions,
    ) -> Result<Value, Rejection> {
        let id = transport_id(ids)?;
        let mut transport = Transport::webrtc(io, id, options, &self.sockets)?;
        let ufrag = transport.webrtc_mut()?.ice.credentials().ufrag.clone();
        let (key, dump) = self.insert_transport(io, transport);
        self.by_ufrag.insert(ufrag, key);
        Ok(dump)
    }

    /// Creates a plain RTP transport on the one socket that came with the request.
    pub fn create_plain_transport(
        &mut self,
        io: &mut Io,
        ids: &Ids,
        options: &PlainRtpTransportOptions,
        mut fds: Vec<OwnedFd>,
    ) -> Result<Value, Rejection> {
        let id = transport_id(ids)?;
        let (Some(socket), Some(fd), true) = (&options.socket, fds.pop(), fds.is_empty()) else {
            let reason = "a plain RTP transport needs one socket, bound by the controller, \
                          and its description";
            return Err(Rejection::new(ErrorCode::Unavailable, reason));
        };
        let remote = Plain::check(options, socket)?;
        let added = io.sockets.add(socket.protocol, fd, self.key);
        let socket_key = added.map_err(|error| {
            let reason = format!("socket {}:{}: {error}", socket.ip, socket.port);
            Rejection::new(ErrorCode::Unavailable, reason)
        })?;
        let plain = Plain::new(socket.clone(), socket_key, remote);
        let (key, dump) = self.insert_transport(io, Transport::new(io, id, Link::Plain(plain)));
        self.by_socket.insert(socket_key, key);
        Ok(dump)
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

    /// Closes a transport and its producers; consumers on it are only disabled.
    pub fn close_transport(&mut self, io: &mut Io, ids: &Ids) -> Result<(), Rejection> {
        let key = self.transport_key(ids)?;
        for producer in self.transports[key].producers.clone() {
            self.remove_producer(io, producer);
        }
        for consumer in std::mem::take(&mut self.transports[key].consumers) {
            self.consumers[consumer].disable();
        }
        if let Ok(webrtc) = self.transports[key].webrtc_mut() {
            webrtc.dtls.close();
        }
        self.drain(io, key);
        let transport = self.transports.remove(key);
        self.transport_keys.remove(&transport.id);
        match &transport.link {
            Link::WebRtc(webrtc) => {
                self.by_ufrag.remove(&webrtc.ice.credentials().ufrag);
                self.by_path.retain(|_, owner| *owner != key);
            }
            Link::Plain(plain) => {
                self.by_socket.remove(&plain.key());
                io.sockets.remove(plain.key());
            }
        }
        io.note_transport(self.id, transport.id, Event::Close);
        Ok(())
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
