//! Errors as a LoaderFile has them: `{source: postgres | aws | gcp | azure | aidbox, code}`.

use crate::error::{Error, Reason, SourceFault};
use crate::pg::sys::sqlstate;
use crate::pg::sys::subtransaction::Failure;
use crate::store::bucket::Bucket;
use serde_json::{Value, json};

/// Whatever is neither the database's nor the store's.
const OWN: &str = "aidbox";

/// An answer, or the error that is answered.
pub type Answer = Result<Value, Value>;

/// What a call can be the cause of is an answer.
///
/// # Errors
/// The error itself, where no call can be the cause of it.
pub fn refusal(error: Error, bucket: Option<&Bucket>) -> Result<Answer, Error> {
    if matches!(
        error,
        Error::Internal(_) | Error::Memory | Error::ExtensionDropped | Error::DatabaseEncoding | Error::VersionMismatch { .. }
    ) {
        return Err(error);
    }
    let none = Bucket::Directory(Default::default());
    let (message, mut told) = of_error(&error, bucket.unwrap_or(&none), true);
    told["message"] = json!(message);
    Ok(Err(told))
}

/// The word for a store.
pub fn source(bucket: &Bucket) -> &'static str {
    match bucket {
        Bucket::S3(_) => "aws",
        Bucket::Gcs(_) => "gcp",
        Bucket::Azure(_) => "azure",
        Bucket::Directory(_) => OWN,
    }
}

/// The message and the error of a file that is not loaded.
pub fn of(failure: &Failure, bucket: &Bucket) -> (String, Value) {
    match failure {
        Failure::Server { sqlstate, message, .. } => of_server(*sqlstate, message),
        Failure::Ours(error) => of_error(error, bucket, false),
    }
}

/// The same of an error of ours; a listing that is refused is the account's fault.
pub fn of_error(error: &Error, bucket: &Bucket, of_listing: bool) -> (String, Value) {
    let own = |code: String| (error.to_string(), json!({"source": OWN, "code": code}));
    match error {
        Error::Server { sqlstate, message } => of_server(*sqlstate, message),
        Error::Rejected { last, .. } => match &**last {
            Reason::Server { sqlstate, message } => of_server(*sqlstate, message),
            Reason::Fault(_) => own(sqlstate::state(error)),
        },
        Error::Source { fault: SourceFault::Refused { status, code }, .. } if source(bucket) != OWN => {
            let code = match code.as_str() {
                "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AuthenticationFailed" | "AuthorizationFailure" => "InvalidAccount",
                "NoSuchBucket" | "ContainerNotFound" | "BlobNotFound" => "NoSuchKey",
                _ if of_listing && *status == 403 => "InvalidAccount",
                code => code,
            };
            (format!("{code}: {error}"), json!({"source": source(bucket), "code": code}))
        }
        _ => own(sqlstate::state(error)),
    }
}

fn of_server(sqlstate: i32, message: &str) -> (String, Value) {
    let code = sqlstate::sqlstate(sqlstate);
    (format!("{code}: ERROR: {message}"), json!({"source": "postgres", "code": code}))
}
