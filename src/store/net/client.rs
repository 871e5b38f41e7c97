//! The one HTTP client that moves all bytes: checks the address that is really connected, and asks again where that may help.

use crate::error::SourceFault;
use crate::retry::{self, Backoff};
use crate::store::interrupt::Interrupt;
use crate::store::net::checked_end::CheckedEnd;
use crate::store::net::checked_resolver::{CheckedResolver, Refused};
use crate::store::net::client_config::ClientConfig;
use std::time::{Duration, SystemTime};
use ureq::Body;
use ureq::http::Response;
use ureq::http::request::Builder;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, DefaultConnector};

/// A client of one operation.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    retries: u32,
    interrupt: Interrupt,
}

impl Client {
    /// A client that reaches what `access` allows, until it is interrupted.
    pub fn new(access: &ClientConfig, interrupt: &Interrupt) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Followed where they are: headers must not be.
            .max_redirects(0)
            // By default variables of the environment would count.
            .proxy(access.proxy.clone())
            .tls_config(TlsConfig::builder().root_certs(access.trusted.clone().unwrap_or(RootCerts::WebPki)).build())
            // A connection that the server closed after its last answer must not cost a try.
            .max_idle_connections(0)
            .timeout_resolve(access.connect_timeout)
            .timeout_connect(access.connect_timeout)
            .timeout_per_read(access.read_timeout)
            .user_agent(concat!("bulk/", env!("CARGO_PKG_VERSION")))
            .build();
        let proxy = access.proxy.as_ref().map(|proxy| (proxy.host().to_owned(), proxy.port()));
        let resolver = CheckedResolver::new(access.allowed_hosts.clone(), proxy);
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default().chain(CheckedEnd), resolver);
        interrupt.watch(&agent);
        Client { agent, retries: access.retries, interrupt: interrupt.clone() }
    }

    /// The answer to a request. What may pass (429, 5xx, a connection that fails) is asked again as often as `access` says.
    ///
    /// # Errors
    /// That of the last try.
    pub fn ask(&self, request: impl Fn(&ureq::Agent) -> Result<Response<Body>, SourceFault>) -> Result<Response<Body>, SourceFault> {
        let mut attempt = 0;
        loop {
            let (fault, pause) = match request(&self.agent) {
                Ok(response) => match response.status().as_u16() {
                    status if retry::is_transient_status(status) => (SourceFault::Status(status), retry_after(&response)),
                    _ => return Ok(response),
                },
                Err(fault @ (SourceFault::Unreachable(_) | SourceFault::Timeout)) => (fault, None),
                Err(fault) => return Err(fault),
            };
            if attempt == self.retries || self.interrupt.wait(pause.unwrap_or_else(|| Backoff::PATIENT.pause(attempt + 1))) {
                return Err(fault);
            }
            attempt += 1;
        }
    }
}

/// Sends what is built of a request, with a body or none; an empty body is sent with its length.
///
/// # Errors
/// Where no answer came: `Unreachable`, `AddressRefused`, `Timeout`, `Read`.
pub fn send(agent: &ureq::Agent, request: Builder, body: Option<&[u8]>) -> Result<Response<Body>, SourceFault> {
    let unsupported = |_| SourceFault::Unsupported;
    match body {
        Some(body) => agent.run(request.body(body).map_err(unsupported)?),
        None => agent.run(request.body(()).map_err(unsupported)?),
    }
    .map_err(fault)
}

/// An answer that is none of its store's shapes.
pub fn unknown() -> SourceFault {
    SourceFault::Unreachable("the store's answer could not be understood".to_owned())
}

/// A word for the status of an answer that has none itself, as S3 has it.
pub fn code_of(status: u16) -> String {
    match status {
        401 | 403 => "AccessDenied".to_owned(),
        404 => "NoSuchKey".to_owned(),
        status => format!("HTTP {status}"),
    }
}

/// What the server asks to wait, in seconds or until a time.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?.trim();
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(asked.min(Backoff::PATIENT.longest()))
}

/// What an error of the client means. Its text never holds the URL.
pub fn fault(error: ureq::Error) -> SourceFault {
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
