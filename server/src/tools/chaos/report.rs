//! What became of the rooms and their media, summed up by fault and by room.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use broth::chaos::{Fate, Fault, Spread};
use serde_json::{Map, Value, json};

use super::measure::Micros;
use super::options::{Load, name};
use super::traffic::Totals;
use super::verify::Verified;
use super::wire::Checks;

/// All that was measured.
pub(super) struct Report {
    pub(super) load: Load,
    /// How long windows are, at least.
    pub(super) window: Duration,
    /// In the order of the faults.
    pub(super) hits: Vec<Hit>,
    /// In windows without a fault: a room, and its longest time without a packet.
    pub(super) calm: Vec<(usize, Duration)>,
    /// Packets that were lost without a fault, or in rooms of other workers.
    pub(super) lost_otherwise: Losses,
    pub(super) checks: Checks,
    /// Whether it was ended before all was done.
    pub(super) is_interrupted: bool,
    /// `None` if nobody wanted to know.
    pub(super) verified: Option<Verified>,
}

/// What one fault did.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) fault: Fault,
    /// Its window.
    pub(super) from: Micros,
    pub(super) to: Micros,
    /// The rooms of its worker.
    pub(super) rooms: Vec<HitRoom>,
}

/// What a fault did to a room.
#[derive(Clone, Debug)]
pub(super) struct HitRoom {
    pub(super) room: usize,
    pub(super) fate: Fate,
    /// The longest time without a packet in any stream of the room.
    pub(super) media_gap: Duration,
    /// From the fault to the first packet after the recovery, in all streams; `None` if the room
    /// was not affected, or a stream got none.
    pub(super) flows_after: Option<Duration>,
    /// Key frames that senders were asked for.
    pub(super) key_frames: u32,
    pub(super) lost: Losses,
}

/// Packets that never came. Only video is asked for once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    pub(super) video: u64,
    pub(super) audio: u64,
}

impl Losses {
    pub(super) fn all(self) -> u64 {
        self.video + self.audio
    }
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.video += other.video;
        self.audio += other.audio;
    }
}

impl HitRoom {
    fn is_silent(&self) -> bool {
        let goes_on = matches!(self.fate, Fate::Recovered { .. } | Fate::Moved { .. });
        goes_on && self.flows_after.is_none()
    }
}

/// Sums over faults, rooms, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Summary {
    /// Times a room's worker was hit.
    pub(super) hit: usize,
    pub(super) recovered: usize,
    pub(super) moved: usize,
    pub(super) unaffected: usize,
    pub(super) not_recovered: usize,
    pub(super) closed: usize,
    /// Of those that go on: streams got nothing any more.
    pub(super) silent: usize,
    /// From the death of the worker, once noticed, to the next going on with the room.
    pub(super) room_gap: Spread,
    pub(super) media_gap: Spread,
    pub(super) flows_after: Spread,
    pub(super) lost: Losses,
    /// Of the packets due in the seconds around the faults, in percent.
    pub(super) lost_percent: f64,
    pub(super) key_frames: u64,
}

impl Report {
    pub(super) fn new(load: Load, window: Duration) -> Self {
        Self {
            load,
            window,
            hits: Vec::new(),
            calm: Vec::new(),
            lost_otherwise: Losses::default(),
            checks: Checks::default(),
            is_interrupted: false,
            verified: None,
        }
    }

    /// Takes what is known in the end.
    pub(super) fn take(&mut self, totals: Totals) {
        self.checks = totals.checks;
        for lost in totals.lost {
            let room = lost.stream / self.load.streams().max(1);
            let behind = self.hits.partition_point(|hit| hit.from <= lost.at);
            let hit = behind.checked_sub(1).map(|last| &mut self.hits[last]);
            let hit = hit.filter(|hit| lost.at < hit.to);
            let room = hit.and_then(|hit| hit.rooms.iter_mut().find(|hit| hit.room == room));
            let losses = room.map_or(&mut self.lost_otherwise, |room| &mut room.lost);
            match lost.is_audio {
                true => losses.audio += 1,
                false => losses.video += 1,
            }
        }
    }

    /// Of all faults and rooms.
    pub(super) fn total(&self) -> Summary {
        self.summary(self.hits.iter().flat_map(|hit| &hit.rooms))
    }

    /// By fault, in the order of their first.
    pub(super) fn by_fault(&self) -> Vec<(&'static str, Summary, Spread)> {
        let mut names: Vec<_> = Vec::new();
        for name in self.hits.iter().map(|hit| name(hit.fault)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let summaries = names.into_iter().map(|of| {
            let hits = || self.hits.iter().filter(|hit| name(hit.fault) == of);
            let summary = self.summary(hits().flat_map(|hit| &hit.rooms));
            (of, summary, all_flow(hits()))
        });
        summaries.collect()
    }

    /// By room.
    pub(super) fn by_room(&self) -> BTreeMap<usize, (Summary, Spread)> {
        let rooms = (0..self.load.rooms).map(|room| {
            let rooms = self.hits.iter().flat_map(|hit| &hit.rooms);
            let summary = self.summary(rooms.filter(|hit| hit.room == room));
            (room, (summary, self.calm(Some(room))))
        });
        rooms.collect()
    }

    /// The longest times without a packet in windows without a fault, of a room or of all.
    pub(super) fn calm(&self, room: Option<usize>) -> Spread {
        let gaps = self.calm.iter();
        let gaps = gaps.filter(|(of, _)| room.is_none_or(|room| room == *of));
        Spread::of(gaps.map(|&(_, gap)| gap).collect())
    }

    /// From a fault to the moment when all its rooms flow that go on.
    pub(super) fn all_flow(&self) -> Spread {
        all_flow(self.hits.iter())
    }

    /// What must not be, in words.
    pub(super) fn complaints(&self) -> Vec<String> {
        let total = self.total();
        let counts = [
            (total.not_recovered, "rooms did not recover"),
            (total.closed, "rooms were closed"),
            (total.silent, "rooms go on without their media"),
        ];
        let wrong = counts.into_iter().filter(|&(count, _)| count > 0);
        let mut complaints: Vec<_> = wrong
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if let Some(verified) = &self.verified {
            complaints.extend(self.checks.complaints());
            complaints.extend(verified.complaints());
        }
        complaints
    }

    /// For machines; times in milliseconds.
    pub(super) fn to_json(&self) -> Value {
        let faults = self.by_fault().into_iter().map(|(name, summary, all)| {
            let mut value = summary.to_json();
            value["allFlowAfterMs"] = spread(all);
            (name.to_owned(), value)
        });
        let rooms = self.by_room().into_iter().map(|(room, (summary, calm))| {
            let mut value = summary.to_json();
            value["mediaGapWithoutFaultMs"] = spread(calm);
            (room.to_string(), value)
        });
        let mut total = self.total().to_json();
        total["allFlowAfterMs"] = spread(self.all_flow());
        let mut report = json!({
            "faults": self.hits.len(),
            "isInterrupted": self.is_interrupted,
            "rooms": self.load.rooms,
            "senders": self.load.producers,
            "receivers": self.load.consumers,
            "packetsPerSecondAndRoom": self.load.due_per_second(),
            "windowMs": ms(self.window),
            "total": total,
            "byFault": Map::from_iter(faults),
            "byRoom": Map::from_iter(rooms),
            "withoutFault": {
                "windows": self.calm.len(),
                "mediaGapMs": spread(self.calm(None)),
                "lost": losses(self.lost_otherwise),
            },
            "packets": {
                "sent": self.checks.sent,
                "received": self.checks.received,
                "droppedByClients": self.checks.dropped,
            },
            "complaints": self.complaints(),
        });
        if let Some(verified) = &self.verified {
            report["verified"] = self.verified_json(verified);
        }
        report
    }

    fn verified_json(&self, verified: &Verified) -> Value {
        let held = |[before, after]: [super::leftovers::Held; 2]| json!({ "before": before.to_string(), "after": after.to_string() });
        json!({
            "indicesReused": self.checks.reused,
            "indicesUsedLongAfter": self.checks.ancient,
            "unopened": self.checks.unopened,
            "copies": self.checks.again,
            "alerts": self.checks.alerts,
            "aroundFaults": held(verified.around_faults),
            "aroundAll": held(verified.around_all),
            "rssBytes": verified.rss_bytes,
            "texts": self.checks.texts,
        })
    }

    fn summary<'h>(&self, rooms: impl Iterator<Item = &'h HitRoom>) -> Summary {
        let mut summary = Summary::default();
        let (mut room_gaps, mut media_gaps, mut flows) = (Vec::new(), Vec::new(), Vec::new());
        for room in rooms {
            summary.hit += 1;
            match &room.fate {
                Fate::Recovered { gap, .. } => {
                    summary.recovered += 1;
                    room_gaps.push(*gap);
                }
                Fate::Moved { gap, .. } => {
                    summary.moved += 1;
                    room_gaps.push(*gap);
                }
                Fate::Unaffected => summary.unaffected += 1,
                Fate::NotRecovered => summary.not_recovered += 1,
                Fate::Closed(_) => summary.closed += 1,
            }
            summary.silent += usize::from(room.is_silent());
            media_gaps.push(room.media_gap);
            flows.extend(room.flows_after);
            summary.key_frames += u64::from(room.key_frames);
            summary.lost += room.lost;
        }
        summary.room_gap = Spread::of(room_gaps);
        summary.media_gap = Spread::of(media_gaps);
        summary.flows_after = Spread::of(flows);
        let due = self.load.due_per_second() * summary.hit as f64;
        if due > 0.0 {
            summary.lost_percent = summary.lost.all() as f64 * 100.0 / due;
        }
        summary
    }
}

impl Summary {
    fn to_json(self) -> Value {
        json!({
            "hit": self.hit,
            "recovered": self.recovered,
            "moved": self.moved,
            "unaffected": self.unaffected,
            "notRecovered": self.not_recovered,
            "closed": self.closed,
            "silent": self.silent,
            "roomGapMs": spread(self.room_gap),
            "mediaGapMs": spread(self.media_gap),
            "flowsAfterMs": spread(self.flows_after),
            "lost": losses(self.lost),
            "lostPercent": self.lost_percent,
            "keyFramesAsked": self.key_frames,
        })
    }
}

fn all_flow<'h>(hits: impl Iterator<Item = &'h Hit>) -> Spread {
    let last = |hit: &Hit| hit.rooms.iter().filter_map(|room| room.flows_after).max();
    Spread::of(hits.filter_map(last).collect())
}

fn losses(lost: Losses) -> Value {
    json!({ "video": lost.video, "audio": lost.audio })
}

fn spread(spread: Spread) -> Value {
    let Spread { p50, p95, max } = spread;
    json!({ "p50": ms(p50), "p95": ms(p95), "max": ms(max) })
}

fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
pub(super) mod tests {
    use broth_client::send_track::Media;

    use super::*;
    use crate::tools::chaos::leftovers::Held;
    use crate::tools::chaos::member::Lost;

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn hit_room(room: usize, gap: u64, media_gap: u64) -> HitRoom {
        HitRoom {
            room,
            fate: Fate::Recovered {
                gap: millis(gap),
                back: millis(gap + 1),
            },
            media_gap: millis(media_gap),
            flows_after: Some(millis(gap + 2)),
            key_frames: 1,
            lost: Losses::default(),
        }
    }

    /// Two rooms of 100 packets a second; three faults, each a second after the last.
    pub(in crate::tools::chaos) fn report() -> Report {
        let load = Load {
            rooms: 2,
            producers: 1,
            consumers: 1,
            video: Media::Vp8 {
                frame_packets: 2,
                packet_len: 800,
            },
            audio: Media::Opus { packet_len: 92 },
            intervals: [millis(40), millis(20)],
        };
        let mut report = Report::new(load, millis(500));
        let faults = [Fault::Kill, Fault::Stop, Fault::Kill];
        for (at, fault) in (1..).zip(faults) {
            let slow = if fault == Fault::Stop { 1000 } else { 0 };
            report.hits.push(Hit {
                fault,
                from: at * 1_000_000,
                to: at * 1_000_000 + 500_000,
                rooms: vec![
                    hit_room(0, 10 * at, 30 + slow),
                    hit_room(1, 20 * at, 40 + slow),
                ],
            });
        }
        report.hits[0].rooms[1].key_frames = 0;
        report.calm = vec![(0, millis(21)), (1, millis(23)), (0, millis(22))];
        report
    }

    #[test]
    fn faults_and_rooms_are_summed_up_each() {
        let mut report = report();
        let lost = |stream, at| Lost {
            stream,
            is_audio: stream % 2 == 1,
            at,
        };
        report.take(Totals {
            lost: vec![
                lost(0, 1_000_000),
                lost(1, 1_499_999),
                lost(3, 2_100_000),
                lost(0, 1_500_000),
                lost(0, 5),
            ],
            checks: Checks::default(),
        });
        let losses = |video, audio| Losses { video, audio };
        assert_eq!(report.lost_otherwise, losses(2, 0));
        let [kill, stop] = &report.by_fault()[..] else {
            panic!("two kinds of faults");
        };
        assert_eq!((kill.0, kill.1.hit, kill.1.recovered), ("kill", 4, 4));
        assert_eq!((kill.1.lost, kill.1.lost_percent), (losses(1, 1), 0.5));
        assert_eq!((kill.1.key_frames, stop.1.key_frames), (3, 2));
        assert_eq!(
            kill.1.room_gap,
            Spread::of([10, 20, 30, 60].map(millis).to_vec())
        );
        assert_eq!(kill.2, Spread::of(vec![millis(22), millis(62)]));
        assert_eq!((stop.0, stop.1.lost), ("stop", losses(0, 1)));
        assert_eq!(stop.1.media_gap.max, millis(1040));
        let rooms = report.by_room();
        assert_eq!(rooms[&0].0.lost, losses(1, 1));
        assert_eq!(rooms[&1].0.lost, losses(0, 1));
        assert_eq!(rooms[&0].1, Spread::of(vec![millis(21), millis(22)]));
        assert_eq!(report.total().hit, 6);
        assert!(report.complaints().is_empty());
    }

    #[test]
    fn what_must_not_be_is_complained_of() {
        type Row<'a> = (fn(&mut HitRoom), &'a str);
        let rows: [Row<'_>; 3] = [
            (
                |room| room.fate = Fate::NotRecovered,
                "1 rooms did not recover",
            ),
            (
                |room| room.fate = Fate::Closed("why".into()),
                "1 rooms were closed",
            ),
            (
                |room| room.flows_after = None,
                "1 rooms go on without their media",
            ),
        ];
        for (change, expected) in rows {
            let mut report = report();
            change(&mut report.hits[1].rooms[0]);
            assert_eq!(report.complaints(), [expected]);
        }
        let mut report = report();
        report.hits[0].rooms[0].fate = Fate::Unaffected;
        report.hits[0].rooms[0].flows_after = None;
        assert!(report.complaints().is_empty());
    }

    #[test]
    fn machines_are_told_everything() {
        let mut report = report();
        report.checks.sent = 7;
        let json = report.to_json();
        assert_eq!(
            (&json["faults"], &json["packets"]["sent"]),
            (&json!(3), &json!(7))
        );
        assert_eq!(json["total"]["recovered"], 6);
        assert_eq!(json["byFault"]["stop"]["mediaGapMs"]["max"], 1040.0);
        assert_eq!(json["byFault"]["kill"]["allFlowAfterMs"]["p50"], 22.0);
        assert_eq!(json["byRoom"]["1"]["mediaGapWithoutFaultMs"]["p50"], 23.0);
        assert_eq!(json["withoutFault"]["windows"], 3);
        assert_eq!(json["complaints"], json!([]));
        assert_eq!(json["verified"], Value::Null);
        report.checks.reused = 1;
        report.verified = Some(Verified {
            around_faults: [Held::default(); 2],
            around_all: [Held::default(); 2],
            rss_bytes: [1, 2],
        });
        let json = report.to_json();
        assert_eq!(json["verified"]["indicesReused"], 1);
        assert_eq!(json["complaints"].as_array().unwrap().len(), 1);
    }
}
