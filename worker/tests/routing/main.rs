//! The worker's routing in this thread: no process, no network, a clock that is told what time
//! it is. Lives here and not in `tests/` because counting allocations takes the global
//! allocator of its own executable.

#![allow(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod allocation;
mod hold;
mod late;
mod peer;
mod recovery;
mod simulation;
mod stage;
mod suspension;
mod whole_way;
