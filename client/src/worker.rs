//! A worker to drive: a thread of this process or a process of its own, and the blocking
//! controller's end of its channel.

use std::collections::VecDeque;
use std::env;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use broth_ipc::body::{
    CreateConsumer, CreateProducer, CreateRouter, Empty, EnableConsumer, Hello, Load, Protocol,
    RouterSocket,
};
use broth_ipc::rtp::{MediaKind, RtpParameters};
use broth_ipc::{
    CHANNEL_FD_ENV, Call, Fill, FromWorker, Ids, Inbox, Notification, Outbox, PAYLOAD_BYTES_MAX,
    PROTOCOL, RECORDER_BYTES, Request, Response, RouterId,
};
use broth_worker::RUN_WORKER_ENV;
use broth_worker::dtls::Certificate;
use broth_worker::event_loop::EventLoop;
use broth_worker::io::Io;
use broth_worker::net::binder::Binder;
use broth_worker::net::sockets::Sockets;
use broth_worker::settings::RtcSettings;
use broth_worker::worker::Worker;
use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Pid, ftruncate};
use serde_json::Value;

use crate::rtp::{identity_mapping, vp8_parameters};

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What runs the worker.
enum Runner {
    Thread(Option<JoinHandle<()>>),
    Process(Child),
}

/// A worker and the controller's end of its channel.
pub struct DrivenWorker {
    channel: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    id_last: u32,
    /// Notifications not looked at yet.
    pub notes: VecDeque<Notification>,
    runner: Runner,
}

impl DrivenWorker {
    /// Runs a worker in a thread of this process.
    ///
    /// # Errors
    /// No socket pair, or the worker refuses the hello.
    pub fn in_thread() -> Result<Self> {
        Self::in_thread_with(RtcSettings::default())
    }

    /// Runs a worker in a thread of this process, with settings for ports of its own.
    ///
    /// # Errors
    /// As [`in_thread`](Self::in_thread).
    pub fn in_thread_with(rtc: RtcSettings) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let thread = thread::spawn(move || {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
            let certificate = Certificate::generate().expect("certificate");
            let mut io = Io::new(Sockets::new(epoll), certificate).expect("DTLS context");
            io.binder = Binder::new(rtc);
            let worker = Worker::new("thread".into(), io);
            EventLoop::new(worker, theirs)
                .and_then(EventLoop::run)
                .expect("the test closes the channel in order");
        });
        Self::greet(ours, Runner::Thread(Some(thread)))
    }

    /// Runs a worker as a process pinned to `cpu`: this executable, whose `main` must begin
    /// with [`broth_worker::run_if_asked`].
    ///
    /// # Errors
    /// It cannot be started, or refuses the hello.
    pub fn in_process(cpu: usize) -> Result<Self> {
        let worker = Self::of_program(&env::current_exe()?)?;
        let mut cpus = CpuSet::new();
        cpus.set(cpu)?;
        let pid = worker.pid().context("it is a process")?;
        sched_setaffinity(Pid::from_raw(pid.cast_signed()), &cpus)?;
        Ok(worker)
    }

    /// Runs a worker as a process of its own.
    ///
    /// # Errors
    /// It cannot be started, or refuses the hello.
    pub fn of_program(program: &Path) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // `dup2` onto itself would keep close-on-exec; the pair never gets number 3 here,
        // because the standard streams and `ours` come first.
        fcntl(theirs.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
        use std::os::fd::AsRawFd;
        let child = Command::new(program)
            .arg0("broth-worker")
            .arg("bench#1")
            .env_clear()
            .env(CHANNEL_FD_ENV, theirs.as_raw_fd().to_string())
            .env(RUN_WORKER_ENV, "1")
            .stdin(Stdio::null())
            .spawn()
            .context("starting the worker")?;
        Self::greet(ours, Runner::Process(child))
    }

    fn greet(channel: UnixStream, runner: Runner) -> Result<Self> {
        channel.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut worker = Self {
            channel,
            inbox: Inbox::new(PAYLOAD_BYTES_MAX),
            outbox: Outbox::default(),
            id_last: 0,
            notes: VecDeque::new(),
            runner,
        };
        let hello = Hello {
            protocol: PROTOCOL,
            dtls: None,
            chaos: false,
            black_box: false,
            hold_us: None,
        };
        worker.call(Ids::NONE, Call::Hello(hello))?;
        Ok(worker)
    }

    /// Process id of a worker in a process of its own.
    pub fn pid(&self) -> Option<u32> {
        match &self.runner {
            Runner::Thread(_) => None,
            Runner::Process(child) => Some(child.id()),
        }
    }

    /// Ends a process without giving it time for a word.
    ///
    /// # Errors
    /// It is a thread, or has ended already.
    pub fn kill(&mut self) -> Result<()> {
        match &mut self.runner {
            Runner::Thread(_) => bail!("a thread cannot be killed"),
            Runner::Process(child) => {
                child.kill()?;
                child.wait()?;
                Ok(())
            }
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The worker refused, is gone, or does not answer.
    pub fn call(&mut self, ids: Ids, call: Call) -> Result<Value> {
        self.call_with(ids, call, Vec::new())
    }

    /// As [`call`](Self::call), with descriptors.
    ///
    /// # Errors
    /// As there.
    pub fn call_with(&mut self, ids: Ids, call: Call, fds: Vec<OwnedFd>) -> Result<Value> {
        self.id_last += 1;
        let id = self.id_last;
        let request = Request { id, ids, call };
        self.outbox.push(&request.to_payload(fds.len())?, fds)?;
        self.outbox.flush(self.channel.as_fd())?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(Response { result, .. }) = self.read(Some(id))? {
                return result
                    .map_err(|rejection| anyhow!("{}: {rejection}", request.call.method()));
            }
        }
        bail!("no answer to {}", request.call.method())
    }

    /// Collects what the worker has to tell, waiting a little.
    ///
    /// # Errors
    /// The worker is gone.
    pub fn listen(&mut self) -> Result<()> {
        self.read(None).map(drop)
    }

    fn read(&mut self, id: Option<u32>) -> Result<Option<Response>> {
        loop {
            while let Some(frame) = self.inbox.next_frame()? {
                match FromWorker::parse(&frame).map_err(|error| anyhow!(error))? {
                    FromWorker::Notification(mut note, fds) => {
                        let fds = self.inbox.take_fds(fds);
                        note.event.set_fds(fds.context("descriptors are missing")?);
                        self.notes.push_back(note);
                    }
                    FromWorker::Response(response) if Some(response.id) == id => {
                        return Ok(Some(response));
                    }
                    FromWorker::Response(_) | FromWorker::LogLine(..) => {}
                }
            }
            match self.inbox.fill(self.channel.as_fd())? {
                Fill::Bytes => {}
                Fill::Blocked => return Ok(None),
                Fill::Eof => bail!("the worker closed its channel"),
            }
        }
    }

    /// Creates a producer of VP8 with `ssrc`, and RTX on the next one; `ids` name its router,
    /// its transport and itself.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn produce_vp8(&mut self, ids: Ids, ssrc: u32) -> Result<()> {
        let request = CreateProducer {
            kind: MediaKind::Video,
            rtp_parameters: vp8_parameters(ssrc),
            rtp_mapping: identity_mapping(),
            paused: false,
        };
        self.call(ids, Call::CreateProducer(request))?;
        Ok(())
    }

    /// Creates a consumer and enables it; `ids` name its router, its transport, its producer and
    /// itself.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn consume(
        &mut self,
        ids: Ids,
        kind: MediaKind,
        rtp_parameters: RtpParameters,
    ) -> Result<()> {
        self.call(ids, Call::CreateConsumer(CreateConsumer { kind }))?;
        self.call(ids, Call::EnableConsumer(EnableConsumer { rtp_parameters }))?;
        Ok(())
    }

    /// As [`consume`](Self::consume), of VP8 with `ssrc`, and RTX on the next one.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn consume_vp8(&mut self, ids: Ids, ssrc: u32) -> Result<()> {
        self.consume(ids, MediaKind::Video, vp8_parameters(ssrc))
    }

    /// Its load.
    ///
    /// # Errors
    /// As [`call`](Self::call), or the answer has another shape.
    pub fn load(&mut self) -> Result<Load> {
        let answer = self.call(Ids::NONE, Call::GetLoad(Empty {}))?;
        serde_json::from_value(answer).context("load")
    }

    /// Creates a router with one UDP socket and one TCP listener on 127.0.0.1.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn create_router(&mut self, id: RouterId) -> Result<()> {
        self.create_router_with(id, None)
    }

    /// As [`create_router`](Self::create_router), with a flight recorder.
    ///
    /// # Errors
    /// As there.
    pub fn create_recorded_router(&mut self, id: RouterId) -> Result<()> {
        self.create_router_with(id, Some(recorder()?))
    }

    fn create_router_with(&mut self, id: RouterId, recorder: Option<OwnedFd>) -> Result<()> {
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let socket = |protocol, port| RouterSocket {
            protocol,
            ip: [127, 0, 0, 1].into(),
            port,
            announced_ip: None,
        };
        let sockets = vec![
            socket(Protocol::Udp, udp.local_addr()?.port()),
            socket(Protocol::Tcp, tcp.local_addr()?.port()),
        ];
        nix::sys::socket::setsockopt(&udp, nix::sys::socket::sockopt::RcvBuf, &(4 << 20))?;
        nix::sys::socket::setsockopt(&udp, nix::sys::socket::sockopt::SndBuf, &(4 << 20))?;
        let call = Call::CreateRouter(CreateRouter {
            sockets,
            recorder: recorder.is_some(),
            restore: false,
        });
        let sockets: [OwnedFd; 2] = [udp.into(), tcp.into()];
        let fds = sockets.into_iter().chain(recorder).collect();
        self.call_with(Ids::router(id), call, fds)?;
        Ok(())
    }
}

impl Drop for DrivenWorker {
    fn drop(&mut self) {
        let _ = self.channel.shutdown(std::net::Shutdown::Both);
        match &mut self.runner {
            Runner::Thread(thread) => {
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            Runner::Process(child) => {
                let _ = child.wait();
            }
        }
    }
}

/// Memory for a router's flight recorder, as a controller makes it.
///
/// # Errors
/// The kernel has none.
pub fn recorder() -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"broth-recorder", flags)?;
    ftruncate(&memory, RECORDER_BYTES as i64)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}
