//! How a bucket is reached.

use crate::error::{Error, SourceFault};
use crate::pg::state::storage_account;
use crate::pg::sys::guc;
use crate::store::account::Accounts;
use crate::store::bucket::Bucket;
use crate::store::net::client_config::ClientConfig;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// Times that a request is made again before its file fails.
const REQUEST_RETRIES: u32 = 3;

/// How a bucket is reached: by a given account, else by one that is kept, perhaps of a given id.
///
/// # Errors
/// `InvalidOption` for an account that is none; `NoAccount`, `WhichAccount`; `Source` where no account is known.
pub fn access(bucket: &Bucket, account: Option<&Value>, timeouts: (Option<Duration>, Option<Duration>)) -> Result<ClientConfig, Error> {
    let id = account.and_then(|account| account.get("id")).and_then(Value::as_str);
    let accounts = match account {
        Some(account) if is_whole(bucket, account) => given(bucket, account)?,
        _ => storage_account::of(std::iter::once(bucket), id)?,
    };
    let serves_itself = match bucket {
        Bucket::Directory(_) => true,
        Bucket::S3(_) => guc::as_machine(),
        Bucket::Gcs(_) | Bucket::Azure(_) => false,
    };
    if accounts == Accounts::default() && !serves_itself {
        return Err(Error::source(&bucket.url(), SourceFault::NoAccount));
    }
    Ok(ClientConfig { connect_timeout: timeouts.0, read_timeout: timeouts.1, retries: REQUEST_RETRIES, accounts, ..guc::network()? })
}

fn given(bucket: &Bucket, account: &Value) -> Result<Accounts, Error> {
    fn read<T: DeserializeOwned>(account: Value) -> Result<T, Error> {
        let wrong = |_| Error::InvalidOption { name: "account", expected: "the keys of an account" };
        serde_json::from_value(account).map_err(wrong)
    }
    let mut accounts = Accounts::default();
    let mut account = account.clone();
    match bucket {
        Bucket::S3(_) => accounts.aws = Some(read(account)?),
        Bucket::Gcs(_) => accounts.gcp = Some(read(account)?),
        Bucket::Azure(name) => {
            account["container"] = json!(name);
            accounts.azure.push(read(account)?);
        }
        Bucket::Directory(_) => {}
    }
    Ok(accounts)
}

/// Whether an account is given whole, with its secret.
pub fn is_whole(bucket: &Bucket, account: &Value) -> bool {
    let keys: &[&str] = match bucket {
        Bucket::S3(_) => &["region", "access-key-id", "secret-access-key"],
        Bucket::Gcs(_) => &["service-account-email", "private-key"],
        Bucket::Azure(_) => &["storage", "key"],
        Bucket::Directory(_) => return false,
    };
    keys.iter().all(|key| is_text(account, key))
}

/// Whether a member is text, and not empty.
pub fn is_text(account: &Value, key: &str) -> bool {
    account.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}
