//! Datagrams in: demultiplexing (RFC 7983), connectivity, keys, and RTP to its producer.

use broth_ipc::Event;
use broth_ipc::body::DtlsState;

use super::Router;
use crate::drop_reason::DropReason;
use crate::dtls::DtlsEvent;
use crate::ice::IceEvent;
use crate::io::Io;
use crate::log::Tag;
use crate::net::sockets::Path;
use crate::srtp::SrtpError;
use crate::transport::{Copied, Link, Srtp, tuple};
use crate::wire::rtp::{self, RtpHeader};
use crate::wire::stun;

impl Router {
    /// Takes one datagram, or one frame of an ICE-TCP connection.
    pub fn handle_datagram(&mut self, io: &mut Io, path: Path, datagram: &mut [u8]) {
        let owner = io.sockets.transport_of(path.socket);
        let result = match owner {
            Some(key) if self.is_plain(key) => self.handle_plain(io, key, datagram),
            _ if stun::is_stun(datagram) => self.handle_stun(io, path, owner, datagram),
            _ => self.handle_from_known(io, path, datagram),
        };
        if let Err(reason) = result {
            io.drop(reason);
        }
    }

    fn is_plain(&self, key: usize) -> bool {
        let transport = self.transports.get(key);
        transport.is_some_and(|transport| matches!(transport.link, Link::Plain(_)))
    }

    /// On the socket of a plain transport everything is its own, whoever sent it.
    fn handle_plain(
        &mut self,
        io: &mut Io,
        key: usize,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let transport = &mut self.transports[key];
        io.black_box.note_transport(transport.id);
        transport.count_received(datagram.len());
        if rtp::is_rtcp(datagram) {
            self.handle_rtcp(io, key, datagram);
            return Ok(());
        }
        if rtp::is_rtp(datagram) {
            return self.handle_rtp(io, key, datagram);
        }
        Err(DropReason::UnknownProtocol)
    }

    /// A transport that has the socket for itself shares it with no other.
    fn handle_stun(
        &mut self,
        io: &mut Io,
        path: Path,
        owner: Option<usize>,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let by_ufrag = stun::ufrag_of(datagram).and_then(|ufrag| self.by_ufrag.get(ufrag));
        let key = *by_ufrag
            .or_else(|| self.by_path.get(&path))
            .filter(|key| owner.is_none_or(|owner| owner == **key))
            .ok_or(DropReason::Stun)?;
        let transport = &mut self.transports[key];
        io.black_box.note_transport(transport.id);
        let webrtc = transport.webrtc_mut().map_err(|_| DropReason::Stun)?;
        io.scratch.clear();
        let handled = webrtc
            .ice
            .handle_binding(io.now, path, path.remote, datagram, &mut io.scratch)
            .map_err(|_| DropReason::Stun);
        if !io.scratch.is_empty() {
            let reply = std::mem::take(&mut io.scratch);
            io.sockets.send(path, &reply);
            io.scratch = reply;
        }
        self.drain(io, key);
        handled
    }

    fn handle_from_known(
        &mut self,
        io: &mut Io,
        path: Path,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let key = *self.by_path.get(&path).ok_or(DropReason::UnknownAddress)?;
        let transport = &mut self.transports[key];
        io.black_box.note_transport(transport.id);
        transport.count_received(datagram.len());
        #[cfg(feature = "poison")]
        crate::poison::taste(datagram);
        if rtp::is_rtcp(datagram) {
            return self.handle_srtcp(io, key, datagram);
        }
        if rtp::is_rtp(datagram) {
            return self.handle_srtp(io, key, path, datagram);
        }
        // RFC 7983: DTLS records begin with 20…63.
        if !matches!(datagram.first(), Some(20..=63)) {
            return Err(DropReason::UnknownProtocol);
        }
        let webrtc = self.transports[key].webrtc_mut();
        let webrtc = webrtc.map_err(|_| DropReason::UnknownProtocol)?;
        webrtc.ice.handle_media(path);
        webrtc.dtls.handle_datagram(io.now, datagram);
        self.drain(io, key);
        Ok(())
    }

    fn handle_srtcp(
        &mut self,
        io: &mut Io,
        key: usize,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let transport = &mut self.transports[key];
        let mirror = transport.mirror_path(Copied::ReceivedRtcp);
        let webrtc = transport.webrtc_mut().ok();
        let srtp = webrtc.and_then(|webrtc| webrtc.srtp.as_mut());
        let inbound = &mut srtp.ok_or(DropReason::NoKeys)?.inbound;
        let len = inbound.unprotect_rtcp(datagram).map_err(drop_reason)?;
        if let Some(mirror) = mirror {
            io.sockets.send(mirror, &datagram[..len]);
        }
        if let Some(&ssrc) = datagram.get(4..).and_then(<[u8]>::first_chunk) {
            self.record_inbound(key, u32::from_be_bytes(ssrc), true);
        }
        self.handle_rtcp(io, key, &datagram[..len]);
        Ok(())
    }

    fn handle_srtp(
        &mut self,
        io: &mut Io,
        key: usize,
        path: Path,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let transport = &mut self.transports[key];
        let mirror = transport.mirror_path(Copied::ReceivedRtp);
        let webrtc = transport.webrtc_mut();
        let webrtc = webrtc.map_err(|_| DropReason::NoKeys)?;
        let inbound = &mut webrtc.srtp.as_mut().ok_or(DropReason::NoKeys)?.inbound;
        let header_len = rtp::header_len(datagram).map_err(|_| DropReason::Rtp)?;
        let len = inbound
            .unprotect_rtp(datagram, header_len)
            .map_err(drop_reason)?;
        if webrtc.ice.selected() != Some(path) {
            webrtc.ice.handle_media(path);
        }
        if let Some(mirror) = mirror {
            io.sockets.send(mirror, &datagram[..len]);
        }
        if let Some(&ssrc) = datagram.get(8..).and_then(<[u8]>::first_chunk) {
            self.record_inbound(key, u32::from_be_bytes(ssrc), false);
        }
        self.handle_rtp(io, key, &mut datagram[..len])
    }

    /// Takes a clear RTP packet from a transport.
    fn handle_rtp(&mut self, io: &mut Io, key: usize, packet: &mut [u8]) -> Result<(), DropReason> {
        self.touch(key);
        let transport = &mut self.transports[key];
        let header = RtpHeader::parse(packet).map_err(|_| DropReason::Rtp)?;
        if let Some(id) = transport.listener.twcc_ext
            && let Some(&seq) = header.extension(packet, id).and_then(<[u8]>::first_chunk)
        {
            let seq = u16::from_be_bytes(seq);
            let since_start = io.arrived_since_start();
            transport
                .arrivals
                .record(io.now, since_start, seq, header.ssrc);
        }
        let producer_key = transport
            .listener
            .find(&header, packet)
            .ok_or(DropReason::NoProducer)?;
        // The longest RID is 255 bytes, but browsers' have a few.
        let mut rid = [0; 16];
        let rid = transport
            .listener
            .rid_ext
            .and_then(|id| header.extension(packet, id))
            .and_then(|data| {
                let copy = rid.get_mut(..data.len())?;
                copy.copy_from_slice(data);
                Some(&*copy)
            });
        let producer = &mut self.producers[producer_key];
        let was_idle = producer.pending.is_empty();
        let accepted = producer.handle_rtp(io, &header, packet, rid)?;
        if was_idle && !producer.pending.is_empty() {
            self.dirty_producers.push(producer_key);
        }
        self.record_stream(producer_key, accepted.stream, accepted.is_new_stream);
        if accepted.is_new_stream {
            self.request_keyframe(io, producer_key, accepted.stream, true);
            self.choose_all(io, producer_key);
        }
        Ok(())
    }

    /// Carries out what ICE and DTLS of a transport want, until they want nothing more.
    pub(super) fn drain(&mut self, io: &mut Io, key: usize) {
        self.touch(key);
        loop {
            let Ok(webrtc) = self.transports[key].webrtc_mut() else {
                return;
            };
            if let Some(event) = webrtc.ice.poll_event() {
                self.handle_ice_event(io, key, event);
            } else if let Some(event) = webrtc.dtls.poll_event() {
                self.handle_dtls_event(io, key, event);
            } else {
                break;
            }
        }
        let transport = &mut self.transports[key];
        let Link::WebRtc(webrtc) = &mut transport.link else {
            return;
        };
        let mut sent = 0;
        while let Some(datagram) = webrtc.dtls.poll_transmit() {
            if let Some(path) = webrtc.ice.selected() {
                io.sockets.send(path, &datagram);
                sent += datagram.len() as u64;
            }
        }
        transport.count_sent(sent);
    }

    fn handle_ice_event(&mut self, io: &mut Io, key: usize, event: IceEvent<Path>) {
        let id = self.transports[key].id;
        match event {
            IceEvent::TupleAdded(path) => {
                io.sockets.recognise(path.socket);
                self.by_path.insert(path, key);
            }
            IceEvent::TupleRemoved(path) => {
                self.by_path.remove(&path);
            }
            IceEvent::Selected(path) => {
                if let Some(ice_selected_tuple) = tuple(path, &io.sockets) {
                    let connection = io.sockets.clone_connection(path.socket);
                    let event = Event::IceSelectedTupleChange {
                        ice_selected_tuple,
                        connection: connection.filter(|_| self.is_recorded()).map(Into::into),
                    };
                    io.note_transport(self.id, id, event);
                }
                self.record_path(io, key);
            }
            IceEvent::State(ice_state) => {
                io.log
                    .debug(Tag::Ice, "RTC::WebRtcTransport::OnIceState", || {
                        format!("ICE state {ice_state:?} [transportId:{id}]")
                    });
                io.note_transport(self.id, id, Event::IceStateChange { ice_state });
                self.record_path(io, key);
                if let Ok(webrtc) = self.transports[key].webrtc_mut() {
                    webrtc.start_dtls(io.now);
                }
            }
        }
    }

    fn handle_dtls_event(&mut self, io: &mut Io, key: usize, event: DtlsEvent) {
        let id = self.transports[key].id;
        // Keys end with their handshake, one way or the other.
        self.forget_keys(key);
        let Ok(webrtc) = self.transports[key].webrtc_mut() else {
            return;
        };
        let mut new_keys = None;
        let (dtls_state, dtls_remote_cert) = match event {
            DtlsEvent::State(state) => (state, None),
            DtlsEvent::Connected { keys, remote_cert } => {
                webrtc.srtp = Srtp::new(&keys).ok();
                new_keys = Some(keys);
                (DtlsState::Connected, Some(remote_cert))
            }
        };
        if matches!(dtls_state, DtlsState::Closed | DtlsState::Failed) {
            webrtc.srtp = None;
        }
        io.log
            .debug(Tag::Dtls, "RTC::WebRtcTransport::OnDtlsState", || {
                format!("DTLS state {dtls_state:?} [transportId:{id}]")
            });
        let event = Event::DtlsStateChange {
            dtls_state,
            dtls_remote_cert,
        };
        io.note_transport(self.id, id, event);
        if dtls_state == DtlsState::Connected {
            for at in 0..self.transports[key].consumers.len() {
                self.consumers[self.transports[key].consumers[at]].rekey();
            }
            if let Some(keys) = new_keys {
                self.record_keys(io, key, &keys);
            }
            self.request_keyframes_for(io, key);
        }
    }
}

fn drop_reason(error: SrtpError) -> DropReason {
    match error {
        SrtpError::Replayed | SrtpError::TooOld => DropReason::Replayed,
        _ => DropReason::Srtp,
    }
}
