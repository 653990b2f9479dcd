//! Whether and when a dead worker is started again. Pure: deaths in, decisions out.

use std::time::Duration;

/// A worker's exit status for settings that will not get better by trying again.
const EXIT_BAD_SETTINGS: i32 = 2;

/// Longest wait before another try.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A worker that served so long was a good one: what came before is forgotten.
const SETTLED: Duration = Duration::from_secs(10);

/// So many young workers in a row are replaced at once; then it takes longer and longer.
const YOUNG_DEATHS_FREE: u32 = 10;

/// What to do about a dead worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Start another one after this time.
    Spawn(Duration),
    /// Leave its place empty.
    GiveUp,
}

/// The history of one worker's place.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// In a row: never became ready.
    unready: u32,
    /// In a row: became ready and died before they were settled.
    young: u32,
}

impl Policy {
    /// The worker is gone, having served for `served`, or never having been ready. `code` is
    /// `None` if a signal ended it or it never started.
    pub(crate) fn handle_death(&mut self, code: Option<i32>, served: Option<Duration>) -> Decision {
        if code == Some(EXIT_BAD_SETTINGS) {
            return Decision::GiveUp;
        }
        let Some(served) = served else {
            self.unready += 1;
            return Decision::Spawn(backoff(self.unready));
        };
        self.unready = 0;
        if served >= SETTLED {
            self.young = 0;
        }
        self.young += 1;
        Decision::Spawn(match self.young.checked_sub(YOUNG_DEATHS_FREE) {
            None | Some(0) => Duration::ZERO,
            Some(beyond) => backoff(beyond),
        })
    }
}

/// The wait after the `nth` death, from 1.
fn backoff(nth: u32) -> Duration {
    let seconds = 1.5f64.powi((nth - 1).min(16) as i32);
    Duration::from_secs_f64(seconds).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{GiveUp, Spawn};

    const KILLED: Option<i32> = None;
    const NEVER_READY: Option<Duration> = None;

    fn served(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    fn ms(ms: u64) -> Decision {
        Spawn(Duration::from_millis(ms))
    }

    #[test]
    fn decisions() {
        type Death = (Option<i32>, Option<Duration>, Decision);
        let rows: [(&str, &[Death]); 5] = [
            (
                "a worker that served is replaced at once",
                &[
                    (KILLED, served(60), ms(0)),
                    (Some(1), served(60), ms(0)),
                    (Some(0), served(60), ms(0)),
                ],
            ),
            (
                "deaths before ready wait longer and longer",
                &[
                    (Some(1), NEVER_READY, ms(1000)),
                    (KILLED, NEVER_READY, ms(1500)),
                    (Some(1), NEVER_READY, ms(2250)),
                ],
            ),
            (
                "being ready once starts the waits anew",
                &[
                    (KILLED, NEVER_READY, ms(1000)),
                    (KILLED, NEVER_READY, ms(1500)),
                    (KILLED, served(0), ms(0)),
                    (KILLED, NEVER_READY, ms(1000)),
                ],
            ),
            (
                "bad settings are not tried again",
                &[(Some(2), NEVER_READY, GiveUp)],
            ),
            (
                "not even if they were good before",
                &[(Some(2), served(60), GiveUp)],
            ),
        ];
        for (name, deaths) in rows {
            let mut policy = Policy::default();
            for (code, served, expected) in deaths {
                assert_eq!(policy.handle_death(*code, *served), *expected, "{name}");
            }
        }
    }

    #[test]
    fn workers_that_keep_dying_young_are_replaced_more_and_more_slowly() {
        let mut policy = Policy::default();
        for _ in 0..YOUNG_DEATHS_FREE {
            assert_eq!(policy.handle_death(KILLED, served(1)), ms(0));
        }
        assert_eq!(policy.handle_death(KILLED, served(1)), ms(1000));
        assert_eq!(policy.handle_death(KILLED, served(1)), ms(1500));
        assert_eq!(policy.handle_death(KILLED, served(10)), ms(0));
        assert_eq!(policy.handle_death(KILLED, served(1)), ms(0));
    }

    #[test]
    fn the_wait_is_capped() {
        let mut policy = Policy::default();
        for _ in 0..100 {
            policy.handle_death(KILLED, NEVER_READY);
        }
        assert_eq!(policy.handle_death(KILLED, NEVER_READY), Spawn(BACKOFF_MAX));
    }
}
