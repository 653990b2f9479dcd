//! The router's flight record: what is written while it lives, and how its successor is built
//! again around it.
//!
//! The order of writes is what makes it safe. A number is recorded before a packet can leave
//! under it; keys are forgotten before the numbers used under them are; a consumer counts as a
//! sender under its transport's keys before it sends.

use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use broth_ipc::TransportId;
use broth_ipc::body::WebRtcTransportOptions;

use super::Router;
use crate::dtls::{Dtls, SrtpKeys};
use crate::ice::{Credentials, IceLite};
use crate::io::Io;
use crate::net::sockets::Path;
use crate::recorder::{
    BYTES_RECEIVED, BYTES_SENT, Entry, HIGHEST, InboundRecord, Memory, Recorded, Recorder,
    Recordings, SENDERS, SRTCP_INDEX, TWCC_COUNT, TransportRecord,
};
use crate::srtp::{RecvIndex, RtcpReplay};
use crate::transport::{Flight, Srtp, Transport};

impl Router {
    /// Records from now on. To be called before anything is created.
    pub fn record(&mut self, memory: Rc<Memory>) {
        self.recorder = Recorder::create(memory);
    }

    /// Goes on from what an earlier router recorded: what is created under the same ids takes up
    /// its records. Nothing is received before [`resume`](Self::resume).
    pub fn restore(&mut self, memory: Option<Rc<Memory>>) {
        self.is_held = true;
        if let Some(memory) = memory {
            (self.recorder, self.recordings) = Recorder::restore(memory);
        }
    }

    /// Everything is created again. Objects whose creation the earlier router did not live to
    /// confirm may still follow, and consumers among them may have sent.
    pub fn resume(&mut self, io: &mut Io) {
        self.is_held = false;
        io.sockets.release(self.key);
        let mut consumers = std::mem::take(&mut self.recordings.consumers);
        let keyless = consumers.extract_if(|_, consumer| {
            let transport = self.transport_keys.get(&consumer.record.transport);
            transport.is_none_or(|&key| self.transports[key].flight.is_none())
        });
        self.recordings.consumers = keyless.collect();
        self.forget_recordings();
        self.recordings.consumers = consumers;
        for (key, _) in &self.transports {
            self.count_senders(key);
        }
    }

    /// Forgets what nobody took up.
    pub(super) fn forget_recordings(&mut self) {
        let Recordings {
            transports,
            inbound,
            streams,
            consumers,
        } = std::mem::take(&mut self.recordings);
        let transports = transports.into_values().map(|one| one.entry);
        let inbound = inbound.into_values().flatten().map(|one| one.entry);
        let streams = streams.into_values().flatten().map(|one| one.entry);
        let consumers = consumers.into_values().map(|one| one.entry);
        for entry in transports.chain(inbound).chain(streams).chain(consumers) {
            self.recorder.remove(entry);
        }
        // Nothing was read so far.
        for (_, producer) in &mut self.producers {
            for stream in &mut producer.streams {
                stream.keyframes.merge_requests();
            }
        }
    }

    /// Sends what this router alone can: nothing is left to be done by its successor, which begins
    /// with what is in the sockets.
    pub fn finish(&mut self, io: &mut Io) {
        // Nothing waits any longer.
        self.held_until = Some(io.now);
        self.forward(io);
        for (_, transport) in &mut self.transports {
            if transport.arrivals.poll_timeout().is_some() {
                transport.send_arrivals(io);
            }
        }
        for (_, producer) in &mut self.producers {
            producer.clear(io);
        }
    }

    /// What was sent in this turn has left. While anything waits to be sent, nothing counts as
    /// received: a successor would not ask for it again.
    pub fn commit(&mut self) {
        if self.held_until.is_none() {
            self.recorder.commit();
        }
    }

    /// Objects that found no room in the recorder.
    pub fn unrecorded(&self) -> u64 {
        self.recorder.refused()
    }

    /// Whether a successor can go on with this router.
    pub fn is_recorded(&self) -> bool {
        self.recorder.is_present()
    }

    /// Replaces what a new transport has by what an earlier one recorded, as far as there is
    /// something that can be trusted. Its path may be the `connection` that came along.
    pub(super) fn restore_transport(
        &mut self,
        io: &mut Io,
        transport: &mut Transport,
        options: &WebRtcTransportOptions,
        connection: Option<OwnedFd>,
    ) {
        let Some(restore) = &options.restore else {
            return;
        };
        let credentials = Credentials {
            ufrag: restore.username_fragment.clone(),
            pwd: restore.password.clone(),
        };
        let id = transport.id;
        let recorded = self.recordings.transports.remove(&id);
        let inbound = self.recordings.inbound.remove(&id).unwrap_or_default();
        let resumed = recorded.and_then(|recorded| {
            let resumed = self.resumable(io, id, &recorded, connection.as_ref());
            if resumed.is_none() {
                self.recorder.remove(recorded.entry);
                return None;
            }
            resumed.map(|(path, srtp)| (path, srtp, recorded))
        });
        if let Some(connection) = connection
            && !matches!(&resumed, Some((.., recorded)) if recorded.record.is_tcp)
        {
            // Nobody reads what the peer sends there, though the controller holds it, too.
            let _ = TcpStream::from(connection).shutdown(Shutdown::Both);
        }
        let Ok(webrtc) = transport.webrtc_mut() else {
            return;
        };
        let Some((path, mut srtp, recorded)) = resumed else {
            webrtc.ice = IceLite::new(credentials);
            for recorded in inbound {
                self.recorder.remove(recorded.entry);
            }
            return;
        };
        for recorded in &inbound {
            let InboundRecord { ssrc, is_rtcp } = recorded.record;
            let highest = recorded.counters[HIGHEST];
            // Too many SSRCs were refused before, too.
            let _ = if is_rtcp {
                let replay = RtcpReplay::resumed(highest as u32);
                srtp.inbound.resume_rtcp(ssrc, replay)
            } else {
                let index = RecvIndex::resumed(highest);
                srtp.inbound.resume_rtp(ssrc, index)
            };
        }
        let Recorded {
            mut entry,
            record,
            counters,
        } = recorded;
        io.sockets.set_scribe(path.socket, entry.scribe());
        webrtc.ice = IceLite::resumed(io.now, credentials, path, record.ice_state);
        webrtc.dtls = Dtls::resumed(&io.dtls, record.role);
        webrtc.srtp = Some(srtp);
        transport.bytes_received = counters[BYTES_RECEIVED];
        transport.bytes_sent = counters[BYTES_SENT];
        transport.arrivals.resume(counters[TWCC_COUNT] as u8);
        transport.flight = Some(Box::new(Flight { entry, record }));
        let inbound = inbound.into_iter();
        transport.inbound = inbound.map(|one| (one.record, Some(one.entry))).collect();
    }

    /// The path and the keys of a recorded transport; `None` if it cannot go on.
    fn resumable(
        &self,
        io: &mut Io,
        id: TransportId,
        recorded: &Recorded<TransportRecord>,
        connection: Option<&OwnedFd>,
    ) -> Option<(Path, Srtp)> {
        let Recorded {
            record, counters, ..
        } = recorded;
        // A consumer without a record may have used any number under these keys.
        let consumers = self.recordings.consumers.values();
        let senders = consumers.filter(|consumer| consumer.record.transport == id);
        if (senders.count() as u64) < counters[SENDERS] {
            return None;
        }
        let rtcp_index = u32::try_from(counters[SRTCP_INDEX]).ok()?;
        let srtp = Srtp::resumed(&record.keys, rtcp_index).ok()?;
        let (local, remote) = (record.local, record.remote);
        let socket = if record.is_tcp {
            let connection = connection?.try_clone().ok()?;
            let sockets = &mut io.sockets;
            let resumed =
                sockets.resume_connection(self.key, connection, (local, remote), counters);
            resumed.ok()?
        } else {
            io.sockets.find(self.key, local)?
        };
        Some((Path { socket, remote }, srtp))
    }

    /// Registers the path of a transport that was resumed.
    pub(super) fn find_resumed(&mut self, key: usize) {
        let transport = &mut self.transports[key];
        if transport.flight.is_some()
            && let Ok(webrtc) = transport.webrtc_mut()
            && let Some(path) = webrtc.ice.selected()
        {
            self.by_path.insert(path, key);
        }
    }

    /// A transport has new keys: what was recorded under the old ones goes first.
    pub(super) fn forget_keys(&mut self, key: usize) {
        let transport = &mut self.transports[key];
        if let Some(flight) = transport.flight.take() {
            self.recorder.remove(flight.entry);
        }
        for (_, entry) in transport.inbound.drain(..) {
            if let Some(entry) = entry {
                self.recorder.remove(entry);
            }
        }
        let id = transport.id;
        let consumers = &mut self.recordings.consumers;
        let stale = consumers.extract_if(|_, consumer| consumer.record.transport == id);
        for (_, consumer) in stale {
            self.recorder.remove(consumer.entry);
        }
    }

    /// Records the keys of a transport, in use from now on.
    pub(super) fn record_keys(&mut self, io: &mut Io, key: usize, keys: &SrtpKeys) {
        if !self.recorder.is_present() {
            return;
        }
        let transport = &mut self.transports[key];
        let (id, senders) = (transport.id, transport.consumers.len());
        let count = transport.arrivals.feedback_count();
        let Ok(webrtc) = transport.webrtc_mut() else {
            return;
        };
        let selected = webrtc.ice.selected();
        let Some((path, (ip, port, protocol))) =
            selected.and_then(|path| Some((path, io.sockets.local(path.socket)?)))
        else {
            return;
        };
        let record = TransportRecord {
            ice_state: webrtc.ice.state(),
            local: (ip, port).into(),
            remote: path.remote,
            is_tcp: protocol == broth_ipc::body::Protocol::Tcp,
            role: webrtc.dtls.local_role(),
            keys: keys.clone(),
        };
        if let Some(mut entry) = self.recorder.add(id, &record) {
            io.sockets.set_scribe(path.socket, entry.scribe());
            entry.set(SENDERS, senders as u64);
            entry.set(TWCC_COUNT, u64::from(count));
            transport.flight = Some(Box::new(Flight { entry, record }));
        }
    }

    /// Records where a connected transport sends to.
    pub(super) fn record_path(&mut self, io: &mut Io, key: usize) {
        let transport = &mut self.transports[key];
        let Some(mut flight) = transport.flight.take() else {
            return;
        };
        if let Ok(webrtc) = transport.webrtc_mut() {
            flight.set_path(webrtc, &mut io.sockets);
        }
        transport.flight = Some(flight);
    }

    /// Records how many consumers may have sent under a transport's keys: those that it has, and
    /// those of an earlier router that nobody has asked for.
    pub(super) fn count_senders(&self, key: usize) {
        // While a router is built again, consumers of the earlier one may still be missing.
        if let Some(transport) = self.transports.get(key)
            && let Some(flight) = &transport.flight
            && !self.is_held
        {
            let left = self.recordings.consumers.values();
            let left = left.filter(|consumer| consumer.record.transport == transport.id);
            let senders = transport.consumers.len() + left.count();
            flight.entry.set(SENDERS, senders as u64);
        }
    }

    /// Records the highest index received of an SSRC, once the turn is over.
    pub(super) fn record_inbound(&mut self, key: usize, ssrc: u32, is_rtcp: bool) {
        let transport = &mut self.transports[key];
        if transport.flight.is_none() {
            return;
        }
        let id = transport.id;
        let highest = transport.webrtc_mut().ok().and_then(|webrtc| {
            let inbound = &webrtc.srtp.as_ref()?.inbound;
            if is_rtcp {
                inbound.highest_rtcp(ssrc).map(u64::from)
            } else {
                inbound.highest_rtp(ssrc)
            }
        });
        let Some(highest) = highest else {
            return;
        };
        let record = InboundRecord { ssrc, is_rtcp };
        let known = transport.inbound.iter().find(|(one, _)| *one == record);
        if let Some((_, entry)) = known {
            if let Some(entry) = entry {
                self.recorder.set_later(entry, HIGHEST, highest);
            }
            return;
        }
        let entry = self.recorder.add(id, &record);
        // Its first index is recorded at once: zero would be the index of a packet.
        if let Some(entry) = &entry {
            entry.set(HIGHEST, highest);
        }
        transport.inbound.push((record, entry));
    }

    /// Records what was received of a stream, once the turn is over.
    pub(super) fn record_stream(&mut self, producer_key: usize, index: u8, is_new: bool) {
        if !self.recorder.is_present() {
            return;
        }
        let producer = &mut self.producers[producer_key];
        if let Some(stream) = producer.streams.get_mut(usize::from(index)) {
            stream.record(&mut self.recorder, producer.id, index, is_new);
        }
    }

    /// Lets a new producer go on with the streams of an earlier one.
    pub(super) fn restore_streams(&mut self, key: usize) {
        let producer = &mut self.producers[key];
        let recorded = self.recordings.streams.remove(&producer.id);
        let mut recorded = recorded.unwrap_or_default();
        recorded.sort_by_key(|recorded| recorded.record.index);
        for recorded in recorded {
            match producer.resume_stream(recorded) {
                Ok(ssrc) => {
                    let listener = &mut self.transports[producer.transport].listener;
                    listener.learn(ssrc, key, producer.id);
                }
                Err(entry) => self.recorder.remove(entry),
            }
        }
    }

    /// Records a consumer enabled a moment ago, or lets it go on from its record. Returns whether
    /// its receiver waits for something that is lost.
    pub(super) fn record_consumer(&mut self, io: &Io, key: usize, transport_key: usize) -> bool {
        let consumer = &mut self.consumers[key];
        let transport = self.transports[transport_key].id;
        let recorded = self.recordings.consumers.remove(&consumer.id);
        let mut has_hole = false;
        match recorded {
            Some(recorded) if consumer.is_recorded_by(&recorded.record, transport) => {
                let producer = &self.producers[consumer.producer];
                has_hole = consumer.resume(io.now, recorded, producer);
            }
            stale => {
                if let Some(stale) = stale {
                    self.recorder.remove(stale.entry);
                }
                if self.recorder.is_present() {
                    consumer.record(&mut self.recorder, transport);
                }
            }
        }
        self.count_senders(transport_key);
        has_hole
    }

    /// Forgets a consumer that is closed or disabled; its transport no longer counts it.
    pub(super) fn forget_consumer(&mut self, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.recorder.remove(entry);
        }
    }
}
