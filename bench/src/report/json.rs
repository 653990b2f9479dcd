//! The report for programs: every window.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Carried, Section, Window};
use crate::window::Outcome;

/// Writes all windows, and what the servers could carry if that was searched for.
pub(crate) fn write_json(path: &Path, sections: &[(Section, Vec<Carried>)]) -> Result<()> {
    let all: Vec<Value> = sections.iter().map(|(s, c)| section(s, c)).collect();
    let text = serde_json::to_string_pretty(&json!({ "sections": all }))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn section(section: &Section, carried: &[Carried]) -> Value {
    let plan = &section.plan;
    let servers: Vec<Value> = section
        .servers
        .iter()
        .map(|(which, rss)| json!({ "server": which.name(), "rssBytesPerConsumer": rss }))
        .collect();
    let carried: Vec<Value> = carried
        .iter()
        .map(|of| {
            json!({ "server": of.which.name(), "coalescing": of.is_coalescing,
                "viewersMax": of.viewers, "couldBeMore": of.is_open })
        })
        .collect();
    json!({
        "shape": plan.name,
        "rooms": plan.rooms,
        "producersPerRoom": plan.producers,
        "viewersPerRoom": plan.consumers,
        "allToAll": plan.is_mesh,
        "burst": plan.burst,
        "bytes": plan.size,
        "joinsPerSecond": plan.churn,
        "lossPercent": plan.loss,
        "protection": section.protection.name,
        "seconds": section.window.as_secs(),
        "loadAverage": section.load_average,
        "leftOut": section.left_out,
        "servers": servers,
        "windows": section.windows.iter().map(window).collect::<Vec<_>>(),
        "carried": carried,
    })
}

fn window(window: &Window) -> Value {
    let Outcome {
        rate,
        cpu,
        share,
        softirq_share,
        calib_ns,
        expected,
        counts,
        dropped_by_load,
        said,
        latencies_us: _,
    } = &window.outcome;
    let outcome = &window.outcome;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "server": window.which.name(),
        "coalescing": window.is_coalescing,
        "packetsPerSecondAndProducer": rate,
        "cpuNsPerPacket": outcome.ns_per_packet(),
        "calibNs": calib_ns,
        "calibUnits": outcome.calib_units(),
        "cpuMs": ms(cpu.all),
        "cpuUserMs": ms(cpu.user),
        "cpuSystemMs": ms(cpu.system),
        "coreShare": share,
        "softirqShare": softirq_share,
        "packetsExpected": expected,
        "packetsReceived": counts.viewers,
        "packetsReceivedByGuests": counts.guests,
        "packetsForged": counts.forged,
        "packetsDroppedByLoad": dropped_by_load,
        "packetsDroppedByServer": said.map(|said| said.dropped),
        "sendCalls": said.map(|said| said.calls),
        "turnUsMax": said.map(|said| said.turn_us_max),
        "latencyMs": { "p50": outcome.latency_ms(500), "p99": outcome.latency_ms(990),
            "p99.9": outcome.latency_ms(999) },
    })
}
