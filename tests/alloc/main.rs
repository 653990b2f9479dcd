//! Forwarding allocates nothing per packet. A binary of its own, as the allocator is the process's.

#![allow(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

use std::alloc::System;
use std::thread;
use std::time::Duration;

use broth_bench::rtp::vp8_packet;
use broth_worker::srtp::Profile;
use broth_worker::wire::rtp::{FIXED_HEADER_LEN, is_rtcp, is_rtp};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[allow(dead_code, reason = "the other test binary uses the rest")]
#[path = "../it/support.rs"]
mod support;

use support::{Room, SEND_SSRC};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Packets in the window, in bursts of ten.
const PACKETS: usize = 5000;
/// RTCP, once a second, and its timers may allocate.
const ALLOCATIONS_MAX: usize = PACKETS / 25;

#[test]
fn forwarding_allocates_nothing_per_packet() {
    let mut room = Room::new(Profile::AeadAes128Gcm);
    let datagrams: Vec<Vec<u8>> = (0..2 * PACKETS as u32).map(|n| sealed(&room, n)).collect();
    let (warm_up, window) = datagrams.split_at(PACKETS);
    assert!(forward(&mut room, warm_up) > PACKETS * 9 / 10);
    let region = Region::new(ALLOCATOR);
    let forwarded = forward(&mut room, window);
    let change = region.change();
    let count = change.allocations + change.reallocations;
    assert!(forwarded > PACKETS * 9 / 10, "{forwarded} forwarded");
    assert!(
        count < ALLOCATIONS_MAX,
        "{count} allocations for {forwarded} packets"
    );
}

fn sealed(room: &Room, n: u32) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let len = vp8_packet(
        &mut buffer,
        SEND_SSRC,
        n as u16,
        n * 300,
        n == 0,
        true,
        1000,
    );
    let seal = &room.sender.srtp.seal;
    let len = seal
        .protect_rtp(n >> 16, &mut buffer, FIXED_HEADER_LEN, len)
        .unwrap();
    buffer[..len].to_vec()
}

/// Sends what is sealed and counts what arrives, without allocating itself.
fn forward(room: &mut Room, datagrams: &[Vec<u8>]) -> usize {
    room.receiver.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2048];
    let mut forwarded = 0;
    let mut drain = || {
        while let Ok(len) = room.receiver.socket.recv(&mut buffer) {
            forwarded += usize::from(is_rtp(&buffer[..len]) && !is_rtcp(&buffer[..len]));
        }
    };
    for burst in datagrams.chunks(10) {
        for datagram in burst {
            room.sender.socket.send(datagram).unwrap();
        }
        thread::sleep(Duration::from_millis(2));
        drain();
    }
    thread::sleep(Duration::from_millis(200));
    drain();
    forwarded
}
