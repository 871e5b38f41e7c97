//! Progress of tasks: advanced in the transaction that did the work, tried again, ended.

use crate::error::Error;
use crate::pg::state::job::Job;
use crate::pg::state::task::{Progress, Task, TaskRange};
use crate::pg::sys::owner_sql;
use crate::pipeline::load::checkpoint::{ByteRange, Checkpoint};
use pgrx::JsonB;

/// What a worker has done on a task.
#[derive(Debug, Default)]
pub struct Advance {
    /// From where it goes on.
    pub position: i64,
    pub size: i64,
    pub read: u64,
    pub rejected: u64,
}

/// Writes down what was done on a task, in the transaction that did it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn advance(task: &mut Task, advance: Advance) -> Result<(), Error> {
    task.position = advance.position;
    task.size = Some(advance.size);
    task.progress.rejected += advance.rejected;
    owner_sql::run(
        "update bulk_internal.task set position = $2, size = $3, read = read + $4, rejected = $5 \
         where number = $1",
        &[
            task.number.into(),
            task.position.into(),
            advance.size.into(),
            (advance.read as i64).into(),
            (task.progress.rejected as i64).into(),
        ],
    )
}

/// Has a task wait that is not done, for whoever claims it next.
///
/// # Errors
/// As `owner_sql::query`.
pub fn give_back(task: &Task) -> Result<(), Error> {
    owner_sql::run("update bulk_internal.task set state = 'waiting' where number = $1 and state = 'in-progress'", &[task.number.into()])
}

/// Begins a task anew where its table is no longer the one whose pages were counted: what was found in that is forgotten.
///
/// # Errors
/// As `owner_sql::query`.
pub fn settle(job: &Job, task: &mut Task, storage: &str) -> Result<(), Error> {
    let same = owner_sql::select_latest("select storage from bulk_internal.task_table where task = $1", &[task.number.into()], |row| {
        row.get::<String>(1)
    })?;
    if same.into_iter().flatten().next().as_deref() == Some(storage) {
        return Ok(());
    }
    if task.position > 0 {
        owner_sql::run(
            "delete from bulk_internal.load_error where load_id = $1 and source = $2",
            &[job.id.as_str().into(), task.source.as_str().into()],
        )?;
    }
    task.position = 0;
    task.size = None;
    task.progress = Progress::default();
    owner_sql::run(
        "with begun as (update bulk_internal.task set position = 0, size = null, read = 0, rejected = 0 where number = $1) \
         update bulk_internal.task_table set storage = $2 where task = $1",
        &[task.number.into(), storage.into()],
    )
}

/// The same of a source that is loaded.
///
/// # Errors
/// As `owner_sql::query`.
pub fn advance_input(task: &Task, progress: &Progress) -> Result<(), Error> {
    let known = checkpoint(&progress.checkpoint)?;
    let number = |value: u64| value as i64;
    let Checkpoint { sent, position, identity, .. } = &progress.checkpoint;
    let (sent, bytes, size) = match task.range {
        // What was read behind it belongs to the next range.
        Some(TaskRange { span, .. }) => {
            let done = |at: u64| at.min(span.to).saturating_sub(span.from);
            (done(*sent), done(position.offset), Some(span.to - span.from))
        }
        None => (*sent, position.offset, identity.length),
    };
    owner_sql::run(
        "with counted as (update bulk_internal.task set position = $3, size = $4, read = $6, stored = $7, skipped = $8, rejected = $9, \
            written = $11 where number = $1) \
         update bulk_internal.task_source set checkpoint = $2, bytes = $5, characters = $10, tries = 0 where task = $1",
        &[
            task.number.into(),
            known.into(),
            number(sent).into(),
            size.map(number).into(),
            number(bytes).into(),
            number(progress.read).into(),
            number(progress.stored).into(),
            number(progress.skipped).into(),
            number(progress.rejected).into(),
            number(progress.characters).into(),
            number(progress.written).into(),
        ],
    )
}

/// Writes down that a task is begun again, and why.
///
/// # Errors
/// As `owner_sql::query`.
pub fn try_again(task: &mut Task, message: &str) -> Result<(), Error> {
    task.tries += 1;
    owner_sql::run(
        "with counted as (update bulk_internal.task_source set tries = tries + 1 where task = $1) \
         update bulk_internal.task set message = $2 where number = $1",
        &[task.number.into(), message.into()],
    )
}

/// Writes down what a task waits for, which others see until it goes on.
///
/// # Errors
/// As `owner_sql::query`.
pub fn record_wait(task: &Task, message: &str) -> Result<(), Error> {
    owner_sql::run("update bulk_internal.task set message = $2 where number = $1", &[task.number.into(), message.into()])
}

/// Ends a task: with a message it has failed, and the ranges of its source that nobody is at fail with it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn end(task: &Task, message: Option<&str>) -> Result<(), Error> {
    if let (Some(_), Some(message)) = (task.range, message) {
        owner_sql::run(
            "update bulk_internal.task f set state = 'error', message = $2, finished = clock_timestamp() from bulk_internal.task own \
             where own.number = $1 and f.job = own.job and f.ordinal = own.ordinal and f.state = 'waiting'",
            &[task.number.into(), message.into()],
        )?;
    }
    owner_sql::run(
        "update bulk_internal.task set state = $2::bulk_internal.state, message = $3, finished = clock_timestamp() \
         where number = $1",
        &[task.number.into(), if message.is_some() { "error" } else { "done" }.into(), message.into()],
    )
}

/// Forgets what is entered of lines of a task that are still to be loaded.
///
/// # Errors
/// As `owner_sql::query`.
pub fn forget_findings(job: &Job, task: &Task) -> Result<(), Error> {
    let span = task.range.map_or(ByteRange { from: 0, to: i64::MAX as u64 }, |range| range.span);
    let from = task.progress.checkpoint.position.offset.max(span.from);
    owner_sql::run(
        "delete from bulk_internal.load_error where load_id = $1 and input = $2 and byte_offset >= $3 and byte_offset < $4",
        &[job.id.as_str().into(), (task.ordinal as i32).into(), (from as i64).into(), (span.to as i64).into()],
    )
}

/// A checkpoint as it is written down.
///
/// # Errors
/// `Internal` if JSON cannot hold it.
pub fn checkpoint(checkpoint: &Checkpoint) -> Result<JsonB, Error> {
    serde_json::to_value(checkpoint).map(JsonB).map_err(|error| Error::Internal(error.to_string()))
}
