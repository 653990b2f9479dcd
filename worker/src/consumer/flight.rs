//! What of a consumer is recorded, and how a successor goes on from it.

use std::time::Instant;

use broth_ipc::TransportId;

use super::{Consumer, Sending};
use crate::producer::Producer;
use crate::recorder::{
    ConsumerRecord, Counters, Entry, HIGHEST, NEWEST_PICTURE, NEWEST_TS, RTX_SEQ, Record, Recorded,
    Recorder,
};
use crate::stream::{DROPOUT_MAX, Numbering, PictureIds, TsOffset};

/// Marks that there is a picture.
const HAS_PICTURE: u64 = 1 << 24;

/// Where an enabled consumer is recorded.
pub(super) struct Flight {
    entry: Entry,
    transport: TransportId,
    /// The newest timestamp and picture recorded: those of a frame are written once.
    newest: (u64, u64),
}

impl Flight {
    fn new(entry: Entry, transport: TransportId, counters: &Counters) -> Self {
        Self {
            entry,
            transport,
            newest: (counters[NEWEST_TS], counters[NEWEST_PICTURE]),
        }
    }
}

impl Consumer {
    /// Begins a record. If there is no room for one, its transport will not be resumed.
    pub fn record(&mut self, recorder: &mut Recorder, transport: TransportId) {
        if let Some(sending) = &mut self.sending {
            let record = sending.record(transport, self.current);
            let entry = recorder.add(self.id, &record);
            if let Some(entry) = &entry {
                sending.stream.note_sent(entry);
                sending.stream.note_feedback(entry);
            }
            sending.flight = entry.map(|entry| Flight::new(entry, transport, &Counters::default()));
        }
    }

    /// Goes on from a record of this consumer on this transport, enabled a moment ago. Returns
    /// whether packets were lost that its receiver waits for: the record may give numbers as used
    /// that never left.
    pub fn resume(
        &mut self,
        now: Instant,
        recorded: Recorded<ConsumerRecord>,
        producer: &Producer,
    ) -> bool {
        let Some(sending) = &mut self.sending else {
            return false;
        };
        let Recorded {
            entry,
            record,
            counters,
        } = recorded;
        sending.stream.resume(&counters);
        let mut has_hole = false;
        if let Some(highest) = counters[HIGHEST].checked_sub(1) {
            let highest = highest.max(record.reached);
            let source = record.current.and_then(|index| {
                let stream = producer.streams.get(usize::from(index))?;
                let received = stream.recv.highest()?;
                let numbering = Numbering::resumed(record.seq_offset, highest)?;
                let is_near = numbering.highest_src() < received + u64::from(DROPOUT_MAX);
                is_near.then_some((stream, received, numbering))
            });
            sending.numbering = match source {
                Some((stream, received, numbering)) => {
                    has_hole = stream.has_lost || numbering.highest_src() > received;
                    self.current = record.current;
                    self.effective = stream.profile;
                    self.is_sync_due = false;
                    numbering
                }
                None => Numbering::resumed_unsynced(highest),
            };
            // Where there is a hole a key frame is asked for now: not again when receivers see it.
            sending.unrepeatable = (!has_hole).then_some(highest);
            let newest = counters[NEWEST_TS] as u32;
            sending.ts = TsOffset::resumed(now, record.ts_offset, newest);
            let newest = counters[NEWEST_PICTURE];
            let picture = ((newest >> 8) as u16, newest as u8);
            let newest = (newest & HAS_PICTURE != 0).then_some(picture);
            sending.pictures =
                PictureIds::resumed(record.picture_offset, record.tl0_offset, newest);
        }
        if sending.rtx.map(|(ssrc, _)| ssrc) == record.rtx_ssrc && counters[RTX_SEQ] > 0 {
            sending.stream.resume_rtx(counters[RTX_SEQ]);
        }
        sending.flight = Some(Flight::new(entry, record.transport, &counters));
        sending.note(self.current);
        has_hole
    }

    /// Whether a receiver misses what was sent before this worker was there: it can only be helped
    /// by a key frame, and one is enough.
    pub fn take_unrepeatable(&mut self, seq: u16) -> bool {
        let Some(sending) = &mut self.sending else {
            return false;
        };
        let is_it = sending
            .unrepeatable
            .is_some_and(|highest| (highest as u16).wrapping_sub(seq) < 1 << 15);
        if is_it {
            sending.unrepeatable = None;
        }
        is_it
    }

    /// The record, to be removed.
    pub fn take_entry(&mut self) -> Option<Entry> {
        let flight = self.sending.as_mut()?.flight.take();
        flight.map(|flight| flight.entry)
    }

    /// Whether what an earlier consumer recorded is about what this one sends.
    pub fn is_recorded_by(&self, record: &ConsumerRecord, transport: TransportId) -> bool {
        let ssrc = self.sending.as_ref().map(|sending| sending.ssrc);
        record.transport == transport && Some(record.ssrc) == ssrc
    }
}

impl Sending {
    /// Records what changes with the source only.
    pub(super) fn note(&mut self, current: Option<u8>) {
        let Some(flight) = &self.flight else {
            return;
        };
        let record = self.record(flight.transport, current);
        if let Some(flight) = &mut self.flight {
            record.write(&mut flight.entry);
        }
    }

    /// Records that the highest number may be used, with the newest timestamp and picture: those
    /// of a late packet are not. To be called before it is.
    pub(super) fn note_number(&mut self) {
        let Some(Flight { entry, newest, .. }) = &mut self.flight else {
            return;
        };
        entry.set(HIGHEST, self.numbering.highest().map_or(0, |seq| seq + 1));
        let ts = u64::from(self.ts.newest().unwrap_or(0));
        let picture = self.pictures.newest();
        let picture = picture.map(|(id, tl0)| HAS_PICTURE | u64::from(id) << 8 | u64::from(tl0));
        let latest = (ts, picture.unwrap_or(0));
        if *newest != latest {
            *newest = latest;
            entry.set(NEWEST_TS, latest.0);
            entry.set(NEWEST_PICTURE, latest.1);
        }
    }

    /// Records what was sent, for the statistics.
    pub(super) fn note_sent(&self) {
        if let Some(flight) = &self.flight {
            self.stream.note_sent(&flight.entry);
        }
    }

    /// Records what the receiver said, for the statistics.
    pub fn note_feedback(&self) {
        if let Some(flight) = &self.flight {
            self.stream.note_feedback(&flight.entry);
        }
    }

    /// Records the number of an RTX packet. To be called before it is used.
    pub(super) fn note_rtx(&self) {
        if let Some(flight) = &self.flight {
            flight.entry.set(RTX_SEQ, self.stream.rtx_seq());
        }
    }

    /// Records numbers that are lower than before, as new keys allow.
    pub(super) fn note_rekeyed(&mut self, current: Option<u8>) {
        self.note(current);
        let Some(Flight { entry, .. }) = &self.flight else {
            return;
        };
        entry.set(HIGHEST, self.numbering.highest().map_or(0, |seq| seq + 1));
        entry.set(RTX_SEQ, self.stream.rtx_seq());
    }

    fn record(&self, transport: TransportId, current: Option<u8>) -> ConsumerRecord {
        let (picture_offset, tl0_offset) = self.pictures.offsets();
        ConsumerRecord {
            transport,
            ssrc: self.ssrc,
            rtx_ssrc: self.rtx.map(|(ssrc, _)| ssrc),
            current,
            seq_offset: self.numbering.offset_ahead(),
            reached: self.numbering.reached(),
            ts_offset: self.ts.offset(),
            picture_offset,
            tl0_offset,
        }
    }
}
