//! Packets of death, for tests of what becomes of who sends them. Only in builds with the feature
//! `poison`, which is refused for releases.

#[cfg(not(debug_assertions))]
compile_error!("the feature `poison` lets any client kill its worker: it is for tests only");

/// How a poisonous datagram begins; what follows says what it does.
pub const POISON: &[u8] = b"broth poison: ";

/// Dies over a poisonous datagram.
pub(crate) fn taste(datagram: &[u8]) {
    match datagram.strip_prefix(POISON) {
        Some(b"abort") => std::process::abort(),
        Some(b"panic") => panic!("poisoned"),
        Some(b"overflow") => _ = overflow(0),
        Some(b"spin") => loop {
            std::hint::spin_loop();
        },
        _ => {}
    }
}

/// Uses up the stack, which is a segmentation fault.
#[allow(unconditional_recursion, reason = "that is what it is for")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    overflow(frame[0] + 1) + frame[63]
}
