//! An opened source, before it is inflated.

use serde::{Deserialize, Serialize};
use std::io::Read;

/// What tells one content of a source from another, as far as the source says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Bytes as they are sent.
    pub length: Option<u64>,
    pub etag: Option<String>,
    pub modified: Option<String>,
    /// When a file's inode changed last, in seconds and nanoseconds: known while it is read, and not written down, since it also changes with what
    /// is no content.
    #[serde(skip)]
    pub inode_changed: Option<(i64, i64)>,
}

impl Identity {
    /// Whether it tells contents of one length apart.
    pub fn is_telling(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }

    /// With what another says of the same content where this says nothing.
    pub fn or(self, other: &Identity) -> Identity {
        Identity {
            length: self.length.or(other.length),
            etag: self.etag.or_else(|| other.etag.clone()),
            modified: self.modified.or_else(|| other.modified.clone()),
            inode_changed: self.inode_changed,
        }
    }

    /// Whether both can be of the same content: what both say is the same.
    pub fn agrees(&self, other: &Identity) -> bool {
        fn same<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        // Not all answers of a server have the same signs around it.
        let plain = |identity: &Identity| identity.etag.as_deref().map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        same(&self.length, &other.length)
            && same(&plain(self), &plain(other))
            && same(&self.modified, &other.modified)
            && same(&self.inode_changed, &other.inode_changed)
    }
}

/// Bytes of a source as they were sent, from the one that was asked for.
pub struct Opened {
    pub reader: Box<dyn Read + Send>,
    /// Whether the protocol tells the end from a broken connection.
    pub delimited: bool,
    /// Whether a part of it can be asked for.
    pub ranged: bool,
    pub identity: Identity,
}
