//! `http(s)://` objects: redirects, Range requests, and bodies that must come in whole.

use crate::error::SourceFault;
use crate::store::inflate::{self, Broken};
use crate::store::interrupt::Interrupt;
use crate::store::net::client::{self, Client};
use crate::store::net::client_config::ClientConfig;
use crate::store::open_source::{Identity, Opened};
use std::io::{self, ErrorKind, Read};
use ureq::Body;
use ureq::http::{HeaderMap, Response, Version};
use url::Url;

/// Redirects that are followed.
const REDIRECTS: u32 = 10;

/// Asks for an object from a byte on. The body's bytes are as sent: no content encoding is asked for or undone.
///
/// # Errors
/// Where no answer came, or one that is no success; `Changed` for a range of another object.
pub fn open(url: &Url, access: &ClientConfig, interrupt: &Interrupt, from: u64) -> Result<Opened, SourceFault> {
    let response = Client::new(access, interrupt).ask(|agent| follow(agent, url, &access.headers, from))?;
    match response.status().as_u16() {
        200 | 206 => opened(response, from),
        // The byte that was asked for is behind the end.
        416 if from > 0 => Err(SourceFault::Changed),
        status @ (401 | 403) => Err(SourceFault::Denied(status)),
        status @ (404 | 410) => Err(SourceFault::NotFound(status)),
        status => Err(SourceFault::Status(status)),
    }
}

/// The body of an answer to a request for an object from a byte on: 200 or 206.
///
/// # Errors
/// `Changed` for a range that was not asked for.
pub fn opened(response: Response<Body>, from: u64) -> Result<Opened, SourceFault> {
    let partial = response.status().as_u16() == 206;
    if partial && from == 0 {
        return Err(SourceFault::Status(206));
    }
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let range = header("content-range");
    let ranged = header("accept-ranges").is_some_and(|unit| unit.eq_ignore_ascii_case("bytes"));
    let (etag, modified) = (header("etag"), header("last-modified"));
    // The client tells no length of a body that is empty.
    let told = header("content-length").and_then(|length| length.parse().ok());
    let (chunked, secure) = (is_chunked(&response), response.extensions().get::<Secure>().is_some());
    let body = response.into_body();
    let length = body.content_length().or(told.filter(|&length| length == 0));
    let mut reader: Box<dyn Read + Send> = Box::new(Counted { reader: body.into_with_config().limit(u64::MAX).reader(), length, read: 0 });
    let total = if partial { total_of(&range.unwrap_or_default(), from)? } else { length };
    if from > 0 && total.is_some_and(|total| from >= total) {
        return Err(SourceFault::Changed);
    }
    if from > 0 && !partial {
        // A server that knows no ranges sends all.
        let passed = io::copy(&mut reader.by_ref().take(from), &mut io::sink()).map_err(|error| inflate::fault(&error))?;
        if passed < from {
            return Err(SourceFault::Changed);
        }
    }
    let identity = Identity { length: total, etag, modified, inode_changed: None };
    Ok(Opened { reader, delimited: chunked || length.is_some() || secure, ranged: ranged || partial, identity })
}

/// In an answer that came over TLS, whose end the server says.
#[derive(Debug, Clone, Copy)]
struct Secure;

/// Whether a last chunk tells the body's end: of HTTP/1.1, where no other coding stands behind. RFC 9112, 6.1 and 6.3.
fn is_chunked(response: &Response<Body>) -> bool {
    let codings = response.headers().get_all("transfer-encoding").iter().filter_map(|value| value.to_str().ok());
    let last = codings.flat_map(|value| value.split(',')).next_back();
    response.version() >= Version::HTTP_11 && last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
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
        let mut response = request.call().map_err(client::fault)?;
        if next.scheme() == "https" {
            response.extensions_mut().insert(Secure);
        }
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
            _ if error.get_ref().is_some_and(|inner| inner.is::<Broken>()) => self.truncated(),
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
