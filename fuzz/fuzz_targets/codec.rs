#![no_main]

use broth_worker::wire::codec::{Codec, inspect};
use broth_worker::wire::vp8;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Other] {
        let _ = inspect(codec, data);
    }
    let before = inspect(Codec::Vp8, data);
    let mut rewritten = data.to_vec();
    vp8::rewrite(&mut rewritten, 5, 6);
    let after = inspect(Codec::Vp8, &rewritten);
    assert_eq!(before.is_keyframe, after.is_keyframe);
    assert_eq!(before.temporal, after.temporal);
});
