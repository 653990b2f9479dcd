#![no_main]

use broth_worker::net::tcp_frame::Frames;

// However a stream is cut into reads, the same frames come out.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let frames = |chunk_len: usize| {
        let (mut waiting, mut got) = (Vec::new(), Vec::new());
        for chunk in data.chunks(chunk_len) {
            waiting.extend_from_slice(chunk);
            let mut frames = Frames::of(&mut waiting);
            for frame in frames.by_ref() {
                match frame {
                    Ok(frame) => got.push(frame.to_vec()),
                    Err(_) => return (got, true),
                }
            }
            let taken = frames.taken();
            waiting.drain(..taken);
        }
        (got, false)
    };
    assert_eq!(frames(1), frames(data.len().max(1)));
});
