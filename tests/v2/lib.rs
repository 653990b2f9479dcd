//! The worker beside mediasoup v2's: one script of channel requests, what the original worker
//! answered to it, and what may be different on purpose.
//!
//! [`script`] makes the requests, [`process`] asks a worker, [`recording`] keeps the answers in
//! `recordings/`, [`normal`] takes out what differs from run to run, [`compare`] compares, and
//! [`differences`] is the list of deliberate differences. [`trace`] reads recordings of the
//! original controller. `cargo run -p broth-tests --bin v2-record -- /path/to/worker`
//! records the original anew.

pub mod compare;
pub mod differences;
pub mod normal;
pub mod process;
pub mod recording;
pub mod script;
pub mod trace;
