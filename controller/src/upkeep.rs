//! What a server does to its workers by itself: it replaces the old and the big ones and moves
//! rooms from the busy to the idle, if the settings say so.

mod balance;
mod recycling;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::lock;
use crate::server::Server;
use crate::supervisor::worker::Worker;

use balance::{Balancer, PlaceLoad, Relocation};

/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long it waits after a replacement that failed.
const RETRY_TIME: Duration = Duration::from_secs(60);

/// Looks after a server's workers, until it is aborted.
pub(crate) async fn run(server: Server) {
    let mut balancer = server.settings().rebalance.map(Balancer::new);
    let mut meter = Meter::default();
    let mut not_before = Instant::now();
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if Instant::now() >= not_before && !recycle(&server).await {
            not_before = Instant::now() + RETRY_TIME;
        }
        if let Some(balancer) = &mut balancer {
            rebalance(&server, balancer, &mut meter).await;
        }
    }
}

/// Replaces one worker if that is due; returns whether nothing failed.
async fn recycle(server: &Server) -> bool {
    let settings = server.settings().recycle;
    let due = server.alive().into_iter().find_map(|worker| {
        let rss_bytes = lock(&worker.load).rss_bytes;
        let reason = recycling::reason(settings, rss_bytes, worker.ready_at.elapsed())?;
        worker.restores().then_some((worker, reason))
    });
    let Some((worker, reason)) = due else {
        return true;
    };
    tracing::info!(worker = worker.id, pid = worker.pid, reason, "is replaced");
    let replaced = server.replace_worker(worker.idx).await;
    if let Err(error) = &replaced {
        tracing::error!(worker = worker.id, %error, "not replaced");
    }
    replaced.is_ok()
}

async fn rebalance(server: &Server, balancer: &mut Balancer, meter: &mut Meter) {
    let mut alive = server.alive();
    alive.retain(|worker| worker.restores());
    let Some(Relocation { room, from, to }) = balancer.look(&meter.measure(&alive)) else {
        return;
    };
    let rooms = server.rooms();
    let is_it = |other: &&crate::Room| other.router_id() == room && other.worker_idx() == from;
    // It may have closed a moment ago.
    let Some(room) = rooms.iter().find(is_it) else {
        return;
    };
    tracing::info!(
        room = room.id(),
        from,
        to,
        "moves to a worker that has less to do"
    );
    if let Err(error) = room.move_to(to).await {
        tracing::warn!(room = room.id(), %error, "not moved");
    }
}

/// CPU times seen last, by process id.
#[derive(Default)]
struct Meter(HashMap<u32, (Instant, u64)>);

impl Meter {
    /// What workers cost since the last time. Those that are new are left out.
    fn measure(&mut self, workers: &[std::sync::Arc<Worker>]) -> Vec<PlaceLoad> {
        let now = Instant::now();
        let mut seen = HashMap::new();
        let measured = workers.iter().filter_map(|worker| {
            let cpu_ms = {
                let load = lock(&worker.load);
                load.cpu_user_ms + load.cpu_system_ms
            };
            seen.insert(worker.pid, (now, cpu_ms));
            let (then, before_ms) = self.0.get(&worker.pid)?;
            let took_ms = now.duration_since(*then).as_secs_f64() * 1000.0;
            let rooms = worker.rooms.list();
            Some(PlaceLoad {
                idx: worker.idx,
                cpu: cpu_ms.saturating_sub(*before_ms) as f64 / took_ms.max(1.0),
                rooms: rooms
                    .iter()
                    .map(|room| (room.router_id(), room.weight()))
                    .collect(),
            })
        });
        let measured = measured.collect();
        self.0 = seen;
        measured
    }
}
