//! The servers that are compared, all alike to whoever measures them.

mod controlled;
mod limit;
mod unrecorded;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use broth_client::client::Client;
use broth_worker::srtp::Profile;

use self::controlled::Controlled;
use self::limit::Limit;
use self::unrecorded::Unrecorded;
use crate::args::{Args, Which};
use crate::plan::Plan;
use crate::process::{pin, rss_bytes};
use crate::receive::{Hall, Role, Seat};
use crate::source::Source;

/// A server with its clients.
pub(crate) struct Server<'h> {
    pub(crate) which: Which,
    /// The traffic, with as many viewers as there are now.
    pub(crate) plan: Plan,
    pub(crate) pid: u32,
    source: Mutex<Source>,
    /// What a consumer with its share of a transport added to its memory.
    pub(crate) rss_per_consumer: f64,
    viewers: Vec<Member>,
    senders: Vec<Seat>,
    hall: &'h Hall,
    // Behind its clients, so that it ends after them.
    backend: Backend,
    guests: AtomicU32,
}

/// A viewer.
pub(crate) struct Member {
    seat: Seat,
    room: u32,
    name: String,
    client: Arc<Client>,
}

enum Backend {
    Limit(Limit),
    Controlled(Controlled),
    Unrecorded(Unrecorded),
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    /// Packets that it sent.
    pub(crate) packets: u64,
    /// System calls for that.
    pub(crate) calls: u64,
    /// Packets that it dropped.
    pub(crate) dropped: u64,
    /// Longest turn of its loop since it last spoke, in microseconds.
    pub(crate) turn_us_max: u64,
}

impl<'h> Server<'h> {
    /// Starts a server on its CPU and connects everybody.
    pub(crate) fn start(
        which: Which,
        args: &Args,
        plan: &Plan,
        profile: Option<Profile>,
        hall: &'h Hall,
    ) -> Result<Self> {
        let original = args.original.as_deref();
        let backend = match which {
            Which::Limit => Backend::Limit(Limit::start(profile)?),
            Which::Broth => Backend::Controlled(Controlled::start(plan, profile, None)?),
            Which::Original => Backend::Controlled(Controlled::start(plan, profile, original)?),
            Which::Unrecorded => Backend::Unrecorded(Unrecorded::start(plan, profile, args.cpu)?),
        };
        let pid = backend.pid()?;
        pin(pid, args.cpu)?;
        let mut clients = Vec::new();
        let mut senders = Vec::new();
        for sender in 0..plan.senders() {
            let client = Arc::new(backend.connect_sender(plan, sender)?);
            senders.push(hall.admit(Arc::clone(&client), Role::Sender)?);
            clients.push(client);
        }
        let mut server = Self {
            which,
            plan: Plan {
                consumers: 0,
                ..plan.clone()
            },
            pid,
            source: Mutex::new(Source::new(clients, hall.clock)?),
            rss_per_consumer: 0.0,
            viewers: Vec::new(),
            senders,
            hall,
            backend,
            guests: AtomicU32::new(0),
        };
        let before = rss_bytes(pid)?;
        server.set_consumers(plan.consumers)?;
        let grown = rss_bytes(pid)?.saturating_sub(before);
        server.rss_per_consumer = grown as f64 / f64::from(server.plan.streams());
        Ok(server)
    }

    /// Lets viewers join or leave until every room has so many.
    pub(crate) fn set_consumers(&mut self, consumers: u32) -> Result<()> {
        self.plan.consumers = consumers;
        let wanted = self.plan.viewers() as usize;
        while self.viewers.len() > wanted
            && let Some(member) = self.viewers.pop()
        {
            self.dismiss(&member)?;
        }
        for viewer in self.viewers.len() as u32..self.plan.viewers() {
            let room = self.plan.room_of_viewer(viewer);
            let name = match self.plan.is_mesh {
                true => peer_name(viewer),
                false => format!("viewer {viewer}"),
            };
            let member = self.admit(room, name, Some(viewer), Role::Viewer)?;
            self.viewers.push(member);
        }
        Ok(())
    }

    /// Lets the producers send for a while; returns how many packets they sent.
    pub(crate) fn send(&self, rate: u32, length: Duration) -> Result<u64> {
        let mut source = self.source.lock().expect("no panic holds the lock");
        source.send(&self.plan, rate, length)
    }

    /// Whether viewers may come and go while packets flow.
    pub(crate) fn has_guests(&self) -> bool {
        // Nobody ever joins a loop that does nothing but forward.
        self.which != Which::Limit
    }

    /// Lets a viewer join for a while.
    pub(crate) fn admit_guest(&self) -> Result<Member> {
        let number = self.guests.fetch_add(1, Ordering::Relaxed);
        let room = number % self.plan.rooms;
        self.admit(room, format!("guest {number}"), None, Role::Guest)
    }

    /// Lets a viewer leave.
    pub(crate) fn dismiss(&self, member: &Member) -> Result<()> {
        self.hall.dismiss(member.seat)?;
        match &self.backend {
            Backend::Limit(limit) => limit.disconnect(&member.client),
            Backend::Unrecorded(worker) => worker.disconnect(member.room, &member.client),
            Backend::Controlled(server) => {
                server.disconnect(&member.name);
                Ok(())
            }
        }
    }

    /// What it has to say; `None` if it says nothing.
    pub(crate) fn ask(&self) -> Result<Option<Said>> {
        let load = match &self.backend {
            Backend::Limit(limit) => {
                let counters = limit.counters()?;
                return Ok(Some(Said {
                    packets: counters.packets,
                    calls: counters.calls,
                    dropped: counters.refused,
                    turn_us_max: counters.turn_us_max,
                }));
            }
            Backend::Controlled(server) => server.load(),
            Backend::Unrecorded(worker) => Some(worker.load()?),
        };
        Ok(load.map(|load| Said {
            packets: load.datagrams_sent,
            calls: load.send_calls,
            dropped: load.drops.values().sum(),
            turn_us_max: load.loop_us_max,
        }))
    }

    /// Where its viewers sit.
    pub(crate) fn seats(&self) -> Vec<Seat> {
        self.viewers.iter().map(|member| member.seat).collect()
    }

    fn admit(&self, room: u32, name: String, viewer: Option<u32>, role: Role) -> Result<Member> {
        let senders = self.plan.seen_by(room, viewer);
        let client = match &self.backend {
            Backend::Limit(limit) => limit.connect_viewer(senders)?,
            Backend::Controlled(server) => server.connect_viewer(room, &name)?,
            Backend::Unrecorded(worker) => worker.connect_viewer(room, senders)?,
        };
        let client = Arc::new(client);
        Ok(Member {
            seat: self.hall.admit(Arc::clone(&client), role)?,
            room,
            name,
            client,
        })
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let viewers = self.viewers.iter().map(|member| member.seat);
        for seat in viewers.chain(self.senders.iter().copied()) {
            // A descriptor that is not watched any more is what is wanted.
            let _ = self.hall.dismiss(seat);
        }
    }
}

impl Backend {
    fn pid(&self) -> Result<u32> {
        match self {
            Self::Limit(limit) => Ok(limit.pid()),
            Self::Controlled(server) => server.pid(),
            Self::Unrecorded(worker) => Ok(worker.pid()),
        }
    }

    fn connect_sender(&self, plan: &Plan, sender: u32) -> Result<Client> {
        let room = plan.room_of_sender(sender);
        match self {
            Self::Limit(limit) => limit.connect_sender(),
            Self::Controlled(server) => server.connect_sender(room, &peer_name(sender), sender),
            Self::Unrecorded(worker) => worker.connect_sender(room, sender),
        }
    }
}

/// The name of who sends.
fn peer_name(sender: u32) -> String {
    format!("peer {sender}")
}
