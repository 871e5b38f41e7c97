//! Claims tasks for a worker, one by one or all of a job, and divides them.
//!
//! Advisory locks alone say who works on what (`advisory_lock`): a task that is in progress and whose lock is free is interrupted.

use crate::error::Error;
use crate::pg::state::enums::TaskKind;
use crate::pg::state::job::{self, Job};
use crate::pg::state::task::{self, NewTask, Progress, Task, TaskRange};
use crate::pg::state::{scheduler, task_progress};
use crate::pg::sys::advisory_lock::Lock;
use crate::pg::sys::{owner_sql, sql};
use crate::pipeline::load::checkpoint::{ByteRange, Checkpoint};
use crate::store::open_source::Identity;
use pgrx::JsonB;

/// What `read_task` reads of a task `f`, with `DETAILS`.
const COLUMNS: &str = "f.number, f.kind::text, f.phase, f.ordinal, f.source, f.resource_type, f.position, f.size, f.read, f.stored, f.skipped, \
    f.rejected, f.written, s.tries, s.checkpoint, s.characters, s.base_version, coalesce(s.range_from, p.first_page), \
    coalesce(s.range_to, p.end_page)";
const DETAILS: &str =
    "left join bulk_internal.task_source s on s.task = f.number left join bulk_internal.task_table p on p.task = f.number";

/// Takes the next task that no one works on. It stays this session's until `release`.
///
/// # Errors
/// As `owner_sql::query`.
pub fn claim(job: &Job) -> Result<Option<Task>, Error> {
    let open = owner_sql::select_latest(
        "select f.number from bulk_internal.task f where f.job = $1 and bulk_internal.is_open(f.state) and f.phase = \
            (select min(o.phase) from bulk_internal.task o where o.job = $1 and bulk_internal.is_open(o.state)) \
         order by f.ordinal, (select s.range_from from bulk_internal.task_source s where s.task = f.number)",
        &[job.number.into()],
        |row| row.get::<i64>(1),
    )?;
    for number in open.into_iter().flatten() {
        if !Lock::Task(number).take() {
            continue;
        }
        // Another may have ended it before the lock was ours.
        let claimed = owner_sql::query(
            &format!(
                "with claimed as (update bulk_internal.task f set state = 'in-progress', started = coalesce(f.started, clock_timestamp()) \
                    from bulk_internal.job j where f.number = $1 and bulk_internal.is_open(f.state) \
                    and j.number = f.job and bulk_internal.is_open(j.state) returning f.*) \
                 select {COLUMNS} from claimed f {DETAILS}"
            ),
            &[number.into()],
            read_task,
        )?;
        if let Some(task) = claimed.into_iter().next() {
            job::begin(job)?;
            if task.phase > 0 {
                call_others(job, &task)?;
            }
            return Ok(Some(task));
        }
        Lock::Task(number).release();
    }
    Ok(None)
}

/// With the first task of a phase come the others' workers, who found nothing to do at the end of the phase before.
fn call_others(job: &Job, task: &Task) -> Result<(), Error> {
    let waiting = owner_sql::query(
        "select count(*), coalesce(bool_and(state = 'waiting'), false) from bulk_internal.task where job = $1 and phase = $2 and number <> $3",
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

/// Adds the indexes that are restored when all other tasks, of which there are so many, have ended.
///
/// # Errors
/// As `owner_sql::query`.
pub fn add_indexes(job: i64, others: usize, names: &[String]) -> Result<(), Error> {
    let tasks: Vec<NewTask> = names.iter().map(|name| NewTask::new(TaskKind::Index, name.clone(), None)).collect();
    task::insert(job, others as i64, &tasks)
}

/// Takes all tasks of a job for one worker; None when another has them, or the job is not wanted. What was written down of them before is
/// forgotten: it was rolled back.
///
/// # Errors
/// As `owner_sql::query`.
pub fn claim_all(job: &Job) -> Result<Option<Vec<Task>>, Error> {
    if !job::is_wanted(job)? {
        return Ok(None);
    }
    let found = owner_sql::query(
        &format!("select {COLUMNS} from bulk_internal.task f {DETAILS} where f.job = $1 and f.state <> 'done' order by f.ordinal"),
        &[job.number.into()],
        read_task,
    )?;
    let anew = |task: Task| Task { position: 0, tries: 0, range: None, progress: Progress::default(), ..task };
    let tasks: Vec<Task> = found.into_iter().map(anew).collect();
    if tasks.is_empty() {
        return Ok(None);
    }
    for (index, claimed) in tasks.iter().enumerate() {
        if !Lock::Task(claimed.number).take() {
            tasks[..index].iter().for_each(|task| Lock::Task(task.number).release());
            return Ok(None);
        }
    }
    // Another may have done them before the locks were ours.
    let done = owner_sql::query("select from bulk_internal.task where job = $1 and state = 'done'", &[job.number.into()], |_| Ok(()))?;
    if !done.is_empty() || !job::is_wanted(job)? {
        tasks.iter().for_each(|task| Lock::Task(task.number).release());
        return Ok(None);
    }
    owner_sql::run(
        "update bulk_internal.task set state = 'in-progress', started = coalesce(started, clock_timestamp()) \
         where job = $1 and state <> 'done'",
        &[job.number.into()],
    )?;
    job::begin(job)?;
    Ok(Some(tasks))
}

fn read_task(row: sql::Row) -> Result<Task, pgrx::spi::Error> {
    let count = |column| row.get::<i64>(column).map(|count| count.unwrap_or_default().unsigned_abs());
    let bytes = |column| row.get::<i64>(column).map(|bytes| bytes.map(i64::unsigned_abs));
    let span = bytes(18)?.zip(bytes(19)?).map(|(from, to)| ByteRange { from, to });
    let checkpoint = row.get::<JsonB>(15)?.and_then(|known| serde_json::from_value::<Checkpoint>(known.0).ok());
    Ok(Task {
        number: row.get(1)?.unwrap_or_default(),
        kind: row.get::<String>(2)?.and_then(|kind| TaskKind::read(&kind)).unwrap_or(TaskKind::Source),
        phase: row.get::<i32>(3)?.unwrap_or_default(),
        ordinal: row.get::<i32>(4)?.and_then(|ordinal| usize::try_from(ordinal).ok()).unwrap_or_default(),
        source: row.get(5)?.unwrap_or_default(),
        resource_type: row.get(6)?,
        position: row.get(7)?.unwrap_or_default(),
        size: row.get(8)?,
        pages: span.map(|span| (u32::try_from(span.from).unwrap_or(u32::MAX), u32::try_from(span.to).unwrap_or(u32::MAX))),
        range: span.zip(row.get::<i64>(17)?).map(|(span, versions)| {
            let length = checkpoint.as_ref().and_then(|known| known.identity.length).unwrap_or_default();
            TaskRange { span, versions, last_version: versions.saturating_add_unsigned(length) }
        }),
        tries: row.get::<i32>(14)?.unwrap_or_default().unsigned_abs(),
        progress: Progress {
            checkpoint: checkpoint.unwrap_or_default(),
            read: count(9)?,
            stored: count(10)?,
            skipped: count(11)?,
            rejected: count(12)?,
            written: count(13)?,
            characters: count(16)?,
        },
    })
}

/// Makes a task of which nothing is loaded the first of several, which share its source.
///
/// # Errors
/// As `owner_sql::query`.
pub fn divide(job: &Job, task: &mut Task, spans: &[ByteRange], identity: &Identity, versions: i64) -> Result<(), Error> {
    let Some((first, others)) = spans.split_first() else { return Ok(()) };
    let known = Checkpoint { identity: identity.clone(), ..Checkpoint::default() };
    let number = |value: u64| value as i64;
    owner_sql::run(
        "with sized as (update bulk_internal.task set size = $3 - $2 where number = $1) \
         update bulk_internal.task_source set range_from = $2, range_to = $3, base_version = $4, checkpoint = $5 where task = $1",
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
        "with ranges as materialized (select bulk_internal.random_number() as number, r.first, r.next \
            from rows from (unnest($2), unnest($3)) as r (first, next)), \
         entered as (insert into bulk_internal.task (number, job, kind, ordinal, source, resource_type, size) \
            select r.number, f.job, f.kind, f.ordinal, f.source, f.resource_type, r.next - r.first \
            from bulk_internal.task f, ranges r where f.number = $1) \
         insert into bulk_internal.task_source (task, range_from, range_to, base_version, checkpoint) \
         select r.number, r.first, r.next, s.base_version, s.checkpoint from bulk_internal.task_source s, ranges r where s.task = $1",
        &[task.number.into(), from.into(), to.into()],
    )?;
    let last_version = versions.saturating_add_unsigned(identity.length.unwrap_or_default());
    task.range = Some(TaskRange { span: *first, versions, last_version });
    task.progress.checkpoint = known;
    scheduler::start_more(job, scheduler::WORKERS)
}

/// Lines of a task's source before the task; None while that is not known.
///
/// # Errors
/// As `owner_sql::query`.
pub fn lines_before(job: &Job, task: &Task) -> Result<Option<u64>, Error> {
    let Some(TaskRange { span, .. }) = task.range else { return Ok(Some(0)) };
    let found = owner_sql::select_latest(
        "select case when coalesce(bool_and(state = 'done'), true) \
         then coalesce(sum((s.checkpoint->'position'->>'lines')::int8), 0)::int8 end \
         from bulk_internal.task f join bulk_internal.task_source s on s.task = f.number \
         where f.job = $1 and f.ordinal = $2 and s.range_from < $3",
        &[job.number.into(), (task.ordinal as i32).into(), (span.from as i64).into()],
        |row| row.get::<i64>(1),
    )?;
    Ok(found.into_iter().flatten().next().map(i64::unsigned_abs))
}
