//! Starting a worker process: descriptor 3, core, life cord, clean environment.
//!
//! The only unsafe code of the crate: what runs between `fork` and `exec`.

#![allow(
    unsafe_code,
    reason = "pre_exec is unsafe, and the descriptor number 3 has no owner to be passed by"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use broth_ipc::{ALLOCATOR_ENV, CHANNEL_FD, CHANNEL_FD_ENV, CONTROLLER_ENV};
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Tells an executable that is controller and worker in one to be the worker; nothing to others.
const RUN_WORKER_ENV: &str = "BROTH_RUN_WORKER";

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSpec {
    /// The executable.
    pub(crate) bin: PathBuf,
    /// Counts what the executable was replaced by: a path may name another file by now.
    pub(crate) edition: u32,
    /// Its arguments, the worker's id first.
    pub(crate) args: Vec<String>,
    /// The CPU to pin it to.
    pub(crate) cpu: usize,
}

/// A started worker.
pub(crate) struct Spawned {
    /// The process.
    pub(crate) child: Child,
    /// Our end of its channel.
    pub(crate) channel: UnixStream,
    /// What it says.
    pub(crate) stdout: ChildStdout,
    /// What it complains about.
    pub(crate) stderr: ChildStderr,
}

type Job = (WorkerSpec, oneshot::Sender<io::Result<Spawned>>);

/// The thread that starts workers.
///
/// A worker gets its parent-death signal when the *thread* that started it ends, so this thread
/// lives as long as any handle of it.
#[derive(Clone)]
pub(crate) struct Spawner {
    jobs: mpsc::Sender<Job>,
}

impl Spawner {
    /// Starts the thread. Must be called within a tokio runtime, which watches the workers.
    ///
    /// # Errors
    /// No thread or no descriptor is to be had.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let reserved = reserve_channel_fd()?;
        let runtime = Handle::current();
        thread::Builder::new()
            .name("broth-spawner".into())
            .spawn(move || {
                let _reserved = reserved;
                let _entered = runtime.enter();
                for (spec, reply) in queue {
                    // Should nobody wait any more, the channel closes and so ends the worker.
                    let _ = reply.send(spawn(&spec));
                }
            })?;
        Ok(Self { jobs })
    }

    /// Starts a worker.
    ///
    /// # Errors
    /// The executable cannot be started or pinned.
    pub(crate) async fn spawn(&self, spec: WorkerSpec) -> io::Result<Spawned> {
        let (reply, spawned) = oneshot::channel();
        let gone = || io::Error::other("the spawner thread is gone");
        self.jobs.send((spec, reply)).map_err(|_| gone())?;
        spawned.await.map_err(|_| gone())?
    }
}

/// The cores this process may run on.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu) == Ok(true))
        .collect())
}

/// Occupies every descriptor up to 3, so that none of those `Command` works with is 3 itself.
fn reserve_channel_fd() -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    loop {
        let file = File::open("/dev/null")?;
        let fd = file.as_raw_fd();
        if fd > CHANNEL_FD {
            return Ok(files);
        }
        files.push(file);
    }
}

fn spawn(spec: &WorkerSpec) -> io::Result<Spawned> {
    let (channel, worker_end) = UnixStream::pair()?;
    let mut cpus = CpuSet::new();
    cpus.set(spec.cpu)?;
    let parent = getpid();
    let fd = worker_end.as_raw_fd();
    let mut command = Command::new(&spec.bin);
    command
        .arg0("broth-worker")
        // A Ctrl-C in the terminal is for the controller, which ends its workers in order.
        .process_group(0)
        // A standby whose start is interrupted has no other owner.
        .kill_on_drop(true)
        .args(&spec.args)
        .env_clear()
        .env(CHANNEL_FD_ENV, CHANNEL_FD.to_string())
        .env(CONTROLLER_ENV, "1")
        .env(RUN_WORKER_ENV, "1")
        .envs([ALLOCATOR_ENV])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(backtrace) = std::env::var_os("RUST_BACKTRACE") {
        command.env("RUST_BACKTRACE", backtrace);
    }
    // SAFETY: the closure runs in the forked child before exec. It makes system calls only, takes
    // no lock and allocates nothing, so it is async-signal-safe. `fd` is open: `worker_end` lives
    // until after `spawn`.
    unsafe {
        command.pre_exec(move || {
            sched_setaffinity(Pid::from_raw(0), &cpus)?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above: then no signal will ever come.
            if getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            // The copy has no close-on-exec flag; `fd` is not 3, which is reserved.
            if libc::dup2(fd, CHANNEL_FD) == -1 {
                return Err(io::Error::last_os_error());
            }
            // What this process was itself started with may lack the flag. Kernels before 5.11
            // do not know the call, and the worker then inherits that.
            libc::close_range(
                CHANNEL_FD as libc::c_uint + 1,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
            );
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        unreachable!("both are piped");
    };
    Ok(Spawned {
        child,
        channel,
        stdout,
        stderr,
    })
}
