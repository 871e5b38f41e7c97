//! Azure Blob Storage: object_store signs and speaks the protocol, the one HTTP client moves the bytes.

use crate::error::SourceFault;
use crate::store::account::AzureContainer;
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
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::HttpRequest;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{MultipartUpload, ObjectMeta, ObjectStoreExt};
use serde::Deserialize;
use std::time::Duration;
use ureq::Body;
use ureq::http::header::{HeaderValue, RANGE};
use ureq::http::{Method, Request, Response};
use url::Url;

/// For how long a URL is signed at most: a week.
const MAX_URL_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// A container.
#[derive(Debug)]
pub struct Azure {
    store: MicrosoftAzure,
    client: Client,
    credential: AzureCredential,
    /// The storage account.
    storage: String,
    /// Of the container.
    url: String,
}

impl Azure {
    /// A container by its account.
    ///
    /// # Errors
    /// `Unsupported` for names that a URL cannot have; `Refused` (401) for a key that is none.
    pub fn new(container: &AzureContainer, access: &ClientConfig, interrupt: &Interrupt) -> Result<Azure, SourceFault> {
        // Headers of web servers are none of its.
        let access = ClientConfig { headers: HeaderMap::new(), ..access.clone() };
        let store = MicrosoftAzureBuilder::new()
            .with_account(&container.storage)
            .with_container_name(&container.container)
            .with_access_key(&container.key)
            .with_endpoint(container.endpoint())
            .with_allow_http(true)
            .with_retry(connector::once())
            .with_http_connector(Connector::new(Client::new(&access, interrupt)))
            .build()
            .map_err(|_| SourceFault::Unsupported)?;
        let key = AzureAccessKey::try_new(&container.key).map_err(|_| SourceFault::Unsupported)?;
        Ok(Azure {
            store,
            client: Client::new(&access, interrupt),
            credential: AzureCredential::AccessKey(key),
            storage: container.storage.clone(),
            url: format!("{}/{}", container.endpoint(), container.container),
        })
    }
}

/// What a listing tells.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    blobs: Blobs,
    next_marker: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blobs {
    #[serde(default)]
    blob: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length")]
    length: u64,
    #[serde(rename = "Etag")]
    etag: Option<String>,
    #[serde(rename = "Last-Modified")]
    modified: Option<String>,
}

/// A refusal of the server; a missing object is `NoSuchKey`, as with every store.
fn refusal(response: &Response<Body>, of_object: bool) -> SourceFault {
    let status = response.status().as_u16();
    let code = connector::code(response).filter(|_| status != 404 || !of_object);
    SourceFault::Refused { status, code: code.unwrap_or_else(|| client::code_of(status)) }
}

impl Azure {
    /// The answer to a request for what is behind a byte.
    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, SourceFault> {
        let unsupported = |_| SourceFault::Unsupported;
        self.client.ask(|agent| {
            let mut request: HttpRequest = Request::get(url).body(Vec::new().into()).map_err(unsupported)?;
            if from > 0 {
                request
                    .headers_mut()
                    .insert(RANGE, HeaderValue::from_str(&format!("bytes={from}-")).map_err(|_| SourceFault::Unsupported)?);
            }
            AzureAuthorizer::new(&self.credential, &self.storage).try_authorize(&mut request).map_err(connector::fault)?;
            agent.run(request.map(drop)).map_err(client::fault)
        })
    }
}

/// A key as it is, nothing of it percent-encoded.
fn path(key: &str) -> Result<Path, SourceFault> {
    let path = Path::parse(key).map_err(|_| SourceFault::Unsupported)?;
    if path.as_ref() == key && !key.is_empty() { Ok(path) } else { Err(SourceFault::Unsupported) }
}

fn object(meta: ObjectMeta) -> Object {
    Object {
        key: meta.location.to_string(),
        size: meta.size,
        etag: meta.e_tag,
        modified: Some(httpdate::fmt_http_date(meta.last_modified.into())),
    }
}

impl Store for Azure {
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Object) -> Result<(), SourceFault>) -> Result<(), SourceFault> {
        let mut markers = PageTokens::default();
        let mut marker = String::new();
        loop {
            // Not by object_store, which stumbles over names that are no paths of its own.
            let after = if marker.is_empty() { String::new() } else { format!("&marker={}", percent::segment(&marker)) };
            let url = format!("{}?restype=container&comp=list&maxresults=1000&prefix={}{after}", self.url, percent::segment(prefix));
            let response = self.get(&url, 0)?;
            if response.status().as_u16() != 200 {
                return Err(refusal(&response, false));
            }
            let text = response.into_body().into_with_config().limit(MAX_PAGE_BYTES).read_to_string().map_err(client::fault)?;
            // It begins with a byte order mark.
            let page: Page = quick_xml::de::from_str(text.trim_start_matches('\u{feff}')).map_err(|_| client::unknown())?;
            for blob in page.blobs.blob {
                let Properties { length, etag, modified } = blob.properties;
                each(Object { key: blob.name, size: length, etag, modified })?;
            }
            marker = page.next_marker.unwrap_or_default();
            if marker.is_empty() {
                return Ok(());
            }
            marker = markers.follow(marker)?;
        }
    }

    fn head(&self, key: &str) -> Result<Object, SourceFault> {
        block_on(self.store.head(&path(key)?)).map(object).map_err(connector::fault)
    }

    fn open(&self, key: &str, from: u64) -> Result<Opened, SourceFault> {
        path(key)?;
        let response = self.get(&format!("{}/{}", self.url, percent::path(key)), from)?;
        match response.status().as_u16() {
            200 | 206 => Ok(Opened { ranged: true, ..http::opened(response, from)? }),
            416 if from > 0 => Err(SourceFault::Changed),
            _ => Err(refusal(&response, true)),
        }
    }

    fn put<'a>(&'a self, key: &str) -> Result<Box<dyn Upload + 'a>, SourceFault> {
        Ok(Box::new(BlockUpload { store: self, path: path(key)?, upload: None, parts: Parts::default() }))
    }

    fn delete(&self, key: &str) -> Result<(), SourceFault> {
        match block_on(self.store.delete(&path(key)?)).map_err(connector::fault) {
            Err(SourceFault::Refused { status: 404, .. }) => Ok(()),
            done => done,
        }
    }

    fn signed_url(&self, key: &str, expires: Duration) -> Result<Url, SourceFault> {
        // object_store signs the path as it is sent, Azure as it is meant.
        if percent::path(key) != key {
            return Err(SourceFault::Unsupported);
        }
        block_on(self.store.signed_url(Method::GET, &path(key)?, expires.min(MAX_URL_LIFETIME))).map_err(connector::fault)
    }
}

/// An object that comes in blocks; one that is small comes in one request. Blocks that nobody commits are gone within a week.
struct BlockUpload<'a> {
    store: &'a Azure,
    path: Path,
    upload: Option<Box<dyn MultipartUpload>>,
    parts: Parts,
}

impl BlockUpload<'_> {
    fn send(&mut self, part: Vec<u8>) -> Result<(), SourceFault> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => self.upload.insert(block_on(self.store.store.put_multipart(&self.path)).map_err(connector::fault)?),
        };
        block_on(upload.put_part(part.into())).map_err(connector::fault)
    }
}

impl Upload for BlockUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceFault> {
        let mut rest = bytes;
        while let Some(part) = self.parts.fill(&mut rest) {
            self.send(part)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), SourceFault> {
        let last = self.parts.last();
        if self.upload.is_none() {
            return block_on(self.store.store.put(&self.path, last.into())).map(drop).map_err(connector::fault);
        }
        if !last.is_empty() {
            self.send(last)?;
        }
        self.upload.as_mut().map_or(Ok(()), |upload| block_on(upload.complete()).map(drop).map_err(connector::fault))
    }

    fn abort(self: Box<Self>) -> Result<(), SourceFault> {
        Ok(())
    }
}
