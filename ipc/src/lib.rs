//! broth ipc
