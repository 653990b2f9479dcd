//! A room's way to its worker, whichever that is at the time.

use std::sync::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::lock;
use crate::worker_channel::{Command, Requests, WorkerChannel};

/// A way that outlives workers: what is asked while there is none is kept for the next.
pub(crate) struct RoomChannel(Mutex<Link>);

/// Requests that no worker is asked any more.
#[must_use]
pub(crate) struct GivenUp(Vec<Command>);

enum Link {
    Up(WorkerChannel),
    /// A channel that ended, of a worker that may live still: nobody else may go on yet. What is to
    /// be asked of the next.
    Broken(Vec<Command>),
    /// No worker; what is to be asked of the next.
    Down(Vec<Command>),
    /// The room is closed.
    Closed,
}

impl RoomChannel {
    pub(crate) fn new(channel: WorkerChannel) -> Self {
        Self(Mutex::new(Link::Up(channel)))
    }

    /// Lets the worker be asked the last thing by `ask`; what comes later is kept for the next.
    /// Returns whether there is a worker.
    pub(crate) fn hold(&self, ask: impl FnOnce(&WorkerChannel)) -> bool {
        let mut link = self.link();
        let Link::Up(channel) = &*link else {
            return false;
        };
        ask(channel);
        *link = Link::Down(Vec::new());
        true
    }

    /// The worker is gone. What it left unanswered is asked once more of the next one; a request
    /// over which two workers died is given up, and so is what only that worker was to do.
    pub(crate) fn cut(&self, unanswered: Vec<Command>) -> GivenUp {
        let (given_up, mut kept): (Vec<_>, Vec<_>) = unanswered
            .into_iter()
            .partition(|command| command.is_last_try);
        for command in &mut kept {
            command.is_last_try = true;
        }
        {
            let mut link = self.link();
            match &mut *link {
                Link::Up(_) => *link = Link::Down(kept),
                // Asked since: later than what was left.
                Link::Broken(later) | Link::Down(later) => {
                    kept.append(later);
                    *link = Link::Down(kept);
                }
                Link::Closed => {}
            }
        }
        GivenUp(given_up)
    }

    /// Goes on with a worker, if there is none: first what `rebuild` asks of it, then what was
    /// kept. Requests from now on come behind.
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
            false => Link::Broken(unsent),
        };
    }

    /// Whether it has no worker, though it is open.
    pub(crate) fn is_down(&self) -> bool {
        matches!(&*self.link(), Link::Down(_))
    }

    /// Takes no more requests; what was kept is given up.
    pub(crate) fn close(&self) {
        let link = std::mem::replace(&mut *self.link(), Link::Closed);
        if let Link::Broken(kept) | Link::Down(kept) = link {
            GivenUp(kept).settle();
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
                    *link = Link::Broken(vec![*command]);
                }
                Ok(())
            }
            Link::Broken(kept) | Link::Down(kept) => {
                kept.push(command);
                Ok(())
            }
            Link::Closed => Err(Box::new(command)),
        }
    }
}

impl GivenUp {
    /// Tells those who wait. Not under a lock: they may ask again.
    pub(crate) fn settle(self) {
        for command in self.0 {
            command.settle(Err(Error::ChannelClosed));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use broth_ipc::body::Empty;
    use broth_ipc::{Call, Channel, Ids, PAYLOAD_BYTES_MAX, Received, Request, Response, RouterId};
    use serde_json::json;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::worker_channel::ChannelEnd;

    const IDS: Ids = Ids::NONE;

    struct Worker {
        channel: WorkerChannel,
        end: JoinHandle<ChannelEnd>,
        process: Channel,
    }

    fn worker() -> Worker {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (channel, end) = WorkerChannel::start(ours, |_| {}).unwrap();
        Worker {
            channel,
            end,
            process: Channel::new(theirs, PAYLOAD_BYTES_MAX).unwrap(),
        }
    }

    impl Worker {
        /// The method asked for next.
        async fn asked(&mut self) -> (u32, &'static str) {
            let Received::Payload(payload) = self.process.next().await.unwrap() else {
                panic!("the channel ended");
            };
            let request = Request::parse(&payload).unwrap().request.unwrap();
            (request.id, request.call.method())
        }

        fn answer(&mut self, id: u32) {
            let result = Ok(json!({}));
            let payload = Response { id, result }.to_payload().unwrap();
            self.process.send(&payload, vec![]).unwrap();
        }

        /// Dies, and returns what it did not answer.
        async fn die(self) -> Vec<Command> {
            drop(self.process);
            self.end.await.unwrap().unanswered
        }
    }

    fn pause() -> Call {
        Call::PauseProducer(Empty {})
    }

    fn resume() -> Call {
        Call::ResumeProducer(Empty {})
    }

    #[tokio::test]
    async fn what_was_not_answered_is_asked_of_the_next_worker_behind_what_makes_the_room_again() {
        let mut first = worker();
        let channel = std::sync::Arc::new(RoomChannel::new(first.channel.clone()));
        let asking = std::sync::Arc::clone(&channel);
        let answer = tokio::spawn(async move { asking.request(IDS, pause(), vec![]).await });
        first.asked().await;
        // Sent to a dead worker that nobody knows to be dead, and then to none.
        let unanswered = first.die().await;
        channel.send(IDS, resume());
        assert!(!channel.is_down());
        let hasty = worker();
        channel.go_on(&hasty.channel, |_| {
            panic!("the last one may still be there")
        });
        channel.cut(unanswered).settle();
        channel.send(IDS, Call::RequestKeyFrame(Empty {}));

        let mut second = worker();
        channel.go_on(&second.channel, |kept| {
            let kept: Vec<_> = kept.iter().map(|command| command.call.method()).collect();
            assert_eq!(
                kept,
                [
                    "producer.pause",
                    "producer.resume",
                    "consumer.requestKeyFrame"
                ]
            );
            second.channel.send(
                Ids::router(RouterId(1)),
                Call::CreateRouter(Default::default()),
            );
        });
        channel.send(IDS, Call::CloseConsumer(Empty {}));
        let mut asked = Vec::new();
        for _ in 0..5 {
            let (id, method) = second.asked().await;
            second.answer(id);
            asked.push(method);
        }
        let expected = [
            "worker.createRouter",
            "producer.pause",
            "producer.resume",
            "consumer.requestKeyFrame",
            "consumer.close",
        ];
        assert_eq!(asked, expected);
        assert_eq!(answer.await.unwrap(), Ok(json!({})));
    }

    #[tokio::test]
    async fn a_request_that_two_workers_died_over_is_given_up() {
        let mut dying = worker();
        let channel = std::sync::Arc::new(RoomChannel::new(dying.channel.clone()));
        let asking = std::sync::Arc::clone(&channel);
        let answer = tokio::spawn(async move { asking.request(IDS, pause(), vec![]).await });
        for _ in 0..2 {
            dying.asked().await;
            channel.cut(dying.die().await).settle();
            dying = worker();
            channel.go_on(&dying.channel, |_| {});
        }
        assert_eq!(answer.await.unwrap(), Err(Error::ChannelClosed));
        channel.send(IDS, resume());
        assert_eq!(dying.asked().await.1, "producer.resume");
    }

    #[tokio::test]
    async fn a_closed_room_asks_nothing_any_more() {
        let mut first = worker();
        let channel = std::sync::Arc::new(RoomChannel::new(first.channel.clone()));
        let asking = std::sync::Arc::clone(&channel);
        let answer = tokio::spawn(async move { asking.request(IDS, pause(), vec![]).await });
        first.asked().await;
        channel.cut(first.die().await).settle();
        channel.close();
        assert_eq!(answer.await.unwrap(), Err(Error::ChannelClosed));
        let late = channel.request(IDS, pause(), vec![]).await;
        assert_eq!(late, Err(Error::ChannelClosed));
        let second = worker();
        channel.go_on(&second.channel, |_| {
            panic!("there is nothing to go on with")
        });
    }
}
