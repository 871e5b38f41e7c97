//! Runs of exports, each with a folder of its own, and the files in it.

use crate::error::Error;
use crate::pg::state::enums::JobKind;
use crate::pg::state::job::{self, Job};
use crate::pg::state::job_report;
use crate::pg::state::task::{self, NewTask, Task};
use crate::pg::sys::advisory_lock::Lock;
use crate::pg::sys::{latch, owner_sql};
use std::time::{Duration, Instant};

/// A run of an export.
#[derive(Debug, Clone)]
pub struct Run {
    pub number: i64,
    pub folder: String,
    /// In microseconds since 2000-01-01 UTC.
    pub transaction_time: i64,
    /// False in a copy of the database that began it, whose files these are.
    pub is_own: bool,
}

/// What a file is to the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Output,
    Deleted,
    Error,
}

/// A file that is there, whole.
#[derive(Debug, Clone)]
pub struct OutputFile {
    pub key: String,
    pub kind: Kind,
    pub resource_type: String,
    pub count: u64,
    pub size: u64,
}

impl Kind {
    /// As `bulk.export_file.kind` has it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Output => "output",
            Kind::Deleted => "deleted",
            Kind::Error => "error",
        }
    }
}

/// The runs of a job, the last one first.
///
/// # Errors
/// As `owner_sql::query`.
pub fn runs(job: i64) -> Result<Vec<Run>, Error> {
    owner_sql::select_latest(
        "select number, folder, (extract(epoch from transaction_time) * 1000000)::int8 - 946684800000000, database_identity = $2 from bulk_internal.export_run \
         where job = $1 order by began desc, number",
        &[job.into(), job::database_identity().into()],
        |row| {
            Ok(Run {
                number: row.get(1)?.unwrap_or_default(),
                folder: row.get(2)?.unwrap_or_default(),
                transaction_time: row.get(3)?.unwrap_or_default(),
                is_own: row.get(4)?.unwrap_or_default(),
            })
        },
    )
}

/// How long a call waits for another's transaction, and between two looks.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A place among the exports, until the transaction ends.
#[derive(Debug)]
pub struct Room(Option<Lock>);

impl Room {
    /// Leaves it to another call: no export comes of this one.
    pub fn leave(self) {
        self.0.into_iter().for_each(Lock::release_in_transaction);
    }
}

/// The room for one more of so many exports; None where there is none. Those count that are committed. Where the others could take all that is left, theirs is
/// waited for, but not longer than five seconds: nobody is refused for what somebody keeps open.
///
/// # Errors
/// As `owner_sql::query`.
pub fn take_room(most: usize) -> Result<Option<Room>, Error> {
    let began = Instant::now();
    loop {
        if job_report::live(JobKind::Export)?.len() >= most {
            return Ok(None);
        }
        let in_time = began.elapsed() < COMMIT_TIMEOUT;
        let places: Vec<Lock> = (0..most as u32).map(Lock::ExportPlace).filter(|place| place.take_for_transaction()).collect();
        let (taken, rest) = places.split_at(places.len().min(1));
        rest.iter().for_each(|place| place.release_in_transaction());
        // Looked at with the places: another may have committed in between.
        let live = job_report::live(JobKind::Export)?.len();
        if live + (most - places.len()) < most || !in_time {
            let room = Room(taken.first().copied());
            if live < most {
                return Ok(Some(room));
            }
            room.leave();
            return Ok(None);
        }
        taken.iter().for_each(|place| place.release_in_transaction());
        latch::pause(POLL_INTERVAL);
    }
}

/// Ends a new job for which there is nothing to do.
///
/// # Errors
/// As `owner_sql::query`.
pub fn complete(job: i64, id: &str, transaction_time: i64) -> Result<(), Error> {
    owner_sql::run(
        "insert into bulk_internal.export_run (job, folder, transaction_time, database_identity) \
         values ($1, '', least(now(), timestamptz '2000-01-01 00:00:00+00' + $2 * interval '1 microsecond'), $3)",
        &[job.into(), transaction_time.into(), job::database_identity().into()],
    )?;
    owner_sql::run(
        "update bulk_internal.job set state = 'completed', started = now(), finished = now() where number = $1 and id = $2",
        &[job.into(), id.into()],
    )
}

/// Says of a job that has ended that nobody needs its files any more.
///
/// # Errors
/// As `owner_sql::query`.
pub fn give_up(job: i64, id: &str) -> Result<(), Error> {
    owner_sql::run("update bulk_internal.job set state = 'cancelled' where number = $1 and id = $2", &[job.into(), id.into()])
}

/// Begins a job anew: of what was done nothing counts. A worker may still be at one of its tasks.
///
/// # Errors
/// As `owner_sql::query`.
pub fn begin_anew(job: &Job, holder: &Task) -> Result<(), Error> {
    owner_sql::run("delete from bulk_internal.task where job = $1 and number <> $2", &[job.number.into(), holder.number.into()])
}

/// Enters a run and its tasks.
///
/// # Errors
/// As `owner_sql::query`.
pub fn begin(job: &Job, folder: &str, transaction_time: i64, tasks: &[NewTask]) -> Result<Run, Error> {
    let number = owner_sql::query(
        "insert into bulk_internal.export_run (job, folder, transaction_time, database_identity) \
         values ($1, $2, timestamptz '2000-01-01 00:00:00+00' + $3 * interval '1 microsecond', $4) returning number",
        &[job.number.into(), folder.into(), transaction_time.into(), job::database_identity().into()],
        |row| row.get::<i64>(1),
    )?;
    // The first is the holder's.
    task::insert(job.number, 1, tasks)?;
    let number = number.into_iter().flatten().next().unwrap_or_default();
    Ok(Run { number, folder: folder.to_owned(), transaction_time, is_own: true })
}

/// Whether a task is still to be done: a job that begins anew has others.
///
/// # Errors
/// As `owner_sql::query`.
pub fn is_wanted(job: &Job, task: &Task) -> Result<bool, Error> {
    let found = owner_sql::select_latest("select from bulk_internal.task where number = $1", &[task.number.into()], |_| Ok(()))?;
    Ok(!found.is_empty() && job::is_wanted(job)?)
}

/// Ends a task: these files are there. False when the job has begun anew, or nobody wants it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn end(job: &Job, task: &Task, run: &Run, files: &[OutputFile], read: u64) -> Result<bool, Error> {
    let count = |kind: Kind| files.iter().filter(|file| file.kind == kind).map(|file| file.count as i64).sum::<i64>();
    let ended = owner_sql::query(
        "update bulk_internal.task f set state = 'done', finished = clock_timestamp(), read = $3, stored = $4, rejected = $5, written = $6, \
         position = coalesce(p.end_page - p.first_page, 1), size = coalesce(p.end_page - p.first_page, 1) \
         from bulk_internal.job j, bulk_internal.task_table p where f.number = $1 and p.task = f.number and j.number = f.job and j.number = $2 and j.state = 'in-progress' returning true",
        &[
            task.number.into(),
            job.number.into(),
            (read as i64).into(),
            (count(Kind::Output) + count(Kind::Deleted)).into(),
            count(Kind::Error).into(),
            files.iter().map(|file| file.size as i64).sum::<i64>().into(),
        ],
        |_| Ok(()),
    )?;
    if ended.is_empty() {
        return Ok(false);
    }
    for file in files {
        owner_sql::run(
            "insert into bulk_internal.export_file (run, task, file, kind, type, count, size) values ($1, $2, $3, $4, $5, $6, $7)",
            &[
                run.number.into(),
                task.number.into(),
                file.key.as_str().into(),
                file.kind.word().into(),
                file.resource_type.as_str().into(),
                (file.count as i64).into(),
                (file.size as i64).into(),
            ],
        )?;
    }
    Ok(true)
}

/// The files of a run as its manifest names them: kind, type, key, count.
///
/// # Errors
/// As `owner_sql::query`.
pub fn written(run: &Run) -> Result<Vec<(String, String, String, i64)>, Error> {
    owner_sql::select_latest(
        "select kind, type, file, count from bulk_internal.export_file where run = $1 and kind <> 'left' order by type, (select t.ordinal from bulk_internal.task t where t.number = task), length(file), file",
        &[run.number.into()],
        |row| {
            Ok((
                row.get(1)?.unwrap_or_default(),
                row.get(2)?.unwrap_or_default(),
                row.get(3)?.unwrap_or_default(),
                row.get(4)?.unwrap_or_default(),
            ))
        },
    )
}

/// Keys of the files of a run that are known.
///
/// # Errors
/// As `owner_sql::query`.
pub fn keys(run: &Run) -> Result<Vec<String>, Error> {
    let keys = owner_sql::select_latest("select file from bulk_internal.export_file where run = $1", &[run.number.into()], |row| {
        row.get::<String>(1)
    })?;
    Ok(keys.into_iter().flatten().collect())
}

/// Forgets a run of whose files these are left, and why.
///
/// # Errors
/// As `owner_sql::query`.
pub fn forget(run: &Run, left: &[(String, String)]) -> Result<(), Error> {
    if left.is_empty() {
        return owner_sql::run("delete from bulk_internal.export_run where number = $1", &[run.number.into()]);
    }
    owner_sql::run("delete from bulk_internal.export_file where run = $1", &[run.number.into()])?;
    for (key, message) in left {
        owner_sql::run(
            "insert into bulk_internal.export_file (run, file, kind, message) values ($1, $2, 'left', $3)",
            &[run.number.into(), key.as_str().into(), message.as_str().into()],
        )?;
    }
    Ok(())
}

/// How far a job is: tasks that have ended, all tasks, resources written.
///
/// # Errors
/// As `owner_sql::query`.
pub fn progress(job: i64) -> Result<(i64, i64, i64), Error> {
    let found = owner_sql::select_latest(
        "select count(*) filter (where state = 'done'), count(*), coalesce(sum(stored), 0)::int8 from bulk_internal.task \
         where job = $1 and kind <> 'snapshot'",
        &[job.into()],
        |row| Ok((row.get::<i64>(1)?.unwrap_or_default(), row.get::<i64>(2)?.unwrap_or_default(), row.get::<i64>(3)?.unwrap_or_default())),
    )?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// How the tasks beside the holder's are: whether some are open, whether one waits or nobody is at it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn standing(job: &Job) -> Result<(bool, bool), Error> {
    let found = owner_sql::select_latest(
        "select coalesce(bool_or(bulk_internal.is_open(state)), false), \
            coalesce(bool_or(state = 'waiting' or (state = 'in-progress' and not exists (select from bulk_internal.workers(number)))), false) \
         from bulk_internal.task where job = $1 and kind <> 'snapshot'",
        &[job.number.into()],
        |row| Ok((row.get::<bool>(1)?.unwrap_or(false), row.get::<bool>(2)?.unwrap_or(false))),
    )?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// The run that a job is in.
///
/// # Errors
/// As `owner_sql::query`.
pub fn latest_run(job: &Job) -> Result<Option<Run>, Error> {
    Ok(runs(job.number)?.into_iter().next())
}
