//! Whether and when a dead worker is started again. Pure: deaths in, decisions out.

use std::time::Duration;

/// A worker's exit status for settings that will not get better by trying again.
const EXIT_BAD_SETTINGS: i32 = 2;

/// Longest wait before another try.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

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
    is_ready: bool,
    deaths_unready: u32,
}

impl Policy {
    /// The worker said that it is ready.
    pub(crate) fn handle_ready(&mut self) {
        self.is_ready = true;
        self.deaths_unready = 0;
    }

    /// The worker is gone; `code` is `None` if a signal ended it or it never started.
    pub(crate) fn handle_death(&mut self, code: Option<i32>) -> Decision {
        if code == Some(EXIT_BAD_SETTINGS) {
            return Decision::GiveUp;
        }
        if std::mem::take(&mut self.is_ready) {
            return Decision::Spawn(Duration::ZERO);
        }
        let seconds = 1.5f64.powi(self.deaths_unready.min(16) as i32);
        self.deaths_unready += 1;
        Decision::Spawn(Duration::from_secs_f64(seconds).min(BACKOFF_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Step {
        Ready,
        Died(Option<i32>, Decision),
    }
    use Decision::{GiveUp, Spawn};
    use Step::{Died, Ready};

    fn ms(ms: u64) -> Decision {
        Spawn(Duration::from_millis(ms))
    }

    #[test]
    fn decisions() {
        let killed = None;
        let rows: &[(&str, &[Step])] = &[
            (
                "a worker that served is replaced at once, however often",
                &[
                    Ready,
                    Died(killed, ms(0)),
                    Ready,
                    Died(Some(1), ms(0)),
                    Ready,
                    Died(Some(0), ms(0)),
                ],
            ),
            (
                "deaths before ready wait longer and longer",
                &[
                    Died(Some(1), ms(1000)),
                    Died(killed, ms(1500)),
                    Died(Some(1), ms(2250)),
                ],
            ),
            (
                "being ready once starts the waits anew",
                &[
                    Died(killed, ms(1000)),
                    Died(killed, ms(1500)),
                    Ready,
                    Died(killed, ms(0)),
                    Died(killed, ms(1000)),
                ],
            ),
            ("bad settings are not tried again", &[Died(Some(2), GiveUp)]),
            (
                "not even if they were good before",
                &[Ready, Died(Some(2), GiveUp)],
            ),
        ];
        for (name, steps) in rows {
            let mut policy = Policy::default();
            for step in *steps {
                match step {
                    Ready => policy.handle_ready(),
                    Died(code, expected) => {
                        assert_eq!(policy.handle_death(*code), *expected, "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_wait_is_capped() {
        let mut policy = Policy::default();
        for _ in 0..100 {
            policy.handle_death(None);
        }
        assert_eq!(policy.handle_death(None), Spawn(BACKOFF_MAX));
    }
}
