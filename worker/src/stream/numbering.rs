//! Renumbering towards one consumer: whatever source it is fed from, the receiver sees one
//! continuous stream.

use std::collections::VecDeque;
use std::time::Instant;

use super::seq::DROPOUT_MAX;

/// Dropped packets remembered, to number late packets around them.
const SKIPPED_MAX: usize = 256;

/// Extended numbers have 48 bits, as SRTP indices.
const EXTENDED_END: u64 = 1 << 48;

/// Sequence numbers. Extended outputs begin below 2^16: their upper bits are the SRTP ROC.
#[derive(Debug)]
pub struct Numbering {
    /// What is added to a source number; sources differ, so it may be negative.
    offset: i64,
    /// Source number of the sync point: what is older belongs to another source.
    synced_at: u64,
    highest_src: u64,
    highest_out: Option<u64>,
    start: u16,
    /// Source numbers dropped since the sync point, ascending.
    skipped: VecDeque<u64>,
    /// Skips that were forgotten; packets older than the last of them have no number.
    forgotten_until: u64,
}

impl Numbering {
    /// Begins with the number `start`.
    pub fn new(start: u16) -> Self {
        Self {
            offset: 0,
            synced_at: 0,
            highest_src: 0,
            highest_out: None,
            start,
            skipped: VecDeque::new(),
            forgotten_until: 0,
        }
    }

    /// Goes on where a recorded numbering stopped: with what it added to the source's next number
    /// and the highest number it gave. Only what is newer has a number: what exactly was sent
    /// before is not recorded. `None` if the two do not fit.
    pub fn resumed(offset: i64, highest_out: u64) -> Option<Self> {
        let highest_src = highest_out.checked_add_signed(offset.checked_neg()?)?;
        (highest_src.max(highest_out) < EXTENDED_END).then_some(Self {
            offset,
            synced_at: highest_src + 1,
            highest_src,
            highest_out: Some(highest_out),
            start: 0,
            skipped: VecDeque::new(),
            forgotten_until: highest_src + 1,
        })
    }

    /// Goes on with the number after `highest_out` when the source is known again.
    pub fn resumed_unsynced(highest_out: u64) -> Self {
        Self {
            highest_out: Some(highest_out),
            ..Self::new(0)
        }
    }

    /// What is added to the source's next number.
    pub fn offset_ahead(&self) -> i64 {
        self.offset - self.skipped.len() as i64
    }

    /// The number before the one that the source's next packet gets: the highest given, or where
    /// what was dropped behind a gap leaves it. The packets in the gap may still come, and only
    /// this numbering knows which numbers are theirs.
    pub fn reached(&self) -> u64 {
        let reached = self.highest_src.checked_add_signed(self.offset_ahead());
        reached.unwrap_or(0)
    }

    /// The highest number of the source that was given a number or dropped.
    pub fn highest_src(&self) -> u64 {
        self.highest_src
    }

    /// The source changes: `src_seq` follows directly on what was sent last.
    pub fn sync(&mut self, src_seq: u64) {
        let next = self
            .highest_out
            .map_or_else(|| u64::from(self.start), |out| out + 1);
        self.offset = next.cast_signed() - src_seq.cast_signed();
        self.synced_at = src_seq;
        // The packet of the sync point itself may still be skipped.
        self.highest_src = src_seq.saturating_sub(1);
        self.skipped.clear();
        self.forgotten_until = src_seq;
    }

    /// The number a packet leaves under; `None` if it is older than the sync point or was
    /// dropped.
    pub fn forward(&mut self, src_seq: u64) -> Option<u64> {
        self.sync_after_jump(src_seq);
        if src_seq < self.synced_at.max(self.forgotten_until) {
            return None;
        }
        let Err(skipped_before) = self.skipped.binary_search(&src_seq) else {
            return None;
        };
        let out = src_seq.checked_add_signed(self.offset)?;
        let out = out.checked_sub(skipped_before as u64)?;
        self.highest_src = self.highest_src.max(src_seq);
        self.highest_out = Some(self.highest_out.map_or(out, |highest| highest.max(out)));
        Some(out)
    }

    /// Drops a packet without leaving a gap. One that is not ahead of all others leaves its gap:
    /// the numbers around it may be out already.
    pub fn skip(&mut self, src_seq: u64) {
        self.sync_after_jump(src_seq);
        if src_seq <= self.highest_src {
            return;
        }
        self.highest_src = src_seq;
        self.skipped.push_back(src_seq);
        if self.skipped.len() > SKIPPED_MAX
            && let Some(oldest) = self.skipped.pop_front()
        {
            self.offset -= 1;
            self.forgotten_until = oldest + 1;
        }
    }

    /// Goes on with numbers below 2^16.
    pub fn forget_rollovers(&mut self) {
        if let Some(highest) = &mut self.highest_out {
            let rollovers = *highest & !0xFFFF;
            *highest -= rollovers;
            self.offset -= rollovers.cast_signed();
        }
    }

    /// Whether this packet shows that the source started anew. It then becomes a sync point.
    pub fn is_jump(&self, src_seq: u64) -> bool {
        src_seq >= self.highest_src + u64::from(DROPOUT_MAX)
    }

    /// The highest number so far.
    pub fn highest(&self) -> Option<u64> {
        self.highest_out
    }

    /// Syncs if the source started anew. Its jump must not leave: from 2^15 on the receiver's
    /// SRTP would guess a wrong ROC and never recover (RFC 3711 §3.3.1).
    fn sync_after_jump(&mut self, src_seq: u64) {
        if self.is_jump(src_seq) {
            self.sync(src_seq);
        }
    }
}

/// Timestamps.
#[derive(Debug)]
pub struct TsOffset {
    offset: u32,
    /// The newest timestamp sent, and when.
    newest: Option<(u32, Instant)>,
    start: u32,
}

impl TsOffset {
    /// Begins with the timestamp `start`.
    pub fn new(start: u32) -> Self {
        Self {
            offset: 0,
            newest: None,
            start,
        }
    }

    /// Goes on where a recorded offset stopped; `newest` counts as sent `now`.
    pub fn resumed(now: Instant, offset: u32, newest: u32) -> Self {
        Self {
            offset,
            newest: Some((newest, now)),
            start: 0,
        }
    }

    /// What is added to the source's timestamps.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// The newest timestamp sent.
    pub fn newest(&self) -> Option<u32> {
        self.newest.map(|(ts, _)| ts)
    }

    /// The source changes: `src_ts` continues what was sent last, ahead by the time that has
    /// passed since.
    pub fn sync(&mut self, now: Instant, src_ts: u32, clock_rate: u32) {
        let next = match self.newest {
            None => self.start,
            Some((ts, at)) => {
                let elapsed_us = now.duration_since(at).as_micros();
                let ticks = elapsed_us * u128::from(clock_rate) / 1_000_000;
                ts.wrapping_add((ticks as u32).max(1))
            }
        };
        self.offset = next.wrapping_sub(src_ts);
    }

    /// The timestamp a packet leaves with.
    pub fn forward(&mut self, now: Instant, src_ts: u32) -> u32 {
        let ts = src_ts.wrapping_add(self.offset);
        let is_newer = |newest: u32| ts.wrapping_sub(newest).cast_signed() > 0;
        if self.newest.is_none_or(|(newest, _)| is_newer(newest)) {
            self.newest = Some((ts, now));
        }
        ts
    }
}

/// What VP8 says about the picture a packet belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Picture id.
    pub id: u16,
    /// The id has 7 bits, not 15.
    pub is_narrow: bool,
    /// TL0PICIDX.
    pub tl0: u8,
}

/// VP8 picture ids (7 or 15 bits) and TL0PICIDX (8 bits).
#[derive(Debug, Default)]
pub struct PictureIds {
    picture_offset: u16,
    tl0_offset: u8,
    newest: Option<(u16, u8)>,
}

impl Picture {
    fn mask(self) -> u16 {
        if self.is_narrow { 0x7F } else { 0x7FFF }
    }
}

impl PictureIds {
    /// Goes on where recorded offsets stopped.
    pub fn resumed(picture_offset: u16, tl0_offset: u8, newest: Option<(u16, u8)>) -> Self {
        Self {
            picture_offset,
            tl0_offset,
            newest,
        }
    }

    /// What is added to picture ids and to TL0PICIDX.
    pub fn offsets(&self) -> (u16, u8) {
        (self.picture_offset, self.tl0_offset)
    }

    /// The newest picture id and TL0PICIDX sent.
    pub fn newest(&self) -> Option<(u16, u8)> {
        self.newest
    }

    /// The source changes: this picture follows directly on the newest one sent.
    pub fn sync(&mut self, picture: Picture) {
        if let Some((newest, tl0)) = self.newest {
            self.picture_offset = newest.wrapping_add(1).wrapping_sub(picture.id);
            self.tl0_offset = tl0.wrapping_add(1).wrapping_sub(picture.tl0);
        }
    }

    /// What a picture leaves with.
    pub fn forward(&mut self, picture: Picture) -> (u16, u8) {
        let mask = picture.mask();
        let id = picture.id.wrapping_add(self.picture_offset) & mask;
        let tl0 = picture.tl0.wrapping_add(self.tl0_offset);
        let is_ahead = |newest: u16| id.wrapping_sub(newest) & mask < mask / 2;
        if self.newest.is_none_or(|(newest, _)| is_ahead(newest)) {
            self.newest = Some((id, tl0));
        }
        (id, tl0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn sequence_numbers_are_continuous_across_sources_and_drops() {
        let mut numbering = Numbering::new(65_530);
        numbering.sync(100_000);
        let out: Vec<_> = [100_000, 100_001, 100_003, 100_002]
            .into_iter()
            .map(|seq| numbering.forward(seq))
            .collect();
        let first = 65_530;
        let expected = [first, first + 1, first + 3, first + 2].map(Some);
        assert_eq!(out, expected);
        assert_eq!(numbering.forward(99_999), None);
        numbering.skip(100_004);
        numbering.skip(100_005);
        assert_eq!(numbering.forward(100_004), None);
        assert_eq!(numbering.forward(100_006), Some(first + 4));
        numbering.sync(70_000);
        assert_eq!(numbering.forward(70_000), Some(first + 5));
        assert_eq!(numbering.forward(69_999), None);
        assert_eq!(numbering.forward(70_001), Some(65_536));
    }

    /// What a successor knows of a numbering.
    fn resume(numbering: &Numbering) -> Numbering {
        let highest = numbering.highest().unwrap().max(numbering.reached());
        Numbering::resumed(numbering.offset_ahead(), highest).unwrap()
    }

    #[test]
    fn what_was_dropped_behind_a_gap_moves_no_number() {
        let mut numbering = Numbering::new(7);
        numbering.sync(70_000);
        numbering.forward(70_000);
        // Two packets are missing when this one is dropped.
        numbering.skip(70_003);
        let mut resumed = resume(&numbering);
        for seq in [70_004, 70_006, 70_005] {
            assert_eq!(resumed.forward(seq), numbering.forward(seq), "{seq}");
        }
        // They come too late: which numbers are theirs is not recorded.
        for seq in 70_001..70_004 {
            assert_eq!(resumed.forward(seq), None, "{seq}");
        }
    }

    #[test]
    fn a_resumed_numbering_goes_on_and_repeats_nothing() {
        let mut numbering = Numbering::new(7);
        numbering.sync(70_000);
        for seq in [70_000, 70_003] {
            numbering.forward(seq);
        }
        numbering.skip(70_004);
        let mut resumed = resume(&numbering);
        assert_eq!(resumed.highest_src(), 70_004);
        // One of them was sent, the others may have been.
        for seq in 70_000..=70_004 {
            assert_eq!(resumed.forward(seq), None, "{seq}");
        }
        assert_eq!(resumed.forward(70_006), numbering.forward(70_006));
        assert_eq!(resumed.forward(70_005), numbering.forward(70_005));
        resumed.sync(5);
        numbering.sync(5);
        assert_eq!(resumed.forward(5), numbering.forward(5));
    }

    #[test]
    fn numbers_that_do_not_fit_are_not_resumed() {
        for (offset, highest) in [
            (1, 0),
            (i64::MIN, 5),
            (-1, u64::MAX),
            (i64::MAX, 5),
            (0, EXTENDED_END),
        ] {
            assert!(Numbering::resumed(offset, highest).is_none(), "{offset}");
        }
        let mut unsynced = Numbering::resumed_unsynced(9);
        unsynced.sync(1000);
        assert_eq!(unsynced.forward(1000), Some(10));
    }

    proptest! {
        /// Wherever it breaks off, a successor numbers what follows in the same way.
        #[test]
        fn a_successor_numbers_alike(
            steps in prop::collection::vec((0u8..20, 1u64..600), 1..100),
            seqs in prop::collection::vec(0u64..200, 1..50),
        ) {
            let mut numbering = Numbering::new(9);
            numbering.sync(1 << 16);
            numbering.forward(1 << 16);
            let mut at = 1 << 16;
            for (kind, step) in steps {
                match kind {
                    0 => {
                        at = step << 20;
                        numbering.sync(at);
                        numbering.forward(at);
                    }
                    1..=5 => {
                        at += 1 + step % 4;
                        numbering.skip(at);
                    }
                    _ => {
                        at += 1 + step % 4;
                        numbering.forward(at);
                    }
                }
            }
            let mut resumed = resume(&numbering);
            for seq in seqs {
                let seq = numbering.highest_src() + 1 + seq;
                prop_assert_eq!(resumed.forward(seq), numbering.forward(seq));
            }
        }

        /// In order, whatever is dropped: outputs are consecutive.
        #[test]
        fn drops_never_leave_gaps(drops in prop::collection::vec(any::<bool>(), 1..2000)) {
            let mut numbering = Numbering::new(7);
            numbering.sync(1 << 16);
            let mut expected = 7;
            for (n, is_dropped) in drops.into_iter().enumerate() {
                let seq = (1 << 16) + n as u64;
                if is_dropped {
                    numbering.skip(seq);
                } else {
                    prop_assert_eq!(numbering.forward(seq), Some(expected));
                    expected += 1;
                }
            }
        }

        /// In any order, across sources: the same as counting anew for each packet.
        #[test]
        fn numbers_are_those_of_a_naive_model(
            steps in prop::collection::vec((0u8..20, 1u64..600), 1..SKIPPED_MAX),
        ) {
            let mut numbering = Numbering::new(65_500);
            let mut model = Model::default();
            numbering.sync(1);
            model.sync(1);
            for (kind, seq) in steps {
                match kind {
                    0 => {
                        numbering.sync(seq);
                        model.sync(seq);
                    }
                    1..7 => {
                        numbering.skip(seq);
                        model.skip(seq);
                    }
                    _ => prop_assert_eq!(numbering.forward(seq), model.forward(seq)),
                }
            }
        }

        /// In any order: no number is given to two packets.
        #[test]
        fn no_number_is_used_twice(
            steps in prop::collection::vec((0u64..600, any::<bool>()), 1..400),
        ) {
            let mut numbering = Numbering::new(0);
            numbering.sync(1 << 16);
            let mut given = std::collections::HashMap::new();
            for (n, is_dropped) in steps {
                let seq = (1 << 16) + n;
                if is_dropped {
                    numbering.skip(seq);
                } else if let Some(out) = numbering.forward(seq) {
                    prop_assert_eq!(*given.entry(out).or_insert(seq), seq);
                }
            }
        }
    }

    #[test]
    fn timestamps_advance_by_the_time_that_passed() {
        let now = Instant::now();
        let later = now + Duration::from_millis(500);
        let mut ts = TsOffset::new(u32::MAX - 10);
        ts.sync(now, 5000, 90_000);
        assert_eq!(ts.forward(now, 5000), u32::MAX - 10);
        assert_eq!(ts.forward(now, 8000), 2989);
        assert_eq!(ts.forward(now, 5000), u32::MAX - 10);
        ts.sync(later, 77, 90_000);
        assert_eq!(ts.forward(later, 77), 2989 + 45_000);
        ts.sync(later, 9, 90_000);
        assert_eq!(ts.forward(later, 9), 2989 + 45_001);
    }

    #[test]
    fn pictures_are_continuous_and_wrap() {
        let wide = |id, tl0| Picture {
            id,
            tl0,
            is_narrow: false,
        };
        let mut pictures = PictureIds::default();
        pictures.sync(wide(0x7FFE, 254));
        assert_eq!(pictures.forward(wide(0x7FFE, 254)), (0x7FFE, 254));
        assert_eq!(pictures.forward(wide(0x7FFF, 255)), (0x7FFF, 255));
        assert_eq!(pictures.forward(wide(0, 0)), (0, 0));
        assert_eq!(pictures.forward(wide(0x7FFF, 255)), (0x7FFF, 255));
        pictures.sync(wide(0x1234, 9));
        assert_eq!(pictures.forward(wide(0x1234, 9)), (1, 1));
        assert_eq!(pictures.forward(wide(0x1235, 10)), (2, 2));
    }

    #[test]
    fn narrow_pictures_are_continuous_after_a_wrap() {
        let narrow = |id: u16| Picture {
            id: id & 0x7F,
            tl0: 0,
            is_narrow: true,
        };
        let mut pictures = PictureIds::default();
        pictures.sync(narrow(100));
        let (mut last, _) = pictures.forward(narrow(100));
        for (at, id) in (101..400).chain(50..300).enumerate() {
            if at == 299 {
                pictures.sync(narrow(id));
            }
            let (next, _) = pictures.forward(narrow(id));
            assert_eq!(next, (last + 1) & 0x7F, "{at}");
            last = next;
        }
    }

    #[test]
    fn new_keys_start_below_the_first_rollover() {
        let mut numbering = Numbering::new(65_530);
        numbering.sync(1000);
        for seq in 1000..1010 {
            numbering.forward(seq);
        }
        assert_eq!(numbering.highest(), Some(65_539));
        numbering.forget_rollovers();
        assert_eq!(numbering.forward(1010), Some(4));
        numbering.sync(7000);
        assert_eq!(numbering.forward(7000), Some(5));
    }

    #[test]
    fn dropping_the_packet_of_the_sync_point_leaves_no_gap() {
        let mut numbering = Numbering::new(10);
        numbering.sync(500);
        numbering.skip(500);
        assert_eq!(numbering.forward(500), None);
        assert_eq!(numbering.forward(501), Some(10));
    }

    #[test]
    fn a_source_that_starts_anew_does_not_carry_its_jump_into_the_output() {
        // A jump of half the 16-bit space or more would mislead the receiver's SRTP about the ROC.
        let mut numbering = Numbering::new(10);
        numbering.sync(65_536 + 100);
        assert_eq!(numbering.forward(65_536 + 100), Some(10));
        assert_eq!(numbering.forward(65_536 + 100 + 2999), Some(3009));
        assert_eq!(numbering.forward(2 * 65_536 + 40_000), Some(3010));
        assert_eq!(numbering.forward(2 * 65_536 + 39_999), None);
        assert_eq!(numbering.forward(2 * 65_536 + 40_001), Some(3011));
    }

    /// What [`Numbering`] must answer, without its bounds: every decision is kept.
    #[derive(Default)]
    struct Model {
        synced_at: u64,
        first_out: Option<u64>,
        sent: Vec<u64>,
        decided: Vec<u64>,
        skipped: std::collections::BTreeSet<u64>,
    }

    impl Model {
        fn sync(&mut self, seq: u64) {
            self.first_out = self.sent.iter().max().map(|out| out + 1);
            self.synced_at = seq;
            self.decided.clear();
            self.skipped.clear();
        }

        fn skip(&mut self, seq: u64) {
            if seq >= self.synced_at && self.decided.iter().all(|&other| other < seq) {
                self.decided.push(seq);
                self.skipped.insert(seq);
            }
        }

        fn forward(&mut self, seq: u64) -> Option<u64> {
            if seq < self.synced_at || self.skipped.contains(&seq) {
                return None;
            }
            let skipped_before = self.skipped.range(..seq).count() as u64;
            let out = self.first_out.unwrap_or(65_500) + seq - self.synced_at - skipped_before;
            self.decided.push(seq);
            self.sent.push(out);
            Some(out)
        }
    }
}
