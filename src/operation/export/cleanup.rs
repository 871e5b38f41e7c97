//! Deletes what an export wrote that nobody needs: of one that began anew, was cancelled or failed.

use crate::error::Error;
use crate::job::spec::JobSpec;
use crate::job::step::Step;
use crate::job::worker::Operation;
use crate::operation::export::spec::{Cleanup, Export, ExportTarget};
use crate::operation::export::target;
use crate::pg::process::transaction;
use crate::pg::state::enums::{JobKind, TaskKind};
use crate::pg::state::export_run::Run;
use crate::pg::state::job::{self, Job, NewJob};
use crate::pg::state::task::{NewTask, Task};
use crate::pg::state::{export_run as files, job_control, scheduler};
use crate::pg::sys::privilege::Right;
use crate::pg::sys::subtransaction::{self, Failure};
use crate::pg::sys::{kept_settings, latch, switch_user};
use crate::pipeline::blocking;
use crate::store::object::object_store::Store;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the workers of the export are waited for, and between two looks.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(600);
const WORKERS_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Has the files of an export deleted in the background, as its role, at commit. Without that role they stay.
fn order(cleanup: Cleanup, id: &str) -> Result<(), Error> {
    let Some(role) = job::role(cleanup.job)? else { return Ok(()) };
    let source = cleanup.sink.bucket.url();
    let request = json!({"export": id});
    let spec = JobSpec::new(kept_settings::settings_to_keep()?, &cleanup)?;
    let tasks = [NewTask::new(TaskKind::Files, source, None)];
    let new_job =
        NewJob { id: None, kind: JobKind::Cleanup, request, spec: spec.to_json()?, secret: None, tasks: &tasks, workers: 1, threads: None };
    switch_user::within(role, || job::enter(new_job)).map(drop)
}

/// The same where a job is an export.
///
/// # Errors
/// As `job::enter`.
pub fn order_after(id: &str) -> Result<(), Error> {
    let standing = job_control::standing(id)?;
    if standing.kind != JobKind::Export {
        return Ok(());
    }
    let spec = job::spec(standing.number)?.map(JobSpec::from_json).transpose()?;
    match spec.map(|spec| spec.work::<Export>()).transpose()?.flatten() {
        Some(export) => order(Cleanup { job: standing.number, sink: export.sink }, id),
        None => Ok(()),
    }
}

/// Ends an export that cannot be done; its files are deleted.
///
/// # Errors
/// As `job::enter`.
pub fn fail(job: &Job, sink: &ExportTarget, message: &str) -> Result<(), Error> {
    if !job::fail(job, message)? {
        return Ok(());
    }
    order(Cleanup { job: job.number, sink: sink.clone() }, &job.id)
}

impl Operation for Cleanup {
    fn task(&mut self, job: &Job, _: &mut Task) -> Result<Step, Failure> {
        work(job, self)
    }
}

/// Deletes the files of an export that has ended, once its workers are gone.
fn work(job: &Job, cleanup: &Cleanup) -> Result<Step, Failure> {
    let began = Instant::now();
    while transaction::run(None, || scheduler::workers(cleanup.job))? > 0 {
        if began.elapsed() > WORKERS_TIMEOUT {
            return Err(Failure::Ours(Error::Internal("the export's workers do not end".to_owned())));
        }
        subtransaction::outside(|| {
            latch::pause(WORKERS_POLL_INTERVAL);
            Ok(())
        })?;
    }
    let runs_of = transaction::run(None, || files::runs(cleanup.job))?;
    runs(job, &cleanup.sink, &runs_of)?;
    Ok(Step::Done)
}

/// Deletes the files of runs. What stays is written down, and why.
///
/// # Errors
/// Where what is left cannot be recorded, or the role or its rights are gone.
pub fn runs(job: &Job, sink: &ExportTarget, runs: &[Run]) -> Result<(), Failure> {
    for run in runs {
        let known = transaction::run(None, || files::keys(run))?;
        let left = match (run.folder.as_str(), run.is_own) {
            ("", _) => Vec::new(),
            (_, true) => delete(job, sink, run, known)?,
            (folder, false) => vec![(format!("{folder}/"), "the files are another database's".to_owned())],
        };
        transaction::run(None, || files::forget(run, &left))?;
    }
    Ok(())
}

fn delete(job: &Job, sink: &ExportTarget, run: &Run, known: Vec<String>) -> Result<Vec<(String, String)>, Failure> {
    let (bucket, prefix) = (sink.bucket.clone(), format!("{}/", run.folder));
    transaction::run(job.role, || {
        if job.role.is_none() {
            return Err(Error::NoRole);
        }
        Right::to_write(&sink.bucket).require()?;
        let access = target::access(sink)?;
        blocking::run(&mut latch::Backend, move |interrupt| {
            let fault = |fault| Error::source(&bucket.url(), fault);
            let store = bucket.store(&access, interrupt).map_err(fault)?;
            Ok(empty(&*store, &prefix, known))
        })
    })
}

/// Deletes all below a prefix, and these: what is left, and why.
fn empty(store: &dyn Store, prefix: &str, known: Vec<String>) -> Vec<(String, String)> {
    let mut keys: BTreeSet<String> = known.into_iter().collect();
    let swept = store.sweep(prefix);
    // An account may be allowed to write and not to list: then what is known goes.
    let listed = store.list(prefix, &mut |object| {
        keys.insert(object.key);
        Ok(())
    });
    let mut left: Vec<(String, String)> =
        keys.into_iter().filter_map(|key| store.delete(&key).err().map(|fault| (key, fault.to_string()))).collect();
    if let Err(fault) = listed.and(swept) {
        left.push((prefix.to_owned(), fault.to_string()));
    }
    left
}
