//! What passes between clients and worker, in the clients' hands: counted, and with `--verify`
//! every SRTP index with its bytes.

use super::ledger::{Ledger, Seen, Stream};

/// Complaints told with their words.
const TEXTS_MAX: usize = 10;

/// What clients sent and got.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// What is known of every packet; `None` if nobody wants to know.
    ledger: Option<Ledger>,
    pub(super) checks: Checks,
}

/// Counts of packets, and what was wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    /// SRTP and SRTCP packets that clients sent.
    pub(super) sent: u64,
    /// Those they received.
    pub(super) received: u64,
    /// Those among them that came twice, with the same bytes.
    pub(super) again: u64,
    /// Indices used twice for different bytes.
    pub(super) reused: u64,
    /// Indices used again long after they were.
    pub(super) ancient: u64,
    /// Packets that could not be opened.
    pub(super) unopened: u64,
    /// DTLS alerts: the far end ends a session.
    pub(super) alerts: u64,
    /// Datagrams for which a client's socket had no room.
    pub(super) dropped: u64,
    /// The first complaints.
    pub(super) texts: Vec<String>,
}

impl Wire {
    pub(super) fn new(is_verifying: bool) -> Self {
        Self {
            ledger: is_verifying.then(Ledger::default),
            checks: Checks::default(),
        }
    }

    /// Whether every packet is to be looked at.
    pub(super) fn is_verifying(&self) -> bool {
        self.ledger.is_some()
    }

    /// Takes a packet of a client, as it leaves.
    pub(super) fn sent(&mut self, stream: Stream, index: u64, packet: &[u8]) {
        self.checks.sent += 1;
        let seen = self.look(stream, index, packet);
        self.checks.judge(stream, index, seen);
    }

    /// Takes a packet that a client received, as it was on the wire; `open` opens it. Whether it
    /// is new and could be opened.
    pub(super) fn received(
        &mut self,
        stream: Stream,
        index: u64,
        packet: &mut [u8],
        open: impl FnOnce(&mut [u8]) -> bool,
    ) -> bool {
        let seen = self.look(stream, index, packet);
        if seen == Seen::Again {
            self.checks.again += 1;
            return false;
        }
        if !open(packet) {
            self.checks.unopened += 1;
            self.checks
                .complain(format!("{stream:?}, index {index}: does not open"));
            return false;
        }
        self.checks.judge(stream, index, seen);
        seen == Seen::New
    }

    fn look(&mut self, stream: Stream, index: u64, packet: &[u8]) -> Seen {
        let ledger = self.ledger.as_mut();
        ledger.map_or(Seen::New, |ledger| ledger.take(stream, index, packet))
    }
}

impl Checks {
    fn judge(&mut self, stream: Stream, index: u64, seen: Seen) {
        let what = match seen {
            Seen::New | Seen::Again => return,
            Seen::Reused => {
                self.reused += 1;
                "used again for other bytes"
            }
            Seen::Ancient => {
                self.ancient += 1;
                "used again long after"
            }
        };
        self.complain(format!("{stream:?}, index {index}: {what}"));
    }

    fn complain(&mut self, text: String) {
        if self.texts.len() < TEXTS_MAX {
            self.texts.push(text);
        }
    }

    /// What must not be.
    pub(super) fn complaints(&self) -> Vec<String> {
        let counts = [
            (self.reused, "SRTP indices were used for different bytes"),
            (self.ancient, "SRTP indices were used again long after"),
            (self.unopened, "packets could not be opened"),
            (self.alerts, "DTLS alerts told clients of an end"),
        ];
        let wrong = counts.into_iter().filter(|&(count, _)| count > 0);
        wrong
            .map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream {
            client: 3,
            is_sent: false,
            is_rtcp: false,
            ssrc: 7,
        }
    }

    #[test]
    fn a_planted_reuse_is_found_both_ways() {
        for is_sent in [false, true] {
            let mut wire = Wire::new(true);
            let stream = Stream {
                is_sent,
                ..stream()
            };
            for byte in [1, 1, 2] {
                match is_sent {
                    true => wire.sent(stream, 5, &[byte]),
                    false => drop(wire.received(stream, 5, &mut [byte], |_| true)),
                }
            }
            assert_eq!(wire.checks.reused, 1);
            let complaints = wire.checks.complaints();
            assert_eq!(complaints, ["1 SRTP indices were used for different bytes"]);
            assert!(wire.checks.texts[0].contains("index 5: used again for other bytes"));
        }
    }

    #[test]
    fn what_does_not_open_is_no_reuse() {
        let mut wire = Wire::new(true);
        assert!(wire.received(stream(), 5, &mut [1], |_| true));
        assert!(!wire.received(stream(), 5, &mut [2], |_| false));
        assert_eq!((wire.checks.reused, wire.checks.unopened), (0, 1));
        assert_eq!(wire.checks.complaints(), ["1 packets could not be opened"]);
    }

    #[test]
    fn copies_are_counted_and_not_opened_again() {
        let mut wire = Wire::new(true);
        assert!(wire.received(stream(), 5, &mut [1], |_| true));
        assert!(!wire.received(stream(), 5, &mut [1], |_| panic!("opened")));
        assert_eq!((wire.checks.again, wire.checks.complaints()), (1, vec![]));
    }
}
