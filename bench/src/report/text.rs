//! The report for people.

use std::io::{self, Write};

use super::{Carried, Row, Section, receivers};

/// Prints what was measured.
pub(crate) fn print_section(section: &Section) -> io::Result<()> {
    io::stdout().lock().write_all(describe(section).as_bytes())
}

/// Prints what the servers can carry.
pub(crate) fn print_most(section: &Section, carried: &[Carried]) -> io::Result<()> {
    io::stdout()
        .lock()
        .write_all(describe_most(section, carried).as_bytes())
}

fn heading(section: &Section) -> String {
    let Section {
        plan, protection, ..
    } = section;
    let mut text = format!(
        "{}: {}, {}; load average {}\n",
        plan.name,
        plan.describe(),
        protection.name,
        section.load_average
    );
    for why in &section.left_out {
        text += &format!("  {why}\n");
    }
    text
}

fn describe(section: &Section) -> String {
    let mut text = heading(section);
    for is_coalescing in [false, true] {
        let rows = section.rows(is_coalescing);
        if rows.is_empty() {
            continue;
        }
        text += &format!(
            "  {}, windows of {} s\n",
            receivers(is_coalescing),
            section.window.as_secs()
        );
        text += COLUMNS;
        for row in &rows {
            text += &line(row);
        }
        text += &remarks(section, is_coalescing);
    }
    text += "\n";
    text
}

const COLUMNS: &str = "                      ns/packet  calib  x limit  x orig.   core     rate  \
                       loss %  p50 ms   p99 ms  p99.9 ms  KiB/cons.  turn ms  pkts/call\n";

fn line(row: &Row) -> String {
    let maybe = |value: Option<f64>, digits: usize| match value {
        Some(value) => format!("{value:.digits$}"),
        None => "-".into(),
    };
    let [p50, p99, p999] = row.latency_ms;
    format!(
        "    {:<17} {:>9.0} {:>6.2} {:>8} {:>8} {:>5.1}% {:>8.0} {:>7.3} {p50:>7.2} {p99:>8.2} \
         {p999:>9.2} {:>10.1} {:>8} {:>10}\n",
        row.which.name(),
        row.ns,
        row.calib_units,
        maybe(row.to_limit, 2),
        maybe(row.to_original, 3),
        row.share * 100.0,
        row.rate,
        row.loss * 100.0,
        row.rss_per_consumer / 1024.0,
        maybe(row.turn_ms_max, 2),
        maybe(row.packets_per_call, 1),
    )
}

/// What must be known beside the figures.
fn remarks(section: &Section, is_coalescing: bool) -> String {
    let own = section.windows.iter();
    let own = own.filter(|window| window.is_coalescing == is_coalescing);
    let mut text = String::new();
    for window in own {
        let (name, outcome) = (window.which.name(), &window.outcome);
        let mut remark = |number: u64, what: &str| {
            if number > 0 {
                text += &format!("    {name}: {number} {what}\n");
            }
        };
        remark(outcome.counts.forged, "SAMPLED PACKETS DID NOT OPEN");
        remark(
            outcome.dropped_by_load,
            "packets found no room in the viewers' sockets",
        );
        let dropped = outcome.said.map_or(0, |said| said.dropped);
        remark(dropped, "packets it says it dropped");
    }
    text
}

fn describe_most(section: &Section, carried: &[Carried]) -> String {
    let mut text = heading(section);
    text += "  the most viewers with loss below 0.1 % and p99 below 20 ms\n";
    for of in carried {
        let sign = if of.is_open { ">=" } else { "" };
        text += &format!(
            "    {:<17} {:<18} {:>2}{}\n",
            of.which.name(),
            receivers(of.is_coalescing),
            sign,
            of.viewers
        );
    }
    text += "\n";
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::section;
    use super::*;
    use crate::args::Which;

    #[test]
    fn a_section_says_what_was_compared() {
        let mut section = section(&[(Which::Limit, true, 1, 1000), (Which::Broth, true, 2, 999)]);
        section
            .left_out
            .push("original left out: for a test".into());
        section.windows[1].outcome.counts.forged = 3;
        let text = describe(&section);
        for expected in [
            "1x50: 1 x 50, 300 packets/s of 1200 bytes each in bursts of 10, AEAD_AES_128_GCM",
            "original left out: for a test",
            "UDP_GRO receivers, windows of 5 s",
            "broth: 3 SAMPLED PACKETS DID NOT OPEN",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        let line = text.lines().find(|line| line.contains(" broth ")).unwrap();
        let cells: Vec<_> = line.split_whitespace().collect();
        let expected = [
            "broth", "2002", "2.00", "2.00", "-", "50.0%", "300", "0.100", "0.20", "3.00", "3.00",
            "1.0", "-", "-",
        ];
        assert_eq!(cells, expected);
        assert!(!text.contains("plain receivers"));
    }

    #[test]
    fn what_could_be_more_is_marked() {
        let carried = [true, false].map(|is_open| Carried {
            which: Which::Broth,
            is_coalescing: true,
            viewers: 700,
            is_open,
        });
        let text = describe_most(&section(&[]), &carried);
        assert_eq!(text.matches(">=700").count(), 1);
        assert_eq!(text.matches("700").count(), 2);
    }
}
