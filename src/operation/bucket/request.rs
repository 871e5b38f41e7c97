//! The parameters of `load-from-bucket`.

use crate::error::Error;
use crate::operation::bucket_access;
use crate::store::bucket::Bucket;
use crate::text::json_members::{boolean, check_keys, milliseconds, string, whole};
use serde_json::{Map, Value};
use std::time::Duration;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    pub bucket: Bucket,
    /// Files at a time.
    pub threads: usize,
    /// Given with the call, or the id of one that is kept.
    pub account: Option<Map<String, Value>>,
    pub disable_indexes: bool,
    pub drop_key: bool,
    /// Whether resources that are there are written over.
    pub upsert: bool,
    pub scheduler: Scheduler,
    /// Beginnings of keys; none for all.
    pub prefixes: Vec<String>,
    pub connect_timeout: Option<Duration>,
    pub read_timeout: Option<Duration>,
    pub fhir: bool,
}

/// The order in which files are begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// The longest first.
    Optimal,
    ByLastModified,
}

const KEYS: &[&str] = &[
    "bucket",
    "thread-num",
    "account",
    "disable-idx?",
    "drop-primary-key?",
    "upsert?",
    "scheduler",
    "prefixes",
    "connect-timeout",
    "read-timeout",
    "format",
];
const ACCOUNT: &[&str] = &[
    "resourceType",
    "id",
    "access-key-id",
    "secret-access-key",
    "session-token",
    "region",
    "host",
    "path-style",
    "use-ssl",
    "service-account-email",
    "private-key",
    "private-key-id",
    "storage",
    "key",
];
const THREADS: u64 = 4;
const MOST_THREADS: u64 = 1000;
const MOST_PREFIXES: usize = 10_000;

impl Params {
    /// Reads the parameters of a call.
    ///
    /// # Errors
    /// `UnknownOption` and `InvalidOption` for keys and values that are none; `Source` for a URL that names no bucket.
    pub fn read(given: &Map<String, Value>) -> Result<Params, Error> {
        check_keys(given, KEYS)?;
        let threads = match given.get("thread-num") {
            None | Some(Value::Null) => THREADS,
            Some(_) => whole(given, "thread-num", "a whole number from 1 to 1000", MOST_THREADS)?,
        };
        if threads == 0 {
            return Err(Error::InvalidOption { name: "thread-num", expected: "a whole number from 1 to 1000" });
        }
        let (disable_indexes, drop_key) = (boolean(given, "disable-idx?", false)?, boolean(given, "drop-primary-key?", false)?);
        let upsert = boolean(given, "upsert?", false)?;
        if drop_key && upsert {
            return Err(Error::InvalidOption {
                name: "upsert?",
                expected: "false beside drop-primary-key?: resources are found by the key",
            });
        }
        let scheduler = match string(given, "scheduler")?.as_deref() {
            None | Some("optimal") => Scheduler::Optimal,
            Some("by-last-modified") => Scheduler::ByLastModified,
            Some(_) => return Err(Error::InvalidOption { name: "scheduler", expected: "optimal or by-last-modified" }),
        };
        let fhir = match string(given, "format")?.as_deref() {
            None | Some("aidbox") => false,
            Some("fhir") => true,
            Some(_) => return Err(Error::InvalidOption { name: "format", expected: "aidbox or fhir" }),
        };
        let bucket = bucket(given)?;
        Ok(Params {
            account: account(given, &bucket)?,
            bucket,
            threads: usize::try_from(threads).unwrap_or(1),
            disable_indexes,
            drop_key,
            upsert,
            scheduler,
            prefixes: prefixes(given)?,
            connect_timeout: milliseconds(given, "connect-timeout")?,
            read_timeout: milliseconds(given, "read-timeout")?,
            fhir,
        })
    }
}

/// The bucket that is named.
///
/// # Errors
/// `InvalidOption` where it is missing, `Source` for a URL that names no bucket.
pub fn bucket(given: &Map<String, Value>) -> Result<Bucket, Error> {
    let missing = Error::InvalidOption { name: "bucket", expected: "the URL of a bucket, like s3://name" };
    Bucket::parse(&string(given, "bucket")?.ok_or(missing)?)
}

fn prefixes(given: &Map<String, Value>) -> Result<Vec<String>, Error> {
    let wrong = Error::InvalidOption { name: "prefixes", expected: "a list of at most 10000 strings" };
    match given.get("prefixes") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MOST_PREFIXES => {
            list.iter().map(|prefix| prefix.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>().ok_or(wrong)
        }
        Some(_) => Err(wrong),
    }
}

/// The keys of an account, or the id of one that is kept.
fn account(given: &Map<String, Value>, bucket: &Bucket) -> Result<Option<Map<String, Value>>, Error> {
    let wrong = || Error::InvalidOption {
        name: "account",
        expected: "an object with the id of one that is kept, or with region, access-key-id and secret-access-key",
    };
    let account = match given.get("account") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(account)) => account,
        Some(_) => return Err(wrong()),
    };
    check_keys(account, ACCOUNT)?;
    let whole = Value::Object(account.clone());
    let is_kept = bucket_access::is_text(&whole, "id") && account.keys().all(|key| matches!(key.as_str(), "id" | "resourceType"));
    if is_kept || bucket_access::is_whole(bucket, &whole) { Ok(Some(account.clone())) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(params: Value) -> Result<Params, Error> {
        Params::read(params.as_object().unwrap())
    }

    #[test]
    fn parameters_have_the_defaults_of_the_page() {
        let params = read(json!({"bucket": "s3://b"})).unwrap();
        assert_eq!((params.threads, params.scheduler, params.fhir, params.upsert), (4, Scheduler::Optimal, false, false));
        assert_eq!((params.connect_timeout, params.read_timeout, params.prefixes.len()), (None, None, 0));
        let account = json!({"access-key-id": "a", "secret-access-key": "b", "region": "c", "host": "d"});
        let params =
            read(json!({"bucket": "s3://b", "thread-num": 1, "account": account, "scheduler": "by-last-modified", "format": "fhir",
            "prefixes": ["a/"], "connect-timeout": 5, "upsert?": true}))
            .unwrap();
        assert_eq!((params.threads, params.scheduler, params.fhir, params.upsert), (1, Scheduler::ByLastModified, true, true));
        assert_eq!((params.connect_timeout, params.prefixes.len()), (Some(Duration::from_millis(5)), 1));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (key, value) in [
            ("bucket", json!("b")),
            ("thread-num", json!(0)),
            ("thread-num", json!("4")),
            ("account", json!({"region": "x"})),
            ("account", json!({"region": "x", "access-key-id": "k", "secret-access-key": 5})),
            ("account", json!({"key": "k"})),
            ("disable-idx?", json!("yes")),
            ("scheduler", json!("fast")),
            ("prefixes", json!("a")),
            ("prefixes", json!([1])),
            ("format", json!("xml")),
            ("read-timeout", json!(-1)),
            ("disable-idx", json!(true)),
        ] {
            let mut params = json!({"bucket": "s3://b"});
            params[key] = value;
            assert!(read(params.clone()).is_err(), "{params}");
        }
        assert!(read(json!({})).is_err());
        assert!(read(json!({"bucket": "s3://b", "upsert?": true, "drop-primary-key?": true})).is_err());
    }
}
