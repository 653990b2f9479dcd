//! How one packet of a producer becomes one of a receiver's: written into the send queue and sealed
//! there.

use super::{Sending, Way};
use crate::io::Io;
use crate::producer::{Producer, UNMAPPED};
use crate::stream::StoredPacket;
use crate::wire::rtp::{RtpEmit, RtpHeader};
use crate::wire::vp8;

/// Bytes of the original sequence number in front of an RTX payload (RFC 4588 §4).
const OSN_LEN: usize = 2;
/// The beginning of a VP8 payload with its descriptor, a whole block of AES.
const VP8_HEAD: usize = 16;

/// How one packet is rewritten.
pub(super) struct Rewrite {
    pub(super) pt: u8,
    pub(super) ssrc: u32,
    pub(super) seq: u64,
    pub(super) ts: u32,
    pub(super) picture: Option<(u16, u8)>,
    pub(super) abs_send_time: [u8; 3],
    /// The original sequence number, in an RTX packet.
    pub(super) osn: Option<u16>,
}

/// A packet whose payload is not all there.
#[derive(Clone, Copy)]
struct Emitted<'s> {
    /// Bytes of the header.
    header_len: usize,
    /// Bytes that are written.
    len: usize,
    /// What is to follow them, where all receivers share it.
    rest: &'s [u8],
}

impl Emitted<'_> {
    /// Writes the rest as it is; returns the length of the packet.
    fn finish(self, slot: &mut [u8]) -> Option<usize> {
        let end = self.len + self.rest.len();
        slot.get_mut(self.len..end)?.copy_from_slice(self.rest);
        Some(end)
    }
}

impl Sending {
    /// Writes, seals and queues one packet. `false`: it could not be written.
    pub(super) fn write(
        &mut self,
        io: &mut Io,
        way: Way<'_>,
        producer: &Producer,
        packet: &StoredPacket,
        rewrite: &Rewrite,
    ) -> bool {
        let source = io.pool.get(packet.id);
        if let Some(mirror) = way.mirror {
            let slot = io.sockets.slot();
            let emitted = self.emit(slot, producer, &packet.header, source, rewrite);
            if let Some(len) = emitted.and_then(|emitted| emitted.finish(slot)) {
                io.sockets.commit(mirror, len);
            }
        }
        let slot = io.sockets.slot();
        let Some(emitted) = self.emit(slot, producer, &packet.header, source, rewrite) else {
            return false;
        };
        // After the last index there is none.
        let Ok(roc) = u32::try_from(rewrite.seq >> 16) else {
            return false;
        };
        let Emitted {
            header_len,
            len,
            rest,
        } = emitted;
        let sealed = match way.seal {
            Some(seal) => seal.protect_rtp_with(roc, slot, header_len, len, rest).ok(),
            None => emitted.finish(slot),
        };
        let Some(len) = sealed else {
            return false;
        };
        io.sockets.commit(way.path, len);
        self.untold_bytes += len as u64;
        true
    }

    /// Writes the header and what of the payload differs from receiver to receiver.
    fn emit<'s>(
        &self,
        slot: &mut [u8],
        producer: &Producer,
        header: &RtpHeader,
        source: &'s [u8],
        rewrite: &Rewrite,
    ) -> Option<Emitted<'s>> {
        let extensions = header.extensions(source).filter_map(|(id, range)| {
            let id = producer.ext_map[usize::from(id)];
            if id == UNMAPPED || self.exts.checked_shr(u32::from(id)).unwrap_or(0) & 1 == 0 {
                return None;
            }
            let data = source.get(usize::from(range.start)..usize::from(range.end))?;
            let is_send_time = id == self.abs_send_ext && data.len() == 3;
            Some((
                id,
                if is_send_time {
                    &rewrite.abs_send_time
                } else {
                    data
                },
            ))
        });
        let emit = RtpEmit {
            marker: header.marker,
            pt: rewrite.pt,
            seq: rewrite.seq as u16,
            ts: rewrite.ts,
            ssrc: rewrite.ssrc,
        };
        let header_len = emit.emit_header(extensions, slot)?;
        let mut at = header_len;
        if let Some(osn) = rewrite.osn {
            slot.get_mut(at..at + OSN_LEN)?
                .copy_from_slice(&osn.to_be_bytes());
            at += OSN_LEN;
        }
        let mut rest = header.payload(source);
        if let Some((picture_id, tl0picidx)) = rewrite.picture {
            let (head, behind) = rest.split_at(rest.len().min(VP8_HEAD));
            let out = slot.get_mut(at..at + head.len())?;
            out.copy_from_slice(head);
            vp8::rewrite(out, picture_id, tl0picidx);
            at += head.len();
            rest = behind;
        }
        Some(Emitted {
            header_len,
            len: at,
            rest,
        })
    }
}
