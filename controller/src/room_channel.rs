//! A room's way to its worker, whichever that is at the time.

use std::sync::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::lock;
use crate::worker_channel::{Command, Requests, WorkerChannel};

/// A way that outlives workers: what is asked while there is none is kept for the next.
pub(crate) struct RoomChannel(Mutex<Link>);

enum Link {
    Up(WorkerChannel),
    /// No worker; what is to be asked of the next.
    Down(Vec<Command>),
    /// The room is closed.
    Closed,
}

impl RoomChannel {
    pub(crate) fn new(channel: WorkerChannel) -> Self {
        Self(Mutex::new(Link::Up(channel)))
    }

    /// The worker is gone. What it left unanswered is asked once more of the next one; a request
    /// over which two workers died is given up.
    pub(crate) fn cut(&self, unanswered: Vec<Command>) {
        let (given_up, mut kept): (Vec<_>, Vec<_>) = unanswered
            .into_iter()
            .partition(|command| command.is_repeated);
        for command in &mut kept {
            command.is_repeated = true;
        }
        {
            let mut link = self.link();
            match &mut *link {
                Link::Up(_) => *link = Link::Down(kept),
                // Asked since: later than what was left.
                Link::Down(later) => {
                    kept.append(later);
                    *later = kept;
                }
                Link::Closed => {}
            }
        }
        settle(given_up);
    }

    /// Goes on with another worker: first what `rebuild` asks of it, then what was kept. Requests
    /// from now on come behind.
    pub(crate) fn go_on(&self, channel: &WorkerChannel, rebuild: impl FnOnce(&[Command])) {
        let mut link = self.link();
        let Link::Down(kept) = &mut *link else {
            return;
        };
        rebuild(kept);
        let mut unsent = Vec::new();
        for command in std::mem::take(kept) {
            // Once the channel is closed, everything comes back.
            unsent.extend(channel.push(command).err().map(|command| *command));
        }
        *link = match unsent.is_empty() {
            true => Link::Up(channel.clone()),
            false => Link::Down(unsent),
        };
    }

    /// Takes no more requests; what was kept is given up.
    pub(crate) fn close(&self) {
        let link = std::mem::replace(&mut *self.link(), Link::Closed);
        if let Link::Down(kept) = link {
            settle(kept);
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        lock(&self.0)
    }
}

impl Requests for RoomChannel {
    fn push(&self, command: Command) -> Result<(), Box<Command>> {
        let mut link = self.link();
        match &mut *link {
            Link::Up(channel) => {
                // The channel may be gone before its end is told.
                if let Err(command) = channel.push(command) {
                    *link = Link::Down(vec![*command]);
                }
                Ok(())
            }
            Link::Down(kept) => {
                kept.push(command);
                Ok(())
            }
            Link::Closed => Err(Box::new(command)),
        }
    }
}

/// Gives requests up. Not under the lock of the link: who waits may ask again.
fn settle(commands: Vec<Command>) {
    for command in commands {
        command.settle(Err(Error::ChannelClosed));
    }
}
