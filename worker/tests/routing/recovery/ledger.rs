//! What every receiver got of every consumer's stream, and whether it is one stream: numbers,
//! timestamps and pictures go on, whatever it is fed from and however often its worker dies.

use std::collections::BTreeMap;

use broth_worker::srtp::RecvIndex;

use super::client::Arrived;
use super::source::{Body, Format, RTX_PT, Source};

/// After a death numbers may be left out that were recorded and never left.
const LEFT_OUT_MAX: u64 = 1000;

/// What came of one consumer's stream.
pub(super) struct Got {
    format: Format,
    pub(super) ssrc: u32,
    /// The highest index, the newest timestamp and picture.
    highest: Option<u64>,
    newest_ts: u32,
    newest_picture: u16,
    /// Where the stream began anew, from another source or with another packet of the same.
    pub(super) runs: Vec<Run>,
    /// Something happened after which the stream may begin anew with the same source.
    pub(super) may_begin: bool,
    /// It is fed from what it wishes: until that changes, it goes on, whoever dies.
    pub(super) is_settled: bool,
    /// The worker died since the newest packet came.
    pub(super) has_died: bool,
    /// Temporal layers above the first may be left out.
    pub(super) is_filtered: bool,
    /// RTX packets that came.
    pub(super) repairs: u64,
    /// What each source had sent when it began to listen.
    pub(super) heard_from: BTreeMap<u32, u64>,
}

/// A run of packets of one source with the same differences to it.
pub(super) struct Run {
    pub(super) source: u32,
    /// Index of its first packet, which may come late if a death came before it.
    begins: u64,
    /// Sequence number of its source from which on everything is to come. It may begin with a key
    /// frame that came late: what came ahead of that while nothing was wanted, or to a worker that
    /// died, is not sent any more.
    sent_before: u64,
    ts_offset: u32,
    picture_offset: u16,
    tl0_offset: u8,
    was_filtered: bool,
    /// Source numbers with the index they came under.
    pub(super) by_source: BTreeMap<u64, u64>,
}

impl Got {
    pub(super) fn new(format: Format, ssrc: u32) -> Self {
        Self {
            format,
            ssrc,
            highest: None,
            newest_ts: 0,
            newest_picture: 0,
            runs: Vec::new(),
            may_begin: true,
            is_settled: false,
            has_died: false,
            is_filtered: false,
            repairs: 0,
            heard_from: BTreeMap::new(),
        }
    }

    /// It may begin anew, under numbers that are new.
    pub(super) fn forget_runs(&mut self) {
        self.runs.clear();
        self.may_begin = true;
        self.is_settled = false;
    }

    /// The highest index.
    pub(super) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Packets that came, each once.
    pub(super) fn count(&self) -> usize {
        self.runs.iter().map(|run| run.by_source.len()).sum()
    }

    /// Takes a packet; `sources` are all of its sender's.
    pub(super) fn take(&mut self, arrived: &Arrived, sources: &[Source]) {
        let mut payload = &arrived.payload[..];
        let mut index = arrived.index;
        let is_rtx = arrived.pt == RTX_PT;
        if is_rtx {
            self.repairs += 1;
            let (osn, rest) = payload.split_first_chunk().unwrap();
            payload = rest;
            let highest = self.highest.expect("only what was sent is repeated");
            index = RecvIndex::resumed(highest).guess(u16::from_be_bytes(*osn));
            assert!(index <= highest, "{} repeats {index}", self.ssrc);
        } else {
            assert_eq!(arrived.pt, self.format.pt());
            assert_eq!(arrived.ssrc, self.ssrc);
        }
        let (descriptor, body) = self.format.read(payload);
        let source = sources.iter().find(|source| source.ssrc == body.ssrc);
        let source = source.expect("a source of the producer");
        let (picture, tl0) = descriptor.map_or((body.picture, body.tl0), |d| (d.picture, d.tl0));
        let run = Run {
            source: body.ssrc,
            begins: index,
            sent_before: match (self.has_died, self.heard_from.get(&body.ssrc)) {
                (true, _) => source.seq,
                (false, Some(heard)) => body.seq.max(*heard),
                (false, None) => body.seq,
            },
            ts_offset: arrived.ts.wrapping_sub(body.ts),
            picture_offset: picture.wrapping_sub(body.picture) & 0x7FFF,
            tl0_offset: tl0.wrapping_sub(body.tl0),
            was_filtered: self.is_filtered,
            by_source: BTreeMap::new(),
        };
        let is_ahead = self.highest.is_none_or(|highest| index > highest);
        if is_ahead && !self.runs.last().is_some_and(|last| last.goes_on(&run)) {
            self.begin(run, &body, arrived.ts, picture);
        } else {
            // Late ones and repeated ones belong to the run that their index lies in.
            let mut runs = self.runs.iter().rev();
            let last = runs.find(|last| last.begins <= index);
            let name = self.ssrc;
            let last = last.unwrap_or_else(|| panic!("{index} of {name} is older than the stream"));
            assert!(
                last.goes_on(&run),
                "{index} of {} goes on as before",
                self.ssrc
            );
        }
        if is_ahead {
            self.highest = Some(index);
            self.newest_ts = arrived.ts;
            self.newest_picture = picture;
            self.has_died = false;
        }
        let mut runs = self.runs.iter_mut().rev();
        let run = runs.find(|run| run.begins <= index).unwrap();
        run.was_filtered |= self.is_filtered;
        run.take(index, body.seq, source, self.ssrc);
    }

    /// A new run: it follows on directly, with a key frame, unless a death came between.
    fn begin(&mut self, run: Run, body: &Body, ts: u32, picture: u16) {
        let (ssrc, last) = (self.ssrc, self.runs.last());
        let is_switch = last.is_none_or(|last| last.source != run.source);
        assert!(
            (is_switch || self.may_begin) && !self.is_settled,
            "{ssrc} begins anew at {} with {body:?}, having {:?}",
            run.begins,
            last.map(|last| last.by_source.last_key_value())
        );
        let may_leave_out = if self.has_died { LEFT_OUT_MAX } else { 0 };
        if self.format.is_repaired() && !self.has_died {
            assert!(body.is_keyframe, "{ssrc} begins with {body:?}");
        }
        if let Some(highest) = self.highest {
            let left_out = run.begins - highest - 1;
            assert!(
                left_out <= may_leave_out,
                "{ssrc}: {highest} {}",
                run.begins
            );
            let ahead = ts.wrapping_sub(self.newest_ts).cast_signed();
            assert!((1..20 * 90_000).contains(&ahead), "{ssrc}: {ahead} ticks");
            let left_out = picture.wrapping_sub(self.newest_picture + 1) & 0x7FFF;
            if self.format == Format::Vp8 {
                assert!(u64::from(left_out) <= may_leave_out, "{ssrc}: {left_out}");
            }
        }
        if self.format != Format::Vp8 {
            assert_eq!((run.picture_offset, run.tl0_offset), (0, 0), "{ssrc}");
        }
        self.may_begin = false;
        let begins = match self.highest {
            Some(highest) => highest + 1,
            None => run.begins.saturating_sub(may_leave_out),
        };
        self.runs.push(Run { begins, ..run });
    }

    /// The newest run is of `source`, and everything of it after `since` has come. Returns how
    /// many packets that were.
    pub(super) fn check_arrivals(&self, source: &Source, since: u64) -> u64 {
        let run = self.runs.last();
        let run = run.unwrap_or_else(|| panic!("nothing of {} to {}", source.ssrc, self.ssrc));
        assert_eq!(run.source, source.ssrc, "what {} is fed from", self.ssrc);
        let is_wanted = |seq: &u64| !run.was_filtered || source.layer(*seq) == 0;
        let mut count = 0;
        for seq in (since.max(run.sent_before) + 1..=source.seq).filter(is_wanted) {
            let is_there = run.by_source.contains_key(&seq);
            let ends = (since, source.seq);
            assert!(
                is_there,
                "{seq} of {ends:?} of {} to {}",
                source.ssrc, self.ssrc
            );
            count += 1;
        }
        count
    }

    /// Whether everything of the last `count` packets of a source is there.
    pub(super) fn has_last(&self, source: &Source, count: u64) -> bool {
        self.runs.last().is_some_and(|run| {
            let (first, _) = run.by_source.first_key_value().unwrap();
            let from = (*first).max(source.seq.saturating_sub(count));
            run.by_source.range(from..).count() as u64 == source.seq - from + 1
        })
    }
}

impl Run {
    fn goes_on(&self, next: &Self) -> bool {
        let offsets = |run: &Self| (run.ts_offset, run.picture_offset, run.tl0_offset);
        self.source == next.source && offsets(self) == offsets(next)
    }

    /// Numbers are as far apart as the source's, but for what was left out on purpose.
    fn take(&mut self, index: u64, seq: u64, source: &Source, ssrc: u32) {
        let (by_source, was_filtered) = (&self.by_source, self.was_filtered);
        let check = |(from, from_index): (u64, u64), (to, to_index): (u64, u64)| {
            let apart = to_index.checked_sub(from_index);
            let left_out = apart.and_then(|apart| (to - from).checked_sub(apart));
            let layered = (from + 1..to).filter(|seq| source.layer(*seq) > 0);
            let most = if was_filtered { layered.count() } else { 0 };
            assert!(
                left_out.is_some_and(|left_out| left_out <= most as u64),
                "{from} as {from_index}, {to} as {to_index} to {ssrc}, {most} left out"
            );
        };
        if let Some((before, at)) = by_source.range(..seq).next_back() {
            check((*before, *at), (seq, index));
        }
        if let Some((after, at)) = by_source.range(seq + 1..).next() {
            check((seq, index), (*after, *at));
        }
        let before = self.by_source.insert(seq, index);
        assert!(
            before.is_none_or(|before| before == index),
            "{seq} to {ssrc}"
        );
    }
}
