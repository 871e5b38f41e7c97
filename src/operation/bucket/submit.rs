//! The call: what of a bucket is still to be loaded becomes a job.

use crate::error::Error;
use crate::job::spec::JobSpec;
use crate::operation::bucket::listing::{self, Listing};
use crate::operation::bucket::request::Params;
use crate::operation::bucket::spec::BucketLoad;
use crate::operation::bucket_access;
use crate::operation::loader_error::{self, Answer, refusal};
use crate::pg::catalog::ddl::{self, Key};
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::state::enums::{JobKind, State, TaskKind};
use crate::pg::state::job::{self, NewJob};
use crate::pg::state::loader_file::Listed;
use crate::pg::state::loader_file::Taken;
use crate::pg::state::task::NewTask;
use crate::pg::state::{disabled_index, job_control, job_report, loader_file as files, scheduler, task_claim};
use crate::pg::sys::latch::Backend;
use crate::pg::sys::privilege::Right;
use crate::pg::sys::subtransaction::{self, Failure};
use crate::pg::sys::{backend, kept_settings};
use crate::pipeline::blocking;
use crate::store::bucket::BucketPlace;
use crate::store::source::Source;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// Starts loading what is new in a bucket, and goes on with what was left behind.
///
/// # Errors
/// Only what no call can be the cause of.
pub fn start(given: &Map<String, Value>) -> Result<Answer, Error> {
    backend::require_utf8()?;
    backend::require_writable(c"bulk.load_from_bucket");
    backend::stop_threads_at_exit();
    scheduler::start_waiting()?;
    let mut params = match Params::read(given) {
        Ok(params) => params,
        Err(error) => return refusal(error, None),
    };
    match list(&mut params) {
        // What goes wrong takes back all that was done.
        Ok((listing, place)) => match subtransaction::run(|| enter(&params, given, &listing, &place)) {
            Ok(answer) => Ok(Ok(answer)),
            Err(Failure::Ours(error)) => refusal(error, Some(&params.bucket)),
            Err(failure) => failure.raise(),
        },
        Err(error) => refusal(error, Some(&params.bucket)),
    }
}

fn list(params: &mut Params) -> Result<(Listing, BucketPlace), Error> {
    Right::to_list(&params.bucket).require()?;
    // However it is named, a directory is one.
    let bucket = params.bucket.clone();
    params.bucket = blocking::run(&mut Backend, move |_| bucket.canonical().map_err(|fault| Error::source(&bucket.url(), fault)))?;
    let account = params.account.clone().map(Value::Object);
    let access = bucket_access::access(&params.bucket, account.as_ref(), (params.connect_timeout, params.read_timeout))?;
    let place = params.bucket.place(&access.accounts);
    Ok((listing::list(params, access, &mut Backend)?, place))
}

fn enter(params: &Params, given: &Map<String, Value>, listing: &Listing, bucket: &BucketPlace) -> Result<Value, Error> {
    let url = params.bucket.url();
    let directory = params.bucket.file("");
    files::lock(bucket, &directory);
    let listed = listed(params, listing);
    let covered: Vec<String> = match params.prefixes.is_empty() {
        true => vec![directory.clone()],
        false => params.prefixes.iter().map(|prefix| format!("{directory}{prefix}")).collect(),
    };
    let taken = files::take(bucket, loader_error::source(&params.bucket), &listed, &covered)?;
    let wanted: HashSet<&String> = taken.new.iter().chain(&taken.continued).collect();
    let mut tasks = Vec::new();
    let mut types: BTreeSet<&str> = BTreeSet::new();
    for (found, file) in listing.found.iter().zip(&listed.files).filter(|(_, file)| wanted.contains(file)) {
        types.insert(&found.resource_type);
        let source = Source::in_bucket(&params.bucket, &found.object.key).name();
        tasks.push((NewTask::new(TaskKind::Source, source, Some(found.resource_type.clone())), file.clone()));
    }
    let mut off = match params.disable_indexes || params.drop_key {
        true => take_off(&types, params.drop_key)?,
        false => Vec::new(),
    };
    let left: Vec<i64> = job_report::of_bucket(&url, bucket, &directory)?
        .into_iter()
        .filter(|(_, state)| *state == State::Interrupted)
        .map(|(number, _)| number)
        .collect();
    let mut answer = answer(&url, files::counts(bucket, &directory)?.total, &taken, listing);
    if tasks.is_empty() && off.is_empty() && left.is_empty() {
        return Ok(answer);
    }
    let (tasks, taken_files): (Vec<NewTask>, Vec<String>) = tasks.into_iter().unzip();
    let (id, number) = order(params, given, bucket, &tasks)?;
    files::assign(bucket, taken_files, number)?;
    for old in left {
        off.extend(job_control::supersede(old, &id)?.unwrap_or_default());
    }
    let mut known = HashSet::new();
    off.retain(|name| known.insert(name.clone()));
    task_claim::add_indexes(number, tasks.len(), &off)?;
    answer["id"] = json!(id);
    Ok(answer)
}

/// The files of a listing as they are written down.
fn listed(params: &Params, listing: &Listing) -> Listed {
    let mut listed = Listed::default();
    for found in &listing.found {
        listed.files.push(params.bucket.file(&found.object.key));
        listed.types.push(found.resource_type.clone());
        listed.sizes.push(i64::try_from(found.object.size).unwrap_or(i64::MAX));
        listed.modified.push(found.object.modified.clone());
        listed.etags.push(found.object.etag.clone());
    }
    listed
}

/// What is answered, but for the job.
fn answer(url: &str, total: i64, taken: &Taken, listing: &Listing) -> Value {
    let mut answer = json!({
        "message": format!("Upload from bucket <{url}> started. {} new files added.", taken.new.len()),
        "progress": {"total": total},
        "new-files-count": taken.new.len(),
        "ignored": listing.ignored,
    });
    if listing.ignored_in_all > listing.ignored.len() as u64 {
        answer["ignored-count"] = json!(listing.ignored_in_all);
    }
    if taken.held > 0 {
        answer["held-by-others"] = json!(taken.held);
    }
    if !taken.changed.is_empty() {
        answer["changed"] = json!(taken.changed);
    }
    answer
}

/// Takes the indexes off the tables of these types. Those that are not there yet have nothing but their keys.
fn take_off(types: &BTreeSet<&str>, with_key: bool) -> Result<Vec<String>, Error> {
    let mut tables: Vec<Table> = Vec::new();
    for resource_type in types {
        match resource_table::lookup(resource_type)? {
            Some(found) => tables.push(found),
            None if with_key => tables.push(ddl::ensure(resource_type, Key::AtOnce)?.0),
            None => {}
        }
    }
    disabled_index::require_droppable(&tables, with_key)?;
    disabled_index::disable(&tables, with_key)
}

fn order(params: &Params, given: &Map<String, Value>, place: &BucketPlace, tasks: &[NewTask]) -> Result<(String, i64), Error> {
    let milliseconds = |time: Option<Duration>| time.and_then(|time| u64::try_from(time.as_millis()).ok());
    let is_secret = params.account.clone().is_some_and(|account| bucket_access::is_whole(&params.bucket, &Value::Object(account)));
    let id = params.account.as_ref().and_then(|account| account.get("id")).and_then(Value::as_str);
    let load = BucketLoad {
        bucket: params.bucket.clone(),
        endpoint: place.endpoint.clone(),
        fhir: params.fhir,
        upsert: params.upsert,
        drop_key: params.drop_key,
        connect_timeout: milliseconds(params.connect_timeout),
        read_timeout: milliseconds(params.read_timeout),
        account: id.filter(|_| !is_secret).map(str::to_owned),
        has_secret: is_secret,
    };
    let spec = JobSpec::new(kept_settings::settings_to_keep()?, &load)?;
    let mut shown = given.clone();
    shown.remove("account");
    shown.insert("bucket".to_owned(), json!(params.bucket.url()));
    let new_job = NewJob {
        id: None,
        kind: JobKind::Bucket,
        request: Value::Object(shown),
        spec: spec.to_json()?,
        secret: is_secret.then(|| json!({"account": params.account})),
        tasks,
        workers: params.threads.min(tasks.len().max(1)),
        threads: Some(params.threads),
    };
    job::enter(new_job)?.ok_or_else(|| Error::Internal("an id was made twice".to_owned()))
}
