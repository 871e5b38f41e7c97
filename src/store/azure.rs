//! Azure Blob Storage: object_store signs and speaks the protocol, the one HTTP client moves the bytes.

use super::Interrupt;
use super::account::AzureContainer;
use super::client::{self, Client};
use super::connector::{self, Connector};
use super::http;
use super::opened::{Access, HeaderMap, Opened};
use super::parts::Parts;
use super::stores::{Object, Store, Upload};
use crate::error::SourceFault;
use futures_executor::{block_on, block_on_stream};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::HttpRequest;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt};
use s3::signing::uri_encode;
use std::time::Duration;
use ureq::http::header::{HeaderValue, RANGE};
use ureq::http::{Method, Request};
use url::Url;

/// For how long a URL is signed at most: a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

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
    pub fn new(container: &AzureContainer, access: &Access, interrupt: &Interrupt) -> Result<Azure, SourceFault> {
        // Headers of web servers are none of its.
        let access = Access { headers: HeaderMap::new(), ..access.clone() };
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
        // It lists directories; of what is in one the beginnings of names are compared here.
        let directory = prefix.rsplit_once('/').map(|(directory, _)| path(directory)).transpose()?;
        for found in block_on_stream(self.store.list(directory.as_ref())) {
            let found = object(found.map_err(connector::fault)?);
            if found.key.starts_with(prefix) {
                each(found)?;
            }
        }
        Ok(())
    }

    fn head(&self, key: &str) -> Result<Object, SourceFault> {
        block_on(self.store.head(&path(key)?)).map(object).map_err(connector::fault)
    }

    fn open(&self, key: &str, from: u64) -> Result<Opened, SourceFault> {
        path(key)?;
        let url = format!("{}/{}", self.url, uri_encode(key, false));
        let unsupported = |_| SourceFault::Unsupported;
        let response = self.client.ask(|agent| {
            let mut request: HttpRequest = Request::get(&url).body(Vec::new().into()).map_err(unsupported)?;
            if from > 0 {
                request
                    .headers_mut()
                    .insert(RANGE, HeaderValue::from_str(&format!("bytes={from}-")).map_err(|_| SourceFault::Unsupported)?);
            }
            AzureAuthorizer::new(&self.credential, &self.storage).try_authorize(&mut request).map_err(connector::fault)?;
            agent.run(request.map(drop)).map_err(client::fault)
        })?;
        match response.status().as_u16() {
            200 | 206 => Ok(Opened { ranged: true, ..http::opened(response, from)? }),
            416 if from > 0 => Err(SourceFault::Changed),
            status => {
                let code = connector::code(&response).filter(|_| status != 404);
                Err(SourceFault::Refused { status, code: code.unwrap_or_else(|| client::code_of(status)) })
            }
        }
    }

    fn put<'a>(&'a self, key: &str) -> Result<Box<dyn Upload + 'a>, SourceFault> {
        Ok(Box::new(Writing { store: self, path: path(key)?, upload: None, parts: Parts::default() }))
    }

    fn delete(&self, key: &str) -> Result<(), SourceFault> {
        match block_on(self.store.delete(&path(key)?)).map_err(connector::fault) {
            Err(SourceFault::Refused { status: 404, .. }) => Ok(()),
            done => done,
        }
    }

    fn signed_url(&self, key: &str, expires: Duration) -> Result<Url, SourceFault> {
        // object_store signs the path as it is sent, Azure as it is meant.
        if uri_encode(key, false) != key {
            return Err(SourceFault::Unsupported);
        }
        block_on(self.store.signed_url(Method::GET, &path(key)?, expires.min(LONGEST))).map_err(connector::fault)
    }
}

/// An object that comes in blocks; one that is small comes in one request. Blocks that nobody commits are gone within a week.
struct Writing<'a> {
    store: &'a Azure,
    path: Path,
    upload: Option<Box<dyn MultipartUpload>>,
    parts: Parts,
}

impl Writing<'_> {
    fn send(&mut self, part: Vec<u8>) -> Result<(), SourceFault> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => self.upload.insert(block_on(self.store.store.put_multipart(&self.path)).map_err(connector::fault)?),
        };
        block_on(upload.put_part(part.into())).map_err(connector::fault)
    }
}

impl Upload for Writing<'_> {
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
