//! What faults did to the rooms, and its summary.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::Fault;

/// What became of the rooms after each fault.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of the faults.
    pub outcomes: Vec<Outcome>,
}

/// What one fault did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done.
    pub fault: Fault,
    /// To the worker in this place.
    pub worker_idx: usize,
    /// When.
    pub at: Instant,
    /// The rooms in it then.
    pub rooms: Vec<RoomFate>,
}

/// What a fault did to one room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomFate {
    /// The room's id.
    pub room: u32,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Another worker goes on with it.
    Recovered {
        /// From the death of its worker, as soon as that was noticed.
        gap: Duration,
        /// From the fault.
        back: Duration,
    },
    /// Another worker goes on with it, as planned.
    Moved {
        /// From the request to let go of it.
        gap: Duration,
        /// From the beginning of the plan for all rooms.
        back: Duration,
    },
    /// Its worker did not die.
    Unaffected,
    /// No worker goes on with it, ten seconds after the death.
    NotRecovered,
    /// It was closed over that; the text says why.
    Closed(String),
}

/// A summary for one room or all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Faults in its worker.
    pub faults: usize,
    /// Times it went on in another worker.
    pub recovered: usize,
    /// Times it was moved, as planned.
    pub moved: usize,
    /// Times it did not within ten seconds.
    pub not_recovered: usize,
    /// Times it was closed.
    pub closed: usize,
    /// From the death of its worker, as soon as that was noticed, or from the request to let go of
    /// it, to the next going on with it.
    pub gap: Spread,
    /// The same from the fault.
    pub back: Spread,
}

/// How durations are spread; all are zero if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// So many at least take no longer: half of them.
    pub p50: Duration,
    /// 95 in a hundred.
    pub p95: Duration,
    /// All of them.
    pub max: Duration,
}

impl Spread {
    /// Of durations in any order (nearest rank).
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |percent: usize| {
            let rank = (durations.len() * percent).div_ceil(100).max(1);
            durations.get(rank - 1).copied().unwrap_or_default()
        };
        Self {
            p50: at(50),
            p95: at(95),
            max: at(100),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (p50, p95, max) = (ms(self.p50), ms(self.p95), ms(self.max));
        write!(f, "p50 {p50:.1} ms, p95 {p95:.1} ms, max {max:.1} ms")
    }
}

impl Report {
    /// Of all rooms together.
    pub fn total(&self) -> Summary {
        let fates = self.outcomes.iter().flat_map(|outcome| &outcome.rooms);
        summary(fates.map(|room| &room.fate))
    }

    /// Of each room, by id.
    pub fn rooms(&self) -> BTreeMap<u32, Summary> {
        let mut fates: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for RoomFate { room, fate } in self.outcomes.iter().flat_map(|outcome| &outcome.rooms) {
            fates.entry(*room).or_default().push(fate);
        }
        let summaries = fates.into_iter();
        summaries
            .map(|(room, fates)| (room, summary(fates)))
            .collect()
    }

    /// Whether no room was lost.
    pub fn is_clean(&self) -> bool {
        let total = self.total();
        total.closed + total.not_recovered == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults: {}", self.outcomes.len())?;
        for (room, summary) in self.rooms() {
            writeln!(f, "room {room}: {summary}")?;
        }
        write!(f, "all rooms: {}", self.total())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            faults,
            recovered,
            moved,
            not_recovered,
            closed,
            gap,
            back,
        } = self;
        write!(f, "recovered {recovered} of {faults}, ")?;
        if *moved > 0 {
            write!(f, "moved {moved}, ")?;
        }
        write!(f, "gap {gap}; from the fault: {back}")?;
        if not_recovered + closed > 0 {
            write!(f, "; NOT recovered {not_recovered}, CLOSED {closed}")?;
        }
        Ok(())
    }
}

fn summary<'f>(fates: impl IntoIterator<Item = &'f Fate>) -> Summary {
    let mut summary = Summary::default();
    let (mut gaps, mut backs) = (Vec::new(), Vec::new());
    for fate in fates {
        summary.faults += 1;
        match fate {
            Fate::Recovered { gap, back } => {
                summary.recovered += 1;
                gaps.push(*gap);
                backs.push(*back);
            }
            Fate::Moved { gap, back } => {
                summary.moved += 1;
                gaps.push(*gap);
                backs.push(*back);
            }
            Fate::Unaffected => {}
            Fate::NotRecovered => summary.not_recovered += 1,
            Fate::Closed(_) => summary.closed += 1,
        }
    }
    summary.gap = Spread::of(gaps);
    summary.back = Spread::of(backs);
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let rows: [(Vec<u64>, [u64; 3]); 5] = [
            (vec![], [0, 0, 0]),
            (vec![7], [7, 7, 7]),
            (vec![2, 1], [1, 2, 2]),
            ((1..=100).rev().collect(), [50, 95, 100]),
            ((1..=20).collect(), [10, 19, 20]),
        ];
        for (durations, [p50, p95, max]) in rows {
            let spread = Spread::of(durations.into_iter().map(ms).collect());
            assert_eq!(
                [spread.p50, spread.p95, spread.max],
                [p50, p95, max].map(ms)
            );
        }
    }

    fn outcome(fates: &[(u32, Fate)]) -> Outcome {
        let fates = fates.iter().cloned();
        Outcome {
            fault: Fault::Kill,
            worker_idx: 0,
            at: Instant::now(),
            rooms: fates.map(|(room, fate)| RoomFate { room, fate }).collect(),
        }
    }

    fn recovered(gap: u64) -> Fate {
        Fate::Recovered {
            gap: ms(gap),
            back: ms(gap + 1),
        }
    }

    #[test]
    fn rooms_are_told_apart_and_summed_up() {
        let mut report = Report {
            outcomes: vec![
                outcome(&[(1, recovered(3)), (2, recovered(5))]),
                outcome(&[(1, recovered(4)), (2, Fate::Unaffected)]),
            ],
        };
        assert!(report.is_clean());
        let text = "faults: 2\n\
            room 1: recovered 2 of 2, gap p50 3.0 ms, p95 4.0 ms, max 4.0 ms; from the fault: \
            p50 4.0 ms, p95 5.0 ms, max 5.0 ms\n\
            room 2: recovered 1 of 2, gap p50 5.0 ms, p95 5.0 ms, max 5.0 ms; from the fault: \
            p50 6.0 ms, p95 6.0 ms, max 6.0 ms\n\
            all rooms: recovered 3 of 4, gap p50 4.0 ms, p95 5.0 ms, max 5.0 ms; from the fault: \
            p50 5.0 ms, p95 6.0 ms, max 6.0 ms";
        assert_eq!(report.to_string(), text);
        for fate in [Fate::NotRecovered, Fate::Closed("why".into())] {
            report.outcomes.push(outcome(&[(2, fate)]));
            assert!(!report.is_clean());
        }
        let moved = Fate::Moved {
            gap: ms(2),
            back: ms(9),
        };
        report.outcomes.push(outcome(&[(3, moved)]));
        let rooms = report.rooms();
        assert!(
            rooms[&3]
                .to_string()
                .starts_with("recovered 0 of 1, moved 1, gap p50 2.0 ms,"),
            "{}",
            rooms[&3]
        );
        let total = report.total().to_string();
        assert!(total.ends_with("; NOT recovered 1, CLOSED 1"), "{total}");
    }
}
