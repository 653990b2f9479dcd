#![no_main]

use broth_worker::wire::stun::{Message, is_stun, ufrag_of};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = (is_stun(data), ufrag_of(data));
    if let Ok(message) = Message::parse(data) {
        let _ = message.username();
        let _ = message.xor_mapped_address();
        assert!(!message.verify_integrity(b"not the password") || message.has_integrity());
    }
});
