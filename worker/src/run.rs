//! Start of a worker process: arguments, environment, channel.
//!
//! `MEDIASOUP_CHANNEL_FD=3 broth-worker <workerId> --key=value …`, as mediasoup v2's worker
//! (`spec: channel.md` §1).

use std::env;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use broth_ipc::CHANNEL_FD_ENV;
use nix::sys::epoll::{Epoll, EpollCreateFlags};

use crate::dtls::Certificate;
use crate::event_loop::EventLoop;
use crate::io::Io;
use crate::net::sockets::Sockets;
use crate::net::sys;
use crate::worker::Worker;

/// Set by a controller whose own executable doubles as the worker.
pub const RUN_WORKER_ENV: &str = "BROTH_RUN_WORKER";

/// Exit status for settings that will not get better by trying again.
const EXIT_BAD_SETTINGS: u8 = 2;

/// Becomes a worker and exits, if a controller started this executable as one.
///
/// To be called first thing in `main` of a program that is controller and worker in one.
pub fn run_if_asked() {
    if env::var_os(RUN_WORKER_ENV).is_some() {
        std::process::exit(i32::from(run_to_status()));
    }
}

/// Runs a worker to its end.
pub fn run() -> ExitCode {
    ExitCode::from(run_to_status())
}

fn run_to_status() -> u8 {
    let mut args = env::args().skip(1);
    let (Some(id), Ok(fd)) = (args.next(), env::var(CHANNEL_FD_ENV)) else {
        complain("ERROR: you don't seem to be my real father");
        return 1;
    };
    if let Err(reason) = args.try_for_each(|argument| check_argument(&argument)) {
        complain(&format!("[id:{id}] configuration error: {reason}"));
        return EXIT_BAD_SETTINGS;
    }
    let Some(channel) = fd.parse().ok().and_then(sys::adopt_stream) else {
        complain(&format!(
            "[id:{id}] {CHANNEL_FD_ENV}={fd} is no stream socket"
        ));
        return EXIT_BAD_SETTINGS;
    };
    match serve(id.clone(), channel) {
        Ok(()) => 0,
        Err(error) => {
            complain(&format!("[id:{id}] failure exit: {error}"));
            1
        }
    }
}

fn serve(id: String, channel: UnixStream) -> Result<(), Box<dyn std::error::Error>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let io = Io::new(Sockets::new(epoll), Certificate::generate()?)?;
    let end = EventLoop::new(Worker::new(id.clone(), io), channel)?.run()?;
    if end == crate::event_loop::End::Orphaned {
        complain(&format!(
            "[id:{id}] Channel remotely closed, killing myself"
        ));
    }
    Ok(())
}

/// Accepts the options of mediasoup v2's worker.
///
/// Addresses and ports are the controller's business here: it hands over bound sockets.
fn check_argument(argument: &str) -> Result<(), String> {
    let option = argument
        .strip_prefix("--")
        .and_then(|option| option.split_once('='));
    let Some((name, value)) = option else {
        return Err("unknown configuration parameter: (null)".into());
    };
    match name {
        "logLevel" => match value.to_lowercase().as_str() {
            "debug" | "warn" | "error" | "none" => Ok(()),
            other => Err(format!("invalid value '{other}' for logLevel")),
        },
        "logTag" | "rtcIPv4" | "rtcIPv6" | "rtcAnnouncedIPv4" | "rtcAnnouncedIPv6"
        | "rtcMinPort" | "rtcMaxPort" => Ok(()),
        _ => Err(format!("unknown configuration parameter: {name}")),
    }
}

/// Writes a line to stderr, which the controller reads.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        let rows = [
            ("--logLevel=debug", true),
            ("--logLevel=WARN", true),
            ("--logTag=ice", true),
            ("--logLevel=chicken", false),
            ("--logLevel", false),
            ("logLevel=debug", false),
            ("--unknown=1", false),
            ("", false),
        ];
        for (argument, is_good) in rows {
            assert_eq!(check_argument(argument).is_ok(), is_good, "{argument}");
        }
    }
}
