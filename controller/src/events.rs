//! Typed events: every live subscriber gets every event, in order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::lock;

/// Events kept for the first subscriber of an object; of more the oldest are given up.
///
/// An application learns of an object by an event and subscribes a moment later.
const BACKLOG: usize = 16;

/// The same for what an application may look at late: servers, rooms and peers.
pub(crate) const LONG_BACKLOG: usize = 256;

/// The events of one object, from the subscription on; ends after the object's last event.
///
/// The first subscriber also gets the last of what happened before it subscribed.
#[derive(Debug)]
pub struct EventStream<E>(mpsc::UnboundedReceiver<E>);

impl<E> Stream for EventStream<E> {
    type Item = E;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<E>> {
        self.0.poll_recv(context)
    }
}

impl<E> EventStream<E> {
    /// Waits for the next event, without the need for a stream extension trait.
    pub async fn recv(&mut self) -> Option<E> {
        self.0.recv().await
    }
}

#[derive(Debug)]
struct State<E> {
    subscribers: Vec<mpsc::UnboundedSender<E>>,
    /// What the first subscriber is to get; `None` once there was one.
    backlog: Option<VecDeque<E>>,
    backlog_max: usize,
    /// The last event, for those who subscribe after it.
    last: Option<E>,
}

/// The sending side of an object's events.
#[derive(Debug)]
pub(crate) struct Emitter<E>(Mutex<State<E>>);

impl<E> Default for Emitter<E> {
    fn default() -> Self {
        Self::keeping(BACKLOG)
    }
}

impl<E> Emitter<E> {
    /// An emitter that keeps so many events for the first subscriber.
    pub(crate) fn keeping(backlog_max: usize) -> Self {
        Self(Mutex::new(State {
            subscribers: Vec::new(),
            backlog: Some(VecDeque::new()),
            backlog_max,
            last: None,
        }))
    }
}

impl<E: Clone> Emitter<E> {
    /// A stream of everything emitted from now on, and of what nobody has heard yet.
    pub(crate) fn subscribe(&self) -> EventStream<E> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = lock(&self.0);
        for event in state.backlog.take().unwrap_or_default() {
            let _ = sender.send(event);
        }
        match &state.last {
            Some(last) => drop(sender.send(last.clone())),
            None => state.subscribers.push(sender),
        }
        EventStream(receiver)
    }

    /// Tells everybody; returns whether anybody listens.
    pub(crate) fn emit(&self, event: E) -> bool {
        let mut state = lock(&self.0);
        if state.last.is_some() {
            return false;
        }
        state
            .subscribers
            .retain(|subscriber| subscriber.send(event.clone()).is_ok());
        let backlog_max = state.backlog_max;
        if let Some(backlog) = &mut state.backlog {
            if backlog.len() == backlog_max {
                backlog.pop_front();
            }
            backlog.push_back(event);
        }
        !state.subscribers.is_empty()
    }

    /// Tells everybody the last event and ends all streams.
    ///
    /// What nobody listened to is let go, as it may hold handles that hold this object.
    pub(crate) fn emit_last(&self, event: E) {
        let mut state = lock(&self.0);
        if state.last.is_some() {
            return;
        }
        for subscriber in state.subscribers.drain(..) {
            let _ = subscriber.send(event.clone());
        }
        state.backlog = None;
        state.last = Some(event);
    }

    /// Ends all streams without a last event.
    pub(crate) fn end(&self) {
        lock(&self.0).subscribers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_subscriber_gets_what_came_before_and_others_do_not() {
        let emitter = Emitter::default();
        emitter.emit(1);
        let mut first = emitter.subscribe();
        emitter.emit(2);
        let mut second = emitter.subscribe();
        emitter.emit_last(3);
        let mut seen = Vec::new();
        while let Some(event) = first.recv().await {
            seen.push(event);
        }
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!(second.recv().await, Some(3));
        assert_eq!(second.recv().await, None);
    }

    #[tokio::test]
    async fn who_comes_after_the_end_still_learns_of_it() {
        let emitter = Emitter::default();
        emitter.emit(1);
        emitter.emit_last(2);
        assert!(!emitter.emit(3));
        let mut late = emitter.subscribe();
        assert_eq!(late.recv().await, Some(2));
        assert_eq!(late.recv().await, None);
    }
}
