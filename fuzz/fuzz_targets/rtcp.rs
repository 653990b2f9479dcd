#![no_main]

use broth_worker::wire::rtcp::{Packet, packets};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for packet in packets(data).flatten() {
        match packet {
            Packet::Sr(_, blocks) | Packet::Rr { blocks, .. } => drop(blocks.count()),
            Packet::Nack { seqs, .. } => drop(seqs.count()),
            Packet::Fir { entries, .. } => drop(entries.count()),
            Packet::Xr { blocks, .. } => drop(blocks.count()),
            Packet::Remb(remb) => drop(remb.ssrcs.count()),
            _ => {}
        }
    }
});
