//! How the load of a bucket stands.

use crate::error::Error;
use crate::operation::bucket::{listing, request};
use crate::operation::loader_error::{Answer, refusal};
use crate::pg::state::{job_report, loader_file as files, scheduler};
use crate::store::bucket::Bucket;
use crate::text::json_members::{check_keys, string};
use serde_json::{Map, Value, json};

const KEYS: &[&str] = &["bucket"];

/// `{state: in-progress | completed | interrupted, progress: {total, pending, done, error}}`.
pub fn status(given: &Map<String, Value>) -> Result<Answer, Error> {
    let bucket = check_keys(given, KEYS).and_then(|()| match string(given, "bucket")?.as_deref() {
        // As LoaderFiles have it: of all directories.
        Some("local") => Ok(Bucket::Directory("/".into())),
        _ => request::bucket(given),
    });
    let bucket = match bucket {
        Ok(bucket) => bucket,
        Err(error) => return refusal(error, None),
    };
    // Its canonical path is not shown to roles that may not list it.
    let called = bucket.url();
    let bucket = bucket.canonical().unwrap_or(bucket);
    let (name, directory) = listing::written(&bucket, "");
    let counts = files::counts(&name, &directory)?;
    if counts.total == 0 {
        return refusal(Error::UnknownBucket(called), None);
    }
    scheduler::start_waiting()?;
    let jobs = job_report::of_bucket(&bucket.url(), &name, &directory)?;
    let is_at_work = jobs.iter().any(|(_, state)| state != "interrupted");
    let state = match (is_at_work, counts.pending > 0 || !jobs.is_empty()) {
        (true, _) => "in-progress",
        (false, true) => "interrupted",
        (false, false) => "completed",
    };
    let progress = json!({
        "total": counts.total, "pending": counts.pending, "done": counts.total - counts.pending, "error": counts.error,
    });
    Ok(Ok(json!({"state": state, "progress": progress})))
}
