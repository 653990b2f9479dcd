//! The worker of the scenarios; asked to, a small controller of its own for those in which the
//! controller's process is what is looked at.

use std::io::{BufRead, Write, stdin, stdout};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use broth::{RoomMediaCodec, RoomOptions, Server, Settings, WorkerBin};
use serde_json::{Value, json};

/// Ports of the controller's rooms; makes this process a controller.
const CONTROLLER_ENV: &str = "BROTH_TEST_CONTROLLER";

/// How long tasks may take to end after the server has closed.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    // Workers start with a clean environment, so none takes itself for a controller.
    let Ok(first_port) = env::var(CONTROLLER_ENV) else {
        return broth_worker::run();
    };
    match control(&first_port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts a server, tells its workers, and closes it when told to: an empty line each time.
fn control(first_port: &str) -> anyhow::Result<()> {
    let first_port: u16 = first_port.parse()?;
    let settings = Settings {
        num_workers: Some(2),
        listen: vec![std::net::IpAddr::from(Ipv4Addr::LOCALHOST).into()],
        rtc_ports: first_port..=first_port + 9,
        worker_bin: WorkerBin::Path(env::current_exe()?),
        ..Settings::default()
    };
    let runtime = tokio::runtime::Runtime::new()?;
    // What the runtime opens once is open after the first round.
    for _ in 0..2 {
        let server = runtime.block_on(Server::new(settings.clone()))?;
        let codecs = [RoomMediaCodec::video("VP8")];
        runtime.block_on(server.room(&codecs, RoomOptions::default()))?;
        let pids: Vec<u32> = server.workers().iter().map(|worker| worker.pid).collect();
        tell(&json!({ "pids": pids }))?;
        stdin().lock().read_line(&mut String::new())?;
        runtime.block_on(server.close());
        // Those who read what the workers said come to the end of it, and the runtime buries a
        // standby whose start was broken off.
        let deadline = Instant::now() + PATIENCE;
        let is_busy = || -> anyhow::Result<bool> {
            Ok(runtime.metrics().num_alive_tasks() > 0 || children()? > 0)
        };
        while is_busy()? && Instant::now() < deadline {
            thread::yield_now();
        }
        let descriptors = fs::read_dir("/proc/self/fd")?.count();
        tell(&json!({ "descriptors": descriptors, "children": children()? }))?;
    }
    Ok(())
}

fn tell(message: &Value) -> std::io::Result<()> {
    writeln!(stdout(), "{message}")
}

/// Processes whose parent this one is, zombies included.
fn children() -> anyhow::Result<usize> {
    let own = format!("PPid:\t{}", std::process::id());
    let is_child = |process: &fs::DirEntry| {
        let status = fs::read_to_string(process.path().join("status"));
        status.is_ok_and(|status| status.lines().any(|line| line == own))
    };
    Ok(fs::read_dir("/proc")?.flatten().filter(is_child).count())
}
