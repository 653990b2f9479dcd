//! Deadlines: each transport has one, the earliest of everything on it.

use std::time::{Duration, Instant};

use broth_ipc::black_box::Work;
use broth_ipc::{Event, Scope};

use super::Router;
use super::egress::send_keyframe_request;
use crate::io::Io;
use crate::stream::NackAction;

/// Between two audio level reports (`spec: media.md` §9).
const AUDIO_LEVELS_INTERVAL: Duration = Duration::from_millis(500);
/// Round-trip time assumed towards a producer; only the floor of NACK repetition.
const PRODUCER_RTT: Duration = Duration::from_millis(100);

impl Router {
    /// Marks a transport whose deadline may have changed. A burst comes from one: it is marked once.
    pub(super) fn touch(&mut self, key: usize) {
        if self.touched.last() != Some(&key) {
            self.touched.push(key);
        }
    }

    /// The new deadlines of the transports touched in this turn: `(transport, deadline)`.
    pub fn take_deadlines(&mut self, mut schedule: impl FnMut(usize, Instant)) {
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            if !self.transports.contains(key) {
                continue;
            }
            let deadline = self.deadline(key);
            let transport = &mut self.transports[key];
            if transport.wake_at.is_none_or(|wake_at| deadline < wake_at) {
                transport.wake_at = Some(deadline);
                schedule(key, deadline);
            }
        }
        self.touched = touched;
    }

    fn deadline(&self, key: usize) -> Instant {
        let transport = &self.transports[key];
        let streams = transport
            .producers
            .iter()
            .flat_map(|&producer| &self.producers[producer].streams)
            .flat_map(|stream| {
                [
                    stream.recv.nack.poll_timeout(),
                    stream.keyframes.poll_timeout(),
                ]
            });
        streams
            .chain([transport.poll_timeout()])
            .flatten()
            .fold(transport.rtcp_at, Instant::min)
    }

    /// Whether it is nothing but reports that a transport is woken for at `at`: they may leave early.
    /// Not those of a sender: with them it is found out which of its layers fell silent, and right
    /// behind the first packet after a pause all others would be.
    pub fn is_report(&self, key: usize, at: Instant) -> bool {
        let transport = self.transports.get(key);
        transport.is_some_and(|it| it.rtcp_at == at && it.producers.is_empty())
    }

    /// Wakes a transport whose deadline `at` has come, or nearly if it is for reports, unless it was
    /// moved meanwhile.
    pub fn handle_deadline(&mut self, io: &mut Io, key: usize, at: Instant) {
        let Some(transport) = self.transports.get_mut(key) else {
            return;
        };
        if transport.wake_at != Some(at) {
            return;
        }
        transport.wake_at = None;
        let id = Some(transport.id);
        io.black_box.take(Work::Timer, self.id, id);
        transport.handle_timeout(io.now);
        if transport
            .arrivals
            .poll_timeout()
            .is_some_and(|at| at <= io.now)
        {
            transport.send_arrivals(io);
        }
        let is_report_due = transport.rtcp_at <= io.now.max(at);
        self.drain(io, key);
        self.handle_stream_timeouts(io, key);
        if is_report_due {
            self.update_activity(io, key);
            self.send_reports(io, key);
        }
        self.touch(key);
    }

    /// Asks again for what is still missing: packets and key frames.
    pub(super) fn handle_stream_timeouts(&mut self, io: &mut Io, key: usize) {
        let mut missing = std::mem::take(&mut io.missing);
        for at in 0..self.transports[key].producers.len() {
            let producer_key = self.transports[key].producers[at];
            for index in 0..self.producers[producer_key].streams.len() {
                let stream = &mut self.producers[producer_key].streams[index];
                let transport = &mut self.transports[key];
                let now = io.now;
                let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
                if is_due(stream.keyframes.poll_timeout())
                    && stream.keyframes.handle_timeout(io.now)
                {
                    send_keyframe_request(io, stream, transport);
                }
                if !is_due(stream.recv.nack.poll_timeout()) {
                    continue;
                }
                missing.clear();
                let action = stream.recv.nack.poll(io.now, PRODUCER_RTT, &mut missing);
                let ssrc = stream.ssrc;
                match action {
                    NackAction::None => {}
                    NackAction::Nack => {
                        stream.recv.nacks += 1;
                        stream.note_asked();
                        self.send_nack(io, key, ssrc, &missing);
                    }
                    NackAction::KeyFrameNeeded => {
                        self.request_keyframe(io, producer_key, index as u8, false);
                    }
                }
            }
        }
        io.missing = missing;
    }

    fn update_activity(&mut self, io: &mut Io, key: usize) {
        for at in 0..self.transports[key].producers.len() {
            let producer_key = self.transports[key].producers[at];
            self.producers[producer_key].clear_silent(io);
            if self.producers[producer_key].update_activity(io) {
                self.choose_all(io, producer_key);
            }
        }
    }

    /// Switches the audio level reports.
    pub fn set_audio_levels(&mut self, now: Instant, is_enabled: bool) {
        if is_enabled != self.audio_levels_at.is_some() {
            self.audio_levels_at = is_enabled.then(|| now + AUDIO_LEVELS_INTERVAL);
        }
    }

    /// When the next audio level report is due.
    pub fn audio_levels_at(&self) -> Option<Instant> {
        self.audio_levels_at
    }

    /// Reports the audio levels if that is due.
    pub fn handle_audio_levels(&mut self, io: &mut Io) {
        if self.audio_levels_at.is_none_or(|at| at > io.now) {
            return;
        }
        self.audio_levels_at = Some(io.now + AUDIO_LEVELS_INTERVAL);
        let entries = self
            .producers
            .iter_mut()
            .filter_map(|(_, producer)| Some((producer.id, producer.levels.take()?)))
            .collect();
        let event = Event::AudioLevels { entries };
        io.note(self.id, Scope::Router, self.id.0, event);
    }
}
