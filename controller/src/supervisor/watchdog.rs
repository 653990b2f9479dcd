//! Asks a worker again and again how it is: that tells its load, and whether it stands still.

use std::time::Duration;

use broth_ipc::body::{Empty, Load};
use broth_ipc::{Call, Ids};
use tokio::time::{sleep, timeout};

use super::worker::{Worker, WorkerKind};
use crate::error::Result;
use crate::lock;
use crate::worker_channel::Requests;

/// How often a worker is asked.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(250);

/// So many answers in a row that take longer are no accident, nor a controller that was itself
/// held up.
const MISSES: u32 = 3;

/// Returns when the worker stands still: stopped, or spinning. That takes 750 to 950 ms.
///
/// One that does not restore takes its rooms along, so it is given the time of any other request.
pub(crate) async fn watch(worker: &Worker) {
    if worker.kind == WorkerKind::V2 {
        return std::future::pending().await;
    }
    let may_die = worker.kind == WorkerKind::Broth { restores: true };
    let mut misses = 0;
    while misses < MISSES || !may_die {
        let answers = worker.channel.answers();
        match timeout(PATIENCE, ask(worker)).await {
            Ok(Ok(load)) => {
                *lock(&worker.load) = load;
                misses = 0;
                sleep(INTERVAL).await;
            }
            // A channel that is closed tells its end elsewhere.
            Ok(Err(error)) => {
                tracing::debug!(worker = worker.id, %error, "no load");
                sleep(INTERVAL).await;
            }
            // It is at work on what it was asked before, as when it takes over many rooms.
            Err(_) if worker.channel.answers() != answers => misses = 0,
            Err(_) => misses += 1,
        }
    }
}

async fn ask(worker: &Worker) -> Result<Load> {
    let call = Call::GetLoad(Empty::default());
    crate::parsed(worker.channel.request(Ids::NONE, call, vec![]).await?)
}
