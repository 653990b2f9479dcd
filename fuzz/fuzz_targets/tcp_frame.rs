#![no_main]

use broth_worker::net::tcp_frame::TcpDeframer;

// However a stream is cut into reads, the same frames come out.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let frames = |chunk_len: usize| {
        let mut deframer = TcpDeframer::new();
        let mut frames = Vec::new();
        for chunk in data.chunks(chunk_len) {
            deframer.feed(chunk);
            loop {
                match deframer.next() {
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(_) => return (frames, true),
                }
            }
            assert!(deframer.buffered_len() <= data.len());
        }
        (frames, false)
    };
    assert_eq!(frames(1), frames(data.len().max(1)));
});
