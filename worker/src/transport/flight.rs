//! What of a connected transport is recorded.

use broth_ipc::body::Protocol;

use super::WebRtc;
use crate::net::sockets::Sockets;
use crate::recorder::{Entry, Record, SRTCP_INDEX, TWCC_COUNT, TransportRecord};

/// Where a connected transport is recorded.
pub struct Flight {
    /// The record.
    pub entry: Entry,
    /// What it says.
    pub record: TransportRecord,
}

impl Flight {
    /// Records state and path if they changed.
    pub fn set_path(&mut self, webrtc: &WebRtc, sockets: &mut Sockets) {
        let mut record = self.record.clone();
        record.ice_state = webrtc.ice.state();
        if let Some(path) = webrtc.ice.selected()
            && let Some((ip, port, protocol)) = sockets.local(path.socket)
        {
            record.local = (ip, port).into();
            record.remote = path.remote;
            record.is_tcp = protocol == Protocol::Tcp;
            // Before the path is recorded, so that the end of its last frame is known.
            sockets.set_scribe(path.socket, self.entry.scribe());
        }
        if record != self.record {
            record.write(&mut self.entry);
            self.record = record;
        }
    }

    /// Records the next SRTCP index. To be called before the packet before it leaves.
    pub fn set_srtcp_index(&self, index: u32) {
        self.entry.set(SRTCP_INDEX, u64::from(index));
    }

    /// Records how many feedback packets there were.
    pub fn set_twcc_count(&self, count: u8) {
        self.entry.set(TWCC_COUNT, u64::from(count));
    }
}
