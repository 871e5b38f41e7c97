//! An opened source, before it is inflated, and what opening one depends on.

use crate::store::account::Accounts;
use crate::store::address::Allowed;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::time::Duration;
use ureq::Proxy;
pub use ureq::http::header::HeaderMap;
use ureq::http::header::{self, HeaderName, HeaderValue};
use ureq::tls::RootCerts;

/// What reading a source depends on.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub allowed_hosts: Allowed,
    /// None asks the servers themselves.
    pub proxy: Option<Proxy>,
    /// Certificate authorities; None is those that browsers trust.
    pub trusted: Option<RootCerts>,
    /// Sent with requests to the source's own origin, never to where a redirect leads beyond it.
    pub headers: HeaderMap,
    /// None waits without end.
    pub connect_timeout: Option<Duration>,
    /// For the answer's head and for each read of its body. None waits without end.
    pub read_timeout: Option<Duration>,
    /// How often a request that failed is made again before the body begins.
    pub retries: u32,
    pub accounts: Accounts,
    /// Whether buckets of S3 without an account are reached as the machine.
    pub as_machine: bool,
}

/// Headers that are the client's own business.
const OWN: [HeaderName; 8] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::EXPECT,
    header::RANGE,
];

/// Headers by name and value. None when one of them cannot be sent.
pub fn headers<'a>(given: impl Iterator<Item = (&'a str, &'a str)>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !OWN.contains(name))?;
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Some(headers)
}

/// What tells one content of a source from another, as far as the source says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Bytes as they are sent.
    pub length: Option<u64>,
    pub etag: Option<String>,
    pub modified: Option<String>,
}

impl Identity {
    /// Whether it tells contents of one length apart.
    pub fn is_telling(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }

    /// Whether both can be of the same content: what both say is the same.
    pub fn agrees(&self, other: &Identity) -> bool {
        fn same<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        // Not all answers of a server have the same signs around it.
        let plain = |identity: &Identity| identity.etag.as_deref().map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        same(&self.length, &other.length) && same(&plain(self), &plain(other)) && same(&self.modified, &other.modified)
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
