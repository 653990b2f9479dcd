//! What the black box costs: nanoseconds for each thing that a worker enters there.
//!
//! `cargo run --release -p broth-bench --example black_box`

use std::hint::black_box;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use broth_ipc::black_box::{BLACK_BOX_BYTES, Work};
use broth_ipc::{RouterId, TransportId};
use broth_worker::black_box::BlackBox;
use broth_worker::net::mapping::Mapping;
use broth_worker::recorder::Memory;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

const ROUTER: RouterId = RouterId(12_345_678);
const TRANSPORT: TransportId = TransportId(23_456_789);
/// Each measurement takes so long.
const TIME: Duration = Duration::from_millis(500);
/// Where received messages lie, as the event loop has them.
const MESSAGES: usize = 32;
const MESSAGE_BYTES: usize = 65_536;

fn main() -> anyhow::Result<()> {
    let memory = memfd_create(c"black-box", MFdFlags::MFD_ALLOW_SEALING)?;
    ftruncate(&memory, BLACK_BOX_BYTES as i64)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    let memory = Memory::Mapped(Mapping::new(memory)?);
    let own = BlackBox::new(memory).ok_or_else(|| anyhow::anyhow!("too little memory"))?;
    let remote: SocketAddr = "192.0.2.1:40000".parse()?;
    let buffers = vec![0x5A_u8; MESSAGES * MESSAGE_BYTES];
    for len in [100, 1200] {
        measure(&format!("received datagram of {len} bytes"), |turn| {
            let start = turn % MESSAGES * MESSAGE_BYTES;
            let datagram = black_box(&buffers[start..start + len]);
            own.take_datagram(ROUTER, remote, datagram);
            own.note_transport(TRANSPORT);
        })?;
    }
    measure("packets of a producer to be forwarded", |_| {
        own.take(Work::Forwarding, ROUTER, black_box(Some(TRANSPORT)));
    })?;
    measure("nothing in hand any more", |_| own.clear())
}

/// The best of five, which the least else got in the way of.
fn measure(what: &str, mut enter: impl FnMut(usize)) -> anyhow::Result<()> {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let mut turns = 0;
        while start.elapsed() < TIME / 5 {
            for _ in 0..1000 {
                enter(turns);
                turns += 1;
            }
        }
        best = best.min(start.elapsed().as_nanos() as f64 / turns as f64);
    }
    writeln!(std::io::stdout(), "{best:6.1} ns  {what}")?;
    Ok(())
}
