//! Where an export's files go, and how that is reached.

use crate::error::Error;
use crate::operation::bucket_access;
use crate::operation::export::spec::ExportTarget;
use crate::store::net::client_config::ClientConfig;
use serde_json::json;

/// How a store is reached.
///
/// # Errors
/// As `bucket_access::access`.
pub fn access(sink: &ExportTarget) -> Result<ClientConfig, Error> {
    bucket_access::access(&sink.bucket, sink.account.as_ref().map(|id| json!({"id": id})).as_ref(), (None, None))
}
