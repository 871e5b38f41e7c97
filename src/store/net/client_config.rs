//! What reaching a source depends on.

use crate::store::account::Accounts;
use crate::store::net::ip_policy::Allowed;
use std::time::Duration;
use ureq::Proxy;
pub use ureq::http::header::HeaderMap;
use ureq::http::header::{self, HeaderName, HeaderValue};
use ureq::tls::RootCerts;

/// What reading a source depends on.
#[derive(Debug, Clone, Default)]
pub struct ClientConfig {
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
    /// Whether a body whose end nothing tells is taken as whole.
    pub accept_unframed: bool,
    pub accounts: Accounts,
    /// Whether buckets of S3 without an account are reached as the machine.
    pub as_machine: bool,
}

/// Headers that are the client's own business.
const OWN: [HeaderName; 12] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::EXPECT,
    header::RANGE,
    header::TRAILER,
    header::VIA,
    header::FORWARDED,
    HeaderName::from_static("keep-alive"),
];
/// How the names begin of what a proxy is told, or tells.
const OF_PROXIES: [&str; 2] = ["proxy-", "x-forwarded-"];

/// Headers by name and value. None when one of them cannot be sent.
pub fn headers<'a>(given: impl Iterator<Item = (&'a str, &'a str)>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| {
            let is_of_a_proxy = OF_PROXIES.iter().any(|prefix| name.as_str().starts_with(prefix));
            !OWN.contains(name) && !is_of_a_proxy
        })?;
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Some(headers)
}
