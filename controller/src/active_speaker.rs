//! Who speaks: the producer that was the loudest for long enough.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use crate::events::{Emitter, EventStream};
use crate::producer::Producer;
use crate::room::Room;

/// Reports in a row that a producer must lead to take over from one that is still there.
const LEAD: usize = 4;

/// Quieter is silence, in dBov.
const LEVEL_MIN: i8 = -80;

/// What happens to a detector (`spec: api.md` §14).
#[derive(Clone, Debug)]
pub enum ActiveSpeakerEvent {
    /// Another producer, and with it its peer, is the active speaker; `None`: nobody any more.
    Change(Option<Producer>),
    /// It closed, or its room did.
    Close,
}

/// Tells the active speaker of a room: the first at once, another after 2 s of leading.
///
/// Silence does not end somebody's turn; pausing or closing the producer does. A cheap handle;
/// dropping it closes nothing.
#[derive(Clone)]
pub struct ActiveSpeakerDetector(Arc<Inner>);

struct Inner {
    is_closed: watch::Sender<bool>,
    events: Emitter<ActiveSpeakerEvent>,
}

impl std::fmt::Debug for ActiveSpeakerDetector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActiveSpeakerDetector")
            .field("closed", &self.closed())
            .finish_non_exhaustive()
    }
}

impl ActiveSpeakerDetector {
    /// Listens to the room's audio levels until either of them closes.
    pub(crate) fn start(room: &Room) -> Self {
        let detector = Self(Arc::new(Inner {
            is_closed: watch::Sender::new(false),
            events: Emitter::default(),
        }));
        let mut levels = room.audio_levels();
        let mut closing = detector.0.is_closed.subscribe();
        let telling = detector.clone();
        tokio::spawn(async move {
            let mut speakers = Speakers::default();
            loop {
                let heard = tokio::select! {
                    heard = levels.recv() => heard,
                    _ = closing.wait_for(|is_closed| *is_closed) => None,
                };
                let Some(heard) = heard else { break };
                let is_live = |producer: &Producer| !producer.closed() && !producer.paused();
                if let Some(change) = speakers.hear(heard.into_iter().next(), is_live) {
                    telling.0.events.emit(ActiveSpeakerEvent::Change(change));
                }
            }
            telling.close();
        });
        detector
    }

    /// Whether it has been closed.
    pub fn closed(&self) -> bool {
        *self.0.is_closed.borrow()
    }

    /// What happens from now on.
    pub fn events(&self) -> EventStream<ActiveSpeakerEvent> {
        self.0.events.subscribe()
    }

    /// Stops listening. Does nothing if it is closed.
    pub fn close(&self) {
        self.0.is_closed.send_replace(true);
        self.0.events.emit_last(ActiveSpeakerEvent::Close);
    }
}

/// The decision: reports in, changes out. Pure.
struct Speakers<P> {
    active: Option<P>,
    /// The loudest of the last reports, the latest last.
    loudest: VecDeque<Option<(P, i8)>>,
}

impl<P> Default for Speakers<P> {
    fn default() -> Self {
        Self {
            active: None,
            loudest: VecDeque::new(),
        }
    }
}

impl<P: PartialEq + Clone> Speakers<P> {
    /// Takes the loudest of one report, or that nobody was heard; returns the new active speaker
    /// if that changed.
    fn hear(
        &mut self,
        loudest: Option<(P, i8)>,
        is_live: impl Fn(&P) -> bool,
    ) -> Option<Option<P>> {
        let incumbent = self.active.clone().filter(&is_live);
        let needed = if incumbent.is_some() { LEAD } else { 1 };
        if incumbent.is_none() {
            self.loudest.clear();
        }
        self.loudest.push_back(loudest);
        if self.loudest.len() > LEAD {
            self.loudest.pop_front();
        }
        let leader = self.leader(needed, is_live).or(incumbent);
        let has_changed = leader != self.active;
        self.active.clone_from(&leader);
        has_changed.then_some(leader)
    }

    /// Who led the last `needed` reports, all of them.
    fn leader(&self, needed: usize, is_live: impl Fn(&P) -> bool) -> Option<P> {
        let (first, _) = self.loudest.back()?.as_ref()?;
        let is_led = |report: &Option<(P, i8)>| matches!(report, Some((producer, level)) if producer == first && *level >= LEVEL_MIN);
        let leads = self.loudest.len() >= needed
            && self.loudest.iter().rev().take(needed).all(is_led)
            && is_live(first);
        leads.then(|| first.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds reports and returns what was told, by the number of the report.
    fn changes(
        reports: &[Option<(char, i8)>],
        gone: &dyn Fn(usize, char) -> bool,
    ) -> Vec<(usize, Option<char>)> {
        let mut speakers = Speakers::default();
        let mut told = Vec::new();
        for (at, report) in reports.iter().enumerate() {
            if let Some(change) = speakers.hear(*report, |producer| !gone(at, *producer)) {
                told.push((at, change));
            }
        }
        told
    }

    #[test]
    fn the_first_speaker_is_told_at_once_and_another_after_four_reports() {
        let (a, b) = (Some(('a', -30)), Some(('b', -20)));
        let nobody = |_, _| false;
        let rows = [
            (vec![a], vec![(0, Some('a'))]),
            (vec![a, b, b, b], vec![(0, Some('a'))]),
            (vec![a, b, b, b, b], vec![(0, Some('a')), (4, Some('b'))]),
            (vec![a, b, b, a, b, b], vec![(0, Some('a'))]),
            (vec![a, b, b, None, b, b, b], vec![(0, Some('a'))]),
            (vec![None, None], vec![]),
            // Silence ends nobody's turn.
            (vec![a, None, None, None, None, None], vec![(0, Some('a'))]),
        ];
        for (reports, expected) in rows {
            assert_eq!(changes(&reports, &nobody), expected, "{reports:?}");
        }
    }

    #[test]
    fn a_whisper_does_not_count() {
        let nobody = |_, _| false;
        for (level, is_heard) in [(-127, false), (-81, false), (-80, true), (0, true)] {
            let told = changes(&[Some(('a', level))], &nobody);
            assert_eq!(!told.is_empty(), is_heard, "{level}");
        }
    }

    #[test]
    fn who_pauses_or_closes_loses_the_turn_at_the_next_report() {
        let (a, b) = (Some(('a', -30)), Some(('b', -20)));
        let a_leaves = |at, producer| at >= 2 && producer == 'a';
        let told = changes(&[a, a, None], &a_leaves);
        assert_eq!(told, [(0, Some('a')), (2, None)]);
        let told = changes(&[a, a, b], &a_leaves);
        assert_eq!(told, [(0, Some('a')), (2, Some('b'))]);
        // A report of somebody who has just left is worth nothing.
        assert_eq!(changes(&[a, a, a], &a_leaves), [(0, Some('a')), (2, None)]);
    }
}
