//! Forgets a file of a bucket, and finds the one place that a bucket's name means.

use crate::error::Error;
use crate::pg::state::loader_file as files;
use crate::store::bucket::{Bucket, BucketPlace};

/// What `bulk.loader_file` calls all directories of the server.
const LOCAL: &str = "local";

/// Forgets a file that the current user may forget; false where there is none. One that a worker loads is waited for.
///
/// # Errors
/// `NotABucket` for a text that is no URL of a bucket; `AmbiguousBucket` where the name means several places.
pub fn file(bucket: &str, file: &str) -> Result<bool, Error> {
    let bucket = if is_local(bucket) { all_directories() } else { Bucket::parse(bucket)? };
    match place(&bucket)? {
        Some(place) => files::forget(&place, file),
        None => Ok(false),
    }
}

/// All directories of the server.
pub fn all_directories() -> Bucket {
    Bucket::Directory("/".into())
}

/// Whether a name of a bucket means all directories of the server.
pub fn is_local(name: &str) -> bool {
    name == LOCAL
}

/// Where a bucket is of which the current user sees files; None without such files.
///
/// # Errors
/// `AmbiguousBucket` names several places.
pub fn place(bucket: &Bucket) -> Result<Option<BucketPlace>, Error> {
    let mut place = bucket.place_on("");
    let mut endpoints = files::endpoints(place.store, &place.name)?;
    let Some(endpoint) = endpoints.pop() else { return Ok(None) };
    if !endpoints.is_empty() {
        endpoints.push(endpoint);
        return Err(Error::AmbiguousBucket { bucket: bucket.url(), endpoints });
    }
    place.endpoint = endpoint;
    Ok(Some(place))
}
