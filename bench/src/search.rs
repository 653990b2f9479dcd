//! Searches: for the rate at which a server uses a share of its core, and for the most viewers
//! that it can carry. What is tried next is pure.

/// Trials of a rate.
pub(crate) const RATE_TRIALS: u32 = 6;
/// A trial that loses more than this share of its packets has failed.
const LOSS_MAX: f64 = 0.001;
/// So has one whose p99 is not below, in milliseconds.
const P99_MS_MAX: f64 = 20.0;
/// The first number of viewers that is tried.
const VIEWERS_FIRST: u32 = 50;
/// More viewers are not tried.
const VIEWERS_MAX: u32 = 5000;
/// The search ends when the best success and the least failure are so near to each other.
const NEAR: f64 = 1.08;

/// The rate to try after one at which the server used `share` of its core.
pub(crate) fn next_rate(rate: u32, share: f64, wanted: f64) -> u32 {
    // A busier worker spends less on each packet: the factor is a guess, to be repeated.
    let factor = (wanted / share.max(0.001)).clamp(0.25, 3.0);
    (f64::from(rate) * factor).max(1.0) as u32
}

/// Whether a trial succeeded.
pub(crate) fn carries(loss: f64, p99_ms: f64) -> bool {
    loss < LOSS_MAX && p99_ms < P99_MS_MAX
}

/// A search for the most viewers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Most {
    /// The most that was carried; 0 if none was.
    pub(crate) carried: u32,
    failed: Option<u32>,
}

impl Most {
    /// The next number to try; `None` when it is known well enough.
    pub(crate) fn next(&self) -> Option<u32> {
        match (self.carried, self.failed) {
            (0, None) => Some(VIEWERS_FIRST),
            (carried, None) => Some((carried * 2).min(VIEWERS_MAX)).filter(|n| *n > carried),
            (carried, Some(failed)) => {
                let is_near = f64::from(failed) <= f64::from(carried) * NEAR;
                Some((carried + failed) / 2).filter(|n| *n > carried && !is_near)
            }
        }
    }

    /// Takes the outcome of a trial.
    pub(crate) fn tried(&mut self, viewers: u32, is_carried: bool) {
        match is_carried {
            true => self.carried = viewers,
            false => self.failed = Some(viewers),
        }
    }

    /// Whether it could have been more than was tried.
    pub(crate) fn is_open(&self) -> bool {
        self.failed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_the_load() {
        let rows = [
            (300, 0.05, 0.5, 900),
            (300, 0.25, 0.5, 600),
            (300, 1.0, 0.5, 150),
            (300, 0.0, 0.5, 900),
            (1, 1.0, 0.01, 1),
        ];
        for (rate, share, wanted, expected) in rows {
            assert_eq!(next_rate(rate, share, wanted), expected, "{rate} {share}");
        }
    }

    #[test]
    fn the_most_is_found_from_both_sides() {
        for limit in [0, 3, 49, 50, 137, 1000, 4999] {
            let mut most = Most::default();
            let mut trials = 0;
            while let Some(viewers) = most.next() {
                most.tried(viewers, viewers <= limit);
                trials += 1;
                assert!(trials < 20, "{limit}");
            }
            let carried = f64::from(most.carried);
            let limit = f64::from(limit);
            assert!(carried <= limit && limit < carried * NEAR + 1.0, "{most:?}");
            assert!(!most.is_open());
        }
    }

    #[test]
    fn a_search_without_failure_stays_open() {
        let mut most = Most::default();
        while let Some(viewers) = most.next() {
            most.tried(viewers, true);
        }
        assert_eq!(most.carried, VIEWERS_MAX);
        assert!(most.is_open());
    }
}
