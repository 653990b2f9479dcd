#![no_main]

use broth_ipc::netstring::Decoder;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new(1000);
    for piece in data.chunks(7) {
        decoder.feed(piece);
        while let Ok(Some(frame)) = decoder.next_frame() {
            assert!(frame.len() <= 1000);
        }
    }
});
