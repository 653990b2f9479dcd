//! What must be as before: after the faults what this process holds, and after all the same as
//! before anything.

use std::time::{Duration, Instant};

use anyhow::Result;
use broth::Server;

use super::leftovers::{Held, rss_bytes};

/// How long standbys may take to be ready, and what is held to stay the same.
const PATIENCE: Duration = Duration::from_secs(20);
const STILL_TIME: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Takes down what is held.
#[derive(Debug)]
pub(super) struct Verification {
    before_all: Held,
    before_faults: Held,
    after_faults: Held,
    rss_before: u64,
    rss_after: u64,
}

/// What was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    /// Before and after the faults, with all rooms and clients.
    pub(super) around_faults: [Held; 2],
    /// Before the start and after the end of the server.
    pub(super) around_all: [Held; 2],
    /// Memory of this process, before and after the faults: controller, clients, and what is
    /// remembered for the report.
    pub(super) rss_bytes: [u64; 2],
}

impl Verification {
    /// Before anything is started.
    pub(super) fn begin() -> Result<Self> {
        Ok(Self {
            before_all: Held::now()?,
            before_faults: Held::default(),
            after_faults: Held::default(),
            rss_before: 0,
            rss_after: 0,
        })
    }

    /// When everything flows.
    pub(super) async fn before_faults(&mut self, server: &Server) -> Result<()> {
        standbys_are_ready(server).await;
        self.before_faults = still().await?;
        // Until there were faults.
        self.after_faults = self.before_faults;
        self.rss_before = rss_bytes()?;
        self.rss_after = self.rss_before;
        Ok(())
    }

    /// When everything flows again.
    pub(super) async fn after_faults(&mut self, server: &Server) -> Result<()> {
        standbys_are_ready(server).await;
        self.after_faults = Held::like(self.before_faults).await?;
        self.rss_after = rss_bytes()?;
        Ok(())
    }

    /// When the server is closed.
    pub(super) async fn end(self) -> Result<Verified> {
        let after_all = Held::like(self.before_all).await?;
        Ok(Verified {
            around_faults: [self.before_faults, self.after_faults],
            around_all: [self.before_all, after_all],
            rss_bytes: [self.rss_before, self.rss_after],
        })
    }
}

impl Verified {
    /// What was left over.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (when, [before, after]) in [
            ("after the faults", self.around_faults),
            ("after the end", self.around_all),
        ] {
            if before != after {
                complaints.push(format!("{when} there are {after}; before, {before}"));
            }
        }
        complaints
    }
}

/// Waits, in vain if it must be, until each worker has the standby it is to have.
async fn standbys_are_ready(server: &Server) {
    let until = Instant::now() + PATIENCE;
    let is_ready = || {
        let workers = server.workers();
        let ready = workers.iter().filter(|worker| worker.standby_pid.is_some());
        // Without standbys there is nothing to wait for.
        let ready = ready.count();
        ready == workers.len()
    };
    while !is_ready() && Instant::now() < until {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What is held once that does not change for a while.
async fn still() -> Result<Held> {
    let until = Instant::now() + PATIENCE;
    let (mut held, mut since) = (Held::now()?, Instant::now());
    while since.elapsed() < STILL_TIME && Instant::now() < until {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = Held::now()?;
        if now != held {
            (held, since) = (now, Instant::now());
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_is_told() {
        let held = Held {
            sockets: 3,
            ..Held::default()
        };
        let more = Held {
            memfds: 1,
            children: 2,
            ..held
        };
        let verified = |around_faults, around_all| Verified {
            around_faults,
            around_all,
            rss_bytes: [1, 2],
        };
        assert!(verified([held; 2], [held; 2]).complaints().is_empty());
        let complaints = verified([held, more], [held, more]).complaints();
        assert_eq!(complaints.len(), 2);
        assert!(
            complaints[0].starts_with("after the faults there are 3 sockets, 1 memfds"),
            "{complaints:?}"
        );
        assert!(complaints[1].ends_with("0 other descriptors, 0 children"));
    }
}
