//! The shell: waits for sockets, the channel and deadlines, reads the clock, and moves bytes
//! between the kernel and the cores.
//!
//! One turn: requests → a batch from each readable socket → deadlines → fan-out → one flush →
//! notifications. Every stage has a budget, so none starves the others; what is left over is
//! still readable in the next turn.

mod channel;
mod requests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use broth_ipc::Fill;
use broth_ipc::black_box::Work;
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::io::Io;
use crate::net::sockets::{Path, Socket};
use crate::net::sys::{self, RECV_BATCH, RecvBatch};
use crate::net::tcp_frame::{FRAME_BYTES_MAX, Frames};
use crate::worker::Worker;

use channel::Channel;

/// Epoll token of the channel.
const CHANNEL: u64 = u64::MAX;
/// Epoll token of the signal descriptor.
const SIGNALS: u64 = u64::MAX - 1;
/// Batches taken from one socket per turn.
const BATCHES_PER_TURN: usize = 4;
/// Connections accepted per turn and listener.
const ACCEPTS_PER_TURN: usize = 16;
/// Reports leave so much early where the loop is awake for packets: by one step of their clock.
const REPORTS_EARLY: Duration = Duration::from_millis(50);
/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Signals without effect (`spec: channel.md` §1.4); SIGPIPE has none in Rust programs anyway.
const IGNORED_SIGNALS: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGALRM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
/// Time for the last words.
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
    channel: Channel,
    signals: SignalFd,
    batch: RecvBatch,
    /// What is read from a connection: one frame at least.
    stream: Box<[u8]>,
    deadlines: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    /// The last turn took so long.
    took: Duration,
    /// The kernel sleeps by milliseconds only.
    is_coarse: bool,
}

impl EventLoop {
    /// Takes over the channel and the process's signals.
    ///
    /// # Errors
    /// A descriptor cannot be made or registered.
    pub fn new(worker: Worker, channel: UnixStream) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block()?;
        let mut ignored = SigSet::empty();
        for signal in IGNORED_SIGNALS {
            ignored.add(signal);
        }
        // A blocked signal waits for ever, and needs no handler.
        ignored.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags)?;
        let epoll = worker.io.sockets.epoll();
        let channel = Channel::new(channel, epoll)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        Ok(Self {
            worker,
            channel,
            signals,
            batch: RecvBatch::default(),
            stream: vec![0; FRAME_BYTES_MAX].into(),
            deadlines: BinaryHeap::new(),
            took: Duration::ZERO,
            is_coarse: false,
        })
    }

    /// Runs until the worker is to end, and closes everything.
    ///
    /// # Errors
    /// The channel is broken: framing is lost, or the socket failed.
    pub fn run(mut self) -> io::Result<End> {
        let end = match self.turn_until_told() {
            Err(error) if is_closed(&error) => Ok(End::Orphaned),
            end => end,
        };
        self.close(!matches!(end, Ok(End::Orphaned)));
        end
    }

    fn turn_until_told(&mut self) -> io::Result<End> {
        // There may be something to say about the start.
        self.send_notes()?;
        loop {
            if let Some(end) = self.turn()? {
                return Ok(end);
            }
        }
    }

    fn turn(&mut self) -> io::Result<Option<End>> {
        let mut events = [EpollEvent::empty(); 64];
        let ready = self.wait(&mut events)?;
        let turn = Instant::now();
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.worker.io.set_now(turn, wall.unwrap_or_default());
        let received = self.worker.io.received;
        for event in &events[..ready] {
            match event.data() {
                CHANNEL => {
                    self.flush_channel()?;
                    if self.channel.fill()? == Fill::Eof {
                        return Ok(Some(End::Orphaned));
                    }
                }
                SIGNALS => {
                    if matches!(self.signals.read_signal(), Ok(Some(_))) {
                        return Ok(Some(End::Told));
                    }
                }
                key => self.handle_socket(key as u32, event.events()),
            }
        }
        self.handle_requests()?;
        self.handle_deadlines(self.worker.io.received != received);
        // Longer turns gather packets by themselves.
        self.worker.io.may_hold = !self.is_coarse && self.took <= self.worker.io.hold.time();
        for (_, router) in &mut self.worker.routers {
            router.forward(&mut self.worker.io);
        }
        self.worker.io.black_box.clear();
        self.worker.io.sockets.flush();
        for (_, router) in &mut self.worker.routers {
            router.commit();
        }
        self.send_notes()?;
        self.took = turn.elapsed();
        self.worker.meter.add_turn(self.took);
        Ok(None)
    }

    fn wait(&mut self, events: &mut [EpollEvent]) -> io::Result<usize> {
        let now = Instant::now();
        let deadline = self
            .worker
            .routers
            .iter()
            .flat_map(|(_, router)| [router.audio_levels_at(), router.held_until()])
            .flatten()
            .chain(self.deadlines.peek().map(|Reverse((at, ..))| *at))
            .min();
        let until_deadline = deadline.map(|at| at.saturating_duration_since(now));
        let sleep = [until_deadline, self.channel.sleep_max()]
            .into_iter()
            .flatten()
            .fold(SLEEP_MAX, Duration::min);
        let epoll = self.worker.io.sockets.epoll();
        if !self.is_coarse {
            let slept = sys::wait(epoll, events, sleep);
            self.is_coarse = slept == Err(Errno::ENOSYS);
            if !self.is_coarse {
                return ready(slept);
            }
        }
        // Rounded up: waking a moment early would only spin.
        let millis = sleep.as_micros().div_ceil(1000) as u16;
        ready(epoll.wait(events, EpollTimeout::from(millis)))
    }

    fn handle_socket(&mut self, key: u32, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.worker.io.sockets.handle_writable(key);
        }
        match self.worker.io.sockets.get_mut(key) {
            Some((Socket::Udp(_), router)) => {
                let is_readable = flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR);
                if is_readable && self.worker.io.sockets.is_read(key) {
                    self.receive(key, router);
                }
            }
            Some((Socket::Listener(..), ..)) => {
                let Io { sockets, now, .. } = &mut self.worker.io;
                if (0..ACCEPTS_PER_TURN).all(|_| sockets.accept(*now, key)) {
                    sockets.wake(key);
                }
            }
            Some((Socket::Connection(_), router)) => self.read_connection(key, router, flags),
            None => {}
        }
    }

    fn receive(&mut self, key: u32, router: usize) {
        for _ in 0..BATCHES_PER_TURN {
            let Some((Socket::Udp(socket), ..)) = self.worker.io.sockets.get_mut(key) else {
                return;
            };
            let received = self.batch.recv(socket.as_fd());
            self.worker.io.recv_calls += 1;
            // An ICMP error of an earlier packet is reported here too; the next call goes on.
            let Ok(count) = received else {
                return;
            };
            let Worker { routers, io, .. } = &mut self.worker;
            let router = &mut routers[router];
            for index in 0..count {
                io.set_arrived(self.batch.stamp(index));
                self.batch.datagrams(index, |datagram, remote| {
                    io.received += 1;
                    io.black_box.take_datagram(router.id, remote, datagram);
                    let path = Path {
                        socket: key,
                        remote,
                    };
                    router.handle_datagram(io, path, datagram);
                });
            }
            io.black_box.clear();
            if count < RECV_BATCH {
                return;
            }
        }
    }

    fn read_connection(&mut self, key: u32, router: usize, flags: EpollFlags) {
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
        let len = match connection.peek(&mut self.stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // A connection that failed is over like one that ended.
            peeked => peeked.unwrap_or(0),
        };
        let id = self.worker.routers[router].id;
        self.worker.io.black_box.take(Work::Connection, id, None);
        self.worker.io.set_arrived(None);
        let mut frames = Frames::of(&mut self.stream[..len]);
        let mut is_over = len == 0;
        for packet in frames.by_ref() {
            let Ok(packet) = packet else {
                is_over = true;
                break;
            };
            self.worker.io.received += 1;
            let Worker { routers, io, .. } = &mut self.worker;
            io.black_box.take_datagram(id, remote, packet);
            routers[router].handle_datagram(io, path, packet);
            io.black_box.take(Work::Connection, id, None);
        }
        self.worker.io.black_box.clear();
        let taken = frames.taken();
        let Some((Socket::Connection(connection), ..)) = self.worker.io.sockets.get_mut(key) else {
            return;
        };
        is_over |= connection.take(&mut self.stream[..taken]).is_err();
        if len == self.stream.len() {
            self.worker.io.sockets.wake(key);
        } else {
            // There is nothing behind what was seen.
            is_over |= flags.contains(EpollFlags::EPOLLRDHUP);
        }
        if is_over {
            self.close_connection(key, router, Some(path));
        }
    }

    fn close_connection(&mut self, key: u32, router: usize, path: Option<Path>) {
        self.worker.io.sockets.remove(key);
        if let Some(path) = path {
            self.worker.routers[router].remove_path(&mut self.worker.io, path);
        }
    }

    /// Wakes what is due, including what became due in this turn. If datagrams came, so is what is
    /// nearly due and may be early: that spares waking for it.
    fn handle_deadlines(&mut self, has_received: bool) {
        let Worker { routers, io, .. } = &mut self.worker;
        let early = if has_received {
            REPORTS_EARLY
        } else {
            Duration::ZERO
        };
        loop {
            for (key, router) in routers.iter_mut() {
                router.take_deadlines(|transport, at| {
                    self.deadlines.push(Reverse((at, key, transport)));
                });
            }
            let Some(&Reverse((at, router, transport))) = self.deadlines.peek() else {
                break;
            };
            let is_report = || {
                let router = routers.get(router);
                router.is_some_and(|router| router.is_report(transport, at))
            };
            if at > io.now && (at > io.now + early || !is_report()) {
                break;
            }
            self.deadlines.pop();
            if let Some(router) = routers.get_mut(router) {
                router.handle_deadline(io, transport, at);
            }
        }
        io.black_box.clear();
        io.sockets.drop_strangers(io.now);
        for (_, router) in routers.iter_mut() {
            router.handle_audio_levels(io);
        }
    }

    /// Says goodbye to every peer, and to the controller. While there is one, another worker goes
    /// on with what is recorded.
    fn close(&mut self, is_followed: bool) {
        let Worker { routers, io, .. } = &mut self.worker;
        for (_, router) in routers.iter_mut() {
            if !(is_followed && router.is_recorded()) {
                router.close(io);
            }
        }
        io.sockets.flush();
        self.say_goodbye();
    }
}

/// How many descriptors are ready; none after a signal.
fn ready(slept: nix::Result<usize>) -> io::Result<usize> {
    match slept {
        Err(Errno::EINTR) => Ok(0),
        slept => Ok(slept?),
    }
}

/// Whether a socket failed because the other end is gone.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
