//! The report for people.

use std::fmt::{self, Write};

use broth::chaos::Spread;

use super::report::{Report, Summary};

/// Rooms shown each; of more, those with the longest gaps.
const ROOMS_MAX: usize = 20;

/// Writes it, with a line feed at the end.
pub(super) fn write(report: &Report) -> String {
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = write_to(&mut text, report);
    text
}

fn write_to(text: &mut String, report: &Report) -> fmt::Result {
    let load = report.load;
    writeln!(
        text,
        "{} rooms of {} senders and {} receivers, {:.0} packets/s to the receivers of each",
        load.rooms,
        load.producers,
        load.consumers,
        load.due_per_second(),
    )?;
    let faults = report.hits.len();
    let end = match report.is_interrupted {
        true => ", interrupted",
        false => "",
    };
    writeln!(text, "{faults} faults{end}")?;
    for (name, summary, all_flow) in report.by_fault() {
        writeln!(text)?;
        write_summary(text, name, &summary, all_flow)?;
        line(text, "  without a fault", report.calm(None))?;
    }
    writeln!(text)?;
    write_rooms(text, report)?;
    writeln!(text)?;
    writeln!(
        text,
        "lost without a fault: {}; without room at the clients: {}",
        report.lost_otherwise.all(),
        report.checks.dropped
    )?;
    write_verified(text, report)?;
    match report.complaints() {
        complaints if complaints.is_empty() => writeln!(text, "all rooms go on"),
        complaints => complaints
            .iter()
            .try_for_each(|complaint| writeln!(text, "FAILED: {complaint}")),
    }
}

fn write_summary(
    text: &mut String,
    name: &str,
    summary: &Summary,
    all_flow: Spread,
) -> fmt::Result {
    writeln!(text, "{name}: {}", counts(summary))?;
    if summary.recovered + summary.moved > 0 {
        line(text, "room gap", summary.room_gap)?;
        line(text, "room flows after", summary.flows_after)?;
        line(text, "all rooms flow after", all_flow)?;
    }
    line(text, "media gap", summary.media_gap)
}

fn counts(summary: &Summary) -> String {
    let Summary {
        hit,
        recovered,
        lost,
        lost_percent,
        key_frames,
        ..
    } = summary;
    let mut counts = format!("{recovered} of {hit} rooms recovered");
    for (count, what) in [
        (summary.moved, "moved"),
        (summary.unaffected, "unaffected"),
        (summary.not_recovered, "NOT RECOVERED"),
        (summary.closed, "CLOSED"),
        (summary.silent, "WITHOUT MEDIA"),
    ] {
        if count > 0 {
            counts += &format!(", {count} {what}");
        }
    }
    counts
        + &format!(
            "; lost {} video and {} audio packets ({lost_percent:.3} % of a second's), key frames \
             asked {key_frames}",
            lost.video, lost.audio
        )
}

fn line(text: &mut String, what: &str, spread: Spread) -> fmt::Result {
    writeln!(text, "  {what:<22} {spread}")
}

fn write_rooms(text: &mut String, report: &Report) -> fmt::Result {
    let mut rooms: Vec<_> = report.by_room().into_iter().collect();
    rooms.retain(|(_, (summary, _))| summary.hit > 0);
    if rooms.len() > ROOMS_MAX {
        rooms.sort_by_key(|(_, (summary, _))| std::cmp::Reverse(summary.media_gap.max));
        writeln!(
            text,
            "the {ROOMS_MAX} of {} rooms with the longest gaps:",
            rooms.len()
        )?;
        rooms.truncate(ROOMS_MAX);
    }
    for (room, (summary, without)) in rooms {
        writeln!(text, "room {room}: {}", counts(&summary))?;
        line(text, "media gap", summary.media_gap)?;
        line(text, "  without a fault", without)?;
    }
    Ok(())
}

fn write_verified(text: &mut String, report: &Report) -> fmt::Result {
    let Some(verified) = &report.verified else {
        return Ok(());
    };
    let checks = &report.checks;
    writeln!(
        text,
        "verified: {} SRTP packets sent, {} received, {} of them copies; {} indices reused, {} \
         reused long after, {} packets not opened, {} DTLS alerts",
        checks.sent,
        checks.received,
        checks.again,
        checks.reused,
        checks.ancient,
        checks.unopened,
        checks.alerts,
    )?;
    checks
        .texts
        .iter()
        .try_for_each(|complaint| writeln!(text, "  {complaint}"))?;
    for (what, [before, after]) in [
        ("faults", verified.around_faults),
        ("all", verified.around_all),
    ] {
        writeln!(text, "  before {what}: {before}\n  after {what}:  {after}")?;
    }
    let [before, after] = verified.rss_bytes.map(|bytes| bytes >> 10);
    writeln!(
        text,
        "  memory of controller, clients and this report: {before} KiB before the faults, \
         {after} KiB after"
    )
}

#[cfg(test)]
mod tests {
    use super::super::leftovers::Held;
    use super::super::report::tests::report;
    use super::super::verify::Verified;
    use super::*;

    #[test]
    fn people_are_told_by_fault_and_by_room() {
        let text = write(&report());
        let expected = "\
2 rooms of 1 senders and 1 receivers, 100 packets/s to the receivers of each
3 faults

kill: 4 of 4 rooms recovered; lost 0 video and 0 audio packets (0.000 % of a second's), key frames asked 3
  room gap               p50 20.0 ms, p95 60.0 ms, max 60.0 ms
  room flows after       p50 22.0 ms, p95 62.0 ms, max 62.0 ms
  all rooms flow after   p50 22.0 ms, p95 62.0 ms, max 62.0 ms
  media gap              p50 30.0 ms, p95 40.0 ms, max 40.0 ms
    without a fault      p50 22.0 ms, p95 23.0 ms, max 23.0 ms

stop: 2 of 2 rooms recovered; lost 0 video and 0 audio packets (0.000 % of a second's), key frames asked 2
  room gap               p50 20.0 ms, p95 40.0 ms, max 40.0 ms
  room flows after       p50 22.0 ms, p95 42.0 ms, max 42.0 ms
  all rooms flow after   p50 42.0 ms, p95 42.0 ms, max 42.0 ms
  media gap              p50 1030.0 ms, p95 1040.0 ms, max 1040.0 ms
    without a fault      p50 22.0 ms, p95 23.0 ms, max 23.0 ms

room 0: 3 of 3 rooms recovered; lost 0 video and 0 audio packets (0.000 % of a second's), key frames asked 3
  media gap              p50 30.0 ms, p95 1030.0 ms, max 1030.0 ms
    without a fault      p50 21.0 ms, p95 22.0 ms, max 22.0 ms
room 1: 3 of 3 rooms recovered; lost 0 video and 0 audio packets (0.000 % of a second's), key frames asked 2
  media gap              p50 40.0 ms, p95 1040.0 ms, max 1040.0 ms
    without a fault      p50 23.0 ms, p95 23.0 ms, max 23.0 ms

lost without a fault: 0; without room at the clients: 0
all rooms go on
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_failed_is_told_last() {
        let mut report = report();
        report.is_interrupted = true;
        report.hits[0].rooms[0].fate = broth::chaos::Fate::NotRecovered;
        report.checks.reused = 2;
        report.checks.texts.push("the first of them".into());
        report.verified = Some(Verified {
            around_faults: [Held::default(); 2],
            around_all: [Held::default(); 2],
            rss_bytes: [2048, 4096],
        });
        let text = write(&report);
        assert!(text.contains("3 faults, interrupted\n"), "{text}");
        assert!(
            text.contains("kill: 3 of 4 rooms recovered, 1 NOT RECOVERED;"),
            "{text}"
        );
        assert!(text.contains("2 indices reused"), "{text}");
        assert!(text.contains("  the first of them\n"), "{text}");
        assert!(
            text.contains("2 KiB before the faults, 4 KiB after\n"),
            "{text}"
        );
        let end = "FAILED: 1 rooms did not recover\n\
            FAILED: 2 SRTP indices were used for different bytes\n";
        assert!(text.ends_with(end), "{text}");
    }
}
