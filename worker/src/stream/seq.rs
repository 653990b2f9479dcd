//! 16-bit sequence numbers to 64-bit ones (RFC 3550 A.1).

/// A jump ahead of less than this is loss.
pub const DROPOUT_MAX: u16 = 3000;
/// A packet late by up to this much is reordering.
const MISORDER_MAX: u16 = 1500;
/// The first number gets this cycle, so that late packets never reach below zero.
const FIRST_CYCLE: u64 = 1 << 16;

/// Extends the sequence numbers of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper {
    highest: Option<u64>,
    /// What would follow the last rejected number.
    after_rejected: Option<u16>,
}

impl Unwrapper {
    /// Goes on after a recorded number.
    pub fn resumed(highest: u64) -> Self {
        Self {
            highest: Some(highest),
            after_rejected: None,
        }
    }

    /// Extends a number; `None` if it is too far from the stream's.
    ///
    /// Two consecutive numbers far away mean that the sender started anew; the extended
    /// numbers then go on in the next cycle.
    pub fn unwrap(&mut self, seq: u16) -> Option<u64> {
        let Some(highest) = self.highest else {
            return Some(self.accept(FIRST_CYCLE + u64::from(seq)));
        };
        let ahead = seq.wrapping_sub(highest as u16);
        let behind = (highest as u16).wrapping_sub(seq);
        if ahead < DROPOUT_MAX {
            return Some(self.accept(highest + u64::from(ahead)));
        }
        if behind <= MISORDER_MAX {
            return highest.checked_sub(u64::from(behind));
        }
        if self.after_rejected == Some(seq) {
            let cycle = (highest >> 16) + 1;
            return Some(self.accept(cycle << 16 | u64::from(seq)));
        }
        self.after_rejected = Some(seq.wrapping_add(1));
        None
    }

    /// The highest extended number so far.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    fn accept(&mut self, seq: u64) -> u64 {
        self.highest = Some(seq);
        self.after_rejected = None;
        seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_extend_across_wrap_loss_and_reordering() {
        const C: u64 = FIRST_CYCLE;
        let rows: &[(&[u16], Option<u64>)] = &[
            (&[5], Some(C + 5)),
            (&[5, 6], Some(C + 6)),
            (&[5, 6, 5], Some(C + 5)),
            (&[0, 65535], Some(C - 1)),
            (&[65535, 0], Some(C + 65536)),
            (&[65535, 0, 65534], Some(C + 65534)),
            (&[10, 3009], Some(C + 3009)),
            (&[10, 3010], None),
            (&[2000, 500], Some(C + 500)),
            (&[2000, 499], None),
            (&[10, 30000, 30001], Some(2 * C + 30001)),
            (&[10, 30000, 30005], None),
            (&[10, 30000, 11], Some(C + 11)),
        ];
        for (input, expected) in rows {
            let mut unwrapper = Unwrapper::default();
            let last = input.iter().map(|&seq| unwrapper.unwrap(seq)).last();
            assert_eq!(last, Some(*expected), "{input:?}");
        }
    }
}
