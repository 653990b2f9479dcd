//! Requests of the controller: each one to one call, each with one answer.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use broth_ipc::body::{
    CreateRouter, Empty, Hello, Load, LocalDtlsRole, Misbehave, Ready, SetPreferredProfile,
    WorkerDump, WorkerSettings,
};
use broth_ipc::{
    Call, ErrorCode, Ids, Incoming, PROTOCOL, Rejection, Request, RouterId, Scope, Subject,
};
use serde::Serialize;
use serde_json::Value;

use crate::black_box::BlackBox;
use crate::dialect::Dialect;
use crate::dtls::Certificate;
use crate::log::{Level, Tags};
use crate::net::mapping::Mapping;
use crate::net::sockets::Owner;
use crate::recorder::{self, Memory};
use crate::router::Router;
use crate::stream::Hold;
use crate::worker::Worker;

type Answer = Result<Value, Rejection>;

impl Worker {
    /// Carries out a request as it came, or refuses it: for its ids first, then for its data.
    pub fn handle(&mut self, incoming: Incoming, fds: Vec<OwnedFd>) -> Answer {
        for subject in incoming.subjects {
            self.check(*subject, &incoming.ids)?;
        }
        self.handle_request(incoming.request?, fds)
    }

    fn check(&self, subject: Subject, ids: &Ids) -> Result<(), Rejection> {
        match subject {
            Subject::NewRouter if self.router_keys.contains_key(&router_id(ids)?) => {
                Err(Rejection::exists("Router already exists"))
            }
            Subject::NewRouter => Ok(()),
            Subject::Router => self.router_key(ids).map(drop),
            _ => self.routers[self.router_key(ids)?].check(subject, ids),
        }
    }

    /// Carries out a request.
    pub fn handle_request(&mut self, request: Request, fds: Vec<OwnedFd>) -> Answer {
        let ids = &request.ids;
        match request.call {
            Call::Hello(hello) => self.hello(hello, fds),
            Call::DumpWorker(_) => self.dump(),
            Call::GetLoad(_) => self.load(),
            Call::UpdateSettings(settings) => self.update_settings(&settings),
            Call::Misbehave(misbehave) => self.misbehave(misbehave),
            Call::CreateRouter(request) => self.create_router(ids, request, fds),
            Call::CloseRouter(_) => self.close_router(ids),
            Call::SuspendRouter(_) => self.suspend_router(ids),
            call => {
                let key = self.router_key(ids)?;
                if let Some((scope, target_id)) = new_target(ids, &call) {
                    self.check_new_target(ids, scope, target_id)?;
                }
                let (router, io) = (&mut self.routers[key], &mut self.io);
                handle_router_call(router, io, ids, call, fds)
            }
        }
    }

    fn hello(&mut self, hello: Hello, fds: Vec<OwnedFd>) -> Answer {
        if hello.protocol != PROTOCOL {
            return Err(Rejection::invalid(format!(
                "this worker speaks protocol {PROTOCOL}, not {}",
                hello.protocol
            )));
        }
        if fds.len() != usize::from(hello.black_box) {
            return Err(Rejection::invalid(format!(
                "{} descriptors received with the hello",
                fds.len()
            )));
        }
        if let Some(fd) = fds.into_iter().next() {
            self.io.black_box = black_box(fd)?;
        }
        let refuse = |error| Rejection::invalid(format!("DTLS certificate: {error}"));
        let own = match hello.dtls {
            Some(identity) => {
                let certificate =
                    Certificate::from_pem(&identity.certificate, &identity.private_key)
                        .map_err(refuse)?;
                self.io.set_certificate(certificate).map_err(refuse)?;
                None
            }
            None => Some(self.io.certificate.to_identity().map_err(refuse)?),
        };
        self.dialect = Dialect::Broth;
        self.is_obedient = hello.chaos;
        if let Some(micros) = hello.hold_us {
            self.io.hold = Hold::new(Duration::from_micros(micros.into()));
        }
        answer(&Ready {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            cpus: crate::load::allowed_cpus(),
            dtls: own,
            restores: true,
            recorder_version: recorder::VERSION,
        })
    }

    fn update_settings(&mut self, settings: &WorkerSettings) -> Answer {
        if let Some(name) = &settings.log_level {
            let level = Level::parse(name).map_err(Rejection::invalid)?;
            self.io.log.set_level(level);
        }
        if let Some(tags) = &settings.log_tags {
            let tags = Tags::of(tags.iter().map(String::as_str));
            self.io.log.set_tags(tags);
        }
        self.log_configuration();
        done()
    }

    fn misbehave(&mut self, misbehave: Misbehave) -> Answer {
        if !self.is_obedient {
            return Err(Rejection::invalid("this worker was not told to misbehave"));
        }
        self.misbehaviour = Some(misbehave);
        done()
    }

    /// Makes sure that a new object shares the id of its notifications with no other object, where
    /// that id is all a controller gets to know.
    fn check_new_target(&self, ids: &Ids, scope: Scope, target_id: u32) -> Result<(), Rejection> {
        if self.dialect != Dialect::V2 {
            return Ok(());
        }
        // The router itself refuses what it has already.
        let is_taken = self.routers.iter().any(|(_, router)| {
            let mut scopes = router.scopes_of(target_id);
            scopes.any(|other| other != scope || Some(router.id) != ids.router_id)
        });
        if is_taken {
            return Err(Rejection::exists(format!(
                "targetId already in use in this Worker [targetId:{target_id}]"
            )));
        }
        Ok(())
    }

    fn dump(&self) -> Answer {
        answer(&WorkerDump {
            worker_id: self.id.clone(),
            routers: self
                .routers
                .iter()
                .map(|(_, router)| router.dump(&self.io))
                .collect(),
        })
    }

    fn load(&mut self) -> Answer {
        let mut load = Load {
            routers: self.routers.len(),
            datagrams_received: self.io.received,
            recv_calls: self.io.recv_calls,
            datagrams_sent: self.io.sockets.queue.counters.packets,
            send_calls: self.io.sockets.queue.counters.calls,
            datagrams_delayed: self.io.sockets.queue.counters.delayed,
            drops: self.io.drops.to_map(),
            ..self.meter.take()
        };
        let counters = &self.io.sockets.queue.counters;
        for (name, count) in [
            ("sendQueueFull", counters.overflowed),
            ("sendQueueExpired", counters.expired),
            ("sendRefused", counters.refused),
            ("tcpBlocked", self.io.sockets.tcp_blocked),
        ] {
            if count > 0 {
                load.drops.insert(name.into(), count);
            }
        }
        for (_, router) in &self.routers {
            let (transports, producers, consumers) = router.counts();
            load.transports += transports;
            load.producers += producers;
            load.consumers += consumers;
            let unrecorded = router.unrecorded();
            if unrecorded > 0 {
                *load.drops.entry("unrecorded".into()).or_default() += unrecorded;
            }
        }
        answer(&load)
    }

    fn router_key(&self, ids: &Ids) -> Result<usize, Rejection> {
        let id = router_id(ids)?;
        let key = self.router_keys.get(&id).copied();
        key.ok_or_else(|| Rejection::not_found("Router does not exist"))
    }

    fn create_router(&mut self, ids: &Ids, request: CreateRouter, mut fds: Vec<OwnedFd>) -> Answer {
        let id = router_id(ids)?;
        self.check_new_target(ids, Scope::Router, id.0)?;
        let (described, received) = (request.sockets.len(), fds.len());
        if described + usize::from(request.recorder) != received {
            return Err(Rejection::invalid(format!(
                "{described} sockets described, {received} descriptors received"
            )));
        }
        let memory = fds.drain(described..).next().map(Mapping::new).transpose();
        let memory = memory.map_err(|error| {
            Rejection::new(ErrorCode::Unavailable, format!("recorder: {error}"))
        })?;
        let memory = memory.map(|mapping| Rc::new(Memory::Mapped(mapping)));
        let entry = self.routers.vacant_entry();
        let key = entry.key();
        if request.restore {
            self.io.sockets.hold(key);
        }
        for (socket, fd) in request.sockets.iter().zip(fds) {
            let owner = Owner {
                router: key,
                transport: None,
            };
            if let Err(error) = self.io.sockets.add(socket.protocol, fd, owner) {
                self.io.sockets.remove_router(key);
                return Err(Rejection::new(
                    ErrorCode::Unavailable,
                    format!("socket {}:{}: {error}", socket.ip, socket.port),
                ));
            }
        }
        let router = entry.insert(Router::new(id, key, request.sockets));
        match memory {
            memory if request.restore => router.restore(memory),
            Some(memory) => router.record(memory),
            None => {}
        }
        self.router_keys.insert(id, key);
        done()
    }

    fn close_router(&mut self, ids: &Ids) -> Answer {
        let key = self.router_key(ids)?;
        let mut router = self.routers.remove(key);
        self.router_keys.remove(&router.id);
        router.close(&mut self.io);
        self.io.sockets.flush();
        self.io.sockets.remove_router(key);
        done()
    }

    fn suspend_router(&mut self, ids: &Ids) -> Answer {
        let key = self.router_key(ids)?;
        if !self.routers[key].is_recorded() {
            return Err(Rejection::state("Router has no recorder"));
        }
        let mut router = self.routers.remove(key);
        self.router_keys.remove(&router.id);
        router.finish(&mut self.io);
        self.io.sockets.flush();
        router.commit();
        self.io.sockets.let_go_router(key);
        done()
    }
}

/// Maps the memory of a black box.
fn black_box(fd: OwnedFd) -> Result<BlackBox, Rejection> {
    let failed = |why: &dyn std::fmt::Display| {
        Rejection::new(ErrorCode::Unavailable, format!("black box: {why}"))
    };
    let mapping = Mapping::new(fd).map_err(|error| failed(&error))?;
    BlackBox::new(Memory::Mapped(mapping)).ok_or_else(|| failed(&"it is too short"))
}

/// The kind and id of what a call to a router creates, if that gets notifications.
fn new_target(ids: &Ids, call: &Call) -> Option<(Scope, u32)> {
    match call {
        Call::CreateWebRtcTransport(_) | Call::CreatePlainRtpTransport(_) => {
            Some((Scope::Transport, ids.transport_id?.0))
        }
        Call::CreateConsumer(_) => Some((Scope::Consumer, ids.consumer_id?.0)),
        _ => None,
    }
}

fn handle_router_call(
    router: &mut Router,
    io: &mut crate::io::Io,
    ids: &Ids,
    call: Call,
    fds: Vec<OwnedFd>,
) -> Answer {
    match call {
        Call::DumpRouter(_) => answer(&router.dump(io)),
        Call::CreateWebRtcTransport(options) => router.create_transport(io, ids, &options, fds),
        Call::CreatePlainRtpTransport(options) => {
            router.create_plain_transport(io, ids, &options, fds)
        }
        Call::CreateProducer(request) => unit(router.create_producer(ids, request)),
        Call::CreateConsumer(request) => unit(router.create_consumer(io, ids, request)),
        Call::SetAudioLevelsEvent(request) => {
            router.set_audio_levels(io.now, request.enabled);
            done()
        }
        Call::CloseTransport(_) => unit(router.close_transport(io, ids)),
        Call::DumpTransport(_) => router.dump_transport(io, ids),
        Call::GetTransportStats(_) => router
            .transport_stats(io, ids)?
            .map_or_else(done, |stats| answer(&stats)),
        Call::SetRemoteParameters(remote) => unit(router.set_remote_parameters(io, ids, &remote)),
        Call::SetRemoteDtlsParameters(parameters) => {
            let role = router.set_remote_dtls(io, ids, &parameters)?;
            answer(&LocalDtlsRole { role })
        }
        Call::SetMaxBitrate(request) => unit(router.set_bitrate_max(io, ids, request.bitrate)),
        Call::ChangeUfragPwd(_) => answer(&router.change_credentials(ids)?),
        Call::CloseProducer(_) => unit(router.close_producer(io, ids)),
        Call::DumpProducer(_) => answer(&router.dump_producer(ids)?),
        Call::GetProducerStats(_) => answer(&router.producer_stats(io, ids)?),
        Call::PauseProducer(_) => unit(router.pause_producer(io, ids, true)),
        Call::ResumeProducer(_) => unit(router.pause_producer(io, ids, false)),
        Call::SetProducerProfile(SetPreferredProfile { profile }) => {
            unit(router.set_producer_profile(io, ids, profile))
        }
        Call::CloseConsumer(_) => unit(router.close_consumer(io, ids)),
        Call::DumpConsumer(_) => answer(&router.dump_consumer(ids)?),
        Call::GetConsumerStats(_) => answer(&router.consumer_stats(io, ids)?),
        Call::EnableConsumer(request) => unit(router.enable_consumer(io, ids, request)),
        Call::PauseConsumer(_) => unit(router.pause_consumer(io, ids, true)),
        Call::ResumeConsumer(_) => unit(router.pause_consumer(io, ids, false)),
        Call::SetConsumerProfile(SetPreferredProfile { profile }) => {
            unit(router.set_consumer_profile(io, ids, profile))
        }
        Call::SetEncodingPreferences(request) => {
            unit(router.set_temporal_max(ids, request.temporal_layer))
        }
        Call::RequestKeyFrame(_) => unit(router.ask_keyframe(io, ids)),
        Call::ResumeRouter(_) => {
            router.resume(io);
            done()
        }
        Call::StartMirroring(request) => unit(router.start_mirroring(io, ids, &request, fds)),
        Call::StopMirroring(_) => unit(router.stop_mirroring(io, ids)),
        Call::Hello(_)
        | Call::DumpWorker(_)
        | Call::GetLoad(_)
        | Call::UpdateSettings(_)
        | Call::Misbehave(_)
        | Call::CreateRouter(_)
        | Call::CloseRouter(_)
        | Call::SuspendRouter(_) => unreachable!("handled by the worker"),
    }
}

fn router_id(ids: &Ids) -> Result<RouterId, Rejection> {
    ids.router_id
        .ok_or_else(|| Rejection::invalid("Request has not numeric internal.routerId"))
}

fn done() -> Answer {
    answer(&Empty {})
}

fn unit(result: Result<(), Rejection>) -> Answer {
    result.and_then(|()| done())
}

fn answer(body: &impl Serialize) -> Answer {
    serde_json::to_value(body)
        .map_err(|error| Rejection::new(ErrorCode::Unspecified, error.to_string()))
}
