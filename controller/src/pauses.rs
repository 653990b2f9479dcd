//! Who paused a producer or a consumer. Pure.

use crate::Originator;

/// The application and the client may pause the same thing; it runs when neither does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pauses {
    /// By the application.
    pub(crate) local: bool,
    /// By the client.
    pub(crate) remote: bool,
}

/// What a change on one side means for the sum of both, which is all that the worker hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    Paused,
    Resumed,
    Same,
}

impl Pauses {
    pub(crate) fn is_any(self) -> bool {
        self.local || self.remote
    }

    /// Pauses or resumes one side; `None` if that side was so already.
    pub(crate) fn set(&mut self, side: Originator, is_paused: bool) -> Option<Sum> {
        let was_any = self.is_any();
        let own = match side {
            Originator::Remote => &mut self.remote,
            Originator::Local | Originator::Source => &mut self.local,
        };
        if std::mem::replace(own, is_paused) == is_paused {
            return None;
        }
        Some(match (was_any, self.is_any()) {
            (false, true) => Sum::Paused,
            (true, false) => Sum::Resumed,
            _ => Sum::Same,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Originator::{Local, Remote};

    #[test]
    fn it_runs_when_neither_side_pauses() {
        let mut pauses = Pauses::default();
        let steps = [
            (Local, false, None),
            (Local, true, Some(Sum::Paused)),
            (Local, true, None),
            (Remote, true, Some(Sum::Same)),
            (Local, false, Some(Sum::Same)),
            (Remote, false, Some(Sum::Resumed)),
            (Remote, false, None),
        ];
        for (at, (side, is_paused, expected)) in steps.into_iter().enumerate() {
            assert_eq!(pauses.set(side, is_paused), expected, "step {at}");
        }
    }
}
