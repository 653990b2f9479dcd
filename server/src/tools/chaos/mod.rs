//! `broth chaos`: a server with rooms full of native clients, faults in its workers on a
//! schedule, and what people in the rooms would have noticed of it.

mod ledger;
mod leftovers;
mod measure;
mod member;
mod options;
mod report;
mod rooms;
mod text;
mod traffic;
mod verify;
mod wire;

use std::cell::RefCell;
use std::io::Write;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use broth::chaos::{Fate, Outcome, Run};
use broth::{Room, Server};
use tokio::time::{sleep, sleep_until, timeout};

use crate::asked_to_stop;
use measure::Window;
use options::Load;
use report::{Hit, HitRoom, Losses, Report};
use traffic::{Marked, Traffic};
use verify::Verification;

pub(crate) use options::Chaos;

/// How long streams may take to begin, and to go on after their room does.
const FLOW_TIME: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How long it is calm before the first fault, for comparison.
const CALM_TIME: Duration = Duration::from_secs(3);
/// How long retransmissions may take in the end.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// Between two words on how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(60);

type Stop<'s> = Pin<&'s mut dyn Future<Output = &'static str>>;

/// Carries the plan out and reports; Ctrl-C ends it with the report so far.
pub(crate) async fn run(chaos: Chaos) -> Result<()> {
    let load = chaos.load()?;
    let mut stop = pin!(asked_to_stop()?);
    crate::raise_descriptor_limit();
    let verification = chaos.verify.then(Verification::begin).transpose()?;
    let server = Server::new(chaos.settings())
        .await
        .context("cannot start")?;
    let carried_out = carry_out(&chaos, load, &server, verification, stop.as_mut()).await;
    server.close().await;
    let (mut report, verification) = carried_out?;
    if let Some(verification) = verification {
        report.verified = Some(verification.end().await?);
    }
    let text = match chaos.json {
        true => format!("{:#}\n", report.to_json()),
        false => text::write(&report),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    let complaints = report.complaints();
    ensure!(complaints.is_empty(), "{}", complaints.join("; "));
    Ok(())
}

/// Makes the rooms, does what is planned, and ends the clients.
async fn carry_out(
    chaos: &Chaos,
    load: Load,
    server: &Server,
    mut verification: Option<Verification>,
    stop: Stop<'_>,
) -> Result<(Report, Option<Verification>)> {
    let traffic = Traffic::start(load, chaos.verify)?;
    let mut rig = Rig {
        load,
        window: chaos.window(),
        server,
        traffic,
        rooms: Vec::new(),
        report: Report::new(load, chaos.window()),
    };
    let done = rig.carry_out(chaos, &mut verification, stop).await;
    if done.is_ok() {
        // What is missing may still come.
        sleep(SETTLE_TIME).await;
    }
    if let Some(verification) = &mut verification
        && done.is_ok()
    {
        verification.after_faults(server).await?;
    }
    let totals = rig.traffic.finish().await;
    // Why the clients ended says more than that they have.
    let totals = totals?;
    rig.report.is_interrupted = done?;
    rig.report.take(totals);
    Ok((rig.report, verification))
}

/// A server full of rooms, and what is measured there.
struct Rig<'s> {
    load: Load,
    window: Duration,
    server: &'s Server,
    traffic: Traffic,
    rooms: Vec<Room>,
    report: Report,
}

impl Rig<'_> {
    /// Whether it was interrupted.
    async fn carry_out(
        &mut self,
        chaos: &Chaos,
        verification: &mut Option<Verification>,
        mut stop: Stop<'_>,
    ) -> Result<bool> {
        tokio::select! {
            reason = &mut stop => bail!("stopped by {reason} before the first fault"),
            made = self.begin() => made?,
        }
        if let Some(verification) = verification {
            verification.before_faults(self.server).await?;
        }
        tracing::info!("everything flows");
        if self.stay_calm(stop.as_mut()).await? {
            return Ok(true);
        }
        let mut run = chaos.plan().start(self.server)?;
        let mut told = Instant::now();
        loop {
            let Some(next) = self.next(&mut run, stop.as_mut()).await? else {
                return Ok(true);
            };
            let Some(hit) = next else {
                return Ok(false);
            };
            self.report.hits.push(hit);
            if told.elapsed() > PROGRESS_INTERVAL {
                told = Instant::now();
                let (done, of) = (self.report.hits.len(), chaos.plan().count);
                tracing::info!("{done} of {of} faults");
            }
        }
    }

    /// Makes the rooms and waits until everything flows.
    async fn begin(&mut self) -> Result<()> {
        self.rooms = rooms::make(self.server, self.load, &self.traffic).await?;
        let streams = 0..self.load.rooms * self.load.streams();
        let flowing = async {
            while !self.traffic.flows(streams.clone(), 0) {
                sleep(LOOK_INTERVAL).await;
            }
        };
        let flows = timeout(FLOW_TIME, flowing).await;
        flows.context("not every stream arrives, without any fault")
    }

    /// Measures without faults; whether it was interrupted.
    async fn stay_calm(&mut self, mut stop: Stop<'_>) -> Result<bool> {
        self.traffic.orders.mark(Instant::now()).window().await?;
        let until = Instant::now() + CALM_TIME;
        while Instant::now() < until {
            tokio::select! {
                _ = &mut stop => return Ok(true),
                () = sleep(self.window) => {}
            }
            let window = self.traffic.orders.mark(Instant::now()).window().await?;
            self.take_calm(&window);
        }
        Ok(false)
    }

    fn take_calm(&mut self, window: &Window) {
        let gap = |room| window.gap(self.load.streams_of(room));
        let gaps = (0..self.load.rooms).map(|room| (room, gap(room)));
        self.report.calm.extend(gaps);
    }

    /// Carries out the next fault of the plan, with windows before it in which nothing happens,
    /// and one from it on. `None` if it was interrupted, `Some(None)` after the last fault.
    async fn next(&mut self, run: &mut Run, mut stop: Stop<'_>) -> Result<Option<Option<Hit>>> {
        // The window before the fault, which it cuts short.
        let cut: RefCell<Option<(Instant, Marked)>> = RefCell::default();
        let mut calm_until = Instant::now() + self.window;
        let outcome = {
            let orders = self.traffic.orders.clone();
            let mut next = pin!(run.next_with(|_, at| {
                cut.replace(Some((at, orders.mark(at))));
            }));
            loop {
                tokio::select! {
                    biased;
                    _ = &mut stop => return Ok(None),
                    outcome = &mut next => break outcome?.cloned(),
                    () = sleep_until(calm_until.into()), if cut.borrow().is_none() => {
                        let now = Instant::now();
                        let window = self.traffic.orders.mark(now).window().await?;
                        self.take_calm(&window);
                        calm_until = now + self.window;
                    }
                }
            }
        };
        let Some(outcome) = outcome else {
            return Ok(Some(None));
        };
        let (at, cut) = cut.into_inner().context("a fault at no time")?;
        cut.window().await?;
        self.wait_for_flow(&outcome).await;
        sleep_until((at + self.window).into()).await;
        let window = self.traffic.orders.mark(Instant::now()).window().await?;
        Ok(Some(Some(self.hit(&outcome, &window))))
    }

    /// Waits until everything flows that goes on, or does not.
    async fn wait_for_flow(&self, outcome: &Outcome) {
        let resumed: Vec<_> = (0..self.load.rooms)
            .filter_map(|room| Some((room, self.lost_at(outcome, room)?)))
            .collect();
        let flows = |&(room, since): &(usize, _)| {
            let streams = self.load.streams_of(room);
            self.traffic.flows(streams, since)
        };
        let flowing = async {
            while !resumed.iter().all(flows) {
                sleep(LOOK_INTERVAL).await;
            }
        };
        // Who does not is found in the window.
        let _ = timeout(FLOW_TIME, flowing).await;
    }

    /// When the worker of a room that goes on was known to be dead: what arrives later comes
    /// from the next one.
    fn lost_at(&self, outcome: &Outcome, room: usize) -> Option<measure::Micros> {
        match self.fate(outcome, room)? {
            Fate::Recovered { gap, back } | Fate::Moved { gap, back } => {
                let lost_at = outcome.at + back.saturating_sub(*gap);
                Some(self.traffic.micros(lost_at))
            }
            Fate::Unaffected | Fate::NotRecovered | Fate::Closed(_) => None,
        }
    }

    fn fate<'o>(&self, outcome: &'o Outcome, room: usize) -> Option<&'o Fate> {
        let id = self.rooms.get(room)?.id();
        let mut fates = outcome.rooms.iter();
        fates.find(|fate| fate.room == id).map(|fate| &fate.fate)
    }

    /// What a fault did.
    fn hit(&self, outcome: &Outcome, window: &Window) -> Hit {
        let at = self.traffic.micros(outcome.at);
        let hit_room = |room| {
            let streams = self.load.streams_of(room);
            let lost_at = self.lost_at(outcome, room);
            let flows_at = lost_at.and_then(|lost_at| window.flows(streams.clone(), lost_at));
            let after = |flows_at: u64| Duration::from_micros(flows_at.saturating_sub(at));
            Some(HitRoom {
                room,
                fate: self.fate(outcome, room)?.clone(),
                media_gap: window.gap(streams),
                flows_after: flows_at.map(after),
                key_frames: window.key_frames(room),
                lost: Losses::default(),
            })
        };
        Hit {
            fault: outcome.fault,
            from: window.from,
            to: window.to,
            rooms: (0..self.load.rooms).filter_map(hit_room).collect(),
        }
    }
}
