//! Runs of exports, each with a folder of its own, and the files in it.

use crate::error::Error;
use crate::pg::catalog::ddl;
use crate::pg::state::job::{self, Job};
use crate::pg::state::task::Task;
use crate::pg::sys::{latch, owner_sql};
use pgrx::pg_sys;
use std::time::Duration;

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

/// A task of an export to enter.
#[derive(Debug)]
pub struct NewExportTask {
    pub table: String,
    pub resource_type: String,
    /// From this page up to, not including, that one.
    pub pages: Option<(u32, u32)>,
    /// Whether what is gone is looked for.
    pub is_of_deleted: bool,
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
    pub fn word(self) -> &'static str {
        match self {
            Kind::Output => "output",
            Kind::Deleted => "deleted",
            Kind::Error => "error",
        }
    }
}

/// The runs of a job, the last one first.
pub fn runs(job: i64) -> Result<Vec<Run>, Error> {
    owner_sql::select_latest(
        "select number, folder, (extract(epoch from transaction_time) * 1000000)::int8 - 946684800000000, origin = $2 from bulk.export_run \
         where job = $1 order by number desc",
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

/// Calls go one after another, to the end of the transaction. False when another call is not through for some time.
pub fn lock() -> bool {
    (0..100).any(|tries| {
        if tries > 0 {
            latch::pause(Duration::from_millis(20));
        }
        ddl::try_lock(pg_sys::InvalidOid, "exports")
    })
}

/// Says which task of a new job keeps the snapshot: its only one.
pub fn mark_keeper(job: i64) -> Result<(), Error> {
    owner_sql::run("update bulk.job_file_entry set task = 'snapshot' where job = $1", &[job.into()])
}

/// Ends a new job for which there is nothing to do.
pub fn complete(job: i64, id: &str, transaction_time: i64) -> Result<(), Error> {
    owner_sql::run(
        "insert into bulk.export_run (job, folder, transaction_time, origin) \
         values ($1, '', least(now(), timestamptz '2000-01-01 00:00:00+00' + $2 * interval '1 microsecond'), $3)",
        &[job.into(), transaction_time.into(), job::database_identity().into()],
    )?;
    owner_sql::run(
        "update bulk.job_entry set state = 'completed', started = now(), finished = now() where number = $1 and id = $2",
        &[job.into(), id.into()],
    )
}

/// Says of a job that has ended that nobody needs its files any more.
pub fn give_up(job: i64, id: &str) -> Result<(), Error> {
    owner_sql::run("update bulk.job_entry set state = 'cancelled' where number = $1 and id = $2", &[job.into(), id.into()])
}

/// Begins a job anew: of what was done nothing counts. A worker may still be at one of its tasks.
pub fn begin_anew(job: &Job, holder: &Task) -> Result<(), Error> {
    owner_sql::run("delete from bulk.job_file_entry where job = $1 and number <> $2", &[job.number.into(), holder.number.into()])
}

/// Enters a run and its tasks.
pub fn begin(job: &Job, folder: &str, transaction_time: i64, tasks: &[NewExportTask]) -> Result<Run, Error> {
    let number = owner_sql::query(
        "insert into bulk.export_run (job, folder, transaction_time, origin) \
         values ($1, $2, timestamptz '2000-01-01 00:00:00+00' + $3 * interval '1 microsecond', $4) returning number",
        &[job.number.into(), folder.into(), transaction_time.into(), job::database_identity().into()],
        |row| row.get::<i64>(1),
    )?;
    let column = |of: &dyn Fn(&NewExportTask) -> Option<i64>| tasks.iter().map(of).collect::<Vec<Option<i64>>>();
    let (tables, types): (Vec<&str>, Vec<&str>) = tasks.iter().map(|task| (task.table.as_str(), task.resource_type.as_str())).unzip();
    let first = column(&|task| task.pages.map(|(first, _)| i64::from(first)));
    let end = column(&|task| task.pages.map(|(_, end)| i64::from(end)));
    let tasks: Vec<Option<&str>> = tasks.iter().map(|task| task.is_of_deleted.then_some("deleted")).collect();
    owner_sql::run(
        "insert into bulk.job_file_entry (job, source, resource_type, range_from, range_to, task, ordinal) \
         select $1, p.source, p.resource_type, p.first, p.next, p.task, p.ordinal from rows from (unnest($2), unnest($3), unnest($4), unnest($5), \
         unnest($6)) with ordinality as p (source, resource_type, first, next, task, ordinal) order by p.ordinal",
        &[job.number.into(), tables.into(), types.into(), first.into(), end.into(), tasks.into()],
    )?;
    let number = number.into_iter().flatten().next().unwrap_or_default();
    Ok(Run { number, folder: folder.to_owned(), transaction_time, is_own: true })
}

/// Whether a task is still to be done: a job that begins anew has others.
pub fn is_wanted(job: &Job, task: &Task) -> Result<bool, Error> {
    let found = owner_sql::select_latest("select from bulk.job_file_entry where number = $1", &[task.number.into()], |_| Ok(()))?;
    Ok(!found.is_empty() && job::is_wanted(job)?)
}

/// Ends a task: these files are there. False when the job has begun anew, or nobody wants it.
pub fn end(job: &Job, task: &Task, run: &Run, files: &[OutputFile], read: u64) -> Result<bool, Error> {
    let count = |kind: Kind| files.iter().filter(|file| file.kind == kind).map(|file| file.count as i64).sum::<i64>();
    let ended = owner_sql::query(
        "update bulk.job_file_entry f set state = 'done', finished = clock_timestamp(), read = $3, stored = $4, rejected = $5, written = $6, \
         position = coalesce(range_to - range_from, 1), size = coalesce(range_to - range_from, 1) \
         from bulk.job_entry j where f.number = $1 and j.number = f.job and j.number = $2 and j.state = 'in-progress' returning true",
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
            "insert into bulk.export_file (run, part, file, kind, type, count, size) values ($1, $2, $3, $4, $5, $6, $7)",
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
pub fn written(run: &Run) -> Result<Vec<(String, String, String, i64)>, Error> {
    owner_sql::select_latest(
        "select kind, type, file, count from bulk.export_file where run = $1 and kind <> 'left' order by type, part, length(file), file",
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
pub fn keys(run: &Run) -> Result<Vec<String>, Error> {
    let keys =
        owner_sql::select_latest("select file from bulk.export_file where run = $1", &[run.number.into()], |row| row.get::<String>(1))?;
    Ok(keys.into_iter().flatten().collect())
}

/// Forgets a run of whose files these are left, and why.
pub fn forget(run: &Run, left: &[(String, String)]) -> Result<(), Error> {
    if left.is_empty() {
        return owner_sql::run("delete from bulk.export_run where number = $1", &[run.number.into()]);
    }
    owner_sql::run("delete from bulk.export_file where run = $1", &[run.number.into()])?;
    for (key, message) in left {
        owner_sql::run(
            "insert into bulk.export_file (run, file, kind, message) values ($1, $2, 'left', $3)",
            &[run.number.into(), key.as_str().into(), message.as_str().into()],
        )?;
    }
    Ok(())
}

/// How far a job is: tasks that have ended, all tasks, resources written.
pub fn progress(job: i64) -> Result<(i64, i64, i64), Error> {
    let found = owner_sql::select_latest(
        "select count(*) filter (where state = 'done'), count(*), coalesce(sum(stored), 0)::int8 from bulk.job_file_entry \
         where job = $1 and task is distinct from 'snapshot'",
        &[job.into()],
        |row| Ok((row.get::<i64>(1)?.unwrap_or_default(), row.get::<i64>(2)?.unwrap_or_default(), row.get::<i64>(3)?.unwrap_or_default())),
    )?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// How the tasks beside the holder's are: whether some are open, whether one waits or nobody is at it.
pub fn standing(job: &Job) -> Result<(bool, bool), Error> {
    let found = owner_sql::select_latest(
        "select coalesce(bool_or(state in ('waiting', 'in-progress')), false), \
            coalesce(bool_or(state = 'waiting' or (state = 'in-progress' and not exists (select from bulk.workers(number)))), false) \
         from bulk.job_file_entry where job = $1 and task is distinct from 'snapshot'",
        &[job.number.into()],
        |row| Ok((row.get::<bool>(1)?.unwrap_or(false), row.get::<bool>(2)?.unwrap_or(false))),
    )?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// The run that a job is in.
pub fn latest_run(job: &Job) -> Result<Option<Run>, Error> {
    Ok(runs(job.number)?.into_iter().next())
}
