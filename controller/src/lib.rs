//! broth controller
