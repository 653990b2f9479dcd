//! The worker executable; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    broth_worker::run()
}
