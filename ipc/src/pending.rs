//! The table of requests that wait for their answer.

use slab::Slab;

/// What identifies a pending request to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The id to put in the request.
    pub id: u32,
    key: usize,
}

/// Requests waiting for an answer, by a sequential nonzero id.
///
/// Ids run on through the whole `u32` space before one is used again, so a late answer to a
/// request that was given up never meets a younger request.
#[derive(Debug)]
pub struct Pending<T> {
    entries: Slab<(u32, T)>,
    id_last: u32,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            id_last: 0,
        }
    }
}

impl<T> Pending<T> {
    /// Adds a waiting request.
    pub fn insert(&mut self, waiter: T) -> Ticket {
        self.id_last = self.id_last.checked_add(1).unwrap_or(1);
        let id = self.id_last;
        let key = self.entries.insert((id, waiter));
        Ticket { id, key }
    }

    /// Takes the waiter of the answer `id`, or `None` if nobody waits for it.
    ///
    /// Answers come in request order, so the entry is nearly always among the first.
    pub fn take(&mut self, id: u32) -> Option<T> {
        let key = self
            .entries
            .iter()
            .find_map(|(key, entry)| (entry.0 == id).then_some(key))?;
        Some(self.entries.remove(key).1)
    }

    /// Gives up a request, for instance after its deadline.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        match self.entries.get(ticket.key) {
            Some((id, _)) if *id == ticket.id => Some(self.entries.remove(ticket.key).1),
            _ => None,
        }
    }

    /// Takes every waiter, oldest id first.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        let mut entries: Vec<_> = self.entries.drain().collect();
        entries.sort_by_key(|(id, _)| *id);
        entries.into_iter().map(|(_, waiter)| waiter)
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_its_request_once() {
        let mut pending = Pending::default();
        let a = pending.insert("a");
        let b = pending.insert("b");
        assert_ne!(a.id, 0);
        assert_eq!(pending.take(b.id), Some("b"));
        assert_eq!(pending.take(b.id), None);
        assert_eq!(pending.take(a.id), Some("a"));
        assert!(pending.is_empty());
    }

    #[test]
    fn a_cancelled_ticket_does_not_cancel_the_next_user_of_its_slot() {
        let mut pending = Pending::default();
        let a = pending.insert("a");
        assert_eq!(pending.cancel(a), Some("a"));
        let b = pending.insert("b");
        assert_eq!(pending.cancel(a), None);
        assert_eq!(pending.take(a.id), None);
        assert_eq!(pending.cancel(b), Some("b"));
    }

    #[test]
    fn ids_wrap_past_zero() {
        let mut pending = Pending {
            id_last: u32::MAX,
            ..Pending::default()
        };
        assert_eq!(pending.insert(()).id, 1);
    }

    #[test]
    fn drain_gives_the_oldest_first() {
        let mut pending = Pending::default();
        let a = pending.insert(1);
        pending.insert(2);
        pending.take(a.id);
        pending.insert(3);
        assert_eq!(pending.drain().collect::<Vec<_>>(), [2, 3]);
    }
}
