//! The parts of jobs: claimed by workers one by one or all together, advanced step by step, ended.
//!
//! Who works on what is known by locks alone (`lock`): a part that is in progress and whose lock is free is interrupted.

use super::jobs::{self, Job};
use super::lock::Lock;
use super::owner;
use crate::error::Error;
use crate::op::checkpoint::Checkpoint;
use pgrx::JsonB;

#[derive(Debug)]
pub struct NewPart {
    pub source: String,
    pub resource_type: String,
}

/// A part that a worker has claimed.
#[derive(Debug, Clone)]
pub struct Part {
    pub number: i64,
    /// Among the job's parts, from 0.
    pub ordinal: usize,
    pub source: String,
    pub resource_type: Option<String>,
    pub position: i64,
    pub size: Option<i64>,
    /// Times that it was begun again after a fault of its source.
    pub tries: u32,
    pub progress: Progress,
}

/// How far a part is, and what became of its lines.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub checkpoint: Checkpoint,
    pub read: u64,
    pub stored: u64,
    pub skipped: u64,
    pub rejected: u64,
    pub characters: u64,
    /// Bytes of rows.
    pub written: u64,
}

/// What a worker has done on a part.
#[derive(Debug, Default)]
pub struct Advance {
    /// From where it goes on.
    pub position: i64,
    pub size: i64,
    pub read: u64,
    pub rejected: u64,
}

/// Takes the next part that no one works on. It stays this session's until `release`.
pub fn claim(job: &Job) -> Result<Option<Part>, Error> {
    let open = owner::look(
        "select number from bulk.job_file_entry where job = $1 and state in ('waiting', 'in-progress') order by number",
        &[job.number.into()],
        |row| row.get::<i64>(1),
    )?;
    for number in open.into_iter().flatten() {
        if !Lock::Part(number).take() {
            continue;
        }
        // Another may have ended it before the lock was ours.
        let claimed = owner::query(
            "update bulk.job_file_entry f set state = 'in-progress', started = coalesce(f.started, clock_timestamp()) \
             from bulk.job_entry j where f.number = $1 and f.state in ('waiting', 'in-progress') \
             and j.number = f.job and j.state in ('waiting', 'in-progress') \
             returning f.ordinal, f.source, f.resource_type, f.position, f.size, f.tries, f.checkpoint, f.read, f.stored, f.skipped, \
             f.rejected, f.characters, f.written",
            &[number.into()],
            |row| part(number, row),
        )?;
        if let Some(part) = claimed.into_iter().next() {
            jobs::begin(job)?;
            return Ok(Some(part));
        }
        Lock::Part(number).release();
    }
    Ok(None)
}

/// Takes all parts of a job for one worker; None when another has them, or the job is not wanted. What was written down of them before is
/// forgotten: it was rolled back.
pub fn claim_all(job: &Job) -> Result<Option<Vec<Part>>, Error> {
    if !jobs::is_wanted(job)? {
        return Ok(None);
    }
    let parts = owner::query(
        "select ordinal, source, resource_type, 0::int8, size, 0, null::jsonb, null::int8, null::int8, \
         null::int8, null::int8, null::int8, null::int8, number from bulk.job_file_entry \
         where job = $1 and state <> 'done' order by number",
        &[job.number.into()],
        |row| part(row.get(14)?.unwrap_or_default(), row),
    )?;
    if parts.is_empty() {
        return Ok(None);
    }
    for (index, claimed) in parts.iter().enumerate() {
        if !Lock::Part(claimed.number).take() {
            parts[..index].iter().for_each(|part| Lock::Part(part.number).release());
            return Ok(None);
        }
    }
    owner::run(
        "update bulk.job_file_entry set state = 'in-progress', started = coalesce(started, clock_timestamp()) \
         where job = $1 and state <> 'done'",
        &[job.number.into()],
    )?;
    jobs::begin(job)?;
    Ok(Some(parts))
}

fn part(number: i64, row: owner::Row) -> Result<Part, pgrx::spi::Error> {
    let count = |column| row.get::<i64>(column).map(|count| count.unwrap_or_default().unsigned_abs());
    let checkpoint = row.get::<JsonB>(7)?.and_then(|checkpoint| serde_json::from_value(checkpoint.0).ok());
    Ok(Part {
        number,
        ordinal: row.get::<i32>(1)?.and_then(|ordinal| usize::try_from(ordinal).ok()).unwrap_or_default(),
        source: row.get(2)?.unwrap_or_default(),
        resource_type: row.get(3)?,
        position: row.get(4)?.unwrap_or_default(),
        size: row.get(5)?,
        tries: row.get::<i32>(6)?.unwrap_or_default().unsigned_abs(),
        progress: Progress {
            checkpoint: checkpoint.unwrap_or_default(),
            read: count(8)?,
            stored: count(9)?,
            skipped: count(10)?,
            rejected: count(11)?,
            characters: count(12)?,
            written: count(13)?,
        },
    })
}

/// Writes down what was done on a part, in the transaction that did it.
pub fn advance(part: &mut Part, advance: Advance) -> Result<(), Error> {
    part.position = advance.position;
    part.size = Some(advance.size);
    part.progress.rejected += advance.rejected;
    owner::run(
        "update bulk.job_file_entry set position = $2, size = $3, read = read + $4, rejected = $5 \
         where number = $1",
        &[
            part.number.into(),
            part.position.into(),
            advance.size.into(),
            (advance.read as i64).into(),
            (part.progress.rejected as i64).into(),
        ],
    )
}

/// Begins a part anew where its table is no longer the one whose pages were counted: what was found in that is forgotten.
pub fn settle(job: &Job, part: &mut Part, storage: &str) -> Result<(), Error> {
    let same = owner::look("select storage from bulk.job_file_entry where number = $1", &[part.number.into()], |row| row.get::<String>(1))?;
    if same.into_iter().flatten().next().as_deref() == Some(storage) {
        return Ok(());
    }
    if part.position > 0 {
        owner::run(
            "delete from bulk.load_error where load_id = $1 and source = $2",
            &[job.id.as_str().into(), part.source.as_str().into()],
        )?;
    }
    part.position = 0;
    part.size = None;
    part.progress = Progress::default();
    owner::run(
        "update bulk.job_file_entry set storage = $2, position = 0, size = null, read = 0, rejected = 0 where number = $1",
        &[part.number.into(), storage.into()],
    )
}

/// The same of a source that is loaded.
pub fn advance_input(part: i64, progress: &Progress) -> Result<(), Error> {
    let checkpoint = serde_json::to_value(&progress.checkpoint).map_err(|error| Error::Internal(error.to_string()))?;
    let number = |value: u64| value as i64;
    owner::run(
        "update bulk.job_file_entry set checkpoint = $2, position = $3, size = $4, bytes = $5, read = $6, stored = $7, skipped = $8, \
         rejected = $9, characters = $10, written = $11, tries = 0 where number = $1",
        &[
            part.into(),
            JsonB(checkpoint).into(),
            number(progress.checkpoint.sent).into(),
            progress.checkpoint.identity.length.map(number).into(),
            number(progress.checkpoint.position.offset).into(),
            number(progress.read).into(),
            number(progress.stored).into(),
            number(progress.skipped).into(),
            number(progress.rejected).into(),
            number(progress.characters).into(),
            number(progress.written).into(),
        ],
    )
}

/// Writes down that a part is begun again, and why.
pub fn try_again(part: &mut Part, message: &str) -> Result<(), Error> {
    part.tries += 1;
    owner::run("update bulk.job_file_entry set tries = tries + 1, message = $2 where number = $1", &[part.number.into(), message.into()])
}

/// Ends a part: with a message it has failed.
pub fn end(part: &Part, message: Option<&str>) -> Result<(), Error> {
    owner::run(
        "update bulk.job_file_entry set state = $2, message = $3, finished = clock_timestamp() \
         where number = $1",
        &[part.number.into(), if message.is_some() { "error" } else { "done" }.into(), message.into()],
    )
}

/// Forgets what is entered of lines of a part that are still to be loaded.
pub fn forget_findings(job: &Job, part: &Part) -> Result<(), Error> {
    owner::run(
        "delete from bulk.load_error where load_id = $1 and source = $2 and line > $3",
        &[job.id.as_str().into(), part.source.as_str().into(), (part.progress.checkpoint.position.lines as i64).into()],
    )
}
