//! Loudness of a producer between two reports.

/// Mean of the levels since the last report.
#[derive(Clone, Copy, Debug, Default)]
pub struct LevelMeter {
    sum: u64,
    count: u64,
}

impl LevelMeter {
    /// Adds the level of a packet, in -dBov: 0 loudest, 127 silence (RFC 6464).
    pub fn add(&mut self, level: u8) {
        self.sum += u64::from(level & 0x7F);
        self.count += 1;
    }

    /// The mean in dBov, without its fraction, and begins anew; `None` without packets.
    pub fn take(&mut self) -> Option<i8> {
        let Self { sum, count } = std::mem::take(self);
        let mean = sum.checked_div(count)?;
        i8::try_from(mean).ok().map(|level| -level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_cut_off_and_taken_once() {
        for (levels, expected) in [
            (&[][..], None),
            (&[0], Some(0)),
            (&[127, 127], Some(-127)),
            (&[10, 11], Some(-10)),
            (&[255], Some(-127)),
        ] {
            let mut meter = LevelMeter::default();
            levels.iter().for_each(|&level| meter.add(level));
            assert_eq!(meter.take(), expected, "{levels:?}");
            assert_eq!(meter.take(), None);
        }
    }

    #[test]
    fn a_producer_nobody_asks_about_for_weeks_keeps_its_mean() {
        let mut meter = LevelMeter {
            sum: 127 * 33_818_640,
            count: 33_818_640,
        };
        meter.add(127);
        assert_eq!(meter.take(), Some(-127));
    }
}
