//! Everything received from one peer: its key, and what came of each SSRC.

use super::{OpenKey, RTCP_HEADER_LEN, RTP_HEADER_LEN, RecvIndex, RtcpReplay, SrtpError, read_u32};

/// SSRCs one peer may use; an authenticated peer could otherwise make us
/// remember without end.
pub const SSRCS_MAX: usize = 128;

/// Opens the packets of one peer.
///
/// A new SSRC is remembered only after its first packet proved authentic.
pub struct SrtpInbound {
    key: OpenKey,
    rtp: SsrcTable<RecvIndex>,
    rtcp: SsrcTable<RtcpReplay>,
}

impl SrtpInbound {
    /// Nothing received yet.
    pub fn new(key: OpenKey) -> Self {
        Self {
            key,
            rtp: SsrcTable::new(),
            rtcp: SsrcTable::new(),
        }
    }

    /// Opens an RTP packet in place; see [`OpenKey::unprotect_rtp`].
    ///
    /// # Errors
    /// As there, or [`SrtpError::TooManySsrcs`].
    pub fn unprotect_rtp(
        &mut self,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<usize, SrtpError> {
        if packet.len() < RTP_HEADER_LEN {
            return Err(SrtpError::TooShort);
        }
        let ssrc = read_u32(packet, 8);
        self.rtp.update(ssrc, |recv_index| {
            self.key.unprotect_rtp(recv_index, packet, header_len)
        })
    }

    /// Opens a compound RTCP packet in place; see [`OpenKey::unprotect_rtcp`].
    ///
    /// # Errors
    /// As there, or [`SrtpError::TooManySsrcs`].
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        if packet.len() < RTCP_HEADER_LEN {
            return Err(SrtpError::TooShort);
        }
        let ssrc = read_u32(packet, 4);
        self.rtcp
            .update(ssrc, |replay| self.key.unprotect_rtcp(replay, packet))
    }

    /// What was received of an SSRC.
    pub fn recv_index(&self, ssrc: u32) -> Option<RecvIndex> {
        self.rtp.get(ssrc)
    }

    /// The highest index received of an SSRC.
    pub fn highest_rtp(&self, ssrc: u32) -> Option<u64> {
        let at = self.rtp.position(ssrc)?;
        self.rtp.entries[at].highest()
    }

    /// The highest SRTCP index received of an SSRC.
    pub fn highest_rtcp(&self, ssrc: u32) -> Option<u32> {
        let at = self.rtcp.position(ssrc)?;
        self.rtcp.entries[at].highest()
    }

    /// What was received of every SSRC.
    pub fn recv_indices(&self) -> impl Iterator<Item = (u32, RecvIndex)> + '_ {
        self.rtp.iter()
    }

    /// Goes on from a recorded state of an SSRC.
    ///
    /// # Errors
    /// [`SrtpError::TooManySsrcs`].
    pub fn resume_rtp(&mut self, ssrc: u32, recv_index: RecvIndex) -> Result<(), SrtpError> {
        self.rtp.update(ssrc, |entry| {
            *entry = recv_index;
            Ok(())
        })
    }

    /// Goes on from a recorded SRTCP state of an SSRC.
    ///
    /// # Errors
    /// [`SrtpError::TooManySsrcs`].
    pub fn resume_rtcp(&mut self, ssrc: u32, replay: RtcpReplay) -> Result<(), SrtpError> {
        self.rtcp.update(ssrc, |entry| {
            *entry = replay;
            Ok(())
        })
    }
}

/// At most [`SSRCS_MAX`] entries. Scanned: the SSRCs of a full table fit into
/// eight cache lines.
struct SsrcTable<T> {
    ssrcs: Vec<u32>,
    entries: Vec<T>,
}

impl<T: Copy + Default> SsrcTable<T> {
    fn new() -> Self {
        Self {
            ssrcs: Vec::new(),
            entries: Vec::new(),
        }
    }

    fn position(&self, ssrc: u32) -> Option<usize> {
        self.ssrcs.iter().position(|&known| known == ssrc)
    }

    fn get(&self, ssrc: u32) -> Option<T> {
        self.position(ssrc).map(|at| self.entries[at])
    }

    fn iter(&self) -> impl Iterator<Item = (u32, T)> + '_ {
        self.ssrcs.iter().copied().zip(self.entries.iter().copied())
    }

    /// Runs `change` on the entry; a new one stays only if `change` succeeds.
    fn update<R>(
        &mut self,
        ssrc: u32,
        change: impl FnOnce(&mut T) -> Result<R, SrtpError>,
    ) -> Result<R, SrtpError> {
        if let Some(at) = self.position(ssrc) {
            return change(&mut self.entries[at]);
        }
        if self.ssrcs.len() >= SSRCS_MAX {
            return Err(SrtpError::TooManySsrcs);
        }
        let mut entry = T::default();
        let result = change(&mut entry)?;
        self.ssrcs.push(ssrc);
        self.entries.push(entry);
        Ok(result)
    }
}
