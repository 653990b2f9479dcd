#![no_main]

use broth_worker::wire::rtp::{RtpHeader, header_len};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(header) = RtpHeader::parse(data) else {
        let _ = header_len(data);
        return;
    };
    assert_eq!(header_len(data), Ok(header.payload_range().start));
    for (_, range) in header.extensions(data) {
        assert!(usize::from(range.end) <= header.payload_range().start);
    }
    assert!(header.payload(data).len() <= data.len());
});
