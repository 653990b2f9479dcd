//! What of a received stream is recorded, and how a successor goes on from it.

use broth_ipc::ProducerId;

use super::{Producer, Stream};
use crate::recorder::{Entry, HIGHEST, MISSING, Record, Recorded, Recorder, StreamRecord};

/// Where a stream is recorded.
pub(super) struct Flight {
    entry: Entry,
    record: StreamRecord,
    missing: usize,
}

impl Producer {
    /// Goes on with a stream of an earlier producer, the next one in order.
    ///
    /// # Errors
    /// It does not fit; the record is given back.
    pub fn resume_stream(&mut self, recorded: Recorded<StreamRecord>) -> Result<u32, Entry> {
        let Recorded {
            entry,
            record,
            counters,
        } = recorded;
        let declared = self.parameters.encodings.get(usize::from(record.encoding));
        let is_declared = declared
            .is_some_and(|encoding| encoding.ssrc.is_none_or(|ssrc| ssrc == record.ssrc))
            && usize::from(record.index) == self.streams.len();
        let stream = is_declared
            .then(|| self.new_stream(usize::from(record.encoding), record.ssrc))
            .flatten();
        let Some(mut stream) = stream else {
            return Err(entry);
        };
        if counters[HIGHEST] > 0 {
            stream.recv.resume(record.base_seq, counters[HIGHEST]);
        }
        stream.has_lost = counters[MISSING] > 0;
        stream.fir_seq = record.fir_seq;
        stream.flight = Some(Flight {
            entry,
            record,
            missing: counters[MISSING] as usize,
        });
        self.streams.push(stream);
        Ok(record.ssrc)
    }
}

impl Stream {
    /// Records what was received; `is_new` begins the record.
    pub fn record(
        &mut self,
        recorder: &mut Recorder,
        producer: ProducerId,
        index: u8,
        is_new: bool,
    ) {
        let (Some(highest), Some(base_seq)) = (self.recv.highest(), self.recv.base_seq()) else {
            return;
        };
        let record = StreamRecord {
            ssrc: self.ssrc,
            index,
            encoding: self.encoding,
            fir_seq: self.fir_seq,
            base_seq,
        };
        if is_new {
            let entry = recorder.add(producer, &record);
            // Until its first turn is over, nothing of it was received.
            if let Some(entry) = &entry {
                entry.set(HIGHEST, highest.saturating_sub(1));
            }
            self.flight = entry.map(|entry| Flight {
                entry,
                record,
                missing: 0,
            });
        }
        if let Some(flight) = &mut self.flight {
            if flight.record != record {
                flight.record = record;
                record.write(&mut flight.entry);
            }
            recorder.set_later(&flight.entry, HIGHEST, highest);
            let missing = self.recv.nack.missing();
            if missing != flight.missing {
                flight.missing = missing;
                recorder.set_later(&flight.entry, MISSING, missing as u64);
            }
        }
    }

    /// The record, to be removed.
    pub fn take_entry(&mut self) -> Option<Entry> {
        self.flight.take().map(|flight| flight.entry)
    }
}
