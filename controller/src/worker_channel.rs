//! Requests to one worker and its notifications, over one channel.
//!
//! A task owns the channel and the table of pending requests. Answers and notifications are
//! handled in the order the worker sent them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant as StdInstant};

use broth_ipc::{
    Call, Channel, ChannelError, Event, FromWorker, GARBAGE, Ids, Notification, PAYLOAD_BYTES_MAX,
    Pending, Received, Request, Response, Ticket,
};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::error::{Error, Result};

/// Requests that leave together, and messages that are handled before the next ones leave.
const BATCH: usize = 64;

/// How long a worker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

type Then = Box<dyn FnOnce(Result<Value>) + Send>;

enum Waiter {
    Reply(oneshot::Sender<Result<Value>>),
    Then(Then),
    /// Nobody waits; a refusal is logged under the method's name.
    Log(&'static str),
}

/// A request and who waits for its answer.
pub(crate) struct Command {
    pub(crate) ids: Ids,
    pub(crate) call: Call,
    fds: Vec<OwnedFd>,
    waiter: Waiter,
    /// It is not asked again of another worker, should this one die over it.
    pub(crate) is_last_try: bool,
}

impl Command {
    fn new(ids: Ids, call: Call, fds: Vec<OwnedFd>, waiter: Waiter) -> Self {
        Self {
            ids,
            call,
            fds,
            waiter,
            is_last_try: false,
        }
    }

    /// Hands the answer to who waits for it.
    pub(crate) fn settle(self, result: Result<Value>) {
        match self.waiter {
            Waiter::Reply(reply) => drop(reply.send(result)),
            Waiter::Then(then) => then(result),
            Waiter::Log(method) => match result {
                // The end of a channel is told elsewhere.
                Ok(_) | Err(Error::ChannelClosed) => {}
                Err(error) => tracing::warn!(method, %error, "request failed"),
            },
        }
    }
}

/// A way to a worker. Requests leave in the order of the calls.
pub(crate) trait Requests {
    /// Takes a request; gives it back if it would never be answered.
    fn push(&self, command: Command) -> Result<(), Box<Command>>;

    /// Sends a request and waits for the answer.
    async fn request(&self, ids: Ids, call: Call, fds: Vec<OwnedFd>) -> Result<Value> {
        let (reply, answer) = oneshot::channel();
        let pushed = self.push(Command::new(ids, call, fds, Waiter::Reply(reply)));
        pushed.map_err(|_| Error::ChannelClosed)?;
        answer.await.unwrap_or(Err(Error::ChannelClosed))
    }

    /// Sends a request, hands the answer to `then` in order with the notifications, and waits for
    /// what that returns.
    async fn request_then<T: Send + 'static>(
        &self,
        ids: Ids,
        call: Call,
        fds: Vec<OwnedFd>,
        then: impl FnOnce(Result<Value>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, result) = oneshot::channel();
        let then: Then = Box::new(|answer| drop(reply.send(then(answer))));
        let pushed = self.push(Command::new(ids, call, fds, Waiter::Then(then)));
        pushed.map_err(|_| Error::ChannelClosed)?;
        result.await.unwrap_or(Err(Error::ChannelClosed))
    }

    /// Sends a request; a refusal is only logged.
    fn send(&self, ids: Ids, call: Call) {
        let method = call.method();
        // A closed channel needs no log: the worker's end is told elsewhere.
        let _ = self.push(Command::new(ids, call, Vec::new(), Waiter::Log(method)));
    }

    /// Sends a request and hands the answer to `then`, in order with the notifications.
    ///
    /// `then` is never called before this returns, and not at all on a closed channel.
    fn send_then(&self, ids: Ids, call: Call, then: impl FnOnce(Result<Value>) + Send + 'static) {
        let then = Waiter::Then(Box::new(then));
        let _ = self.push(Command::new(ids, call, Vec::new(), then));
    }

    /// The same, with descriptors, for what means something to this worker alone.
    fn send_once_then(
        &self,
        ids: Ids,
        call: Call,
        fds: Vec<OwnedFd>,
        then: impl FnOnce(Result<Value>) + Send + 'static,
    ) {
        let then = Waiter::Then(Box::new(then));
        let mut command = Command::new(ids, call, fds, then);
        command.is_last_try = true;
        let _ = self.push(command);
    }
}

/// A channel that is made to work badly.
pub(crate) enum ChannelFault {
    /// Each message waits.
    Slow { delay: Duration, until: StdInstant },
    /// Bytes that are no message are sent.
    Garbage,
}

/// What is left of a channel.
#[derive(Default)]
pub(crate) struct ChannelEnd {
    /// Requests that were not answered, in their order.
    pub(crate) unanswered: Vec<Command>,
    /// The channel, if it was given up on this side: for the worker it is open still.
    pub(crate) given_up: Option<Channel>,
}

/// The way to one worker.
#[derive(Clone)]
pub(crate) struct WorkerChannel {
    commands: mpsc::UnboundedSender<Command>,
    faults: mpsc::UnboundedSender<ChannelFault>,
    /// Largest payload that may be sent.
    payload_bytes_max: Arc<AtomicUsize>,
    /// Answers to anything but questions for its load.
    answers: Arc<AtomicU64>,
}

impl Requests for WorkerChannel {
    fn push(&self, command: Command) -> Result<(), Box<Command>> {
        let sent = self.commands.send(command);
        sent.map_err(|mpsc::error::SendError(command)| Box::new(command))
    }
}

impl WorkerChannel {
    /// Starts the task that owns the channel; it ends when the channel does.
    pub(crate) fn start(
        socket: UnixStream,
        handle: impl FnMut(Notification) + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<ChannelEnd>)> {
        let channel = Channel::new(socket, PAYLOAD_BYTES_MAX)?;
        let (commands, queue) = mpsc::unbounded_channel();
        let (faults, injected) = mpsc::unbounded_channel();
        let turn = Turn {
            channel,
            pending: Pending::default(),
            deadlines: VecDeque::new(),
            payload_bytes_max: Arc::new(AtomicUsize::new(PAYLOAD_BYTES_MAX)),
            answers: Arc::default(),
            slow: None,
            handle,
        };
        let own = Self {
            commands,
            faults,
            payload_bytes_max: Arc::clone(&turn.payload_bytes_max),
            answers: Arc::clone(&turn.answers),
        };
        Ok((own, tokio::spawn(turn.run(queue, injected))))
    }

    /// Refuses larger requests from now on.
    pub(crate) fn limit_payloads(&self, payload_bytes_max: usize) {
        self.payload_bytes_max
            .store(payload_bytes_max, Ordering::Relaxed);
    }

    /// How much of what it was asked the worker has answered, questions for its load aside.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Makes it work badly.
    pub(crate) fn disturb(&self, fault: ChannelFault) -> Result<()> {
        let sent = self.faults.send(fault);
        sent.map_err(|_| Error::ChannelClosed)
    }

    /// Ends what makes it slow: its worker is gone.
    pub(crate) fn hurry(&self) {
        let (delay, until) = (Duration::ZERO, StdInstant::now());
        let _ = self.disturb(ChannelFault::Slow { delay, until });
    }

    /// Whether the worker is gone, as far as its channel tells.
    pub(crate) fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }
}

/// What the task works on.
struct Turn<H> {
    channel: Channel,
    pending: Pending<Command>,
    /// Oldest first, as all requests get the same time.
    deadlines: VecDeque<(Instant, Ticket)>,
    payload_bytes_max: Arc<AtomicUsize>,
    answers: Arc<AtomicU64>,
    /// How long each message waits, and until when that is so.
    slow: Option<(Duration, StdInstant)>,
    handle: H,
}

impl<H: FnMut(Notification)> Turn<H> {
    async fn run(
        mut self,
        mut queue: mpsc::UnboundedReceiver<Command>,
        mut injected: mpsc::UnboundedReceiver<ChannelFault>,
    ) -> ChannelEnd {
        let mut is_closed = false;
        loop {
            let slow = self.slow.filter(|(_, until)| StdInstant::now() < *until);
            if let Some((delay, _)) = slow {
                tokio::select! {
                    () = sleep(delay) => {}
                    // It may end the delay.
                    Some(fault) = injected.recv() => match self.suffer(fault) {
                        true => continue,
                        false => break,
                    },
                }
            }
            let batch = if slow.is_some() { 1 } else { BATCH };
            let deadline = self.deadlines.front().map(|(at, _)| *at);
            let is_alive = tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.send_all(command, &mut queue, batch),
                    None => false,
                },
                received = self.channel.next() => match received {
                    Ok(Received::Payload(payload)) => self.receive_all(payload, batch),
                    Ok(Received::Eof) => {
                        is_closed = true;
                        false
                    }
                    Err(error) => {
                        tracing::error!(%error, "worker channel lost");
                        false
                    }
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.expire(Instant::now())
                }
                Some(fault) = injected.recv() => self.suffer(fault),
            };
            if !is_alive {
                break;
            }
        }
        queue.close();
        let mut unanswered: Vec<_> = self.pending.drain().collect();
        while let Ok(command) = queue.try_recv() {
            unanswered.push(command);
        }
        ChannelEnd {
            unanswered,
            given_up: (!is_closed).then_some(self.channel),
        }
    }

    /// Works badly from now on; returns whether the channel is usable.
    fn suffer(&mut self, fault: ChannelFault) -> bool {
        match fault {
            ChannelFault::Slow { delay, until } => {
                self.slow = Some((delay, until));
                true
            }
            ChannelFault::Garbage => self.channel.send_raw(GARBAGE).is_ok(),
        }
    }

    /// Sends a request and those that wait behind it; returns whether the channel is usable.
    fn send_all(
        &mut self,
        first: Command,
        queue: &mut mpsc::UnboundedReceiver<Command>,
        most: usize,
    ) -> bool {
        let rest = std::iter::from_fn(|| queue.try_recv().ok());
        let mut commands = std::iter::once(first).chain(rest.take(most - 1));
        commands.all(|command| self.queue(command)) && usable(self.channel.flush())
    }

    /// Queues a request; returns whether the channel is usable.
    fn queue(&mut self, command: Command) -> bool {
        let fds = command.fds.iter().map(OwnedFd::try_clone).collect();
        let (ids, call) = (command.ids, command.call.clone());
        let ticket = self.pending.insert(command);
        let request = Request {
            id: ticket.id,
            ids,
            call,
        };
        let refused = match self.payload(&request, fds) {
            Ok((payload, fds)) => {
                self.deadlines
                    .push_back((Instant::now() + ANSWER_TIMEOUT, ticket));
                return usable(self.channel.queue(&payload, fds));
            }
            Err(refused) => refused,
        };
        if let Some(command) = self.pending.cancel(ticket) {
            command.settle(Err(refused));
        }
        true
    }

    /// What goes over the wire.
    fn payload(
        &self,
        request: &Request,
        fds: io::Result<Vec<OwnedFd>>,
    ) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        let fds = fds.map_err(Error::passing)?;
        let payload = request.to_payload(fds.len());
        let payload = payload.map_err(|error| Error::other(error.to_string()))?;
        match payload.len() <= self.payload_bytes_max.load(Ordering::Relaxed) {
            true => Ok((payload, fds)),
            false => Err(Error::TooBig),
        }
    }

    /// Handles a payload and those that have arrived behind it; returns whether the channel is
    /// usable.
    fn receive_all(&mut self, first: Bytes, most: usize) -> bool {
        let mut payload = first;
        for _ in 1..most {
            if !self.receive(&payload) {
                return false;
            }
            payload = match self.channel.next_arrived() {
                Ok(Some(next)) => next,
                Ok(None) => return true,
                Err(error) => return usable(Err(error)),
            };
        }
        self.receive(&payload)
    }

    /// Handles a payload; returns whether the channel is usable.
    fn receive(&mut self, payload: &[u8]) -> bool {
        match FromWorker::parse(payload) {
            Ok(FromWorker::Response(Response { id, result })) => {
                match self.pending.take(id) {
                    Some(command) => {
                        if !matches!(command.call, Call::GetLoad(_)) {
                            self.answers.fetch_add(1, Ordering::Relaxed);
                        }
                        command.settle(result.map_err(Error::Refused));
                    }
                    None => tracing::warn!(id, "answer to a request that nobody waits for"),
                }
                self.forget_answered();
            }
            Ok(FromWorker::Notification(mut notification, fds)) => {
                let Some(fds) = self.channel.take_fds(fds) else {
                    tracing::error!("worker channel lost: descriptors are missing");
                    return false;
                };
                notification.event.set_fds(fds);
                if let Event::Log { level, message } = &notification.event {
                    log(level, message);
                }
                (self.handle)(notification);
            }
            Ok(FromWorker::LogLine(level, text)) => log(level, &text),
            Err(error) => tracing::error!(error, "unexpected message of the worker"),
        }
        true
    }

    /// Once nothing is pending, no deadline means anything.
    fn forget_answered(&mut self) {
        if self.pending.is_empty() {
            self.deadlines.clear();
        }
    }

    /// Gives up what was not answered in time; returns whether the channel is usable.
    ///
    /// A worker may still carry out what nobody waits for any more, and then has objects that
    /// nobody knows. One that hangs is of no use: it is taken for lost.
    fn expire(&mut self, now: Instant) -> bool {
        let mut is_alive = true;
        while let Some((_, ticket)) = self.deadlines.front().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_front();
            if let Some(command) = self.pending.cancel(ticket) {
                tracing::error!(id = ticket.id, "no answer in time: worker channel lost");
                command.settle(Err(Error::Timeout));
                is_alive = false;
            }
        }
        is_alive
    }
}

fn usable(result: std::result::Result<(), ChannelError>) -> bool {
    if let Err(error) = &result {
        tracing::error!(%error, "worker channel lost");
    }
    result.is_ok()
}

fn log(level: &str, message: &str) {
    match level {
        "error" => tracing::error!(target: "broth_worker", "{message}"),
        "warn" => tracing::warn!(target: "broth_worker", "{message}"),
        _ => tracing::debug!(target: "broth_worker", "{message}"),
    }
}

#[cfg(test)]
mod tests;
