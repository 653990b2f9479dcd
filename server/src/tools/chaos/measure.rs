//! When packets arrived, cut into windows, and what that says. Pure.

use std::ops::Range;
use std::time::Duration;

/// An instant: microseconds since the measuring began.
pub(super) type Micros = u64;

/// What arrived of one stream in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Arrivals {
    /// The last one before the window.
    before: Option<Micros>,
    at: Vec<Micros>,
}

/// What happened between two instants.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) from: Micros,
    pub(super) to: Micros,
    streams: Vec<Arrivals>,
    /// Key frames that senders were asked for, by room.
    key_frames: Vec<u32>,
}

impl Window {
    /// A window that is going on, for so many rooms of so many received streams.
    pub(super) fn new(rooms: usize, streams: usize) -> Self {
        Self {
            streams: vec![Arrivals::default(); rooms * streams],
            key_frames: vec![0; rooms],
            ..Self::default()
        }
    }

    /// Takes an arrival in a stream, counted over all rooms.
    pub(super) fn take(&mut self, stream: usize, at: Micros) {
        self.streams[stream].at.push(at);
    }

    /// Takes a request for a key frame.
    pub(super) fn take_key_frame_request(&mut self, room: usize) {
        self.key_frames[room] += 1;
    }

    /// Ends it; what arrived later is in the next one, which goes on in its place.
    pub(super) fn end(&mut self, to: Micros) -> Self {
        let mut next = Self::new(self.key_frames.len(), 0);
        next.from = to;
        let cut = |arrivals: &mut Arrivals| {
            // Kernel stamps are in order, or nearly so.
            let here = arrivals.at.partition_point(|&at| at < to);
            let at = arrivals.at.split_off(here);
            let before = arrivals.at.last().copied().or(arrivals.before);
            Arrivals { before, at }
        };
        next.streams = self.streams.iter_mut().map(cut).collect();
        self.to = to;
        std::mem::replace(self, next)
    }

    /// The longest time without a packet in any of the streams that ended in the window, or was
    /// going on at its end.
    pub(super) fn gap(&self, streams: Range<usize>) -> Duration {
        let longest = self.streams[streams].iter().map(|stream| {
            let all = stream.before.iter().chain(&stream.at).chain([&self.to]);
            let next = all.clone().skip(1);
            let gaps = all.zip(next).map(|(from, to)| to.saturating_sub(*from));
            gaps.max().unwrap_or(0)
        });
        Duration::from_micros(longest.max().unwrap_or(0))
    }

    /// When the last of the streams had its first packet from `from` on; `None` if one had none.
    pub(super) fn flows(&self, streams: Range<usize>, from: Micros) -> Option<Micros> {
        let first = |stream: &Arrivals| stream.at.iter().copied().find(|&at| at >= from);
        let firsts = self.streams[streams].iter().map(first);
        firsts.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Key frames that the senders of a room were asked for.
    pub(super) fn key_frames(&self, room: usize) -> u32 {
        self.key_frames[room]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(arrivals: &[(usize, Micros)]) -> Window {
        let mut window = Window::new(2, 2);
        for &(stream, at) in arrivals {
            window.take(stream, at);
        }
        window
    }

    #[test]
    fn the_longest_interval_is_of_any_stream_and_may_go_on() {
        let mut first = window(&[(0, 10), (0, 20), (1, 10), (1, 25), (2, 5), (3, 9)]);
        let ended = first.end(30);
        let micros = Duration::from_micros;
        assert_eq!((ended.from, ended.to), (0, 30));
        assert_eq!(ended.gap(0..1), micros(10));
        assert_eq!(ended.gap(0..2), micros(15));
        // Nothing since 5, up to the end.
        assert_eq!(ended.gap(2..4), micros(25));
        // What began before counts in full.
        first.take(0, 35);
        first.take(2, 60);
        let ended = first.end(70);
        assert_eq!(ended.gap(0..1), micros(35));
        assert_eq!(ended.gap(2..3), micros(55));
    }

    #[test]
    fn what_arrived_after_the_end_is_in_the_next_window() {
        let mut going_on = window(&[(0, 10), (0, 29), (0, 30), (0, 31)]);
        let ended = going_on.end(30);
        assert_eq!(ended.flows(0..1, 0), Some(10));
        assert_eq!(ended.flows(0..1, 30), None);
        assert_eq!(going_on.flows(0..1, 0), Some(30));
        assert_eq!(going_on.end(32).gap(0..1), Duration::from_micros(1));
    }

    #[test]
    fn a_room_flows_when_all_its_streams_do() {
        let mut going_on = window(&[(0, 1), (0, 50), (1, 2), (2, 70)]);
        let ended = going_on.end(100);
        for (streams, from, expected) in [
            (0..1, 1, Some(1)),
            (0..1, 2, Some(50)),
            (0..2, 1, Some(2)),
            (0..2, 3, None),
            (2..4, 0, None),
        ] {
            assert_eq!(ended.flows(streams.clone(), from), expected, "{streams:?}");
        }
    }

    #[test]
    fn requests_for_key_frames_are_of_a_window() {
        let mut going_on = window(&[]);
        going_on.take_key_frame_request(1);
        let ended = going_on.end(10);
        assert_eq!([0, 1].map(|room| ended.key_frames(room)), [0, 1]);
        assert_eq!(going_on.end(20).key_frames(1), 0);
    }
}
