//! An opened source, before it is inflated, and what opening one depends on.

use super::address::Allowed;
use std::io::Read;

/// What reading a source depends on.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub allowed_hosts: Allowed,
}

/// Bytes of a source as they were sent.
pub struct Opened {
    pub reader: Box<dyn Read + Send>,
    /// Whether the protocol tells the end from a broken connection.
    pub delimited: bool,
}
