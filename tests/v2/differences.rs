//! Where the worker is not like the original one, on purpose.
