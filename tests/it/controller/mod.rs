//! Scenarios of the controller's library: what an application and its clients see of it.

mod api;
mod bad_input;
mod bad_messages;
mod bad_values;
mod chaos;
mod closed;
mod lifecycle;
mod media;
mod mirroring;
mod order;
mod original;
mod pausing;
mod peer_closing;
mod peer_page;
mod plain;
mod planned;
mod processes;
mod protocol;
mod recovery;
mod speaker;
mod startup;
mod support;
mod tcp;
