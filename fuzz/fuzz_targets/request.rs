#![no_main]

use broth_ipc::{FromWorker, Request};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Request::parse(data);
    let _ = FromWorker::parse(data);
});
