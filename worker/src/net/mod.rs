//! The shell's sockets: batches of datagrams in and out, ICE-TCP connections, and the
//! ports of a worker that is handed none.
//!
//! Together with `event_loop` the only code that sees a descriptor.

mod backlog;
mod batch;
pub mod binder;
pub mod connection;
pub mod fatal;
pub mod host;
pub mod mapping;
pub mod send_queue;
pub mod sockets;
pub mod sys;
pub mod tcp_frame;
