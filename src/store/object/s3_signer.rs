//! Signs requests to S3 by Signature Version 4: rust-s3 does, for requests that it did not build.
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>)

use s3::bucket::Bucket;
use s3::command::Command;
use s3::creds::Credentials;
use s3::error::S3Error;
use s3::request::{Request, ResponseData};
use s3::{Region, signing};
use std::fmt;
use std::io::{ErrorKind, Write};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use ureq::http::{HeaderMap, Method};
use url::Url;

const DATE: &[BorrowedFormatItem<'static>] = format_description!("[year][month][day]T[hour][minute][second]Z");
/// What stands for the hash of a body that is not known when a URL is signed.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// Seconds for which a URL is signed at most: a week.
const LONGEST_EXPIRY: u32 = 7 * 24 * 3600;

/// Credentials and a region.
#[derive(Clone)]
pub struct Signer {
    bucket: Bucket,
}

/// A request as it is signed, at one moment.
pub struct ToSign<'a> {
    signer: &'a Signer,
    at: OffsetDateTime,
    method: &'a Method,
    url: &'a Url,
    /// SHA-256 of the body, in hexadecimal digits.
    hash: String,
}

// The secret is shown nowhere.
impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// # Errors
    /// Those of rust-s3, which has none for these arguments.
    pub fn new(region: Region, id: &str, secret: &str, session_token: Option<&str>) -> Result<Signer, S3Error> {
        let credentials = Credentials::new(Some(id), Some(secret), None, session_token, None)?;
        Ok(Signer { bucket: *Bucket::new("", region, credentials)? })
    }

    /// A request with its body, to be signed as of now.
    ///
    /// # Errors
    /// Those of rust-s3, which has none for a body in memory.
    pub fn to_sign<'a>(&'a self, method: &'a Method, url: &'a Url, body: &[u8]) -> Result<ToSign<'a>, S3Error> {
        let hash = Command::PutObject { content: body, content_type: "", custom_headers: None, multipart: None }.sha256()?;
        Ok(ToSign { signer: self, at: OffsetDateTime::now_utc(), method, url, hash })
    }

    /// The URL of an object with a signature that can be used for some time, a week at most. `host` is its only signed header.
    ///
    /// # Errors
    /// Those of rust-s3 for credentials that no header can hold.
    pub fn signed_url(&self, mut url: Url, host: &HeaderMap, expires: Duration) -> Result<Url, S3Error> {
        let seconds = u32::try_from(expires.as_secs()).unwrap_or(LONGEST_EXPIRY).clamp(1, LONGEST_EXPIRY);
        let at = OffsetDateTime::now_utc();
        let id = self.bucket.access_key()?.unwrap_or_default();
        let token = self.bucket.session_token()?;
        let query = signing::authorization_query_params_no_sig(&id, &at, &self.bucket.region(), seconds, None, token.as_ref())?;
        url.set_query(query.strip_prefix('?'));
        let to_sign = ToSign { signer: self, at, method: &Method::GET, url: &url, hash: UNSIGNED.to_owned() };
        let authorization = to_sign.authorization(host)?;
        let signature = authorization.rsplit_once("Signature=").map(|(_, signature)| signature.to_owned()).unwrap_or_default();
        url.query_pairs_mut().append_pair("X-Amz-Signature", &signature);
        Ok(url)
    }
}

impl ToSign<'_> {
    /// `x-amz-date`.
    ///
    /// # Errors
    /// Those of rust-s3, which has none for a time of this age.
    pub fn date(&self) -> Result<String, S3Error> {
        Ok(self.at.format(DATE)?)
    }

    /// `x-amz-content-sha256`.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

fn not_here() -> S3Error {
    S3Error::Io(ErrorKind::Unsupported.into())
}

/// What rust-s3 takes a signature's parts from. The one HTTP client of this crate sends the request: what would is refused.
impl Request for ToSign<'_> {
    type Response = ();
    type HeaderMap = HeaderMap;

    fn datetime(&self) -> OffsetDateTime {
        self.at
    }

    fn bucket(&self) -> Bucket {
        self.signer.bucket.clone()
    }

    fn command(&self) -> Command<'_> {
        Command::GetObject
    }

    fn path(&self) -> String {
        self.url.path().to_owned()
    }

    fn canonical_request(&self, headers: &HeaderMap) -> Result<String, S3Error> {
        signing::canonical_request(self.method.as_str(), self.url, headers, &self.hash)
    }

    fn response(&self) -> Result<(), S3Error> {
        Err(not_here())
    }

    fn response_data(&self, _etag: bool) -> Result<ResponseData, S3Error> {
        Err(not_here())
    }

    fn response_data_to_writer<T: Write + Send + ?Sized>(&self, _writer: &mut T) -> Result<u16, S3Error> {
        Err(not_here())
    }

    fn response_header(&self) -> Result<(HeaderMap, u16), S3Error> {
        Err(not_here())
    }
}
