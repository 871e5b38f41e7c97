//! `http(s)://` through ureq, the one client that moves all bytes: checks the address that is really connected, at each
//! redirect too, and that a body came in whole.

use super::Interrupt;
use super::address::Allowed;
use super::inflate::Broken;
use super::opened::{Access, Opened};
use crate::error::SourceFault;
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use ureq::config::{Config, RedirectAuthHeaders};
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use url::Url;

/// Redirects that are followed.
const REDIRECTS: u32 = 10;

/// Asks for an object. The body's bytes are as sent: no content encoding is asked for or undone.
pub fn open(url: &Url, access: &Access, interrupt: &Interrupt) -> Result<Opened, SourceFault> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(REDIRECTS)
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        // Variables of the postmaster's environment are nobody's decision here.
        .proxy(None)
        .user_agent(concat!("bulk/", env!("CARGO_PKG_VERSION")))
        .build();
    let resolver = CheckedResolver { allowed: access.allowed_hosts.clone(), inner: DefaultResolver::default() };
    let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
    interrupt.watch(&agent);
    let response = agent.get(url.as_str()).call().map_err(fault)?;
    match response.status().as_u16() {
        200 => {}
        status @ (401 | 403) => return Err(SourceFault::Denied(status)),
        status @ (404 | 410) => return Err(SourceFault::NotFound(status)),
        status => return Err(SourceFault::Status(status)),
    }
    let chunked = response.headers().get("transfer-encoding").is_some();
    let body = response.into_body();
    let length = body.content_length();
    let reader = body.into_with_config().limit(u64::MAX).reader();
    Ok(Opened { reader: Box::new(Counted { reader, length, read: 0 }), delimited: chunked || length.is_some() })
}

/// What an error of the client means. Its text never holds the URL.
fn fault(error: ureq::Error) -> SourceFault {
    match error {
        ureq::Error::Other(inner) => match inner.downcast_ref::<Refused>() {
            Some(Refused(address)) => SourceFault::AddressRefused(address.to_string()),
            None => SourceFault::Unreachable("the client failed".to_owned()),
        },
        ureq::Error::Timeout(_) => SourceFault::Timeout,
        ureq::Error::BadUri(_) => SourceFault::Unsupported,
        ureq::Error::HostNotFound => SourceFault::Unreachable("host not found".to_owned()),
        ureq::Error::Io(error) => SourceFault::Unreachable(error.to_string()),
        ureq::Error::TooManyRedirects => SourceFault::Unreachable(format!("more than {REDIRECTS} redirects")),
        ureq::Error::Tls(what) => SourceFault::Unreachable(what.to_owned()),
        ureq::Error::Rustls(error) => SourceFault::Unreachable(error.to_string()),
        ureq::Error::ConnectionFailed => SourceFault::Unreachable("the connection failed".to_owned()),
        // The texts of other errors may hold what the server sent, a redirect's signed URL among it.
        _ => SourceFault::Unreachable("the server's answer could not be understood".to_owned()),
    }
}

/// An address that may not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("address {0} is not allowed")]
struct Refused(IpAddr);

/// Resolves a host and keeps what may be connected to. ureq connects to what its resolver gives and asks it anew at each
/// redirect, so no other address is ever reached.
#[derive(Debug)]
struct CheckedResolver {
    allowed: Allowed,
    inner: DefaultResolver,
}

impl Resolver for CheckedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let found = self.inner.resolve(uri, config, timeout)?;
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

/// A body that must have as many bytes as its header says.
struct Counted<R> {
    reader: R,
    length: Option<u64>,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.truncated(),
            _ => Broken::io(SourceFault::Read(error.to_string())),
        })?;
        self.read += count as u64;
        if count == 0 && !buffer.is_empty() && self.length.is_some_and(|length| self.read < length) {
            return Err(self.truncated());
        }
        Ok(count)
    }
}

impl<R> Counted<R> {
    fn truncated(&self) -> io::Error {
        let text = match self.length {
            Some(length) => format!("{} of {length} bytes came", self.read),
            None => format!("the connection ended after {} bytes", self.read),
        };
        Broken::io(SourceFault::Truncated(text))
    }
}
