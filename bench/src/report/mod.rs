//! What a run says in the end: text for people, JSON for programs, a plot.

mod json;
mod plot;
mod text;

use std::time::Duration;

use crate::args::{Protection, Which};
use crate::plan::Plan;
use crate::process::load_average;
use crate::stats::median;
use crate::window::Outcome;

pub(crate) use self::json::write_json;
pub(crate) use self::plot::write_plot;
pub(crate) use self::text::{print_most, print_section};

/// All windows of one shape and protection.
pub(crate) struct Section {
    pub(crate) plan: Plan,
    pub(crate) protection: Protection,
    pub(crate) window: Duration,
    /// The machine's load average when it began.
    pub(crate) load_average: String,
    /// Why servers are not there.
    pub(crate) left_out: Vec<String>,
    /// The servers, and what a consumer added to the memory of each, in bytes.
    pub(crate) servers: Vec<(Which, f64)>,
    pub(crate) windows: Vec<Window>,
}

/// One window of one server.
pub(crate) struct Window {
    pub(crate) which: Which,
    pub(crate) is_coalescing: bool,
    pub(crate) outcome: Outcome,
}

/// What a server could carry.
pub(crate) struct Carried {
    pub(crate) which: Which,
    pub(crate) is_coalescing: bool,
    pub(crate) viewers: u32,
    /// Whether it could be more.
    pub(crate) is_open: bool,
}

/// A server's windows with one kind of receivers, as medians.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) which: Which,
    pub(crate) rate: f64,
    pub(crate) ns: f64,
    pub(crate) calib_units: f64,
    /// Times the calib units of the limit, and of the original.
    pub(crate) to_limit: Option<f64>,
    pub(crate) to_original: Option<f64>,
    pub(crate) share: f64,
    /// Of all windows together.
    pub(crate) loss: f64,
    /// p50, p99 and p99.9.
    pub(crate) latency_ms: [f64; 3],
    pub(crate) rss_per_consumer: f64,
    pub(crate) turn_ms_max: Option<f64>,
    pub(crate) packets_per_call: Option<f64>,
}

impl Section {
    pub(crate) fn new(
        plan: &Plan,
        protection: Protection,
        window: Duration,
        left_out: Vec<String>,
    ) -> Self {
        Self {
            plan: plan.clone(),
            protection,
            window,
            load_average: load_average(),
            left_out,
            servers: Vec::new(),
            windows: Vec::new(),
        }
    }

    /// The servers side by side, with one kind of receivers.
    pub(crate) fn rows(&self, is_coalescing: bool) -> Vec<Row> {
        let servers = self.servers.iter();
        let rows = servers.filter_map(|(which, rss)| {
            let is_one =
                |window: &&Window| window.which == *which && window.is_coalescing == is_coalescing;
            let own: Vec<_> = self.windows.iter().filter(is_one).collect();
            let outcomes: Vec<_> = own.iter().map(|window| &window.outcome).collect();
            row(*which, *rss, &outcomes)
        });
        compare(rows.collect())
    }
}

fn row(which: Which, rss_per_consumer: f64, outcomes: &[&Outcome]) -> Option<Row> {
    let middle = |of: &dyn Fn(&Outcome) -> f64| median(outcomes.iter().map(|outcome| of(outcome)));
    let arrived: u64 = outcomes.iter().map(|outcome| outcome.counts.viewers).sum();
    let expected: u64 = outcomes.iter().map(|outcome| outcome.expected).sum();
    let said = || outcomes.iter().filter_map(|outcome| outcome.said);
    let per_call = said().filter(|said| said.calls > 0);
    Some(Row {
        which,
        rate: middle(&|outcome| f64::from(outcome.rate))?,
        ns: middle(&Outcome::ns_per_packet)?,
        calib_units: middle(&Outcome::calib_units)?,
        to_limit: None,
        to_original: None,
        share: middle(&|outcome| outcome.share)?,
        loss: expected.saturating_sub(arrived) as f64 / expected.max(1) as f64,
        latency_ms: [
            middle(&|outcome| outcome.latency_ms(500))?,
            middle(&|outcome| outcome.latency_ms(990))?,
            middle(&|outcome| outcome.latency_ms(999))?,
        ],
        rss_per_consumer,
        turn_ms_max: median(said().map(|said| said.turn_us_max as f64 / 1e3)),
        packets_per_call: median(per_call.map(|said| said.packets as f64 / said.calls as f64)),
    })
}

/// Adds how many times as much as the limit and the original each one costs.
fn compare(mut rows: Vec<Row>) -> Vec<Row> {
    let cost_of = |wanted: Which| {
        let row = rows.iter().find(|row| row.which == wanted)?;
        Some(row.calib_units).filter(|cost| *cost > 0.0)
    };
    let (limit, original) = (cost_of(Which::Limit), cost_of(Which::Original));
    for row in &mut rows {
        row.to_limit = limit.map(|limit| row.calib_units / limit);
        row.to_original = original.map(|original| row.calib_units / original);
    }
    rows
}

/// What receivers of one kind are called.
fn receivers(is_coalescing: bool) -> &'static str {
    match is_coalescing {
        true => "UDP_GRO receivers",
        false => "plain receivers",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use crate::process::CpuTime;
    use crate::receive::Counts;
    use clap::Parser;

    fn outcome(cpu_ms: u64, arrived: u64) -> Outcome {
        Outcome {
            rate: 300,
            cpu: CpuTime {
                all: Duration::from_millis(cpu_ms),
                ..CpuTime::default()
            },
            share: 0.5,
            softirq_share: None,
            calib_ns: 1000.0,
            expected: 1000,
            counts: Counts {
                viewers: arrived,
                ..Counts::default()
            },
            dropped_by_load: 0,
            said: None,
            latencies_us: vec![100, 200, 3000],
        }
    }

    /// A section with windows of these CPU times and arrivals.
    pub(super) fn section(windows: &[(Which, bool, u64, u64)]) -> Section {
        let plan = "1x50".parse().unwrap();
        let protection = Args::parse_from(["bench"]).protections()[0];
        let mut section = Section::new(&plan, protection, Duration::from_secs(5), Vec::new());
        for &(which, is_coalescing, cpu_ms, arrived) in windows {
            if section.servers.iter().all(|(other, _)| *other != which) {
                section.servers.push((which, 1024.0));
            }
            section.windows.push(Window {
                which,
                is_coalescing,
                outcome: outcome(cpu_ms, arrived),
            });
        }
        section
    }

    #[test]
    fn servers_are_compared_by_their_medians() {
        let section = section(&[
            (Which::Limit, true, 1, 1000),
            (Which::Broth, true, 1, 500),
            (Which::Broth, true, 8, 1000),
            (Which::Broth, true, 3, 1000),
            (Which::Original, true, 12, 1000),
            (Which::Broth, false, 99, 1000),
        ]);
        let rows = section.rows(true);
        let ratios: Vec<_> = rows
            .iter()
            .map(|row| (row.calib_units, row.to_limit, row.to_original))
            .collect();
        let expected = [
            (1.0, Some(1.0), Some(1.0 / 12.0)),
            (3.0, Some(3.0), Some(0.25)),
            (12.0, Some(12.0), Some(1.0)),
        ];
        assert_eq!(ratios, expected);
        assert!((rows[1].loss - 0.5 / 3.0).abs() < 1e-9);
        assert_eq!(rows[1].latency_ms, [0.2, 3.0, 3.0]);
        let plain = section.rows(false);
        assert_eq!((plain.len(), plain[0].to_limit), (1, None));
    }
}
