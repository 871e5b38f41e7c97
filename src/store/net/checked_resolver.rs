//! Where each address is checked that a request goes to, a redirect's too.

use crate::store::net::ip_policy::Allowed;
use std::net::IpAddr;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// An address that may not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("address {0} is not allowed")]
pub struct Refused(pub IpAddr);

/// Resolves a host and keeps what may be connected to. ureq connects to what its resolver gives and asks it anew at each
/// redirect, so no other address is ever reached.
#[derive(Debug)]
pub struct CheckedResolver {
    allowed: Allowed,
    /// Where a superuser said that it is.
    proxy: Option<(String, u16)>,
    inner: DefaultResolver,
}

impl CheckedResolver {
    /// A resolver that keeps what these allow, and lets the proxy's own name and port pass.
    pub fn new(allowed: Allowed, proxy: Option<(String, u16)>) -> CheckedResolver {
        CheckedResolver { allowed, proxy, inner: DefaultResolver::default() }
    }
}

impl Resolver for CheckedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let found = self.inner.resolve(uri, config, timeout)?;
        if self.proxy.as_ref().is_some_and(|(name, port)| {
            name.trim_start_matches('[').trim_end_matches(']') == host && uri.port_u16().unwrap_or(*port) == *port
        }) {
            return Ok(found);
        }
        let mut kept = self.empty();
        for address in found.iter().filter(|address| self.allowed.permits(host, address.ip(), address.port())) {
            kept.push(*address);
        }
        match found.iter().next() {
            Some(first) if kept.is_empty() => Err(ureq::Error::Other(Box::new(Refused(first.ip())))),
            _ => Ok(kept),
        }
    }
}
