//! `http(s)://` through ureq, the one client that moves all bytes: checks the address that is really connected, at each
//! redirect too, and that a body came in whole.

use super::Interrupt;
use super::address::Allowed;
use super::inflate::{self, Broken};
use super::opened::{Access, Identity, Opened};
use crate::error::SourceFault;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use ureq::Body;
use ureq::config::Config;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use url::Url;

/// Redirects that are followed.
const REDIRECTS: u32 = 10;
/// Between two tries, whatever the server asks.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Asks for an object from a byte on. The body's bytes are as sent: no content encoding is asked for or undone. What may pass (429, 5xx, a connection
/// that fails) is tried again as often as `access` says.
pub fn open(url: &Url, access: &Access, interrupt: &Interrupt, from: u64) -> Result<Opened, SourceFault> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // Followed here: headers must not be.
        .max_redirects(0)
        // Variables of the postmaster's environment are nobody's decision here.
        .proxy(None)
        // A connection that the server closed after its last answer must not cost a try.
        .max_idle_connections(0)
        .timeout_resolve(access.connect_timeout)
        .timeout_connect(access.connect_timeout)
        .timeout_per_read(access.read_timeout)
        .user_agent(concat!("bulk/", env!("CARGO_PKG_VERSION")))
        .build();
    let resolver = CheckedResolver { allowed: access.allowed_hosts.clone(), inner: DefaultResolver::default() };
    let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
    interrupt.watch(&agent);
    let mut attempt = 0;
    let response = loop {
        let (fault, pause) = match follow(&agent, url, &access.headers, from) {
            Ok(response) => match response.status().as_u16() {
                200 => break response,
                206 if from > 0 => break response,
                // The byte that was asked for is behind the end.
                416 if from > 0 => return Err(SourceFault::Changed),
                status @ (401 | 403) => return Err(SourceFault::Denied(status)),
                status @ (404 | 410) => return Err(SourceFault::NotFound(status)),
                status @ (429 | 500 | 502 | 503 | 504) => (SourceFault::Status(status), retry_after(&response)),
                status => return Err(SourceFault::Status(status)),
            },
            Err(fault @ (SourceFault::Unreachable(_) | SourceFault::Timeout)) => (fault, None),
            Err(fault) => return Err(fault),
        };
        if attempt == access.retries || interrupt.wait(pause.unwrap_or_else(|| back_off(attempt))) {
            return Err(fault);
        }
        attempt += 1;
    };
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let chunked = header("transfer-encoding").is_some();
    let range = header("content-range");
    let ranged = header("accept-ranges").is_some_and(|unit| unit.eq_ignore_ascii_case("bytes"));
    let (etag, modified, partial) = (header("etag"), header("last-modified"), response.status().as_u16() == 206);
    let body = response.into_body();
    let length = body.content_length();
    let mut reader: Box<dyn Read + Send> = Box::new(Counted { reader: body.into_with_config().limit(u64::MAX).reader(), length, read: 0 });
    let total = if partial { total_of(&range.unwrap_or_default(), from)? } else { length };
    if from > 0 && !partial {
        // A server that knows no ranges sends all.
        let passed = io::copy(&mut reader.by_ref().take(from), &mut io::sink()).map_err(|error| inflate::fault(&error))?;
        if passed < from {
            return Err(SourceFault::Changed);
        }
    }
    let identity = Identity { length: total, etag, modified };
    Ok(Opened { reader, delimited: chunked || length.is_some(), ranged: ranged || partial, identity })
}

/// The whole length that an answer in part tells, if it does, of the part from a byte on.
fn total_of(range: &str, from: u64) -> Result<Option<u64>, SourceFault> {
    let wrong = || SourceFault::Unreachable("the server sent another part than was asked for".to_owned());
    let (part, total) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')).ok_or_else(wrong)?;
    let first: Option<u64> = part.split_once('-').and_then(|(first, _)| first.trim().parse().ok());
    if first == Some(from) { Ok(total.trim().parse().ok()) } else { Err(wrong()) }
}

/// Makes a request and follows redirects, without headers and credentials once one leads to another origin.
fn follow(agent: &ureq::Agent, url: &Url, headers: &HeaderMap, from: u64) -> Result<Response<Body>, SourceFault> {
    let mut next = url.clone();
    for _ in 0..=REDIRECTS {
        let mut request = agent.get(next.as_str());
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        if next.origin() == url.origin() {
            for (name, value) in headers {
                request = request.header(name, value);
            }
        }
        let response = request.call().map_err(fault)?;
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(response);
        }
        let unknown = || SourceFault::Unreachable("it redirects to what is no URL of a web server".to_owned());
        let location = response.headers().get("location").and_then(|value| value.to_str().ok()).ok_or_else(unknown)?;
        next = next.join(location).map_err(|_| unknown())?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(unknown());
        }
    }
    Err(SourceFault::Unreachable(format!("more than {REDIRECTS} redirects")))
}

/// What the server asks to wait, in seconds or until a time.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?.trim();
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(asked.min(LONGEST_PAUSE))
}

/// From a quarter of a second, doubled each time; a random half of it, so that many who failed together do not come together again.
fn back_off(attempt: u32) -> Duration {
    let most = Duration::from_millis(250).saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
    let random = RandomState::new().hash_one(attempt) as u32;
    most / 2 + (most / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
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
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Broken::io(SourceFault::Timeout),
            _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
                Some(ureq::Error::Timeout(_)) => Broken::io(SourceFault::Timeout),
                // Other texts may hold what the server sent.
                _ if error.raw_os_error().is_none() => Broken::io(SourceFault::Read("the connection failed".to_owned())),
                _ => Broken::io(SourceFault::Read(error.to_string())),
            },
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
