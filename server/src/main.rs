//! `broth`: the conference server. Owns the command line and the order of starting and stopping.

mod cli;
mod envelope;
mod faults;
mod http;
mod rooms;
mod signal;
mod stream;
mod tools;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum_server::Handle;
use broth::{Server, ServerEvent};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal as unix_signal};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, Serve};
use crate::rooms::Rooms;

/// How long HTTP connections may take to end after the rooms have closed.
const DRAIN_TIME: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // Workers are this executable: nothing of the server may happen in them.
    broth_worker::run_if_asked();
    let command = Cli::parse().command;
    let quiet = match command {
        // Its workers die on purpose.
        Command::Chaos(_) => "off,broth::tools=info",
        Command::Serve(_) | Command::Publish(_) | Command::Record(_) => "info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let done = Runtime::new()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(command)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line with all causes; a backtrace would help nobody here.
            let _ = writeln!(std::io::stderr(), "broth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(settings) => serve(settings).await,
        Command::Publish(publish) => tools::publish::run(publish).await,
        Command::Record(record) => tools::record::run(record).await,
        Command::Chaos(chaos) => tools::chaos::run(*chaos).await,
    }
}

async fn serve(serve: Serve) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let settings = serve.settings()?;
    let tls = http::tls(serve.tls()?).await?;
    let listener = http::bind(serve.listen)?;
    if tls.is_none() && !serve.listen.ip().is_loopback() {
        tracing::warn!("browsers give no camera to plain HTTP from elsewhere: see --tls-cert");
    }
    // Before anybody puts another file there: then the path of this one is not told any more.
    let worker_path = serve.worker_path()?;
    let upgrades = asked_to_upgrade()?;
    if serve.chaos {
        tracing::warn!("whoever opens the page can end workers: --chaos");
    }
    let server = Server::new(settings).await.context("cannot start")?;
    let app = http::app(Arc::new(Rooms::new(server.clone())), serve.chaos);

    let stop = asked_to_stop()?;
    let handle = Handle::new();
    let serving = tokio::spawn(http::serve(listener, tls, app, handle.clone()));
    let reason = tokio::select! {
        reason = stop => reason,
        () = watch_workers(&server) => "no worker is left",
        () = upgrade(&server, upgrades, &worker_path) => "nobody can ask for an upgrade any more",
        ended = serving => {
            server.close().await;
            return ended.context("the HTTP server panicked")?.context("the HTTP server ended");
        }
    };
    tracing::info!(reason, "stopping");
    let gave_up = server.closed();
    server.close().await;
    handle.graceful_shutdown(Some(DRAIN_TIME));
    while handle.connection_count() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::ensure!(!gave_up, "all workers failed: see the log above");
    Ok(())
}

/// Rooms and sockets take descriptors; shells usually allow 1024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Waits for Ctrl-C or a supervisor; from this call on neither ends the process by itself.
fn asked_to_stop() -> anyhow::Result<impl Future<Output = &'static str>> {
    let mut interrupt = unix_signal(SignalKind::interrupt())?;
    let mut terminate = unix_signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

/// Requests for an upgrade; from this call on SIGHUP does not end the process.
fn asked_to_upgrade() -> anyhow::Result<Signal> {
    Ok(unix_signal(SignalKind::hangup())?)
}

/// Replaces the workers by what lies at `path` now, whenever that is asked for.
async fn upgrade(server: &Server, mut asked: Signal, path: &Path) {
    while asked.recv().await.is_some() {
        tracing::info!(path = %path.display(), "upgrading the workers");
        match server.upgrade(path).await {
            Ok(()) => tracing::info!("workers upgraded"),
            Err(error) => tracing::error!(%error, "workers not upgraded"),
        }
    }
}

/// Logs what happens to the workers; returns when the server has closed for want of them.
async fn watch_workers(server: &Server) {
    let mut events = server.events();
    while let Some(event) = events.recv().await {
        match event {
            ServerEvent::WorkerReady { idx, pid } => tracing::info!(idx, pid, "worker ready"),
            ServerEvent::WorkerDied {
                idx,
                reason,
                gave_up,
            } => tracing::error!(idx, reason, gave_up, "worker died"),
            ServerEvent::WorkerReplaced { idx, old_pid, pid } => {
                tracing::info!(idx, old_pid, pid, "worker replaced");
            }
            ServerEvent::NewRoom(room) => {
                tracing::info!(id = room.id(), worker = room.worker_idx(), "room made");
            }
            ServerEvent::Close => return,
        }
    }
}
