//! Asks a worker again and again how it is: that tells its load, and whether it stands still.

use std::time::Duration;

use broth_ipc::body::{Empty, Load};
use broth_ipc::{Call, Ids};
use tokio::time::{Instant, sleep, timeout};

use super::process::Usage;
use super::worker::{Worker, WorkerKind};
use crate::error::Result;
use crate::lock;
use crate::worker_channel::Requests;

/// How often a worker is asked.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(250);

/// So many answers in a row that take longer are no accident.
const MISSES: u32 = 3;

/// So many times a worker is spared where it or its controller gets no CPU: 5 s at least.
const STARVED_MAX: u32 = 20;

/// When [`PATIENCE`] ends so much too late, the controller was itself held up: the answer may be
/// there, unread.
const LATE: Duration = Duration::from_millis(100);

/// CPU time within [`PATIENCE`] from which on a worker that gives no answer is taken to spin.
const SPINNING: Duration = Duration::from_millis(50);

/// Returns when the worker stands still: stopped, or spinning. That takes 750 to 950 ms. Returns
/// whether it only got no CPU.
///
/// It takes longer where the machine has no CPU for a worker that wants to answer: killing that one
/// would only make it worse.
///
/// One that does not restore takes its rooms along, so it is given the time of any other request.
pub(crate) async fn watch(worker: &Worker) -> bool {
    if worker.kind == WorkerKind::V2 {
        return std::future::pending().await;
    }
    let may_die = worker.kind == WorkerKind::Broth { restores: true };
    let (mut misses, mut starved) = (0, 0);
    while (misses < MISSES && starved < STARVED_MAX) || !may_die {
        let answers = worker.channel.answers();
        let (before, asked_at) = (Usage::of(worker.pid), Instant::now());
        match timeout(PATIENCE, ask(worker)).await {
            Ok(Ok(load)) => {
                *lock(&worker.load) = load;
                (misses, starved) = (0, 0);
                sleep(INTERVAL).await;
            }
            // A channel that is closed tells its end elsewhere.
            Ok(Err(error)) => {
                tracing::debug!(worker = worker.id, %error, "no load");
                sleep(INTERVAL).await;
            }
            // It is at work on what it was asked before, as when it takes over many rooms.
            Err(_) if worker.channel.answers() != answers => (misses, starved) = (0, 0),
            Err(_) if is_spared(asked_at.elapsed(), before, Usage::of(worker.pid)) => starved += 1,
            Err(_) => misses += 1,
        }
    }
    misses < MISSES
}

/// Whether no answer in the time `waited` says nothing about the worker: it could have run and
/// hardly did, or its controller was held up. One that is stopped is never spared.
fn is_spared(waited: Duration, before: Option<Usage>, after: Option<Usage>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return false;
    };
    match after.state {
        'T' | 't' => false,
        _ if waited >= PATIENCE + LATE => true,
        state => state == 'R' && after.cpu.saturating_sub(before.cpu) < SPINNING,
    }
}

async fn ask(worker: &Worker) -> Result<Load> {
    let call = Call::GetLoad(Empty::default());
    crate::parsed(worker.channel.request(Ids::NONE, call, vec![]).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_had_no_chance_to_answer_is_spared() {
        let usage = |state, ms| {
            Some(Usage {
                state,
                cpu: Duration::from_millis(ms),
            })
        };
        let in_time = PATIENCE + LATE - Duration::from_millis(1);
        let late = PATIENCE + LATE;
        let rows = [
            (PATIENCE, usage('S', 100), usage('R', 100), true),
            (PATIENCE, usage('R', 100), usage('R', 140), true),
            (PATIENCE, usage('R', 100), usage('R', 150), false),
            (PATIENCE, usage('S', 100), usage('T', 100), false),
            (PATIENCE, usage('S', 100), usage('S', 100), false),
            (PATIENCE, usage('S', 100), usage('D', 100), false),
            (PATIENCE, None, usage('R', 100), false),
            (PATIENCE, usage('R', 100), None, false),
            (in_time, usage('S', 100), usage('S', 100), false),
            (late, usage('S', 100), usage('S', 100), true),
            (late, usage('R', 100), usage('R', 450), true),
            (late, usage('S', 100), usage('T', 100), false),
            (late, None, usage('S', 100), false),
        ];
        for (waited, before, after, expected) in rows {
            let is_it = is_spared(waited, before, after);
            assert_eq!(is_it, expected, "{waited:?} {before:?} {after:?}");
        }
    }
}
