//! The storage that settings name, as Aidbox's do: whether it is one, and whether it works.

use crate::error::{Error, SourceFault};
use crate::operation::bucket_access;
use crate::operation::loader_error::{Answer, refusal};
use crate::pg::state::storage_account;
use crate::pg::sys::latch::Backend;
use crate::pg::sys::privilege::Right;
use crate::pg::sys::{backend, guc};
use crate::pipeline::blocking;
use crate::store::account::{AwsAccount, GcpAccount};
use crate::store::bucket::Bucket;
use crate::store::interrupt::Interrupt;
use crate::store::net::client_config::ClientConfig;
use crate::store::object::object_store::Store;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::Read;

/// What a probe holds.
const PROBE: &[u8] = b"written by bulk.storage_healthcheck, to be deleted\n";

/// A storage that is named.
pub struct Storage {
    pub bucket: Bucket,
    /// The id of the account for it, where there is one.
    pub account: Option<String>,
    /// As an answer shows it.
    shown: Value,
}

/// What stands in place of settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    pub provider: Option<String>,
    pub bucket: Option<String>,
    pub azure_storage: Option<String>,
    pub azure_container: Option<String>,
    /// The id of an account.
    pub account: Option<String>,
}

/// Writes, reads and deletes an object of the storage that is configured.
///
/// # Errors
/// Only what no call can be the cause of.
pub fn healthcheck() -> Result<Answer, Error> {
    backend::stop_threads_at_exit();
    let storage = match configured(&Overrides::default()) {
        Ok(Ok(storage)) => storage,
        Ok(Err(message)) => return Ok(Err(json!({"message": message, "code": "55000", "source": "aidbox"}))),
        Err(error) => return refusal(error, None),
    };
    let Storage { bucket, account, shown } = storage;
    let access = Right::to_list(&bucket)
        .require()
        .and_then(|()| Right::to_write(&bucket).require())
        .and_then(|()| bucket_access::access(&bucket, account.map(|id| json!({"id": id})).as_ref(), (None, None)));
    let access = match access {
        Ok(access) => access,
        Err(error) => return refusal(error, Some(&bucket)),
    };
    let url = bucket.url();
    let of = bucket.clone();
    match blocking::run(&mut Backend, move |interrupt| probe(&of, &access, interrupt).map_err(|fault| Error::source(&url, fault))) {
        Ok(None) => Ok(Ok(json!({"message": "ok", "storage": shown}))),
        Ok(Some(fault)) => Ok(Ok(json!({"message": "ok", "storage": shown, "note": format!("the probe could not be deleted: {fault}")}))),
        Err(error) => refusal(error, Some(&bucket)),
    }
}

/// What settings name; else which of them is missing, in the words of Aidbox.
///
/// # Errors
/// As `storage_account::kept`.
pub fn configured(overrides: &Overrides) -> Result<Result<Storage, &'static str>, Error> {
    let either = |given: &Option<String>, set: fn() -> String| given.clone().unwrap_or_else(set);
    let backend = either(&overrides.provider, guc::storage_backend);
    if matches!(backend.as_str(), "aws" | "gcp" | "azure") {
        // A role without the right to reach them learns nothing of accounts.
        Right::Remote.require()?;
    }
    let named =
        |scheme: &str, name: String| if name.is_empty() { Ok(None) } else { Bucket::parse(&format!("{scheme}://{name}")).map(Some) };
    let (account, bucket) = match backend.as_str() {
        "" => return Ok(Err("storage-type not specified")),
        "aws" => (
            id::<AwsAccount>("AwsAccount", &either(&overrides.account, guc::aws_account)),
            named("s3", either(&overrides.bucket, guc::aws_bucket)),
        ),
        "gcp" => (
            id::<GcpAccount>("GcpServiceAccount", &either(&overrides.account, guc::gcp_account)),
            named("gs", either(&overrides.bucket, guc::gcp_bucket)),
        ),
        "azure" => match either(&overrides.azure_container, guc::azure_container) {
            wanted if wanted.is_empty() => return Ok(Err("Azure container not specified")),
            wanted => match storage_account::azure(None, &wanted) {
                Ok(Some((_, container))) if overrides.azure_storage.as_ref().is_some_and(|storage| *storage != container.storage) => {
                    return Ok(Err("account not found"));
                }
                Ok(Some((id, container))) => (Ok(Ok(shown("AzureContainer", &id))), named("az", container.container)),
                Ok(None) | Err(Error::NoAccountSecret { .. }) => return Ok(Err("account not found")),
                Err(error) => return Err(error),
            },
        },
        "file" => match guc::file_directory() {
            path if path.is_empty() => (Ok(Ok(Value::Null)), Ok(None)),
            path => (Ok(Ok(Value::Null)), Bucket::parse(&path).map(Some)),
        },
        _ => return Ok(Err("unsupported storage-type")),
    };
    let account = match account? {
        Ok(account) => account,
        Err(message) => return Ok(Err(message)),
    };
    let Some(bucket) = bucket? else { return Ok(Err("bucket is not specified")) };
    let id = account["id"].as_str().map(str::to_owned);
    let name = match &bucket {
        Bucket::Directory(path) => json!(path),
        Bucket::S3(name) | Bucket::Gcs(name) | Bucket::Azure(name) => json!(name),
    };
    let mut shown = json!({"type": backend, "bucket": name});
    if !account.is_null() {
        shown["account"] = account;
    }
    Ok(Ok(Storage { bucket, account: id, shown }))
}

/// The account that is meant, as an answer shows it.
fn id<T: DeserializeOwned>(kind: &'static str, wanted: &str) -> Result<Result<Value, &'static str>, Error> {
    match storage_account::kept::<T>(kind, wanted) {
        Ok(Some((id, _))) => Ok(Ok(shown(kind, &id))),
        Ok(None) if kind == "AwsAccount" && guc::as_machine() => Ok(Ok(Value::Null)),
        Ok(None) | Err(Error::WhichAccount(_)) => Ok(Err("bulk-storage account not specified")),
        Err(Error::NoAccount { .. }) => Ok(Err("account not found")),
        Err(error) => Err(error),
    }
}

fn shown(kind: &str, id: &str) -> Value {
    json!({"id": id, "resourceType": kind})
}

/// What an account may not delete is no fault: it is given back.
fn probe(bucket: &Bucket, access: &ClientConfig, interrupt: &Interrupt) -> Result<Option<SourceFault>, SourceFault> {
    let store = bucket.store(access, interrupt)?;
    let key = format!("bulk-healthcheck-{}", uuid::Uuid::new_v4());
    let mut upload = store.put(&key)?;
    upload.write(PROBE)?;
    upload.finish()?;
    let read = read(&*store, &key);
    let deleted = store.delete(&key);
    if read? != PROBE {
        return Err(SourceFault::Changed);
    }
    match deleted {
        Ok(()) => Ok(None),
        Err(fault @ (SourceFault::Refused { status: 401 | 403 | 405, .. } | SourceFault::FileDenied)) => Ok(Some(fault)),
        Err(fault) => Err(fault),
    }
}

fn read(store: &dyn Store, key: &str) -> Result<Vec<u8>, SourceFault> {
    let mut bytes = Vec::new();
    store.open(key, 0)?.reader.take(1 << 20).read_to_end(&mut bytes).map_err(|error| crate::store::inflate::fault(&error))?;
    Ok(bytes)
}
