//! How the load of a bucket stands.

use crate::error::Error;
use crate::operation::bucket::{forget, request};
use crate::operation::loader_error::{Answer, refusal};
use crate::pg::state::enums::State;
use crate::pg::state::{job_report, loader_file as files, scheduler};
use crate::text::json_members::{check_keys, string};
use serde_json::{Map, Value, json};

const KEYS: &[&str] = &["bucket"];

/// `{state: in-progress | completed | interrupted, progress: {total, pending, done, error}}`.
///
/// # Errors
/// Only what no call can be the cause of.
pub fn status(given: &Map<String, Value>) -> Result<Answer, Error> {
    let bucket = check_keys(given, KEYS).and_then(|()| match string(given, "bucket")?.as_deref() {
        Some(name) if forget::is_local(name) => Ok(forget::all_directories()),
        _ => request::bucket(given),
    });
    let bucket = match bucket {
        Ok(bucket) => bucket,
        Err(error) => return refusal(error, None),
    };
    // Its canonical path is not shown to roles that may not list it.
    let called = bucket.url();
    let bucket = bucket.canonical().unwrap_or(bucket);
    let path = bucket.file("");
    let place = match forget::place(&bucket) {
        Ok(Some(place)) => place,
        Ok(None) => return refusal(Error::UnknownBucket(called), None),
        Err(error) => return refusal(error, None),
    };
    let counts = files::counts(&place, &path)?;
    if counts.total == 0 {
        return refusal(Error::UnknownBucket(called), None);
    }
    scheduler::start_waiting()?;
    let jobs = job_report::of_bucket(&bucket.url(), &place, &path)?;
    let is_at_work = jobs.iter().any(|(_, state)| *state != State::Interrupted);
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
