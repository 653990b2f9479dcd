//! Something done again and again until the object it is about closes.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::lock;

/// The shortest and usual interval (`spec: protocol.md` §4).
const INTERVAL_MS_MIN: u64 = 1000;

/// At most one repeated action.
#[derive(Debug, Default)]
pub(crate) struct Periodic(Mutex<Option<AbortHandle>>);

impl Periodic {
    /// Does `action` now and every `interval_ms` until it says `false`; nothing new if it is being
    /// done already.
    pub(crate) fn enable<F>(&self, interval_ms: u64, action: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = bool> + Send,
    {
        let mut task = lock(&self.0);
        if task.is_some() {
            return;
        }
        let period = Duration::from_millis(interval_ms.max(INTERVAL_MS_MIN));
        let repeated = async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if !action().await {
                    return;
                }
            }
        };
        *task = Some(tokio::spawn(repeated).abort_handle());
    }

    /// Stops it.
    pub(crate) fn disable(&self) {
        if let Some(task) = lock(&self.0).take() {
            task.abort();
        }
    }
}

impl Drop for Periodic {
    fn drop(&mut self) {
        self.disable();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_acts_at_once_then_at_the_interval_and_stops() {
        let count = Arc::new(AtomicU32::new(0));
        let periodic = Periodic::default();
        for interval_ms in [1, 5000] {
            let count = Arc::clone(&count);
            periodic.enable(interval_ms, move || {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::ready(true)
            });
        }
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(count.load(Ordering::Relaxed), 3);
        periodic.disable();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interval_of_any_length_is_kept() {
        for (interval_ms, expected) in [(0, 11), (1000, 11), (3000, 4), (u64::MAX, 1)] {
            let count = Arc::new(AtomicU32::new(0));
            let counted = Arc::clone(&count);
            let periodic = Periodic::default();
            periodic.enable(interval_ms, move || {
                counted.fetch_add(1, Ordering::Relaxed);
                std::future::ready(true)
            });
            tokio::time::sleep(Duration::from_millis(10_500)).await;
            assert_eq!(count.load(Ordering::Relaxed), expected, "{interval_ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_action_says_so() {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let periodic = Periodic::default();
        periodic.enable(1000, move || {
            std::future::ready(counted.fetch_add(1, Ordering::Relaxed) < 1)
        });
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
