//! Start of a worker process: arguments, environment, channel.
//!
//! `MEDIASOUP_CHANNEL_FD=3 broth-worker <workerId> --key=value …`, as mediasoup v2's worker
//! (`spec: channel.md` §1).

use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, io};

use broth_ipc::{CHANNEL_FD_ENV, CONTROLLER_ENV, netstring};
use nix::sys::epoll::{Epoll, EpollCreateFlags};

use crate::dialect::Dialect;
use crate::dtls::Certificate;
use crate::event_loop::{End, EventLoop};
use crate::io::Io;
use crate::log::{Log, Tag, complain};
use crate::net::binder::Binder;
use crate::net::fatal;
use crate::net::host::Machine;
use crate::net::sockets::Sockets;
use crate::net::sys;
use crate::settings::{IdentityFiles, Settings, SettingsError};
use crate::worker::Worker;

/// Set by a controller whose own executable doubles as the worker.
pub const RUN_WORKER_ENV: &str = "BROTH_RUN_WORKER";

/// Exit status for settings, as mediasoup v2's, and for everything that goes wrong.
const EXIT_FAILURE: u8 = 1;
/// Exit status for a channel that will not get better by trying again.
const EXIT_BAD_CHANNEL: u8 = 2;
/// How long the last words may take when nobody reads the channel.
const FAREWELL: Duration = Duration::from_millis(100);
/// Where mediasoup v2's worker starts.
const PLACE: &str = "main::main";

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
        return EXIT_FAILURE;
    };
    let Some(channel) = fd.parse().ok().and_then(sys::adopt_stream) else {
        complain(&format!(
            "[id:{id}] {CHANNEL_FD_ENV}={fd} is no stream socket"
        ));
        return EXIT_BAD_CHANNEL;
    };
    let mut arguments: Vec<String> = args.collect();
    if env::var_os(CONTROLLER_ENV).is_some() {
        arguments.retain(|argument| !argument.starts_with("--rtc"));
    }
    let mut log = Log::of(id.clone());
    if let Err(error) = fatal::install() {
        // It works as well; should it crash, it will not say where.
        log.complain(PLACE, &format!("no handler of crashes: {error}"));
    }
    match start(&id, &arguments, &mut log) {
        Ok(worker) => serve(worker, channel),
        Err(failure) => {
            if let Failure::Settings(error) = &failure {
                let text = format!("throwing MediaSoupError | {}", error.text);
                log.error(error.place, text);
                log.error(PLACE, format!("configuration error: {}", error.text));
            }
            tell(channel, &id, &mut log);
            if let Failure::Start(text) = failure {
                log.complain(PLACE, &format!("failure exit: {text}"));
            }
            EXIT_FAILURE
        }
    }
}

/// Why a worker does not start.
enum Failure {
    Settings(SettingsError),
    Start(String),
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error)
    }
}

fn start(id: &str, arguments: &[String], log: &mut Log) -> Result<Worker, Failure> {
    let settings = Settings::parse(arguments, &Machine)?;
    log.set_level(settings.log_level);
    log.set_tags(settings.log_tags);
    let failed = |error: &dyn std::fmt::Display| Failure::Start(error.to_string());
    let certificate = match &settings.identity {
        Some(files) => load(files).map_err(|error| {
            log.error(
                "RTC::DtlsTransport::ReadCertificateAndPrivateKeyFromFiles",
                error,
            );
            failed(&"error reading DTLS certificate and private key PEM files")
        })?,
        None => Certificate::generate().map_err(|error| failed(&error))?,
    };
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|error| failed(&error))?;
    let mut io = Io::new(Sockets::new(epoll), certificate).map_err(|error| {
        log.error("RTC::DtlsTransport::CreateSslCtx", error.to_string());
        failed(&"SSL context creation failed")
    })?;
    io.binder = Binder::new(settings.rtc);
    io.log = std::mem::take(log);
    let mut worker = Worker::new(id.to_owned(), io);
    worker.log_configuration();
    worker.io.log.debug(Tag::Info, PLACE, || {
        format!("starting broth-worker [pid:{}]", std::process::id())
    });
    Ok(worker)
}

fn load(files: &IdentityFiles) -> Result<Certificate, String> {
    let read = |path| fs::read_to_string(path).map_err(|error: io::Error| error.to_string());
    let (certificate, key) = (read(&files.certificate)?, read(&files.private_key)?);
    Certificate::from_pem(&certificate, &key).map_err(|error| error.to_string())
}

fn serve(worker: Worker, channel: UnixStream) -> u8 {
    let log = Log::of(worker.id.clone());
    match EventLoop::new(worker, channel).and_then(EventLoop::run) {
        Ok(End::Told) => 0,
        Ok(End::Orphaned) => {
            let place = "Worker::OnChannelUnixStreamSocketRemotelyClosed";
            log.complain(place, "Channel remotely closed, killing myself");
            0
        }
        Err(error) => {
            log.complain(PLACE, &format!("failure exit: {error}"));
            EXIT_FAILURE
        }
    }
}

/// The last words of a worker that does not start.
fn tell(mut channel: UnixStream, id: &str, log: &mut Log) {
    // Somebody who does not read will not hear it.
    let _ = channel.set_write_timeout(Some(FAREWELL));
    let mut frames = Vec::new();
    for line in log.take() {
        if let Ok(payload) = Dialect::V2.line(id, &line) {
            netstring::encode(&payload, &mut frames);
        }
    }
    let _ = io::Write::write_all(&mut channel, &frames);
}
