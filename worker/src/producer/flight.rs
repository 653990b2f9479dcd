//! What of a received stream is recorded, and how a successor goes on from it.

use broth_ipc::ProducerId;

use super::{Producer, Stream};
use crate::recorder::{
    BYTES, DISCARDED, Entry, FIRS, HIGHEST, MISSING, NACKS, PACKETS, PLIS, REPAIRED, Record,
    Recorded, Recorder, StreamRecord,
};

/// The counters of what was received.
const RECEIVED: [usize; 6] = [HIGHEST, MISSING, PACKETS, BYTES, REPAIRED, DISCARDED];

/// Where a stream is recorded.
pub(super) struct Flight {
    entry: Entry,
    record: StreamRecord,
    received: [u64; RECEIVED.len()],
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
            stream.recv.resume(&record, &counters);
        }
        stream.has_lost = counters[MISSING] > 0;
        stream.fir_seq = record.fir_seq;
        stream.flight = Some(Flight {
            entry,
            record,
            received: RECEIVED.map(|counter| counters[counter]),
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
            expected_before_base: self.recv.expected_before_base(),
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
                received: Default::default(),
            });
        }
        if let Some(flight) = &mut self.flight {
            if flight.record != record {
                flight.record = record;
                record.write(&mut flight.entry);
            }
            let recv = &self.recv;
            let received = [
                highest,
                recv.nack.missing() as u64,
                recv.packets,
                recv.bytes,
                recv.repaired,
                recv.discarded,
            ];
            let before = std::mem::replace(&mut flight.received, received);
            for (index, counter) in RECEIVED.into_iter().enumerate() {
                if received[index] != before[index] {
                    recorder.set_later(&flight.entry, counter, received[index]);
                }
            }
        }
    }

    /// Records how often the sender was asked for something.
    pub fn note_asked(&self) {
        if let Some(Flight { entry, .. }) = &self.flight {
            entry.set(NACKS, self.recv.nacks);
            entry.set(PLIS, self.recv.plis);
            entry.set(FIRS, self.recv.firs);
        }
    }

    /// The record, to be removed.
    pub fn take_entry(&mut self) -> Option<Entry> {
        self.flight.take().map(|flight| flight.entry)
    }
}
