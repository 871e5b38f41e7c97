//! What object_store asks over HTTP, moved by the one client: its addresses are checked, its tries counted, its end can be forced.

use crate::error::SourceFault;
use crate::store::net::client::{self, Client};
use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService};
use object_store::{ClientOptions, RetryConfig};
use std::error::Error;
use std::sync::Arc;
use ureq::Body;
use ureq::http::header::{CONTENT_LENGTH, HOST};
use ureq::http::{Request, Response};

/// Bytes of an answer that object_store reads: a page of a listing.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// The client of one operation.
#[derive(Debug, Clone)]
pub struct Connector(Arc<Client>);

impl Connector {
    /// Sends the requests of object_store by this client.
    pub fn new(client: Client) -> Connector {
        Connector(Arc::new(client))
    }

    fn answer(&self, request: HttpRequest, body: &[u8]) -> Result<HttpResponse, SourceFault> {
        let (head, _) = request.into_parts();
        let response = self.0.ask(|agent| {
            let mut request = Request::builder().method(&head.method).uri(&head.uri);
            // The client sets them by itself.
            for (name, value) in head.headers.iter().filter(|(name, _)| **name != HOST && **name != CONTENT_LENGTH) {
                request = request.header(name, value);
            }
            client::send(agent, request, (!body.is_empty() || !head.method.is_safe()).then_some(body))
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        if !status.is_success() {
            let code = code(&response).unwrap_or_else(|| client::code_of(status.as_u16()));
            return Err(SourceFault::Refused { status: status.as_u16(), code });
        }
        let bytes = response.into_body().into_with_config().limit(MAX_BODY_BYTES).read_to_vec().map_err(client::fault)?;
        let mut answer = Response::new(bytes.into());
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

/// The store's own word for what is wrong.
pub fn code(response: &Response<Body>) -> Option<String> {
    let code = response.headers().get("x-ms-error-code")?.to_str().ok()?;
    Some(code.chars().filter(char::is_ascii_graphic).take(100).collect())
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let body = BodyExt::collect(std::mem::replace(request.body_mut(), Vec::new().into())).await?.to_bytes();
        self.answer(request, &body).map_err(|fault| HttpError::new(HttpErrorKind::Unknown, fault))
    }
}

/// It tries once: the client does the rest.
pub fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// What an error of object_store means: what the client said, where that is the cause.
pub fn fault(error: object_store::Error) -> SourceFault {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(fault) = inner.downcast_ref::<SourceFault>() {
            return fault.clone();
        }
        cause = inner.source();
    }
    match error {
        object_store::Error::InvalidPath { .. } => SourceFault::Unsupported,
        object_store::Error::NotFound { .. } => SourceFault::Refused { status: 404, code: client::code_of(404) },
        // Its text may hold what the server sent, or a key.
        _ => client::unknown(),
    }
}
