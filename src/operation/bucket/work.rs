//! A file of a bucket at work: one transaction, begun again when its source or another transaction stands in its way. And an index that is
//! put back.

use crate::error::{Error, SourceFault};
use crate::job::cancel::CancelPollInTransaction;
use crate::job::retry as job_retry;
use crate::job::step::Step;
use crate::job::worker::Operation;
use crate::operation::bucket::spec::BucketLoad;
use crate::operation::{bucket_access, loader_error};
use crate::pg::catalog::resource_table;
use crate::pg::process::{load_threads, transaction};
use crate::pg::state::enums::TaskKind;
use crate::pg::state::job::{self, Job};
use crate::pg::state::load_error::LoadErrors;
use crate::pg::state::loader_file::Name;
use crate::pg::state::task::{Progress, Task};
use crate::pg::state::{disabled_index, loader_file as files, task_progress};
use crate::pg::sys::privilege::Right;
use crate::pg::sys::subtransaction::Failure;
use crate::pg::sys::{backend, sqlstate};
use crate::pg::write::assemble;
use crate::pg::write::counting_sink::CountingSink;
use crate::pg::write::destination::{Destination, IdGuarantee};
use crate::pg::write::group_sink::StrictSink;
use crate::pipeline::load::counters::LoadCounters;
use crate::pipeline::load::options::{LoadOptions, NONE};
use crate::pipeline::load::sink::BatchSink;
use crate::pipeline::load::source_reader::{self, LoadInput};
use crate::retry::{self, Backoff};
use crate::store::source::Source;

use serde_json::json;
use std::time::Duration;

/// Times that a file is begun again after a fault of its source.
const RETRIES: u32 = 2;

impl Operation for BucketLoad {
    fn task(&mut self, job: &Job, task: &mut Task) -> Result<Step, Failure> {
        if task.kind == TaskKind::Index { index(job, task) } else { file(job, self, task) }
    }

    fn fail(&self, job: &Job, task: &Task, failure: &Failure) -> Result<(), Error> {
        if task.kind == TaskKind::Index {
            // It stays off, and why is recorded with it.
            let message = failure.whole_message();
            disabled_index::record_failure(&task.source, &message)?;
            return task_progress::end(task, Some(&message));
        }
        let (message, error) = loader_error::of(failure, &self.bucket);
        if let Failure::Ours(Error::Rejected { first, .. }) = failure {
            task_progress::forget_findings(job, task)?;
            LoadErrors::of_input(&job.id, task.ordinal).reject(first)?;
        }
        let (bucket, file) = (self.bucket.place_on(&self.endpoint), self.bucket.file(&key(self, task)?));
        files::fail(Name { bucket: &bucket, file: &file, job: job.number }, &message, error)?;
        task_progress::end(task, Some(&message))
    }
}

/// The key of a task's object.
fn key(load: &BucketLoad, task: &Task) -> Result<String, Error> {
    let key = load.bucket.key(&task.source).map(str::to_owned);
    key.ok_or_else(|| Error::Internal(format!("{} is no file of the bucket", task.source)))
}

/// Loads a file, whole or not at all.
fn file(job: &Job, load: &BucketLoad, task: &mut Task) -> Result<Step, Failure> {
    let key = key(load, task)?;
    let (bucket, file) = (load.bucket.place_on(&load.endpoint), load.bucket.file(&key));
    let name = Name { bucket: &bucket, file: &file, job: job.number };
    if !transaction::run(None, || files::begin(name))? {
        return Ok(Step::Done);
    }
    let (mut conflicts, mut alone) = (0, false);
    loop {
        let failure = match one_transaction(job, load, task, name, &key, alone) {
            Ok(()) => return Ok(Step::Ended),
            Err(Failure::Ours(Error::Stopped)) => return Ok(Step::Unwanted),
            Err(Failure::Ours(Error::FileForgotten)) => return Ok(Step::Done),
            Err(failure) => failure,
        };
        task.progress = Progress::default();
        let is_duplicate = matches!(&failure, Failure::Server { sqlstate, .. } if sqlstate::sqlstate(*sqlstate) == "23505");
        if failure.is_transient_conflict() {
            conflicts += 1;
            alone = conflicts >= retry::TRIES_BESIDE_OTHERS;
            transaction::run(None, || task_progress::record_wait(task, &failure.whole_message()))?;
            if !job_retry::back_off(job, Backoff::QUICK, conflicts)? {
                return Ok(Step::Unwanted);
            }
        } else if load.upsert && is_duplicate && !alone {
            // Another file brings the same resource at the same time: alone at the table it is a duplicate within this one, or none.
            alone = true;
        } else if (failure.is_transient() || matches!(&failure, Failure::Ours(error) if is_changed(error))) && task.tries < RETRIES {
            transaction::run(None, || task_progress::try_again(task, &failure.message()))?;
            if !job_retry::back_off(job, Backoff::PATIENT, task.tries)? {
                return Ok(Step::Unwanted);
            }
        } else {
            return Err(failure);
        }
    }
}

/// It may be whole by now.
fn is_changed(error: &Error) -> bool {
    matches!(error, Error::Source { fault: SourceFault::Changed, .. })
}

/// `alone`: while nobody else writes to the table.
fn one_transaction(job: &Job, load: &BucketLoad, task: &mut Task, name: Name, key: &str, alone: bool) -> Result<(), Failure> {
    let role = job.role;
    let resource_type = task.resource_type.clone();
    let options = LoadOptions::read(NONE)?;
    let (access, destination) = transaction::run(role, || {
        if role.is_none() {
            return Err(Error::NoRole);
        }
        backend::require_utf8()?;
        Right::to_list(&load.bucket).require()?;
        let destination = destination(&options, load);
        // The table is there, and seen by others, before the file's own transaction begins.
        Box::new(StrictSink::new(destination.clone(), resource_type.as_deref())?).finish(&mut LoadCounters::new(0))?;
        let given = job.secret.as_ref().and_then(|secret| secret.get("account"));
        if load.has_secret && given.is_none() {
            return Err(Error::NoSecret);
        }
        let kept = load.account.as_ref().map(|id| json!({ "id": id }));
        let timeout = |milliseconds: Option<u64>| milliseconds.map(Duration::from_millis);
        let timeouts = (timeout(load.connect_timeout), timeout(load.read_timeout));
        let access = bucket_access::access(&load.bucket, given.or(kept.as_ref()), timeouts)?;
        let found = load.bucket.place(&access.accounts).endpoint;
        if found != load.endpoint {
            return Err(Error::OtherServer { bucket: load.bucket.url(), listed: load.endpoint.clone(), found });
        }
        Ok((access, destination))
    })?;
    let source = Source::in_bucket(&load.bucket, key);
    transaction::run(role, || {
        if !files::hold(name)? {
            return Err(Error::FileForgotten);
        }
        if alone {
            resource_table::keep_others_off(resource_type.as_deref().into_iter())?;
        }
        let changes = assemble::changes(&options)?;
        let mut sink = Box::new(StrictSink::new(destination.clone(), resource_type.as_deref())?);
        let config = assemble::config(&task.source, resource_type.as_deref(), load.fhir, &options, &changes, &destination.compression);
        let threads = load_threads::of_worker();
        let spec = LoadInput { source, access, config, threads, from: Default::default(), span: None, division: None };
        let mut counters = LoadCounters::new(0);
        let mut counting = CountingSink { sink: &mut *sink, job, progress: &mut task.progress };
        source_reader::load(spec, &mut counting, &mut counters, &mut CancelPollInTransaction(job))?;
        sink.finish(&mut counters)?;
        task.progress.read = counters.read;
        task.progress.stored = counters.all_stored();
        task.progress.skipped = counters.skipped;
        let identity = &task.progress.checkpoint.identity;
        files::done(name, counters.all_stored(), identity.length, identity.etag.as_deref())?;
        task_progress::advance_input(task, &task.progress)?;
        task_progress::end(task, None)
    })
}

fn destination(options: &LoadOptions, load: &BucketLoad) -> Destination {
    let ids = if load.upsert { IdGuarantee::Once } else { IdGuarantee::New { checked: !load.drop_key } };
    Destination { ids, ..assemble::destination(options) }
}

/// Restores an index.
fn index(job: &Job, task: &mut Task) -> Result<Step, Failure> {
    let mut conflicts = 0;
    loop {
        match transaction::run(None, || {
            if job::is_wanted(job)? { disabled_index::restore_task(task).map(|()| Step::Ended) } else { Ok(Step::Unwanted) }
        }) {
            Err(failure) if failure.is_transient_conflict() => {
                conflicts += 1;
                transaction::run(None, || task_progress::record_wait(task, &failure.whole_message()))?;
                if !job_retry::back_off(job, Backoff::QUICK, conflicts)? {
                    return Ok(Step::Unwanted);
                }
            }
            ended => return ended,
        }
    }
}
