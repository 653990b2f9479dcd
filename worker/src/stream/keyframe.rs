//! When to ask a sender for a key frame: not more than once a second, and until it comes.

use std::time::{Duration, Instant};

/// Between two requests.
const INTERVAL: Duration = Duration::from_secs(1);
/// A request is repeated so many times while no key frame comes.
const REPEATS_MAX: u8 = 10;

/// The requests of one stream.
#[derive(Debug, Default)]
pub struct KeyFrameLimiter {
    asked_at: Option<Instant>,
    /// A key frame is wanted that has not come.
    is_wanted: bool,
    /// It was wanted again after the last request left.
    is_wanted_again: bool,
    repeats: u8,
}

impl KeyFrameLimiter {
    /// Somebody needs a key frame. `true`: ask now; else it will be asked for in time.
    /// `is_forced` skips the interval.
    pub fn request(&mut self, now: Instant, is_forced: bool) -> bool {
        self.repeats = 0;
        let is_early = self.asked_at.is_some_and(|at| now < at + INTERVAL);
        if is_early && !is_forced {
            self.is_wanted = true;
            self.is_wanted_again = true;
            return false;
        }
        self.ask(now);
        true
    }

    /// A key frame came that had left its sender at `left_by`: whoever asked has it, if the request
    /// was made before. One that was repaired late may be older, and is no answer.
    ///
    /// A request that came after ours was sent may be for a receiver that joined after this
    /// key frame was encoded; it stays.
    pub fn handle_keyframe(&mut self, left_by: Instant) {
        if self.asked_at.is_some_and(|at| left_by < at) {
            return;
        }
        self.is_wanted = self.is_wanted_again;
        self.is_wanted_again = false;
    }

    /// Nothing came since the first request: the next key frame is for everybody who asked.
    pub fn merge_requests(&mut self) {
        self.is_wanted_again = false;
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asked_at = self.asked_at?;
        (self.is_wanted && self.repeats < REPEATS_MAX).then(|| asked_at + INTERVAL)
    }

    /// Whether to ask now.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return false;
        }
        self.repeats += 1;
        self.ask(now);
        true
    }

    fn ask(&mut self, now: Instant) {
        self.asked_at = Some(now);
        self.is_wanted = true;
        self.is_wanted_again = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `(ms, what)` and returns when requests left, up to `end_ms`.
    fn play(script: &[(u64, &str)], end_ms: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut limiter = KeyFrameLimiter::default();
        let mut asked = Vec::new();
        for ms in 0..=end_ms {
            let now = start + Duration::from_millis(ms);
            if limiter.handle_timeout(now) {
                asked.push(ms);
            }
            for (_, what) in script.iter().filter(|(at, _)| *at == ms) {
                let is_sent = match *what {
                    "want" => limiter.request(now, false),
                    "force" => limiter.request(now, true),
                    "merge" => {
                        limiter.merge_requests();
                        false
                    }
                    "key" => {
                        limiter.handle_keyframe(now);
                        false
                    }
                    "old key" => {
                        limiter.handle_keyframe(now - Duration::from_millis(200));
                        false
                    }
                    other => panic!("{other}"),
                };
                if is_sent {
                    asked.push(ms);
                }
            }
        }
        asked
    }

    #[test]
    fn requests_are_coalesced_and_never_lost() {
        type Row<'a> = (&'a [(u64, &'a str)], &'a [u64]);
        let rows: &[Row<'_>] = &[
            (&[], &[]),
            (&[(0, "want"), (50, "key")], &[0]),
            (
                &[
                    (0, "want"),
                    (10, "want"),
                    (20, "want"),
                    (50, "key"),
                    (1050, "key"),
                ],
                &[0, 1000],
            ),
            (
                &[(0, "want"), (50, "key"), (60, "want"), (1050, "key")],
                &[0, 1000],
            ),
            (&[(0, "want"), (10, "force"), (50, "key")], &[0, 10]),
            (&[(0, "want"), (1, "want"), (2, "merge"), (50, "key")], &[0]),
            (
                &[
                    (0, "want"),
                    (1, "want"),
                    (2, "merge"),
                    (3, "want"),
                    (50, "key"),
                ],
                &[0, 1000, 2000, 3000],
            ),
            (&[(2, "merge")], &[]),
            (
                &[(0, "want"), (50, "key"), (1500, "want"), (1550, "key")],
                &[0, 1500],
            ),
            (&[(0, "want"), (2500, "key")], &[0, 1000, 2000]),
            (
                &[(500, "want"), (550, "old key"), (1600, "key")],
                &[500, 1500],
            ),
        ];
        for (script, expected) in rows {
            assert_eq!(&play(script, 3000), expected, "{script:?}");
        }
    }

    #[test]
    fn a_sender_that_never_answers_is_left_alone_in_the_end() {
        let asked = play(&[(0, "want")], 60_000);
        assert_eq!(asked.len(), 1 + usize::from(REPEATS_MAX));
    }
}
