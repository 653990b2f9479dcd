//! Faults on a schedule, and what becomes of the rooms.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, sleep_until, timeout_at};

use super::Fault;
use super::report::{Fate, Outcome, Report, RoomFate};
use crate::error::{Error, Result};
use crate::events::EventStream;
use crate::room::{CloseReason, Room, RoomEvent};
use crate::server::Server;

/// How long rooms may take to go on.
const RECOVERY_TIME: Duration = Duration::from_secs(10);

/// How long a fault that need not be deadly may take to be, once it is over: what the watchdog
/// takes.
const DEATH_TIME: Duration = Duration::from_secs(1);

/// How long a place may be empty when the next fault is due, and between two looks.
const EMPTY_TIME: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Which of the faults comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// One after the other, and again from the first.
    #[default]
    InTurn,
    /// Any of them.
    Random,
}

/// Faults on a schedule. The same plan does the same, as far as it is in its hands.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is done.
    pub faults: Vec<Fault>,
    /// In which order.
    pub order: Order,
    /// How many times something is done.
    pub count: usize,
    /// From one fault to the next, give or take a third. The next one waits until all rooms go on.
    pub every: Duration,
    /// Of the dice: moments, workers, and faults in random order.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            faults: vec![Fault::Kill],
            order: Order::InTurn,
            count: 20,
            every: Duration::from_secs(3),
            seed: 1,
        }
    }
}

impl Plan {
    /// Carries it out to the end.
    ///
    /// # Errors
    /// There is no fault in it, or one cannot be injected (see [`Server::inject`]).
    pub async fn run(self, server: &Server) -> Result<Report> {
        let mut run = self.start(server)?;
        while run.next().await?.is_some() {}
        Ok(run.into_report())
    }

    /// Begins; [`Run::next`] carries it out step by step.
    ///
    /// # Errors
    /// There is no fault in it.
    pub fn start(self, server: &Server) -> Result<Run> {
        if self.faults.is_empty() {
            return Err(Error::Settings("a plan without faults: name some".into()));
        }
        Ok(Run {
            server: server.clone(),
            dice: StdRng::seed_from_u64(self.seed),
            due: Instant::now(),
            report: Report::default(),
            plan: self,
        })
    }
}

/// A plan that is being carried out.
#[derive(Debug)]
pub struct Run {
    server: Server,
    plan: Plan,
    dice: StdRng,
    due: Instant,
    report: Report,
}

impl Run {
    /// Waits until the next fault is due, injects it, and waits until every room of that worker
    /// goes on; `None` after the last.
    ///
    /// # Errors
    /// The fault cannot be injected.
    pub async fn next(&mut self) -> Result<Option<&Outcome>> {
        self.next_with(|_, _| {}).await
    }

    /// The same; `injected` is told what is done, right before that, and when.
    ///
    /// # Errors
    /// As there.
    pub async fn next_with(
        &mut self,
        injected: impl FnOnce(Fault, Instant),
    ) -> Result<Option<&Outcome>> {
        let number = self.report.outcomes.len();
        if number >= self.plan.count {
            return Ok(None);
        }
        self.due += self
            .plan
            .every
            .mul_f64(self.dice.random_range(0.667..1.333));
        sleep_until(self.due.into()).await;
        let faults = &self.plan.faults;
        let fault = match self.plan.order {
            Order::InTurn => faults[number % faults.len()],
            Order::Random => faults[self.dice.random_range(0..faults.len())],
        };
        let worker_idx = self.dice.random_range(0..self.server.places());
        self.worker_is_there(worker_idx).await?;
        let rooms = self.server.rooms();
        let rooms = rooms.iter().filter(|room| room.worker_idx() == worker_idx);
        let watched: Vec<_> = rooms.map(|room| (room.clone(), room.events())).collect();
        let at = Instant::now();
        injected(fault, at);
        let mut injecting = pin!(self.server.inject(worker_idx, fault));
        let fates = watched.into_iter().map(|(room, events)| async move {
            let fate = follow(&room, events, fault, at).await;
            let room = room.id();
            RoomFate { room, fate }
        });
        let mut fates = pin!(join_all(fates));
        // What is planned takes its time, in which rooms tell how they are.
        let rooms = tokio::select! {
            done = &mut injecting => {
                done?;
                fates.await
            }
            rooms = &mut fates => {
                injecting.await?;
                rooms
            }
        };
        self.due = self.due.max(at);
        self.report.outcomes.push(Outcome {
            fault,
            worker_idx,
            at,
            rooms,
        });
        Ok(self.report.outcomes.last())
    }

    /// What became of the rooms so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What became of the rooms.
    pub fn into_report(self) -> Report {
        self.report
    }

    async fn worker_is_there(&self, idx: usize) -> Result<()> {
        let until = Instant::now() + EMPTY_TIME;
        while !self.server.workers().iter().any(|worker| worker.idx == idx) {
            if self.server.closed() || Instant::now() > until {
                return Err(Error::other(format!("worker {idx} is dead")));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }
}

/// Waits until it is clear what a fault did to a room.
async fn follow(
    room: &Room,
    mut events: EventStream<RoomEvent>,
    fault: Fault,
    at: Instant,
) -> Fate {
    let mut until = at + fault.duration() + DEATH_TIME;
    if fault.is_deadly() || fault.is_planned() {
        until = at + RECOVERY_TIME;
    }
    let mut is_lost = false;
    loop {
        match timeout_at(until.into(), events.recv()).await {
            Err(_) if is_lost => return Fate::NotRecovered,
            Err(_) => return Fate::Unaffected,
            Ok(Some(RoomEvent::Recovered(gap))) => {
                let back = at.elapsed();
                return Fate::Recovered { gap, back };
            }
            Ok(Some(RoomEvent::WorkerDied(_))) => {
                is_lost = true;
                until = Instant::now() + RECOVERY_TIME;
            }
            Ok(Some(RoomEvent::Close { reason, .. })) => {
                return match reason {
                    CloseReason::WorkerDied(reason) | CloseReason::Implicated(reason) => {
                        Fate::Closed(reason)
                    }
                    CloseReason::Application | CloseReason::Server => Fate::Unaffected,
                };
            }
            Ok(Some(RoomEvent::Moved { gap, .. })) => {
                let back = at.elapsed();
                return Fate::Moved { gap, back };
            }
            Ok(Some(RoomEvent::NewPeer(_) | RoomEvent::Implicated { .. })) => {}
            Ok(None) => return Fate::Closed(format!("room {} was closed before", room.id())),
        }
    }
}
