//! Whether a worker is to be replaced because it is big or old. Pure.

use std::time::Duration;

use crate::settings::Recycle;

/// A worker that is big but younger than that is so because of its rooms, and a fresh one with the
/// same rooms would be no smaller.
const BIG_AGE_MIN: Duration = Duration::from_secs(600);

/// Why a worker is to be replaced, if it is.
pub(crate) fn reason(settings: Recycle, rss_bytes: u64, age: Duration) -> Option<&'static str> {
    let is_old = settings.age.is_some_and(|max| age > max);
    let is_big = settings.rss_bytes.is_some_and(|max| rss_bytes > max);
    match (is_old, is_big && age > BIG_AGE_MIN) {
        (true, _) => Some("it is old"),
        (false, true) => Some("it takes much memory"),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_workers_and_big_ones_that_had_time_to_grow_are_replaced() {
        let (old, big) = (Some("it is old"), Some("it takes much memory"));
        let rows = [
            (None, None, u64::MAX, 1_000_000, None),
            (Some(100), None, 101, 601, big),
            (Some(100), None, 101, 600, None),
            (Some(100), None, 100, 601, None),
            (None, Some(60), 0, 60, None),
            (None, Some(60), u64::MAX, 61, old),
            (Some(100), Some(60), 50, 61, old),
            (Some(100), Some(9000), 101, 700, big),
        ];
        for (rss_bytes, age, rss, seconds, expected) in rows {
            let settings = Recycle {
                rss_bytes,
                age: age.map(Duration::from_secs),
            };
            let reason = reason(settings, rss, Duration::from_secs(seconds));
            assert_eq!(reason, expected, "{settings:?} {rss} {seconds}");
        }
    }
}
