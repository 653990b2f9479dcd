//! All clients of all rooms in one thread: sends what is due, receives what comes, repeats and
//! asks for what is missing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver as Commands, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use broth_client::stamped::Receiver;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::oneshot;

use super::measure::{Micros, Window};
use super::member::{Common, Lost, Member};
use super::options::Load;
use super::wire::{Checks, Wire};

/// What tells an event of the commands from those of the clients.
const COMMANDS: u64 = u64::MAX;
/// Sockets looked at before time is.
const EVENTS_MAX: usize = 128;
/// Between two rounds of asking for what is missing.
const ASK_INTERVAL: Micros = 5_000;
/// Between two connectivity checks of a client.
const CHECK_INTERVAL: Micros = 5_000_000;
/// Frames that are overdue by more than this are left out.
const LATE_MAX: Micros = 100_000;
/// Spreads the clients' frames over time: no two rooms in step.
const PHASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// What the thread is asked to do.
enum Command {
    Join(Box<Member>),
    Mark(Instant, oneshot::Sender<Window>),
    Finish,
}

/// What came of everything.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Packets that never came.
    pub(super) lost: Vec<Lost>,
    pub(super) checks: Checks,
}

/// The thread, seen from outside.
pub(super) struct Traffic {
    pub(super) orders: Orders,
    latest: Arc<[AtomicU64]>,
    epoch: Instant,
    thread: JoinHandle<Result<Totals>>,
}

impl Traffic {
    /// Starts the thread, without clients.
    pub(super) fn start(load: Load, is_verifying: bool) -> Result<Self> {
        let (commands, orders) = mpsc::channel();
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags)?);
        let streams = load.rooms * load.streams();
        let latest: Arc<[_]> = (0..streams).map(|_| AtomicU64::new(0)).collect();
        let epoch = Instant::now();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, COMMANDS))?;
        let running = Running {
            load,
            epoch,
            epoll,
            orders,
            wake: Arc::clone(&wake),
            latest: Arc::clone(&latest),
            members: Vec::new(),
            due: BinaryHeap::new(),
            wire: Wire::new(is_verifying),
            window: Window::new(load.rooms, load.streams()),
        };
        let thread = thread::Builder::new()
            .name("clients".into())
            .spawn(|| running.run())?;
        Ok(Self {
            orders: Orders { commands, wake },
            latest,
            epoch,
            thread,
        })
    }

    /// Lets a connected client take part.
    pub(super) fn join(&self, member: Member) {
        self.orders.send(Command::Join(Box::new(member)));
    }

    /// Whether each of the streams got something since an instant.
    pub(super) fn flows(&self, mut streams: std::ops::Range<usize>, since: Micros) -> bool {
        streams.all(|stream| self.latest[stream].load(Ordering::Relaxed) >= since.max(1))
    }

    /// An instant in the measuring's time.
    pub(super) fn micros(&self, at: Instant) -> Micros {
        micros(at.saturating_duration_since(self.epoch))
    }

    /// Ends all clients without a word.
    ///
    /// # Errors
    /// A socket had failed.
    pub(super) async fn finish(self) -> Result<Totals> {
        self.orders.send(Command::Finish);
        let thread = self.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.map_err(|_| anyhow!("the clients' thread panicked"))?
    }
}

/// What the thread is told by.
#[derive(Clone)]
pub(super) struct Orders {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

impl Orders {
    /// Ends the window that goes on at an instant, and begins the next there.
    pub(super) fn mark(&self, at: Instant) -> Marked {
        let (reply, window) = oneshot::channel();
        self.send(Command::Mark(at, reply));
        Marked(window)
    }

    fn send(&self, command: Command) {
        // Without a receiver the thread has ended, which its result tells.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

/// A window that is about to be handed over.
pub(super) struct Marked(oneshot::Receiver<Window>);

impl Marked {
    /// The window.
    ///
    /// # Errors
    /// The clients have ended; [`Traffic::finish`] tells why.
    pub(super) async fn window(self) -> Result<Window> {
        self.0.await.context("the clients have ended")
    }
}

/// The thread, from inside.
struct Running {
    load: Load,
    epoch: Instant,
    epoll: Epoll,
    orders: Commands<Command>,
    wake: Arc<EventFd>,
    latest: Arc<[AtomicU64]>,
    members: Vec<Member>,
    due: BinaryHeap<Reverse<(Micros, Due)>>,
    wire: Wire,
    window: Window,
}

/// What is to be done, by a member or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Frame { member: usize, track: usize },
    Check { member: usize },
    Ask,
}

impl Running {
    fn run(mut self) -> Result<Totals> {
        let mut receiver = Receiver::default();
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        self.due.push(Reverse((0, Due::Ask)));
        loop {
            self.do_due()?;
            let ready = match self.epoll.wait(&mut events, self.patience()) {
                Err(Errno::EINTR) => 0,
                ready => ready?,
            };
            let unix = SystemTime::UNIX_EPOCH.elapsed()?;
            let begun = unix.saturating_sub(self.epoch.elapsed());
            for event in &events[..ready] {
                if event.data() == COMMANDS {
                    let _ = self.wake.read();
                    if !self.obey()? {
                        return Ok(self.end());
                    }
                } else {
                    self.receive(event.data() as usize, begun, &mut receiver)?;
                }
            }
        }
    }

    /// How long nothing is due.
    fn patience(&self) -> EpollTimeout {
        let now = micros(self.epoch.elapsed());
        let next = self.due.peek().map_or(now, |Reverse((at, _))| *at);
        // Rounded up: a millisecond late is better than awake all the time.
        let ms = next.saturating_sub(now).div_ceil(1000);
        EpollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
    }

    fn do_due(&mut self) -> Result<()> {
        let begin = Instant::now();
        let now = micros(begin.saturating_duration_since(self.epoch));
        let mut common = Common {
            wire: &mut self.wire,
            window: &mut self.window,
            latest: &self.latest,
        };
        while let Some(&Reverse((at, due))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            let interval = match due {
                Due::Ask => {
                    for member in &mut self.members {
                        member.ask(begin, &mut common)?;
                    }
                    ASK_INTERVAL
                }
                Due::Check { member } => {
                    self.members[member].peer.keep_alive()?;
                    CHECK_INTERVAL
                }
                Due::Frame { member, track } => {
                    self.members[member].send_frame(track, &mut common)?;
                    micros(self.load.intervals[track])
                }
            };
            let next = (at + interval).max(now.saturating_sub(LATE_MAX));
            self.due.push(Reverse((next, due)));
        }
        Ok(())
    }

    /// Does what it was asked for; whether it goes on.
    fn obey(&mut self) -> Result<bool> {
        while let Ok(command) = self.orders.try_recv() {
            match command {
                Command::Join(member) => self.join(*member)?,
                Command::Mark(at, reply) => {
                    let at = micros(at.saturating_duration_since(self.epoch));
                    // Nobody may want it any more.
                    let _ = reply.send(self.window.end(at));
                }
                Command::Finish => return Ok(false),
            }
        }
        Ok(true)
    }

    fn join(&mut self, mut member: Member) -> Result<()> {
        let number = self.members.len();
        member.number = number;
        Receiver::prepare(&member.peer.socket)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        self.epoll.add(member.peer.socket.as_fd(), event)?;
        let now = micros(self.epoch.elapsed());
        let phase = |interval: Micros| now + (number as u64).wrapping_mul(PHASE) % interval;
        for track in 0..member.sends.len() {
            let at = phase(micros(self.load.intervals[track]));
            let due = Due::Frame {
                member: number,
                track,
            };
            self.due.push(Reverse((at, due)));
        }
        let at = phase(CHECK_INTERVAL);
        self.due.push(Reverse((at, Due::Check { member: number })));
        self.members.push(member);
        Ok(())
    }

    /// Receives one datagram; more of them make another event.
    fn receive(&mut self, member: usize, begun: Duration, receiver: &mut Receiver) -> Result<()> {
        let mut common = Common {
            wire: &mut self.wire,
            window: &mut self.window,
            latest: &self.latest,
        };
        // Its socket is of the member, so is its datagram's buffer not.
        let member = &mut self.members[member];
        let Some(stamped) = receiver.recv(&member.peer.socket)? else {
            return Ok(());
        };
        if let Some(dropped) = stamped.dropped {
            member.note_dropped(dropped, &mut common);
        }
        let now = Instant::now();
        let read = micros(now.saturating_duration_since(self.epoch));
        let stamp = stamped.at.map(|at| micros(at.saturating_sub(begun)));
        let at = stamp.map_or(read, |at| at.min(read));
        member.receive(now, at, stamped.datagram, &mut common)
    }

    fn end(self) -> Totals {
        let received = self.members.into_iter().flat_map(|member| member.receives);
        Totals {
            lost: received.flat_map(|received| received.into_lost()).collect(),
            checks: self.wire.checks,
        }
    }
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
