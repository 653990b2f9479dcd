//! Worker processes: started, watched, and started again.

pub mod policy;
pub mod spawn;
