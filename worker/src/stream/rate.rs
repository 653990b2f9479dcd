//! Bytes per second over the last second.

use std::time::Instant;

const WINDOWS: usize = 10;
const WINDOW_MS: u64 = 100;

/// Ten windows of 100 ms.
#[derive(Clone, Debug, Default)]
pub struct RateMeter {
    windows: [u32; WINDOWS],
    start: Option<Instant>,
    newest: u64,
}

impl RateMeter {
    /// Counts bytes.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        let window = self.window(now);
        if self.start.is_none() {
            self.start = Some(now);
        }
        for passed in self.newest + 1..=window.min(self.newest + WINDOWS as u64) {
            self.windows[passed as usize % WINDOWS] = 0;
        }
        self.newest = self.newest.max(window);
        let count = &mut self.windows[self.newest as usize % WINDOWS];
        *count = count.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Bits in the last 1000 ms.
    pub fn bps(&self, now: Instant) -> u64 {
        let window = self.window(now);
        let oldest = (window + 1).saturating_sub(WINDOWS as u64);
        (oldest..=self.newest)
            .map(|passed| u64::from(self.windows[passed as usize % WINDOWS]) * 8)
            .sum()
    }

    fn window(&self, now: Instant) -> u64 {
        self.start.map_or(0, |start| {
            now.duration_since(start).as_millis() as u64 / WINDOW_MS
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_the_last_second_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = RateMeter::default();
        assert_eq!(meter.bps(at(0)), 0);
        for ms in (0..2000).step_by(10) {
            meter.add(at(ms), 125);
        }
        assert_eq!(meter.bps(at(1999)), 100_000);
        assert_eq!(meter.bps(at(2499)), 50_000);
        assert_eq!(meter.bps(at(3000)), 0);
        meter.add(at(60_000), 125);
        assert_eq!(meter.bps(at(60_050)), 1000);
    }
}
