//! The shell: waits for sockets, the channel and deadlines, reads the clock, and moves bytes
//! between the kernel and the cores.
//!
//! One turn: requests → a batch from each readable socket → deadlines → fan-out → one flush →
//! notifications. Every stage has a budget, so none starves the others; what is left over is
//! still readable in the next turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use broth_ipc::{
    Discard, ErrorCode, Event, Fill, Flush, Inbox, Incoming, Notification, Outbox,
    PAYLOAD_BYTES_MAX, Rejection, Request, Response, Scope, Target,
};
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::net::sockets::{Path, Socket};
use crate::net::sys::{RECV_BATCH, RecvBatch};
use crate::worker::Worker;

/// Epoll token of the channel.
const CHANNEL: u64 = u64::MAX;
/// Epoll token of the signal descriptor.
const SIGNALS: u64 = u64::MAX - 1;
/// Batches taken from one socket per turn.
const BATCHES_PER_TURN: usize = 4;
/// Requests carried out per turn.
const REQUESTS_PER_TURN: usize = 256;
/// Connections accepted per turn and listener.
const ACCEPTS_PER_TURN: usize = 16;
/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Time for the last words when the worker is told to end.
const FAREWELL: Duration = Duration::from_millis(100);

/// Why the loop ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGTERM or SIGINT.
    Told,
    /// The controller closed the channel: it is gone.
    Orphaned,
}

/// The loop.
pub struct EventLoop {
    worker: Worker,
    channel: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    signals: SignalFd,
    batch: RecvBatch,
    deadlines: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    wants_write: bool,
    has_requests: bool,
}

impl EventLoop {
    /// Takes over the channel and the process's signals.
    ///
    /// # Errors
    /// A descriptor cannot be made or registered.
    pub fn new(worker: Worker, channel: UnixStream) -> io::Result<Self> {
        channel.set_nonblocking(true)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags)?;
        let epoll = worker.io.sockets.epoll();
        epoll.add(&channel, EpollEvent::new(EpollFlags::EPOLLIN, CHANNEL))?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        Ok(Self {
            worker,
            channel,
            inbox: Inbox::new(PAYLOAD_BYTES_MAX),
            outbox: Outbox::default(),
            signals,
            batch: RecvBatch::default(),
            deadlines: BinaryHeap::new(),
            wants_write: false,
            has_requests: false,
        })
    }

    /// Runs until the worker is to end.
    ///
    /// # Errors
    /// The channel is broken: framing is lost, or the socket failed.
    pub fn run(mut self) -> io::Result<End> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let ready = self.wait(&mut events)?;
            let turn = Instant::now();
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            self.worker.io.set_now(turn, wall.unwrap_or_default());
            for event in &events[..ready] {
                match event.data() {
                    CHANNEL => {
                        if self.read_channel()? == Fill::Eof {
                            return Ok(self.end(End::Orphaned));
                        }
                    }
                    SIGNALS => {
                        if matches!(self.signals.read_signal(), Ok(Some(_))) {
                            return Ok(self.end(End::Told));
                        }
                    }
                    key => self.handle_socket(key as u32, event.events()),
                }
            }
            self.handle_requests()?;
            self.handle_deadlines();
            for (_, router) in &mut self.worker.routers {
                router.forward(&mut self.worker.io);
            }
            self.worker.io.sockets.flush();
            self.send_notes()?;
            self.worker.meter.add_turn(turn.elapsed());
        }
    }

    fn wait(&mut self, events: &mut [EpollEvent]) -> io::Result<usize> {
        let now = Instant::now();
        let deadline = self
            .worker
            .routers
            .iter()
            .filter_map(|(_, router)| router.audio_levels_at())
            .chain(self.deadlines.peek().map(|Reverse((at, ..))| *at))
            .min();
        let sleep = match deadline {
            _ if self.has_requests => Duration::ZERO,
            Some(at) => at.saturating_duration_since(now).min(SLEEP_MAX),
            None => SLEEP_MAX,
        };
        // Rounded up: waking a moment early would only spin.
        let millis = sleep.as_micros().div_ceil(1000) as u16;
        let epoll = self.worker.io.sockets.epoll();
        match epoll.wait(events, EpollTimeout::from(millis)) {
            Ok(ready) => Ok(ready),
            Err(nix::Error::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn read_channel(&mut self) -> io::Result<Fill> {
        self.flush_channel()?;
        self.inbox.fill(self.channel.as_fd())
    }

    fn handle_requests(&mut self) -> io::Result<()> {
        self.has_requests = false;
        for _ in 0..REQUESTS_PER_TURN {
            let frame = self.inbox.next_frame().map_err(io::Error::other)?;
            let Some(payload) = frame else {
                return Ok(());
            };
            match Request::parse(&payload) {
                Ok(incoming) => self.handle_request(incoming)?,
                Err(discard) => self.log_discard(&discard)?,
            }
        }
        self.has_requests = true;
        Ok(())
    }

    fn handle_request(&mut self, incoming: Incoming) -> io::Result<()> {
        let fds = self
            .inbox
            .take_fds(incoming.fds)
            .ok_or_else(|| io::Error::other("descriptors named by a request did not arrive"))?;
        let id = incoming.id;
        let result = self.worker.handle(incoming, fds);
        // What a request caused is told before its answer.
        self.send_notes()?;
        let mut response = Response { id, result };
        let mut payload = response.to_payload()?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            response.result = Err(Rejection::new(ErrorCode::TooBig, "reply too big"));
            payload = response.to_payload()?;
        }
        self.send(&payload)
    }

    fn log_discard(&mut self, discard: &Discard) -> io::Result<()> {
        let notification = Notification {
            target: Target {
                target_id: 0,
                router_id: None,
                scope: Some(Scope::Worker),
            },
            event: Event::Log {
                level: "error".into(),
                message: format!("discarding wrong Channel request: {discard}"),
            },
        };
        self.send(&notification.to_payload()?)
    }

    fn handle_socket(&mut self, key: u32, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.worker.io.sockets.handle_writable(key);
        }
        match self.worker.io.sockets.get_mut(key) {
            Some((Socket::Udp(_), router, _)) => self.receive(key, router),
            Some((Socket::Listener(..), ..)) => {
                for _ in 0..ACCEPTS_PER_TURN {
                    if !matches!(self.worker.io.sockets.accept(key), Ok(Some(_))) {
                        break;
                    }
                }
            }
            Some((Socket::Connection(_), router, _)) => self.read_connection(key, router),
            None => {}
        }
    }

    fn receive(&mut self, key: u32, router: usize) {
        for _ in 0..BATCHES_PER_TURN {
            let Some((Socket::Udp(socket), ..)) = self.worker.io.sockets.get_mut(key) else {
                return;
            };
            // An ICMP error of an earlier packet is reported here too; the next call goes on.
            let Ok(count) = self.batch.recv(socket.as_fd()) else {
                return;
            };
            let Worker { routers, io, .. } = &mut self.worker;
            let router = &mut routers[router];
            for index in 0..count {
                self.batch.datagrams(index, |datagram, remote| {
                    io.received += 1;
                    let path = Path {
                        socket: key,
                        remote,
                    };
                    router.handle_datagram(io, path, datagram);
                });
            }
            if count < RECV_BATCH {
                return;
            }
        }
    }

    fn read_connection(&mut self, key: u32, router: usize) {
        let Some((Socket::Connection(connection), ..)) = self.worker.io.sockets.get_mut(key) else {
            return;
        };
        let Ok(remote) = connection.remote() else {
            self.close_connection(key, router, None);
            return;
        };
        let path = Path {
            socket: key,
            remote,
        };
        let is_open = match connection.fill() {
            Ok(is_open) => is_open,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        loop {
            let Some((Socket::Connection(connection), ..)) = self.worker.io.sockets.get_mut(key)
            else {
                return;
            };
            let mut packet = match connection.next_packet() {
                Ok(Some(packet)) => packet.to_vec(),
                Ok(None) => break,
                Err(_) => {
                    self.close_connection(key, router, Some(path));
                    return;
                }
            };
            self.worker.io.received += 1;
            let router = &mut self.worker.routers[router];
            router.handle_datagram(&mut self.worker.io, path, &mut packet);
        }
        if !is_open {
            self.close_connection(key, router, Some(path));
        }
    }

    fn close_connection(&mut self, key: u32, router: usize, path: Option<Path>) {
        self.worker.io.sockets.remove(key);
        if let Some(path) = path {
            self.worker.routers[router].remove_path(&mut self.worker.io, path);
        }
    }

    /// Wakes what is due, including what became due in this turn.
    fn handle_deadlines(&mut self) {
        let Worker { routers, io, .. } = &mut self.worker;
        loop {
            for (key, router) in routers.iter_mut() {
                router.take_deadlines(|transport, at| {
                    self.deadlines.push(Reverse((at, key, transport)));
                });
            }
            let Some(&Reverse((at, router, transport))) = self.deadlines.peek() else {
                break;
            };
            if at > io.now {
                break;
            }
            self.deadlines.pop();
            if let Some(router) = routers.get_mut(router) {
                router.handle_deadline(io, transport, at);
            }
        }
        for (_, router) in routers.iter_mut() {
            router.handle_audio_levels(io);
        }
    }

    fn send_notes(&mut self) -> io::Result<()> {
        for note in std::mem::take(&mut self.worker.io.notes) {
            self.send(&note.to_payload()?)?;
        }
        Ok(())
    }

    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.outbox
            .push(payload, Vec::new())
            .map_err(io::Error::other)?;
        self.flush_channel()
    }

    fn flush_channel(&mut self) -> io::Result<()> {
        let is_blocked = self.outbox.flush(self.channel.as_fd())? == Flush::Blocked;
        if is_blocked != self.wants_write {
            self.wants_write = is_blocked;
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, is_blocked);
            let mut event = EpollEvent::new(flags, CHANNEL);
            let epoll = self.worker.io.sockets.epoll();
            epoll.modify(&self.channel, &mut event)?;
        }
        Ok(())
    }

    /// Says goodbye to every peer and to the controller.
    fn end(&mut self, end: End) -> End {
        let Worker { routers, io, .. } = &mut self.worker;
        for (_, router) in routers.iter_mut() {
            router.close(io);
        }
        io.sockets.flush();
        if end == End::Told {
            // The controller may be gone too: then nobody is left to tell.
            let _ = self.channel.set_nonblocking(false);
            let _ = self.channel.set_write_timeout(Some(FAREWELL));
            let _ = self.send_notes();
        }
        end
    }
}
