//! Requests of the controller and everything it is told: one answer to each request, what the
//! request caused before it, and the log.

use std::io;
use std::time::{Duration, Instant};

use broth_ipc::body::Misbehave;
use broth_ipc::netstring::FrameError;
use broth_ipc::{Call, Discard, ErrorCode, Incoming, Rejection, Request, Response};

use super::{EventLoop, FAREWELL};
use crate::dialect::Dialect;
use crate::log::thrown_at;
use crate::misbehave;

/// Requests carried out per turn.
const REQUESTS_PER_TURN: usize = 256;
/// No further request is begun in a turn after that: media waits as long.
const REQUESTS_TIME: Duration = Duration::from_millis(2);
/// Where mediasoup v2's worker reads and writes the channel.
const READ_PLACE: &str = "Channel::UnixStreamSocket::UserOnUnixStreamRead";
const SEND_PLACE: &str = "Channel::UnixStreamSocket::Send";

impl EventLoop {
    /// Carries out what the controller asked, and tells it in one go.
    pub(super) fn handle_requests(&mut self) -> io::Result<()> {
        self.take_requests()?;
        self.send_notes()
    }

    fn take_requests(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        for _ in 0..REQUESTS_PER_TURN {
            let request = self.channel.next_request();
            let Some(payload) = request.map_err(|error| self.framing_lost(error))? else {
                return Ok(());
            };
            match Request::parse(&payload) {
                Ok(incoming) => self.handle_request(incoming)?,
                Err(discard) => self.handle_discard(&discard)?,
            }
            if begin.elapsed() > REQUESTS_TIME {
                break;
            }
        }
        Ok(())
    }

    fn handle_request(&mut self, incoming: Incoming) -> io::Result<()> {
        // mediasoup v2's controller hands over nothing, whatever a request says.
        let fds = match (self.worker.dialect, &incoming.request) {
            (Dialect::Broth, _)
            | (
                Dialect::V2,
                Ok(Request {
                    call: Call::Hello(_),
                    ..
                }),
            ) => self.channel.take_fds(incoming.fds)?,
            (Dialect::V2, _) => Vec::new(),
        };
        let (id, method) = (incoming.id, incoming.method.clone());
        let black_box = &self.worker.io.black_box;
        black_box.take_request(&incoming.ids, &method);
        let result = self.worker.handle(incoming, fds);
        self.worker.io.black_box.clear();
        let dialect = self.worker.dialect;
        self.channel
            .set_payload_bytes_max(dialect.payload_bytes_max());
        let mut is_unknown = false;
        if let (Dialect::V2, Err(rejection)) = (dialect, &result) {
            is_unknown = rejection.code == ErrorCode::UnknownMethod;
            self.log_rejection(rejection);
        }
        // What a request caused is told before its answer.
        self.push_notes()?;
        let answer = dialect.response(Response { id, result })?;
        self.channel.push(&answer)?;
        if is_unknown {
            self.log_wrong_request(&format!("unknown request.method '{method}'"));
        }
        self.push_notes()?;
        match self.worker.misbehaviour.take() {
            None => Ok(()),
            Some(Misbehave::Hog { bytes }) => misbehave::hog(bytes),
            Some(Misbehave::Garbage) => {
                self.channel.push_garbage();
                Ok(())
            }
        }
    }

    /// A payload that cannot be answered.
    fn handle_discard(&mut self, discard: &Discard) -> io::Result<()> {
        let text = discard.to_string();
        let log = &mut self.worker.io.log;
        match (self.worker.dialect, discard) {
            (Dialect::V2, Discard::Json(_)) => log.complain(READ_PLACE, &text),
            (Dialect::V2, Discard::Id | Discard::Method) => self.log_wrong_request(&text),
            (Dialect::Broth, _) => {
                log.error(
                    READ_PLACE,
                    format!("discarding wrong Channel request: {text}"),
                );
            }
        }
        self.push_notes()
    }

    /// What mediasoup v2's worker logs before it refuses a request.
    fn log_rejection(&mut self, rejection: &Rejection) {
        if let Some(place) = thrown_at(&rejection.reason) {
            let text = format!("throwing MediaSoupError | {rejection}");
            self.worker.io.log.error(place, text);
        }
    }

    fn log_wrong_request(&mut self, text: &str) {
        let log = &mut self.worker.io.log;
        let text = format!("throwing MediaSoupError | {text}");
        log.error("Channel::Request::Request", text);
        log.complain(READ_PLACE, "discarding wrong Channel request");
    }

    /// A byte stream is never resynchronised: the channel is closed.
    fn framing_lost(&self, error: FrameError) -> io::Error {
        let name = match error {
            FrameError::NoLength => "NETSTRING_ERROR_NO_LENGTH",
            FrameError::LeadingZero => "NETSTRING_ERROR_LEADING_ZERO",
            FrameError::TooLong { .. } => "NETSTRING_ERROR_TOO_LONG",
            FrameError::NoColon => "NETSTRING_ERROR_NO_COLON",
            FrameError::NoComma => "NETSTRING_ERROR_NO_COMMA",
        };
        self.worker.io.log.complain(READ_PLACE, name);
        io::Error::other(error)
    }

    /// Tells what happened.
    pub(super) fn send_notes(&mut self) -> io::Result<()> {
        self.push_notes()?;
        self.flush_channel()
    }

    pub(super) fn flush_channel(&mut self) -> io::Result<()> {
        let epoll = self.worker.io.sockets.epoll();
        self.channel.flush(self.worker.dialect, epoll)
    }

    fn push_notes(&mut self) -> io::Result<()> {
        let dialect = self.worker.dialect;
        for line in self.worker.io.log.take() {
            let payload = dialect.line(&self.worker.id, &line)?;
            self.channel.push(&payload)?;
        }
        for note in std::mem::take(&mut self.worker.io.notes) {
            let payload = dialect.notification(&note)?;
            if payload.len() <= dialect.payload_bytes_max() {
                self.channel.push_with(&payload, note.event.into_fds()?)?;
            } else {
                // The certificate of a peer may be that long.
                self.worker.io.log.complain(SEND_PLACE, "message too big");
            }
        }
        Ok(())
    }

    /// Tells the last of it.
    pub(super) fn say_goodbye(&mut self) {
        // The controller may be gone too: then nobody is left to tell.
        let _ = self.push_notes();
        self.channel.finish(FAREWELL);
    }
}
