//! Worker processes: started, watched, and started again.

pub(crate) mod args;
pub(crate) mod cpus;
mod output;
pub(crate) mod placement;
pub(crate) mod policy;
mod process;
pub(crate) mod slot;
pub(crate) mod spawn;
pub(crate) mod succession;
mod watchdog;
pub(crate) mod worker;
