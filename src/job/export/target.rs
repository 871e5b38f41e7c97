//! Where an export's files go, and how that is reached.

use crate::error::Error;
use crate::job::access;
use crate::job::plan::Sink;
use crate::store::access::Access;
use serde_json::json;

/// How a store is reached.
pub fn access(sink: &Sink) -> Result<Access, Error> {
    access::access(&sink.bucket, sink.account.as_ref().map(|id| json!({"id": id})).as_ref(), (None, None))
}
