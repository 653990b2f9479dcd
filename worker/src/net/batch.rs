//! The packets of one call: grouped into messages, and sent as far as the kernel takes them.
//!
//! Packets of equal length to one destination leave as one GSO message. What the kernel refuses as
//! a group goes out one by one; when it takes no group at all, none is made any more.

use std::io;
use std::net::SocketAddr;

use nix::libc;

use super::send_queue::SendCounters;
use super::sys::{Message, SEGMENTS_MAX, SEND_BATCH, SLICES_MAX};

/// Bytes one GSO message may have.
const GSO_BYTES_MAX: usize = 65_000;
/// After so many refusals without a group that was taken, it is the kernel and not the way to a
/// destination that cannot do it.
const REFUSALS_MAX: u32 = 16;

/// The packets of one call.
pub(super) struct Batch {
    /// Start and length of each packet in the arena.
    slices: Vec<(u32, u32)>,
    messages: Vec<Message>,
    /// Bytes of the last message.
    bytes: usize,
    /// Another packet may join the last message.
    is_open: bool,
    /// Groups refused since one was taken.
    refusals: u32,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            slices: Vec::with_capacity(SLICES_MAX),
            messages: Vec::with_capacity(SEND_BATCH),
            bytes: 0,
            is_open: false,
            refusals: 0,
        }
    }
}

impl Batch {
    /// Begins the next call.
    pub(super) fn clear(&mut self) {
        self.slices.clear();
        self.messages.clear();
    }

    /// Packets in it.
    pub(super) fn len(&self) -> usize {
        self.slices.len()
    }

    /// Adds a packet to the last message or to a new one; `false` if there is no room for it.
    pub(super) fn add(&mut self, remote: SocketAddr, (start, len): (u32, u32)) -> bool {
        if self.slices.len() == SLICES_MAX {
            return false;
        }
        let bytes = len as usize;
        if let Some(message) = self.messages.last_mut()
            && self.is_open
            && message.remote == remote
            && len <= u32::from(message.segment_len)
            && message.slices < SEGMENTS_MAX
            && self.bytes + bytes <= GSO_BYTES_MAX
        {
            message.slices += 1;
            self.bytes += bytes;
            // A shorter segment can only be the last one.
            self.is_open = len == u32::from(message.segment_len);
        } else {
            if self.messages.len() == SEND_BATCH {
                return false;
            }
            self.messages.push(Message {
                remote,
                slices: 1,
                segment_len: len as u16,
            });
            self.bytes = bytes;
            self.is_open = self.refusals < REFUSALS_MAX;
        }
        self.slices.push((start, len));
        true
    }

    /// Sends what was added and returns how many packets are dealt with: fewer than there are when
    /// the socket has no more room.
    pub(super) fn send(
        &mut self,
        counters: &mut SendCounters,
        mut send: impl FnMut(&[(u32, u32)], &[Message]) -> io::Result<usize>,
    ) -> usize {
        let (mut message, mut slice) = (0, 0);
        while message < self.messages.len() {
            let messages = &self.messages[message..];
            let first = messages[0];
            counters.calls += 1;
            match send(&self.slices[slice..], messages) {
                Ok(sent) => {
                    for sent in &messages[..sent] {
                        let own = &self.slices[slice..slice + sent.slices];
                        counters.packets += own.len() as u64;
                        counters.bytes += own.iter().map(|s| u64::from(s.1)).sum::<u64>();
                        slice += sent.slices;
                        if sent.slices > 1 {
                            self.refusals = 0;
                        }
                    }
                    message += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if first.slices > 1 && is_about_groups(&error) => {
                    // The way to this destination takes no packet of that size.
                    if error.raw_os_error() != Some(libc::EMSGSIZE) {
                        self.refusals += 1;
                    }
                    let single = Message { slices: 1, ..first };
                    let singles = std::iter::repeat_n(single, first.slices);
                    self.messages.splice(message..=message, singles);
                }
                Err(_) => {
                    counters.refused += first.slices as u64;
                    slice += first.slices;
                    message += 1;
                }
            }
        }
        slice
    }

    /// Where to and what, from the packet `first` on.
    pub(super) fn packets_from(
        &self,
        first: usize,
    ) -> impl Iterator<Item = (SocketAddr, (u32, u32))> {
        let messages = self.messages.iter();
        let remotes = messages.flat_map(|m| std::iter::repeat_n(m.remote, m.slices));
        remotes.zip(self.slices.iter().copied()).skip(first)
    }
}

/// Whether the packets of a message that was refused may go one by one: larger segments than the
/// way's MTU, a device that computes no checksums, IPsec, or a kernel that knows no GSO.
fn is_about_groups(error: &io::Error) -> bool {
    /// Of the kernel alone.
    const ENOTSUPP: i32 = 524;
    matches!(
        error.raw_os_error(),
        Some(libc::EMSGSIZE | libc::EINVAL | libc::EIO | libc::EOPNOTSUPP | ENOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn fill(batch: &mut Batch, lens: &[(u32, u16)]) {
        batch.clear();
        let mut start = 0;
        for &(len, port) in lens {
            assert!(batch.add(remote(port), (start, len)));
            start += len;
        }
    }

    fn groups(batch: &mut Batch, lens: &[(u32, u16)]) -> Vec<usize> {
        fill(batch, lens);
        batch
            .messages
            .iter()
            .map(|message| message.slices)
            .collect()
    }

    /// A kernel that answers with an error for the groups it is asked about, and takes all else.
    fn send(batch: &mut Batch, refuse: impl Fn(&Message) -> Option<i32>) -> (usize, SendCounters) {
        let mut counters = SendCounters::default();
        let handled = batch.send(&mut counters, |_, messages| {
            let taken = messages.iter().take_while(|m| refuse(m).is_none()).count();
            match taken {
                0 => Err(io::Error::from_raw_os_error(refuse(&messages[0]).unwrap())),
                taken => Ok(taken),
            }
        });
        (handled, counters)
    }

    #[test]
    fn packets_group_by_destination_and_equal_length() {
        type Row<'a> = (&'a [(u32, u16)], &'a [usize]);
        let rows: &[Row<'_>] = &[
            (&[(100, 1)], &[1]),
            (&[(100, 1), (100, 1), (100, 1)], &[3]),
            (&[(100, 1), (100, 1), (100, 2)], &[2, 1]),
            (&[(100, 1), (100, 1), (60, 1)], &[3]),
            (&[(100, 1), (60, 1), (60, 1)], &[2, 1]),
            (&[(60, 1), (100, 1)], &[1, 1]),
        ];
        for (lens, expected) in rows {
            assert_eq!(&groups(&mut Batch::default(), lens), expected, "{lens:?}");
        }
        let many = vec![(50, 1); SEGMENTS_MAX + 1];
        assert_eq!(groups(&mut Batch::default(), &many), [SEGMENTS_MAX, 1]);
    }

    #[test]
    fn a_call_takes_only_so_much() {
        let mut batch = Batch::default();
        let fits = (0..SEND_BATCH as u16 + 5).filter(|n| batch.add(remote(1 + n), (0, 10)));
        assert_eq!(fits.count(), SEND_BATCH);
        batch.clear();
        let fits = (0..SLICES_MAX + 5).filter(|_| batch.add(remote(1), (0, 10)));
        assert_eq!(fits.count(), SLICES_MAX);
    }

    #[test]
    fn a_group_too_large_for_one_way_is_split_and_the_others_are_not() {
        let lens = [
            (100, 1),
            (100, 1),
            (100, 2),
            (100, 2),
            (100, 2),
            (90, 3),
            (90, 3),
        ];
        let mut batch = Batch::default();
        for error in [libc::EMSGSIZE, libc::EINVAL] {
            for _ in 0..10 * REFUSALS_MAX {
                assert_eq!(groups(&mut batch, &lens), [2, 3, 2]);
                let is_narrow = |m: &Message| m.remote == remote(2) && m.slices > 1;
                let (handled, counters) = send(&mut batch, |m| is_narrow(m).then_some(error));
                assert_eq!((handled, counters.packets, counters.refused), (7, 7, 0));
                // One more for what was refused, and one for what came after it.
                assert_eq!(counters.calls, 3);
            }
        }
    }

    #[test]
    fn nothing_is_grouped_any_more_where_no_group_is_taken() {
        let lens = [(100, 1), (100, 1)];
        for error in [libc::EIO, libc::EINVAL, libc::EOPNOTSUPP] {
            let mut batch = Batch::default();
            for _ in 0..REFUSALS_MAX {
                assert_eq!(groups(&mut batch, &lens), [2]);
                let (_, counters) = send(&mut batch, |m| (m.slices > 1).then_some(error));
                assert_eq!((counters.packets, counters.refused), (2, 0));
            }
            assert_eq!(groups(&mut batch, &lens), [1, 1]);
        }
    }

    #[test]
    fn a_way_that_is_narrow_alone_switches_nothing_off() {
        let mut batch = Batch::default();
        for _ in 0..10 * REFUSALS_MAX {
            fill(&mut batch, &[(100, 1), (100, 1)]);
            send(&mut batch, |m| (m.slices > 1).then_some(libc::EMSGSIZE));
        }
        assert_eq!(groups(&mut batch, &[(100, 1), (100, 1)]), [2]);
    }

    #[test]
    fn a_destination_that_cannot_be_reached_costs_its_packets_alone() {
        let lens = [(100, 1), (100, 1), (100, 2), (100, 2), (90, 3)];
        let mut batch = Batch::default();
        for _ in 0..10 * REFUSALS_MAX {
            assert_eq!(groups(&mut batch, &lens), [2, 2, 1]);
            let is_far = |m: &Message| m.remote == remote(2);
            let (handled, counters) = send(&mut batch, |m| is_far(m).then_some(libc::ENETUNREACH));
            assert_eq!((handled, counters.packets, counters.refused), (5, 3, 2));
        }
    }

    #[test]
    fn what_finds_no_room_is_told_packet_by_packet() {
        let mut batch = Batch::default();
        fill(
            &mut batch,
            &[(100, 1), (100, 1), (100, 2), (100, 2), (90, 3)],
        );
        let mut room = 1;
        let mut counters = SendCounters::default();
        let handled = batch.send(&mut counters, |_, _| {
            let taken = std::mem::take(&mut room);
            match taken {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                taken => Ok(taken),
            }
        });
        assert_eq!((handled, counters.packets, counters.bytes), (2, 2, 200));
        let left: Vec<_> = batch.packets_from(handled).collect();
        let expected = [
            (remote(2), (200, 100)),
            (remote(2), (300, 100)),
            (remote(3), (400, 90)),
        ];
        assert_eq!(left, expected);
    }
}
