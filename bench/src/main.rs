//! The load generator: producers and viewers with a transport each, over ICE, DTLS and SRTP or
//! plain RTP, against several servers in turn, each pinned to the same CPU: a loop that does
//! nothing but open, seal and send, broth's worker, the original worker of mediasoup v2.
//!
//! Reports the server's CPU time per forwarded packet next to a *calib unit*, the CPU time of
//! one datagram sent to and read from a loopback socket on the same CPU, measured right before
//! and after. Machines differ and have neighbours: compare the ratios.
//!
//! On loopback a sender also pays for its receivers: the kernel cuts a GSO message up again in
//! the sender's time, unless the receiver takes it whole (`UDP_GRO`). A server behind a network
//! card pays neither. Both are measured, one window after the other.

mod args;
mod calib;
mod limit;
mod loss;
mod plan;
mod process;
mod receive;
mod report;
mod search;
mod servers;
mod source;
mod stats;
mod window;

use std::env;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::args::{Args, Protection};
use crate::calib::{calibrate, pin_beside};
use crate::plan::Plan;
use crate::receive::Hall;
use crate::report::{Carried, Section, Window, print_most, print_section, write_json, write_plot};
use crate::search::{Most, RATE_TRIALS, carries, next_rate};
use crate::servers::Server;
use crate::window::{Outcome, measure};

/// Length of the windows in which something is searched for.
const TRIAL: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    broth_worker::run_if_asked();
    if env::args().nth(1).as_deref() == Some(limit::LIMIT_ARG) {
        return limit::run();
    }
    run(&Args::parse())
}

fn run(args: &Args) -> Result<()> {
    // Every client has a socket, and so it has at some servers.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    pin_beside(args.cpu)?;
    let is_broadcast = |plan: &Plan| plan.rooms == 1 && !plan.is_mesh;
    if args.most && !args.plans().iter().all(is_broadcast) {
        bail!("--most is for shapes of one room whose viewers do not send, as 1x50");
    }
    let mut sections = Vec::new();
    for plan in args.plans() {
        for protection in args.protections() {
            let hall = Hall::new()?;
            let (samples, latencies) = mpsc::channel();
            let measured = thread::scope(|scope| {
                let receiver =
                    scope.spawn(|| hall.receive(plan.loss, args.check_interval(), &samples));
                let bench = Bench {
                    args,
                    hall: &hall,
                    latencies,
                };
                let measured = bench.run(&plan, protection);
                hall.close();
                receiver
                    .join()
                    .map_err(|_| anyhow!("the receiving thread panicked"))??;
                measured
            });
            sections.push(measured?);
        }
    }
    if let Some(path) = &args.json {
        write_json(path, &sections)?;
    }
    if let Some(path) = &args.plot {
        write_plot(path, &sections)?;
    }
    Ok(())
}

/// What a section needs.
struct Bench<'b> {
    args: &'b Args,
    hall: &'b Hall,
    latencies: Receiver<u32>,
}

impl Bench<'_> {
    /// Measures all servers under one kind of traffic, and prints what was found.
    fn run(&self, plan: &Plan, protection: Protection) -> Result<(Section, Vec<Carried>)> {
        let (chosen, left_out) = self.args.servers(protection);
        let length = Duration::from_secs(self.args.seconds.into());
        let mut section = Section::new(plan, protection, length, left_out);
        let mut servers = Vec::new();
        for which in chosen {
            let profile = protection.profile;
            let server = Server::start(which, self.args, plan, profile, self.hall)
                .with_context(|| format!("starting {}", which.name()))?;
            section.servers.push((which, server.rss_per_consumer));
            servers.push(server);
        }
        let mut carried = Vec::new();
        if self.args.most {
            for &is_coalescing in self.args.receivers.windows() {
                for server in &mut servers {
                    carried.push(self.find_most(server, is_coalescing)?);
                }
            }
            print_most(&section, &carried)?;
        } else {
            section.windows = self.windows(&servers, length)?;
            print_section(&section)?;
        }
        Ok((section, carried))
    }

    /// A window of each server in turn, for each kind of receivers, as often as asked.
    fn windows(&self, servers: &[Server<'_>], length: Duration) -> Result<Vec<Window>> {
        let mut windows = Vec::new();
        for _ in 0..self.args.rounds {
            for &is_coalescing in self.args.receivers.windows() {
                for server in servers {
                    self.hall.set_coalescing(&server.seats(), is_coalescing)?;
                    let rate = match self.args.load {
                        Some(load) => self.find_rate(server, f64::from(load) / 100.0)?,
                        None => server.plan.rate,
                    };
                    let before = self.calibrate(server)?;
                    let mut outcome = self.measure(server, rate, length)?;
                    let after = self.calibrate(server)?;
                    outcome.calib_ns = (before + after) / 2.0;
                    windows.push(Window {
                        which: server.which,
                        is_coalescing,
                        outcome,
                    });
                }
            }
        }
        Ok(windows)
    }

    fn measure(&self, server: &Server<'_>, rate: u32, length: Duration) -> Result<Outcome> {
        let cpu = self.args.cpu;
        measure(server, self.hall, &self.latencies, cpu, rate, length)
            .with_context(|| format!("measuring {}", server.which.name()))
    }

    fn calibrate(&self, server: &Server<'_>) -> Result<f64> {
        calibrate(self.args.cpu, server.plan.size)
    }

    /// Finds the rate at which a server uses about that share of its core.
    fn find_rate(&self, server: &Server<'_>, wanted: f64) -> Result<u32> {
        let mut rate = server.plan.rate;
        for _ in 0..RATE_TRIALS {
            let share = self.measure(server, rate, TRIAL)?.share;
            rate = next_rate(rate, share, wanted);
        }
        Ok(rate)
    }

    /// Whether a server carries its viewers.
    fn carries(&self, server: &Server<'_>) -> Result<bool> {
        let outcome = self.measure(server, server.plan.rate, TRIAL)?;
        Ok(carries(outcome.loss(), outcome.latency_ms(990)))
    }

    /// Finds how many viewers a server can carry.
    fn find_most(&self, server: &mut Server<'_>, is_coalescing: bool) -> Result<Carried> {
        let mut most = Most::default();
        while let Some(viewers) = most.next() {
            server.set_consumers(viewers)?;
            self.hall.set_coalescing(&server.seats(), is_coalescing)?;
            // A neighbour may spoil a trial: only who fails twice has failed.
            let is_carried = self.carries(server)? || self.carries(server)?;
            most.tried(viewers, is_carried);
        }
        Ok(Carried {
            which: server.which,
            is_coalescing,
            viewers: most.carried,
            is_open: most.is_open(),
        })
    }
}
