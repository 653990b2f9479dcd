//! Requests to one worker and its notifications, over one channel.
//!
//! A task owns the channel and the table of pending requests. Answers and notifications are
//! handled in the order the worker sent them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broth_ipc::{
    Call, Channel, Event, FromWorker, Ids, Notification, PAYLOAD_BYTES_MAX, Pending, Received,
    Request, Response, Ticket,
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Result};

/// How long a worker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

type Then = Box<dyn FnOnce(Result<Value>) + Send>;

enum Waiter {
    Reply(oneshot::Sender<Result<Value>>),
    Then(Then),
    /// Nobody waits; a refusal is logged under the method's name.
    Log(&'static str),
}

impl Waiter {
    fn settle(self, result: Result<Value>) {
        match self {
            Self::Reply(reply) => drop(reply.send(result)),
            Self::Then(then) => then(result),
            Self::Log(method) => {
                if let Err(error) = result {
                    tracing::warn!(method, %error, "request failed");
                }
            }
        }
    }
}

struct Command {
    ids: Ids,
    call: Call,
    fds: Vec<OwnedFd>,
    waiter: Waiter,
}

/// The way to a worker. Requests leave in the order of the calls.
#[derive(Clone)]
pub(crate) struct WorkerChannel {
    commands: mpsc::UnboundedSender<Command>,
    /// Largest payload that may be sent.
    payload_bytes_max: Arc<AtomicUsize>,
}

impl WorkerChannel {
    /// Starts the task that owns the channel; it ends when the channel does.
    pub(crate) fn start(
        socket: UnixStream,
        handle: impl FnMut(Notification) + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let channel = Channel::new(socket, PAYLOAD_BYTES_MAX)?;
        let (commands, queue) = mpsc::unbounded_channel();
        let turn = Turn {
            channel,
            pending: Pending::default(),
            deadlines: VecDeque::new(),
            payload_bytes_max: Arc::new(AtomicUsize::new(PAYLOAD_BYTES_MAX)),
            handle,
        };
        let own = Self {
            commands,
            payload_bytes_max: Arc::clone(&turn.payload_bytes_max),
        };
        Ok((own, tokio::spawn(turn.run(queue))))
    }

    /// Refuses larger requests from now on.
    pub(crate) fn limit_payloads(&self, payload_bytes_max: usize) {
        self.payload_bytes_max
            .store(payload_bytes_max, Ordering::Relaxed);
    }

    /// Whether the worker is gone, as far as its channel tells.
    pub(crate) fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }

    /// Sends a request and waits for the answer.
    pub(crate) async fn request(&self, ids: Ids, call: Call, fds: Vec<OwnedFd>) -> Result<Value> {
        let (reply, answer) = oneshot::channel();
        self.push(ids, call, fds, Waiter::Reply(reply))?;
        answer.await.unwrap_or(Err(Error::ChannelClosed))
    }

    /// Sends a request; a refusal is only logged.
    pub(crate) fn send(&self, ids: Ids, call: Call) {
        let method = call.method();
        // A closed channel needs no log: the worker's end is told elsewhere.
        let _ = self.push(ids, call, Vec::new(), Waiter::Log(method));
    }

    /// Sends a request, hands the answer to `then` in order with the notifications, and waits for
    /// what that returns.
    pub(crate) async fn request_then<T: Send + 'static>(
        &self,
        ids: Ids,
        call: Call,
        fds: Vec<OwnedFd>,
        then: impl FnOnce(Result<Value>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, result) = oneshot::channel();
        let then: Then = Box::new(|answer| drop(reply.send(then(answer))));
        self.push(ids, call, fds, Waiter::Then(then))?;
        result.await.unwrap_or(Err(Error::ChannelClosed))
    }

    /// Sends a request and hands the answer to `then`, in order with the notifications.
    ///
    /// `then` is never called before this returns, and not at all on a closed channel.
    pub(crate) fn send_then(
        &self,
        ids: Ids,
        call: Call,
        then: impl FnOnce(Result<Value>) + Send + 'static,
    ) {
        let _ = self.push(ids, call, Vec::new(), Waiter::Then(Box::new(then)));
    }

    fn push(&self, ids: Ids, call: Call, fds: Vec<OwnedFd>, waiter: Waiter) -> Result<()> {
        let command = Command {
            ids,
            call,
            fds,
            waiter,
        };
        let sent = self.commands.send(command);
        sent.map_err(|_| Error::ChannelClosed)
    }
}

/// What the task works on.
struct Turn<H> {
    channel: Channel,
    pending: Pending<Waiter>,
    /// Oldest first, as all requests get the same time.
    deadlines: VecDeque<(Instant, Ticket)>,
    payload_bytes_max: Arc<AtomicUsize>,
    handle: H,
}

impl<H: FnMut(Notification)> Turn<H> {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Command>) {
        loop {
            let deadline = self.deadlines.front().map(|(at, _)| *at);
            let is_alive = tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.send(command),
                    None => false,
                },
                received = self.channel.next() => match received {
                    Ok(Received::Payload(payload)) => self.receive(&payload),
                    Ok(Received::Eof) => false,
                    Err(error) => {
                        tracing::error!(%error, "worker channel lost");
                        false
                    }
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.expire(Instant::now())
                }
            };
            if !is_alive {
                break;
            }
        }
        queue.close();
        for waiter in self.pending.drain() {
            waiter.settle(Err(Error::ChannelClosed));
        }
    }

    /// Sends a request; returns whether the channel is usable.
    fn send(&mut self, command: Command) -> bool {
        let ticket = self.pending.insert(command.waiter);
        let request = Request {
            id: ticket.id,
            ids: command.ids,
            call: command.call,
        };
        let bytes_max = self.payload_bytes_max.load(Ordering::Relaxed);
        let refused = match request.to_payload(command.fds.len()) {
            Ok(payload) if payload.len() <= bytes_max => {
                self.deadlines
                    .push_back((Instant::now() + ANSWER_TIMEOUT, ticket));
                match self.channel.send(&payload, command.fds) {
                    Ok(()) => return true,
                    Err(error) => {
                        tracing::error!(%error, "worker channel lost");
                        return false;
                    }
                }
            }
            Ok(_) => Error::TooBig,
            Err(error) => Error::other(error.to_string()),
        };
        if let Some(waiter) = self.pending.cancel(ticket) {
            waiter.settle(Err(refused));
        }
        true
    }

    /// Handles a payload; returns whether the channel is usable.
    fn receive(&mut self, payload: &[u8]) -> bool {
        match FromWorker::parse(payload) {
            Ok(FromWorker::Response(Response { id, result })) => {
                match self.pending.take(id) {
                    Some(waiter) => waiter.settle(result.map_err(Error::Refused)),
                    None => tracing::warn!(id, "answer to a request that nobody waits for"),
                }
                self.forget_answered();
            }
            Ok(FromWorker::Notification(notification)) => match notification.event {
                Event::Log { level, message } => log(&level, &message),
                _ => (self.handle)(notification),
            },
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
            if let Some(waiter) = self.pending.cancel(ticket) {
                tracing::error!(id = ticket.id, "no answer in time: worker channel lost");
                waiter.settle(Err(Error::Timeout));
                is_alive = false;
            }
        }
        is_alive
    }
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
