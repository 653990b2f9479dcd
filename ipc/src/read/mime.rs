//! The codecs that can be named.

use super::refuse;
use crate::error::Rejection;
use crate::rtp::MediaKind;

/// What a codec is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Carries media.
    Media,
    /// Silence and key presses.
    Complement,
    /// Repairs media.
    Repair,
}

/// Sub-types as they are written, and what they are for.
const SUBTYPES: [(&str, Role); 19] = [
    ("opus", Role::Media),
    ("PCMA", Role::Media),
    ("PCMU", Role::Media),
    ("ISAC", Role::Media),
    ("G722", Role::Media),
    ("iLBC", Role::Media),
    ("SILK", Role::Media),
    ("VP8", Role::Media),
    ("VP9", Role::Media),
    ("H264", Role::Media),
    ("X-H264UC", Role::Media),
    ("H265", Role::Media),
    ("CN", Role::Complement),
    ("telephone-event", Role::Complement),
    ("rtx", Role::Repair),
    ("ulpfec", Role::Repair),
    ("flexfec", Role::Repair),
    ("x-ulpfecuc", Role::Repair),
    ("red", Role::Repair),
];

/// A known MIME type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mime {
    kind: MediaKind,
    /// As it is written.
    pub(super) subtype: &'static str,
    /// What the codec is for.
    pub(super) role: Role,
}

impl Mime {
    /// Reads a MIME type, ignoring case.
    pub(super) fn parse(text: &str) -> Result<Self, Rejection> {
        let (kind, subtype) = match text.split_once('/') {
            Some((kind, subtype)) if !kind.is_empty() && !subtype.is_empty() => (kind, subtype),
            _ => return refuse("wrong codec MIME"),
        };
        let kind = match kind.to_ascii_lowercase().as_str() {
            "audio" => MediaKind::Audio,
            "video" => MediaKind::Video,
            other => return refuse(format!("unknown codec MIME type '{other}'")),
        };
        let mut known = SUBTYPES.iter();
        match known.find(|(name, _)| name.eq_ignore_ascii_case(subtype)) {
            Some(&(subtype, role)) => Ok(Self {
                kind,
                subtype,
                role,
            }),
            None => {
                let name = subtype.to_ascii_lowercase();
                refuse(format!("unknown codec MIME subtype '{name}'"))
            }
        }
    }

    /// As it is written.
    pub(super) fn text(self) -> String {
        format!("{}/{}", self.kind, self.subtype)
    }
}
