//! Amazon S3 and servers that speak its protocol: rust-s3 signs, the one HTTP client moves the bytes.

use crate::error::SourceFault;
use crate::store::account::{AwsAccount, amazon_domain};
use crate::store::interrupt::Interrupt;
use crate::store::net::client::{self, Client};
use crate::store::net::client_config::ClientConfig;
use crate::store::net::http;
use crate::store::object::object_store::{MAX_PAGE_BYTES, Object, PageTokens, Store, Upload};
use crate::store::object::s3_signer::Signer;
use crate::store::object::upload_parts::Parts;
use crate::store::open_source::Opened;
use crate::text::percent;
use s3::Region;
use s3::request::Request as _;
use s3::serde_types::{CompleteMultipartUploadData, InitiateMultipartUploadResponse, ListBucketResult, Part};
use serde::Deserialize;
use std::io::Read;
use std::time::Duration;
use ureq::Body;
use ureq::http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use ureq::http::{Method, Request, Response};
use url::Url;

/// Objects of a page of a listing.
const PAGE: &str = "1000";
/// Bytes of an answer that tells why something is refused.
const MOST_REASON: u64 = 64 << 10;

/// A bucket.
#[derive(Debug)]
pub struct S3 {
    client: Client,
    signer: Signer,
    /// Of temporary credentials.
    session_token: Option<String>,
    /// Of the bucket, with a slash at its end.
    base: Url,
}

/// What an answer in XML says is wrong.
#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "Code")]
    code: String,
}

impl S3 {
    /// A bucket by its account.
    ///
    /// # Errors
    /// `Unsupported` for a name that no bucket has, or a host that is none.
    pub fn new(bucket: &str, account: &AwsAccount, access: &ClientConfig, interrupt: &Interrupt) -> Result<S3, SourceFault> {
        let base = base(bucket, account).ok_or(SourceFault::Unsupported)?;
        let region = Region::Custom { region: account.region.clone(), endpoint: base.to_string() };
        let session_token = account.session_token.clone();
        let signer = Signer::new(region, &account.access_key_id, &account.secret_access_key, session_token.as_deref());
        let signer = signer.map_err(|_| SourceFault::Unsupported)?;
        Ok(S3 { client: Client::new(access, interrupt), signer, session_token, base })
    }

    /// The URL of an object with a query.
    fn url(&self, key: &str, query: &[(&str, &str)]) -> Result<Url, SourceFault> {
        // Without a key it would be the bucket, and a URL knows no such steps: they would lead to another object.
        if key.is_empty() || key.split('/').any(|step| matches!(step, "." | "..")) {
            return Err(SourceFault::Unsupported);
        }
        Ok(self.any_url(key, query))
    }

    /// The same of the bucket, where the key is empty.
    fn any_url(&self, key: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path(), percent::path(key)));
        if !query.is_empty() {
            let pair = |(name, value): &(&str, &str)| format!("{}={}", percent::segment(name), percent::segment(value));
            url.set_query(Some(&query.iter().map(pair).collect::<Vec<String>>().join("&")));
        }
        url
    }

    /// The answer to a request, which is signed anew for every try. One that is no success is a fault.
    fn ask(&self, method: Method, url: &Url, headers: &[(&str, &str)], body: Option<&[u8]>) -> Result<Response<Body>, SourceFault> {
        let response = self.client.ask(|agent| {
            let signed = self.signed_headers(&method, url, headers, body.unwrap_or_default())?;
            let mut request = Request::builder().method(&method).uri(url.as_str());
            // The client sets it by itself.
            for (name, value) in signed.iter().filter(|(name, _)| **name != HOST) {
                request = request.header(name, value);
            }
            client::send(agent, request, body)
        })?;
        match response.status().as_u16() {
            200..=299 => Ok(response),
            status => Err(refusal(status, &reason(response))),
        }
    }

    fn signed_headers(&self, method: &Method, url: &Url, headers: &[(&str, &str)], body: &[u8]) -> Result<HeaderMap, SourceFault> {
        let to_sign = self.signer.to_sign(method, url, body).map_err(|_| SourceFault::Unsupported)?;
        let date = to_sign.date().map_err(|_| SourceFault::Unsupported)?;
        let mut signed = host_header(url)?;
        let mut add = |name: &str, value: &str| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| SourceFault::Unsupported)?;
            signed.insert(name, HeaderValue::from_str(value).map_err(|_| SourceFault::Unsupported)?);
            Ok::<(), SourceFault>(())
        };
        add("x-amz-date", &date)?;
        add("x-amz-content-sha256", to_sign.hash())?;
        if let Some(token) = &self.session_token {
            add("x-amz-security-token", token)?;
        }
        for (name, value) in headers {
            add(name, value)?;
        }
        let authorization = to_sign.authorization(&signed).map_err(|_| SourceFault::Unsupported)?;
        signed.insert("authorization", HeaderValue::from_str(&authorization).map_err(|_| SourceFault::Unsupported)?);
        Ok(signed)
    }
}

impl Store for S3 {
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Object) -> Result<(), SourceFault>) -> Result<(), SourceFault> {
        let mut tokens = PageTokens::default();
        let mut token: Option<String> = None;
        loop {
            let mut query = vec![("list-type", "2"), ("max-keys", PAGE), ("prefix", prefix)];
            if let Some(token) = &token {
                query.push(("continuation-token", token));
            }
            let page: ListBucketResult = read(self.ask(Method::GET, &self.any_url("", &query), &[], None)?)?;
            for found in page.contents {
                each(Object { key: found.key, size: found.size, etag: found.e_tag, modified: Some(found.last_modified) })?;
            }
            if !page.is_truncated {
                return Ok(());
            }
            // A listing that does not say how it goes on, or goes round, is none.
            token = Some(tokens.follow(page.next_continuation_token.ok_or(SourceFault::EndlessListing)?)?);
        }
    }

    fn head(&self, key: &str) -> Result<Object, SourceFault> {
        let response = self.ask(Method::HEAD, &self.url(key, &[])?, &[], None)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let size = header("content-length").and_then(|length| length.parse().ok()).ok_or(SourceFault::Unsupported)?;
        Ok(Object { key: key.to_owned(), size, etag: header("etag"), modified: header("last-modified") })
    }

    fn open(&self, key: &str, from: u64) -> Result<Opened, SourceFault> {
        let range = format!("bytes={from}-");
        let headers = if from > 0 { vec![("range", range.as_str())] } else { Vec::new() };
        match self.ask(Method::GET, &self.url(key, &[])?, &headers, None) {
            Err(SourceFault::Refused { status: 416, .. }) if from > 0 => Err(SourceFault::Changed),
            // Not every server says that it knows ranges, but all must.
            response => match response? {
                response if matches!(response.status().as_u16(), 200 | 206) => Ok(Opened { ranged: true, ..http::opened(response, from)? }),
                other => Err(SourceFault::Status(other.status().as_u16())),
            },
        }
    }

    fn put<'a>(&'a self, key: &str) -> Result<Box<dyn Upload + 'a>, SourceFault> {
        self.url(key, &[])?;
        Ok(Box::new(MultipartUpload { store: self, key: key.to_owned(), upload: None, sent: Vec::new(), parts: Parts::default(), size: 0 }))
    }

    fn delete(&self, key: &str) -> Result<(), SourceFault> {
        match self.ask(Method::DELETE, &self.url(key, &[])?, &[], None) {
            Err(SourceFault::Refused { status: 404, .. }) => Ok(()),
            response => response.map(drop),
        }
    }

    fn signed_url(&self, key: &str, expires: Duration) -> Result<Url, SourceFault> {
        let url = self.url(key, &[])?;
        let host = host_header(&url)?;
        self.signer.signed_url(url, &host, expires).map_err(|_| SourceFault::Unsupported)
    }
}

/// An object that comes in parts; one that is small comes in one request.
struct MultipartUpload<'a> {
    store: &'a S3,
    key: String,
    /// What the server calls the upload, once there is more than one part.
    upload: Option<String>,
    sent: Vec<Part>,
    parts: Parts,
    /// Bytes in all.
    size: u64,
}

impl MultipartUpload<'_> {
    fn send(&mut self, part: &[u8]) -> Result<(), SourceFault> {
        let upload = match &self.upload {
            Some(upload) => upload.clone(),
            None => {
                let url = self.store.url(&self.key, &[("uploads", "")])?;
                let begun: InitiateMultipartUploadResponse = read(self.store.ask(Method::POST, &url, &[], Some(&[]))?)?;
                self.upload.insert(begun.upload_id).clone()
            }
        };
        let number = self.sent.len() as u32 + 1;
        let url = self.store.url(&self.key, &[("partNumber", &number.to_string()), ("uploadId", &upload)])?;
        let response = self.store.ask(Method::PUT, &url, &[], Some(part))?;
        let etag = response.headers().get("etag").and_then(|value| value.to_str().ok()).ok_or(SourceFault::Unsupported)?;
        self.sent.push(Part { part_number: number, etag: etag.to_owned() });
        Ok(())
    }

    fn complete(&self, upload: &str) -> Result<(), SourceFault> {
        let url = self.store.url(&self.key, &[("uploadId", upload)])?;
        let body = CompleteMultipartUploadData { parts: self.sent.clone() }.to_string();
        let completed = match self.store.ask(Method::POST, &url, &[], Some(body.as_bytes())) {
            // It was completed, and the answer got lost.
            Err(SourceFault::Refused { code, .. }) if code == "NoSuchUpload" && self.is_there() => return Ok(()),
            completed => completed?,
        };
        // It may say 200 first and fail then.
        let text = text(completed)?;
        if text.contains("<CompleteMultipartUploadResult") { Ok(()) } else { Err(refusal(200, &text)) }
    }

    fn is_there(&self) -> bool {
        self.store.head(&self.key).is_ok_and(|object| object.size == self.size)
    }

    fn give_up(&mut self) -> Result<(), SourceFault> {
        let Some(upload) = self.upload.take() else { return Ok(()) };
        let url = self.store.url(&self.key, &[("uploadId", &upload)])?;
        self.store.ask(Method::DELETE, &url, &[], None).map(drop)
    }
}

impl Drop for MultipartUpload<'_> {
    fn drop(&mut self) {
        // Parts that nobody completes cost their owner; more than to try is not to be done here.
        let _ = self.give_up();
    }
}

impl Upload for MultipartUpload<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceFault> {
        self.size += bytes.len() as u64;
        let mut rest = bytes;
        while let Some(part) = self.parts.fill(&mut rest) {
            self.send(&part)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), SourceFault> {
        let last = self.parts.last();
        if self.upload.is_none() {
            let url = self.store.url(&self.key, &[])?;
            return self.store.ask(Method::PUT, &url, &[], Some(&last)).map(drop);
        }
        if !last.is_empty() {
            self.send(&last)?;
        }
        self.complete(&self.upload.clone().unwrap_or_default())?;
        self.upload = None;
        Ok(())
    }

    fn abort(mut self: Box<Self>) -> Result<(), SourceFault> {
        self.give_up()
    }
}

/// Where a bucket is.
fn base(bucket: &str, account: &AwsAccount) -> Option<Url> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if bucket.is_empty() || matches!(bucket, "." | "..") || !bucket.bytes().all(plain) {
        return None;
    }
    let given = account.host.as_deref().map_or("", |host| host.trim_end_matches('/'));
    let (scheme, host) = match given.split_once("://") {
        Some((scheme @ ("http" | "https"), host)) => (scheme, host),
        Some(_) => return None,
        None => (if account.use_ssl == Some(false) { "http" } else { "https" }, given),
    };
    if host.contains(['/', '?', '#', '@']) {
        return None;
    }
    let host = if host.is_empty() { "amazonaws.com" } else { host };
    let root = amazon_domain(host);
    let names_service = host.split('.').any(|label| label == "s3" || label.starts_with("s3-"));
    let host = match root {
        Some(root) if host == root => format!("s3.{}.{host}", account.region),
        Some(_) if !names_service => format!("s3.{host}"),
        _ => host.to_owned(),
    };
    // A host's name knows no capitals, and a certificate's asterisk stands for no dot.
    let fits_host = !bucket.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let in_path = match account.path_style {
        Some(false) if !fits_host => return None,
        Some(in_path) => in_path,
        None => root.is_none() || !fits_host || bucket.contains('.'),
    };
    let text = if in_path { format!("{scheme}://{host}/{bucket}/") } else { format!("{scheme}://{bucket}.{host}/") };
    Url::parse(&text).ok().filter(Url::has_host)
}

/// The header `Host` of a request.
fn host_header(url: &Url) -> Result<HeaderMap, SourceFault> {
    let value = HeaderValue::from_str(&host(url)).map_err(|_| SourceFault::Unsupported)?;
    Ok(HeaderMap::from_iter([(HOST, value)]))
}

/// As the client sends it.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn text(response: Response<Body>) -> Result<String, SourceFault> {
    response.into_body().into_with_config().limit(MAX_PAGE_BYTES).read_to_string().map_err(client::fault)
}

/// Why something is refused, as far as it can be read.
fn reason(response: Response<Body>) -> String {
    let mut bytes = Vec::new();
    // What is cut still has its status.
    let _ = response.into_body().into_with_config().limit(MOST_REASON).reader().read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read<T: for<'a> Deserialize<'a>>(response: Response<Body>) -> Result<T, SourceFault> {
    quick_xml::de::from_str(&text(response)?).map_err(|_| client::unknown())
}

/// A refusal of the server; without a code it is named by its status.
fn refusal(status: u16, text: &str) -> SourceFault {
    let code = match quick_xml::de::from_str::<Refusal>(text) {
        Ok(Refusal { code }) => code.chars().filter(char::is_ascii_graphic).take(100).collect(),
        Err(_) => client::code_of(status),
    };
    SourceFault::Refused { status, code }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(host: Option<&str>) -> AwsAccount {
        AwsAccount {
            region: "eu-west-1".to_owned(),
            access_key_id: "id".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: None,
            host: host.map(str::to_owned),
            path_style: None,
            use_ssl: None,
        }
    }

    #[test]
    fn buckets_are_where_the_account_says() {
        let at = |bucket: &str, account: &AwsAccount| base(bucket, account).map(String::from);
        assert_eq!(at("b", &account(None)).as_deref(), Some("https://b.s3.eu-west-1.amazonaws.com/"));
        assert_eq!(at("b.c", &account(None)).as_deref(), Some("https://s3.eu-west-1.amazonaws.com/b.c/"));
        assert_eq!(at("B_c", &account(None)).as_deref(), Some("https://s3.eu-west-1.amazonaws.com/B_c/"));
        assert_eq!(at("b", &account(Some("amazonaws.com.cn"))).as_deref(), Some("https://b.s3.eu-west-1.amazonaws.com.cn/"));
        let endpoint = "vpce-1.s3.us-east-1.vpce.amazonaws.com";
        assert_eq!(at("b", &account(Some(endpoint))), Some(format!("https://b.{endpoint}/")));
        assert_eq!(at("b", &account(Some("notamazonaws.com"))).as_deref(), Some("https://notamazonaws.com/b/"));
        for host in ["h?x", "h#x", "a@h", "h/x", "ftp://h"] {
            assert_eq!(at("b", &account(Some(host))), None, "{host}");
        }
        assert_eq!(at("Prod", &AwsAccount { path_style: Some(false), ..account(None) }), None);
        assert_eq!(at("b", &account(Some("us-gov-east-1.amazonaws.com"))).as_deref(), Some("https://b.s3.us-gov-east-1.amazonaws.com/"));
        assert_eq!(at("b", &account(Some("minio:9000"))).as_deref(), Some("https://minio:9000/b/"));
        assert_eq!(at("b", &account(Some("http://minio:9000/"))).as_deref(), Some("http://minio:9000/b/"));
        let plain = AwsAccount { use_ssl: Some(false), path_style: Some(false), ..account(Some("store.example.org")) };
        assert_eq!(at("b", &plain).as_deref(), Some("http://b.store.example.org/"));
        for bucket in ["", "..", "a/b", "a?b", "a@b", "ä"] {
            assert_eq!(at(bucket, &account(None)), None, "{bucket}");
        }
    }

    #[test]
    fn keys_are_written_as_they_are() {
        let store = S3::new("b", &account(None), &ClientConfig::default(), &Interrupt::new()).unwrap();
        assert_eq!(store.url("a b/ä+%?#.gz", &[]).unwrap().path(), "/a%20b/%C3%A4%2B%25%3F%23.gz");
        assert_eq!(store.any_url("", &[("prefix", "a b+/")]).query(), Some("prefix=a%20b%2B%2F"));
        for key in ["", "..", "a/../b", "./a"] {
            assert!(store.url(key, &[]).is_err(), "{key}");
        }
        assert!(!format!("{store:?}").contains("secret"));
    }
}
