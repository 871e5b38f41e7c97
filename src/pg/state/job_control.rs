//! User actions on jobs: status, cancel, pause, resume, take over an index restore.

use crate::error::Error;
use crate::pg::catalog::ddl;
use crate::pg::process::background;
use crate::pg::state::enums::{JobKind, State, TaskKind};
use crate::pg::state::job::{self, Job, database_identity, forget, tell};
use crate::pg::state::scheduler::is_ours;
use crate::pg::state::task::{self, NewTask};
use crate::pg::state::worker_start;
use crate::pg::sys::{owner_sql, switch_user};
use pgrx::datum::Interval;
use pgrx::pg_sys;

/// Where a job is, to whom may see it.
#[derive(Debug, PartialEq, Eq)]
pub struct JobStatus {
    pub number: i64,
    pub kind: JobKind,
    pub state: State,
    /// Whether what it says was written by the current transaction.
    pub is_ours: bool,
}

/// How a job stands. An unknown id is an error, and so is one of others' that the current user has no say in.
///
/// # Errors
/// `NoJob`, `ForeignJob` (42501).
pub fn standing(id: &str) -> Result<JobStatus, Error> {
    let look = || {
        owner_sql::select_latest(
            "select j.number, bulk_internal.seen_state(j.number, j.kind, j.state, j.database_identity)::text, j.xmin::text, \
                bulk_internal.may_act(pg_get_userbyid($2), j.role), j.kind::text from bulk_internal.job j where j.id = $1",
            &[id.into(), switch_user::current().into()],
            |row| {
                Ok((
                    row.get::<i64>(1)?,
                    row.get::<String>(2)?.and_then(|state| State::read(&state)),
                    row.get::<String>(3)?,
                    row.get::<bool>(4)?.unwrap_or(false),
                    row.get::<String>(5)?.and_then(|kind| JobKind::read(&kind)),
                ))
            },
        )
    };
    let mut found = look()?.into_iter().next();
    if matches!(&found, Some((_, Some(State::Interrupted), ..))) {
        // It may have ended between the snapshot and the look at the locks.
        found = look()?.into_iter().next();
    }
    let Some((Some(number), Some(state), xmin, may_act, Some(kind))) = found else {
        return Err(Error::NoJob(id.chars().take(100).collect()));
    };
    if !may_act {
        return Err(Error::ForeignJob);
    }
    Ok(JobStatus { number, kind, state, is_ours: is_ours(xmin) })
}

/// Others of the current user who ask for the same wait to this transaction's end, and see what it did.
pub fn one_after_another(what: &str) {
    ddl::lock(switch_user::current(), what);
}

/// The job whose request says this method, of those on which the current user may act: one that has not ended before others, else the last.
///
/// # Errors
/// As `owner_sql::query`.
pub fn latest(method: &str) -> Result<Option<String>, Error> {
    let found = owner_sql::select_latest(
        "select j.id from bulk_internal.job j where j.request->>'method' = $1 \
         and bulk_internal.may_act(pg_get_userbyid($2), j.role) \
         order by j.state in ('waiting', 'in-progress', 'paused') desc, j.created desc limit 1",
        &[method.into(), switch_user::current().into()],
        |row| row.get::<String>(1),
    )?;
    Ok(found.into_iter().flatten().next())
}

/// Ends a job that has not ended. Its workers are interrupted at commit.
///
/// # Errors
/// `ForeignJob` (42501).
pub fn cancel(id: &str) -> Result<bool, Error> {
    let JobStatus { number, .. } = match standing(id) {
        Ok(standing) => standing,
        Err(Error::NoJob(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    stop(number, id, Stop::End)
}

/// How a job is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// For good.
    End,
    /// Between two steps, to go on later.
    Pause,
}

/// Stops a job that is waiting or at work, or ends one that is paused; false for others.
///
/// # Errors
/// As `owner_sql::query`.
pub fn stop(number: i64, id: &str, how: Stop) -> Result<bool, Error> {
    let stopped = owner_sql::query(
        "update bulk_internal.job set state = case when $2 then 'paused' when kind = 'import' then 'aborted' \
            else 'cancelled' end::bulk_internal.state, \
         finished = case when not $2 then clock_timestamp() end \
         where number = $1 and kind <> 'load' \
         and (bulk_internal.is_open(state) or (not $2 and state = 'paused')) returning true",
        &[number.into(), (how == Stop::Pause).into()],
        |_| Ok(()),
    )?;
    if stopped.is_empty() {
        return Ok(false);
    }
    if how == Stop::End {
        spawn_index_restore(number)?;
        let workers = owner_sql::query("select bulk_internal.workers($1)", &[number.into()], |row| row.get::<i32>(1))?;
        background::interrupt_at_commit(workers.into_iter().flatten());
        forget(number)?;
    }
    tell(id)?;
    Ok(true)
}

/// Ends a job that was at work for longer than it may. Its other workers are interrupted at commit; indexes that it was to put back are put back by
/// a job of their own.
///
/// # Errors
/// As `owner_sql::query`.
pub fn time_out(job: &Job, message: &str) -> Result<(), Error> {
    if job::fail(job, message)? {
        spawn_index_restore(job.number)?;
    }
    let others =
        owner_sql::query("select pid from bulk_internal.workers($1) pid where pid <> pg_backend_pid()", &[job.number.into()], |row| {
            row.get::<i32>(1)
        })?;
    background::interrupt_at_commit(others.into_iter().flatten());
    Ok(())
}

/// Resumes a job that is stopped, failed or interrupted, from where it was; false if it is in no such state any more.
///
/// # Errors
/// As `owner_sql::query`.
pub fn resume(number: i64, id: &str, workers: usize, from: &[State]) -> Result<bool, Error> {
    let session_role = owner_sql::query(
        "update bulk_internal.job j set state = 'waiting', database_identity = $2, finished = null, message = null, at_work_since = null, worked = null from pg_roles r \
         where j.number = $1 and r.rolname = j.session_role::name and j.state = any ($3::bulk_internal.state[]) \
         and (not bulk_internal.is_open(j.state) or not exists (select from bulk_internal.workers(j.number))) returning r.oid",
        &[number.into(), database_identity().into(), from.iter().map(|state| state.word()).collect::<Vec<_>>().into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    let Some(session_role) = session_role.into_iter().flatten().next() else { return Ok(false) };
    owner_sql::run(
        "with again as (update bulk_internal.task set state = 'waiting', message = null, finished = null \
            where job = $1 and state = 'error' returning number) \
         update bulk_internal.task_source s set tries = 0 from again where s.task = again.number",
        &[number.into()],
    )?;
    tell(id)?;
    worker_start::at_commit(number, session_role, workers)?;
    Ok(true)
}

/// Deletes the jobs that ended before now by more than a time, of those on which the current user may act: how many. An export stays while files of
/// it are to be deleted.
///
/// # Errors
/// As `owner_sql::query`.
pub fn purge(older_than: Interval) -> Result<i64, Error> {
    let purged = owner_sql::query(
        "with purged as (delete from bulk_internal.job j where j.finished < clock_timestamp() - $1 \
            and not bulk_internal.is_open(j.state) and j.state <> 'paused' and bulk_internal.may_act(pg_get_userbyid($2), j.role) \
            and not exists (select from bulk_internal.job c where c.kind = 'cleanup' and c.state not in ('done', 'completed') \
                and c.request->>'export' = j.id) \
            and not exists (select from bulk_internal.export_run r join bulk_internal.export_file f on f.run = r.number \
                where r.job = j.number and f.kind = 'left') returning 1) \
         select count(*) from purged",
        &[older_than.into(), switch_user::current().into()],
        |row| row.get::<i64>(1),
    )?;
    Ok(purged.into_iter().flatten().next().unwrap_or_default())
}

/// Has the indexes that a job was to put back put back by a job of their own, which begins at commit.
fn spawn_index_restore(number: i64) -> Result<(), Error> {
    let indexes = open_indexes(number)?;
    if indexes.is_empty() {
        return Ok(());
    }
    let made = owner_sql::query(
        "insert into bulk_internal.job (id, kind, role, session_role, database_identity, state, request, threads) \
         select $2, 'indexes', j.role, j.session_role, j.database_identity, 'waiting', jsonb_build_object('bucket', j.request->'bucket'), \
            j.threads \
         from bulk_internal.job j where j.number = $1 and j.kind = 'bucket' \
         returning number, (select r.oid from pg_roles r where r.rolname = session_role::name), threads",
        &[number.into(), uuid::Uuid::new_v4().to_string().into()],
        |row| Ok((row.get::<i64>(1)?, row.get::<pg_sys::Oid>(2)?, row.get::<i32>(3)?)),
    )?;
    let Some((Some(made), session_role, threads)) = made.into_iter().next() else { return Ok(()) };
    owner_sql::run(
        "insert into bulk_internal.job_spec (job, spec) select $2, spec from bulk_internal.job_spec where job = $1",
        &[number.into(), made.into()],
    )?;
    // Others than those that a worker may still hold.
    task::insert(made, 0, &indexes)?;
    match session_role {
        Some(session_role) => worker_start::at_commit(made, session_role, threads.map_or(1, i32::unsigned_abs) as usize),
        None => Ok(()),
    }
}

/// Ends an interrupted job whose work another takes over, if the current user may act on it: the indexes that it was to put back. None where
/// it is at work, or another's.
///
/// # Errors
/// As `owner_sql::query`.
pub fn supersede(number: i64, by: &str) -> Result<Option<Vec<String>>, Error> {
    let ended = owner_sql::query(
        "update bulk_internal.job j set state = 'cancelled', finished = clock_timestamp(), message = 'job ' || $2 || ' goes on with it' \
         where j.number = $1 and bulk_internal.seen_state(j.number, j.kind, j.state, j.database_identity) = 'interrupted' \
         and bulk_internal.may_act(pg_get_userbyid($3), j.role) \
         returning id",
        &[number.into(), by.into(), switch_user::current().into()],
        |row| row.get::<String>(1),
    )?;
    let Some(id) = ended.into_iter().flatten().next() else { return Ok(None) };
    forget(number)?;
    tell(&id)?;
    Ok(Some(open_indexes(number)?.into_iter().map(|task| task.source).collect()))
}

/// The indexes that a job is still to restore, as tasks for another.
fn open_indexes(number: i64) -> Result<Vec<NewTask>, Error> {
    let indexes = owner_sql::query(
        "select source from bulk_internal.task where job = $1 and kind = 'index' and bulk_internal.is_open(state) order by ordinal",
        &[number.into()],
        |row| row.get::<String>(1),
    )?;
    Ok(indexes.into_iter().flatten().map(|index| NewTask::new(TaskKind::Index, index, None)).collect())
}
