//! Claims tasks for a worker, one by one or all of a job, and divides them.
//!
//! Advisory locks alone say who works on what (`advisory_lock`): a task that is in progress and whose lock is free is interrupted.

use crate::error::Error;
use crate::pg::state::job::{self, Job};
use crate::pg::state::task::{Progress, Task, TaskRange};
use crate::pg::state::{scheduler, task_progress};
use crate::pg::sys::advisory_lock::Lock;
use crate::pg::sys::{owner_sql, sql};
use crate::pipeline::load::checkpoint::{ByteRange, Checkpoint};
use crate::store::open_source::Identity;
use pgrx::JsonB;

/// Takes the next task that no one works on. It stays this session's until `release`.
pub fn claim(job: &Job) -> Result<Option<Task>, Error> {
    let open = owner_sql::select_latest(
        "select f.number from bulk.job_file_entry f where f.job = $1 and f.state in ('waiting', 'in-progress') and f.phase = \
            (select min(o.phase) from bulk.job_file_entry o where o.job = $1 and o.state in ('waiting', 'in-progress')) order by f.number",
        &[job.number.into()],
        |row| row.get::<i64>(1),
    )?;
    for number in open.into_iter().flatten() {
        if !Lock::Part(number).take() {
            continue;
        }
        // Another may have ended it before the lock was ours.
        let claimed = owner_sql::query(
            "update bulk.job_file_entry f set state = 'in-progress', started = coalesce(f.started, clock_timestamp()) \
             from bulk.job_entry j where f.number = $1 and f.state in ('waiting', 'in-progress') \
             and j.number = f.job and j.state in ('waiting', 'in-progress') \
             returning f.ordinal, f.source, f.resource_type, f.position, f.size, f.tries, f.checkpoint, f.read, f.stored, f.skipped, \
             f.rejected, f.characters, f.written, f.range_from, f.range_to, f.versions, f.phase, f.task",
            &[number.into()],
            |row| task(number, row),
        )?;
        if let Some(task) = claimed.into_iter().next() {
            job::begin(job)?;
            if task.phase > 0 {
                call_others(job, &task)?;
            }
            return Ok(Some(task));
        }
        Lock::Part(number).release();
    }
    Ok(None)
}

/// With the first task of a phase come the others' workers, who found nothing to do at the end of the phase before.
fn call_others(job: &Job, task: &Task) -> Result<(), Error> {
    let waiting = owner_sql::query(
        "select count(*), coalesce(bool_and(state = 'waiting'), false) from bulk.job_file_entry where job = $1 and phase = $2 and number <> $3",
        &[job.number.into(), task.phase.into(), task.number.into()],
        |row| Ok((row.get::<i64>(1)?.unwrap_or_default(), row.get::<bool>(2)?.unwrap_or(false))),
    )?;
    match waiting.into_iter().next() {
        Some((others, true)) => {
            let most = usize::try_from(others).unwrap_or_default().saturating_add(1);
            scheduler::start_more(job, most.min(job.threads.unwrap_or(most)))
        }
        _ => Ok(()),
    }
}

/// Adds the indexes that are put back when all else is done.
pub fn add_indexes(job: i64, names: &[String]) -> Result<(), Error> {
    owner_sql::run(
        "insert into bulk.job_file_entry (job, source, ordinal, phase) \
         select $1, n.name, n.ordinal + (select count(*) from bulk.job_file_entry where job = $1), 1 \
         from unnest($2) with ordinality as n (name, ordinal) order by n.ordinal",
        &[job.into(), names.to_vec().into()],
    )
}

/// Takes all tasks of a job for one worker; None when another has them, or the job is not wanted. What was written down of them before is
/// forgotten: it was rolled back.
pub fn claim_all(job: &Job) -> Result<Option<Vec<Task>>, Error> {
    if !job::is_wanted(job)? {
        return Ok(None);
    }
    let tasks = owner_sql::query(
        "select ordinal, source, resource_type, 0::int8, size, 0, null::jsonb, null::int8, null::int8, \
         null::int8, null::int8, null::int8, null::int8, null::int8, null::int8, null::int8, phase, task, number from bulk.job_file_entry \
         where job = $1 and state <> 'done' order by number",
        &[job.number.into()],
        |row| task(row.get(19)?.unwrap_or_default(), row),
    )?;
    if tasks.is_empty() {
        return Ok(None);
    }
    for (index, claimed) in tasks.iter().enumerate() {
        if !Lock::Part(claimed.number).take() {
            tasks[..index].iter().for_each(|task| Lock::Part(task.number).release());
            return Ok(None);
        }
    }
    owner_sql::run(
        "update bulk.job_file_entry set state = 'in-progress', started = coalesce(started, clock_timestamp()) \
         where job = $1 and state <> 'done'",
        &[job.number.into()],
    )?;
    job::begin(job)?;
    Ok(Some(tasks))
}

fn task(number: i64, row: sql::Row) -> Result<Task, pgrx::spi::Error> {
    let count = |column| row.get::<i64>(column).map(|count| count.unwrap_or_default().unsigned_abs());
    let bytes = |column| row.get::<i64>(column).map(|bytes| bytes.map(i64::unsigned_abs));
    let span = bytes(14)?.zip(bytes(15)?).map(|(from, to)| ByteRange { from, to });
    let checkpoint = row.get::<JsonB>(7)?.and_then(|known| serde_json::from_value::<Checkpoint>(known.0).ok());
    Ok(Task {
        number,
        phase: row.get::<i32>(17)?.unwrap_or_default(),
        ordinal: row.get::<i32>(1)?.and_then(|ordinal| usize::try_from(ordinal).ok()).unwrap_or_default(),
        source: row.get(2)?.unwrap_or_default(),
        resource_type: row.get(3)?,
        task: row.get(18)?,
        position: row.get(4)?.unwrap_or_default(),
        size: row.get(5)?,
        pages: span.map(|span| (u32::try_from(span.from).unwrap_or(u32::MAX), u32::try_from(span.to).unwrap_or(u32::MAX))),
        range: span.zip(row.get::<i64>(16)?).map(|(span, versions)| {
            let length = checkpoint.as_ref().and_then(|known| known.identity.length).unwrap_or_default();
            TaskRange { span, versions, last_version: versions.saturating_add_unsigned(length) }
        }),
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

/// Makes a task of which nothing is loaded the first of several, which share its source.
pub fn divide(job: &Job, task: &mut Task, spans: &[ByteRange], identity: &Identity, versions: i64) -> Result<(), Error> {
    let Some((first, others)) = spans.split_first() else { return Ok(()) };
    let known = Checkpoint { identity: identity.clone(), ..Checkpoint::default() };
    let number = |value: u64| value as i64;
    owner_sql::run(
        "update bulk.job_file_entry set range_from = $2, range_to = $3, versions = $4, checkpoint = $5, size = $3 - $2 where number = $1",
        &[
            task.number.into(),
            number(first.from).into(),
            number(first.to).into(),
            versions.into(),
            task_progress::checkpoint(&known)?.into(),
        ],
    )?;
    let (from, to): (Vec<i64>, Vec<i64>) = others.iter().map(|span| (number(span.from), number(span.to))).unzip();
    owner_sql::run(
        "insert into bulk.job_file_entry (job, ordinal, source, resource_type, range_from, range_to, versions, checkpoint, size) \
         select f.job, f.ordinal, f.source, f.resource_type, r.first, r.next, f.versions, f.checkpoint, r.next - r.first \
         from bulk.job_file_entry f, rows from (unnest($2), unnest($3)) as r (first, next) where f.number = $1 order by r.first",
        &[task.number.into(), from.into(), to.into()],
    )?;
    let last_version = versions.saturating_add_unsigned(identity.length.unwrap_or_default());
    task.range = Some(TaskRange { span: *first, versions, last_version });
    task.progress.checkpoint = known;
    scheduler::start_more(job, scheduler::WORKERS)
}

/// Lines of a task's source before the task; None while that is not known.
pub fn lines_before(job: &Job, task: &Task) -> Result<Option<u64>, Error> {
    let Some(TaskRange { span, .. }) = task.range else { return Ok(Some(0)) };
    let found = owner_sql::select_latest(
        "select case when coalesce(bool_and(state = 'done'), true) \
         then coalesce(sum((checkpoint->'position'->>'lines')::int8), 0)::int8 end \
         from bulk.job_file_entry where job = $1 and ordinal = $2 and range_from < $3",
        &[job.number.into(), (task.ordinal as i32).into(), (span.from as i64).into()],
        |row| row.get::<i64>(1),
    )?;
    Ok(found.into_iter().flatten().next().map(i64::unsigned_abs))
}
