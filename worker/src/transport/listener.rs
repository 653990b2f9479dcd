//! Which producer a received packet belongs to.

use std::collections::HashMap;

use broth_ipc::body::RtpListenerDump;
use broth_ipc::rtp::{RtpEncodingParameters, RtpParameters};
use broth_ipc::{ProducerId, Rejection};

use crate::producer::extension_id;
use crate::wire::rtp::RtpHeader;
use crate::wire::rtp_ext::ExtensionUri;

/// Which producer a received packet belongs to: by SSRC, else by MID, else by RID
/// (`spec: media.md` §5).
#[derive(Default)]
pub struct Listener {
    by_ssrc: HashMap<u32, (usize, ProducerId)>,
    by_mid: HashMap<String, (usize, ProducerId)>,
    by_rid: HashMap<String, (usize, ProducerId)>,
    mid_ext: Option<u8>,
    /// Extension id of the RID, once a producer declared it.
    pub rid_ext: Option<u8>,
    /// Extension id of the transport-wide sequence number, once a producer declared it.
    pub twcc_ext: Option<u8>,
    abs_send_ext: Option<u8>,
}

impl Listener {
    /// Adds what a producer declares.
    ///
    /// # Errors
    /// An SSRC, MID or RID belongs to another producer; nothing was added.
    pub fn add(
        &mut self,
        key: usize,
        id: ProducerId,
        parameters: &RtpParameters,
    ) -> Result<(), Rejection> {
        let ssrcs: Vec<u32> = parameters
            .encodings
            .iter()
            .flat_map(RtpEncodingParameters::ssrcs)
            .collect();
        let rids: Vec<&String> = parameters
            .encodings
            .iter()
            .filter_map(|encoding| encoding.encoding_id.as_ref())
            .collect();
        for (at, ssrc) in ssrcs.iter().enumerate() {
            if self.by_ssrc.contains_key(ssrc) || ssrcs[..at].contains(ssrc) {
                return Err(Rejection::exists(format!(
                    "ssrc already exists in RTP listener [ssrc:{ssrc}]"
                )));
            }
        }
        if let Some(mid) = &parameters.mux_id
            && self.by_mid.contains_key(mid)
        {
            return Err(Rejection::exists(format!(
                "muxId already exists in RTP listener [muxId:'{mid}']"
            )));
        }
        // RIDs are unique within a MID only, so without a MID they must be unique here.
        if parameters.mux_id.is_none()
            && let Some(rid) = rids.iter().find(|rid| self.by_rid.contains_key(**rid))
        {
            return Err(Rejection::exists(format!(
                "rid already exists in RTP listener [rid:'{rid}']"
            )));
        }
        for ssrc in ssrcs {
            self.by_ssrc.insert(ssrc, (key, id));
        }
        for rid in rids {
            self.by_rid.entry(rid.clone()).or_insert((key, id));
        }
        if let Some(mid) = &parameters.mux_id {
            self.by_mid.insert(mid.clone(), (key, id));
        }
        let known = |uri, old| extension_id(parameters, uri).or(old);
        self.mid_ext = known(ExtensionUri::Mid, self.mid_ext);
        self.rid_ext = known(ExtensionUri::Rid, self.rid_ext);
        self.twcc_ext = known(ExtensionUri::TransportWideCc, self.twcc_ext);
        self.abs_send_ext = known(ExtensionUri::AbsSendTime, self.abs_send_ext);
        Ok(())
    }

    /// Removes a producer.
    pub fn remove(&mut self, key: usize) {
        self.by_ssrc.retain(|_, (owner, _)| *owner != key);
        self.by_mid.retain(|_, (owner, _)| *owner != key);
        self.by_rid.retain(|_, (owner, _)| *owner != key);
    }

    /// Finds the producer of a packet and remembers its SSRC.
    pub fn find(&mut self, header: &RtpHeader, packet: &[u8]) -> Option<usize> {
        if let Some((key, _)) = self.by_ssrc.get(&header.ssrc) {
            return Some(*key);
        }
        let text = |id: Option<u8>| std::str::from_utf8(header.extension(packet, id?)?).ok();
        let owner = text(self.mid_ext)
            .and_then(|mid| self.by_mid.get(mid))
            .or_else(|| self.by_rid.get(text(self.rid_ext)?))
            .copied()?;
        self.by_ssrc.insert(header.ssrc, owner);
        Some(owner.0)
    }

    /// Remembers an SSRC of a producer, unless another one has it.
    pub fn learn(&mut self, ssrc: u32, key: usize, id: ProducerId) {
        self.by_ssrc.entry(ssrc).or_insert((key, id));
    }

    /// The producer that owns an SSRC.
    pub fn producer_of(&self, ssrc: u32) -> Option<usize> {
        self.by_ssrc.get(&ssrc).map(|(key, _)| *key)
    }

    pub(super) fn extension_ids(&self) -> std::collections::BTreeMap<String, u8> {
        [
            ("absSendTime", self.abs_send_ext),
            ("mid", self.mid_ext),
            ("rid", self.rid_ext),
        ]
        .into_iter()
        .filter_map(|(name, id)| Some((name.to_owned(), id?)))
        .collect()
    }

    pub(super) fn dump(&self) -> RtpListenerDump {
        let text = |table: &HashMap<String, (usize, ProducerId)>| {
            table
                .iter()
                .map(|(key, (_, id))| (key.clone(), id.to_string()))
                .collect()
        };
        RtpListenerDump {
            ssrc_table: self
                .by_ssrc
                .iter()
                .map(|(ssrc, (_, id))| (ssrc.to_string(), id.to_string()))
                .collect(),
            mux_id_table: text(&self.by_mid),
            rid_table: text(&self.by_rid),
        }
    }
}
