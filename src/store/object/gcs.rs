//! Google Cloud Storage by its JSON API: object_store signs (tokens and URLs), the one HTTP client moves the bytes.

use crate::error::SourceFault;
use crate::store::account::GcpAccount;
use crate::store::interrupt::Interrupt;
use crate::store::net::client::{self, Client};
use crate::store::net::client_config::{ClientConfig, HeaderMap};
use crate::store::net::connector::{self, Connector};
use crate::store::net::http;
use crate::store::object::object_store::{MAX_PAGE_BYTES, Object, PageTokens, Store, Upload};
use crate::store::object::upload_parts::Parts;
use crate::store::open_source::Opened;
use crate::text::percent;
use futures_executor::block_on;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::path::Path;
use object_store::signer::Signer;
use serde::Deserialize;
use std::time::Duration;
use ureq::Body;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, LOCATION, RANGE};
use ureq::http::{Method, Request, Response};
use url::Url;

const HOST: &str = "https://storage.googleapis.com";
/// For how long a URL is signed at most: a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A bucket.
#[derive(Debug)]
pub struct Gcs {
    client: Client,
    /// Makes tokens and signs URLs.
    signer: GoogleCloudStorage,
    host: String,
    bucket: String,
}

/// An object as the API tells of it; numbers are texts.
#[derive(Deserialize)]
struct Item {
    name: String,
    size: String,
    etag: Option<String>,
    updated: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    items: Vec<Item>,
    next_page_token: Option<String>,
}

impl Item {
    fn object(self) -> Result<Object, SourceFault> {
        let size = self.size.parse().map_err(|_| client::unknown())?;
        Ok(Object { key: self.name, size, etag: self.etag, modified: self.updated })
    }
}

impl Gcs {
    /// A bucket by its account.
    ///
    /// # Errors
    /// `Unsupported` for a name that no bucket has; `Refused` (401) for a private key that is none.
    pub fn new(bucket: &str, account: &GcpAccount, access: &ClientConfig, interrupt: &Interrupt) -> Result<Gcs, SourceFault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if bucket.is_empty() || matches!(bucket, "." | "..") || !bucket.bytes().all(plain) {
            return Err(SourceFault::Unsupported);
        }
        let access = ClientConfig { headers: HeaderMap::new(), ..access.clone() };
        let host = account.host.as_deref().map_or(HOST, |host| host.trim_end_matches('/')).to_owned();
        let key = serde_json::json!({
            "private_key": account.private_key, "private_key_id": account.private_key_id, "client_email": account.service_account_email,
        });
        let signer = GoogleCloudStorageBuilder::new()
            .with_bucket_name(bucket)
            .with_base_url(&host)
            .with_service_account_key(key.to_string())
            .with_retry(connector::once())
            .with_http_connector(Connector::new(Client::new(&access, interrupt)))
            .build()
            // Its text may hold the key.
            .map_err(|_| SourceFault::Refused { status: 401, code: "InvalidAccount".to_owned() })?;
        Ok(Gcs { client: Client::new(&access, interrupt), signer, host, bucket: bucket.to_owned() })
    }

    /// The URL of an object with a query.
    fn url(&self, key: &str, query: &str) -> Result<String, SourceFault> {
        // Steps that a URL knows would lead to another object.
        if key.is_empty() || matches!(key, "." | "..") {
            return Err(SourceFault::Unsupported);
        }
        Ok(format!("{}/storage/v1/b/{}/o/{}{query}", self.host, self.bucket, percent::segment(key)))
    }

    /// The answer to a request. One of another status than is expected is a fault.
    fn ask(&self, method: Method, url: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Result<Response<Body>, SourceFault> {
        let token = block_on(self.signer.credentials().get_credential()).map_err(connector::fault)?;
        let response = self.client.ask(|agent| {
            let mut request = Request::builder().method(&method).uri(url).header(AUTHORIZATION, format!("Bearer {}", token.bearer));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            client::send(agent, request, body)
        })?;
        match response.status().as_u16() {
            // 308 is that of an upload that is to go on.
            200..=299 | 308 => Ok(response),
            status => Err(SourceFault::Refused { status, code: client::code_of(status) }),
        }
    }
}

fn read<T: for<'a> Deserialize<'a>>(response: Response<Body>) -> Result<T, SourceFault> {
    let bytes = response.into_body().into_with_config().limit(MAX_PAGE_BYTES).read_to_vec().map_err(client::fault)?;
    serde_json::from_slice(&bytes).map_err(|_| client::unknown())
}

impl Store for Gcs {
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Object) -> Result<(), SourceFault>) -> Result<(), SourceFault> {
        let mut tokens = PageTokens::default();
        let mut after = String::new();
        loop {
            let query = format!("?maxResults=1000&prefix={}{after}", percent::segment(prefix));
            let url = format!("{}/storage/v1/b/{}/o{query}", self.host, self.bucket);
            let page: Page = read(self.ask(Method::GET, &url, &[], None)?)?;
            for item in page.items {
                each(item.object()?)?;
            }
            let Some(next) = page.next_page_token.filter(|token| !token.is_empty()) else { return Ok(()) };
            after = format!("&pageToken={}", percent::segment(&tokens.follow(next)?));
        }
    }

    fn head(&self, key: &str) -> Result<Object, SourceFault> {
        read::<Item>(self.ask(Method::GET, &self.url(key, "")?, &[], None)?)?.object()
    }

    fn open(&self, key: &str, from: u64) -> Result<Opened, SourceFault> {
        let range = format!("bytes={from}-");
        // Else it inflates what was put there as gzip, and tells no length.
        let mut headers = vec![(ACCEPT_ENCODING.as_str(), "gzip")];
        if from > 0 {
            headers.push((RANGE.as_str(), range.as_str()));
        }
        match self.ask(Method::GET, &self.url(key, "?alt=media")?, &headers, None) {
            Err(SourceFault::Refused { status: 416, .. }) if from > 0 => Err(SourceFault::Changed),
            response => {
                let mut opened = http::opened(response?, from)?;
                // Spelled otherwise than the API's own.
                opened.identity.modified = None;
                Ok(Opened { ranged: true, ..opened })
            }
        }
    }

    fn put<'a>(&'a self, key: &str) -> Result<Box<dyn Upload + 'a>, SourceFault> {
        self.url(key, "")?;
        Ok(Box::new(ResumableUpload { store: self, key: key.to_owned(), session: None, sent: 0, parts: Parts::default() }))
    }

    fn delete(&self, key: &str) -> Result<(), SourceFault> {
        match self.ask(Method::DELETE, &self.url(key, "")?, &[], None) {
            Err(SourceFault::Refused { status: 404, .. }) => Ok(()),
            response => response.map(drop),
        }
    }

    fn signed_url(&self, key: &str, expires: Duration) -> Result<Url, SourceFault> {
        let path = Path::parse(key).map_err(|_| SourceFault::Unsupported)?;
        block_on(self.signer.signed_url(Method::GET, &path, expires.min(LONGEST))).map_err(connector::fault)
    }
}

/// An object that comes in a resumable upload; one that is small comes in one request.
struct ResumableUpload<'a> {
    store: &'a Gcs,
    key: String,
    /// Where the upload goes, once there is more than one part.
    session: Option<String>,
    sent: u64,
    parts: Parts,
}

impl ResumableUpload<'_> {
    fn upload_url(&self, kind: &str) -> String {
        format!("{}/upload/storage/v1/b/{}/o?uploadType={kind}&name={}", self.store.host, self.store.bucket, percent::segment(&self.key))
    }

    /// `total` is sent with the last part.
    fn send(&mut self, part: &[u8], total: Option<u64>) -> Result<(), SourceFault> {
        let session = match &self.session {
            Some(session) => session.clone(),
            None => {
                let response = self.store.ask(Method::POST, &self.upload_url("resumable"), &[], Some(&[]))?;
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(client::unknown)?;
                self.session.insert(location.to_owned()).clone()
            }
        };
        let total = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
        let range = match (self.sent, part.len() as u64) {
            (0, 0) => None,
            (_, 0) => Some(format!("bytes */{total}")),
            (sent, length) => Some(format!("bytes {sent}-{}/{total}", sent + length - 1)),
        };
        let headers: Vec<(&str, &str)> = range.iter().map(|range| (CONTENT_RANGE.as_str(), range.as_str())).collect();
        let response = self.store.ask(Method::PUT, &session, &headers, Some(part))?;
        self.sent += part.len() as u64;
        // While it is to go on, the server tells how much of it is there.
        let kept = response.headers().get(RANGE).and_then(|range| range.to_str().ok()?.rsplit_once('-')?.1.parse::<u64>().ok());
        match (response.status().as_u16(), kept) {
            (308, Some(last)) if last + 1 == self.sent => Ok(()),
            (308, _) => Err(SourceFault::Read("the store did not keep a part of an upload".to_owned())),
            _ => Ok(()),
        }
    }
}

impl Upload for ResumableUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceFault> {
        let mut rest = bytes;
        while let Some(part) = self.parts.fill(&mut rest) {
            self.send(&part, None)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), SourceFault> {
        let last = self.parts.last();
        if self.session.is_none() && !last.is_empty() {
            return self.store.ask(Method::POST, &self.upload_url("media"), &[], Some(&last)).map(drop);
        }
        let total = self.sent + last.len() as u64;
        self.send(&last, Some(total))?;
        self.session = None;
        Ok(())
    }

    fn abort(self: Box<Self>) -> Result<(), SourceFault> {
        // What is dropped is given up.
        Ok(())
    }
}

impl Drop for ResumableUpload<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // It would be gone in a week by itself; more than to try is not to be done here.
            let _ = self.store.ask(Method::DELETE, &session, &[], None);
        }
    }
}
