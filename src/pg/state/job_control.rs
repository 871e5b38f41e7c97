//! User actions on jobs: status, cancel, pause, resume, take over an index restore.

use crate::error::Error;
use crate::pg::catalog::ddl;
use crate::pg::process::background;
use crate::pg::state::job::{database_identity, forget, launch, tell};
use crate::pg::state::scheduler::is_ours;
use crate::pg::sys::{owner_sql, sql, switch_user};
use pgrx::pg_sys;

/// Where a job is, to whom may see it.
#[derive(Debug, PartialEq, Eq)]
pub struct JobStatus {
    pub number: i64,
    pub kind: String,
    pub state: String,
    /// Whether what it says was written by the current transaction.
    pub is_ours: bool,
}

/// How a job stands. An unknown id is an error, and so is one of others' that the current user has no say in.
pub fn standing(id: &str) -> Result<JobStatus, Error> {
    let look = || {
        owner_sql::select_latest(
            "select e.number, j.state, e.xmin::text, j.role, j.kind from bulk.job_entry e join bulk.job j on j.id = e.id where e.id = $1",
            &[id.into()],
            |row| Ok((row.get::<i64>(1)?, row.get::<String>(2)?, row.get::<String>(3)?, row.get::<String>(4)?, row.get::<String>(5)?)),
        )
    };
    let mut found = look()?.into_iter().next();
    if matches!(&found, Some((_, Some(state), ..)) if state == "interrupted") {
        // It may have ended between the snapshot and the look at the locks.
        found = look()?.into_iter().next();
    }
    let Some((Some(number), Some(state), xmin, Some(role), Some(kind))) = found else {
        return Err(Error::NoJob(id.chars().take(100).collect()));
    };
    if !may_act(&role)? {
        return Err(Error::ForeignJob);
    }
    Ok(JobStatus { number, kind, state, is_ours: is_ours(xmin) })
}

/// Whether the current user may act on a role's jobs.
fn may_act(role: &str) -> Result<bool, Error> {
    sql::value::<bool>("select bulk.may_see($1)", &[role.into()]).map(|answer| answer.unwrap_or(false))
}

/// Others of the current user who ask for the same wait to this transaction's end, and see what it did.
pub fn one_after_another(what: &str) {
    ddl::lock(switch_user::current(), what);
}

/// The job whose request says this method, of those on which the current user may act: one that has not ended before others, else the last.
pub fn latest(method: &str) -> Result<Option<String>, Error> {
    let found = owner_sql::select_latest(
        "select j.id from bulk.job_entry j where j.request->>'method' = $1 \
         and (pg_has_role($2, 'bulk_admin', 'usage') \
            or exists (select from pg_roles r where r.rolname = j.role::name and pg_has_role($2, r.oid, 'usage'))) \
         order by j.state in ('waiting', 'in-progress', 'paused') desc, j.number desc limit 1",
        &[method.into(), switch_user::current().into()],
        |row| row.get::<String>(1),
    )?;
    Ok(found.into_iter().flatten().next())
}

/// Ends a job that has not ended. Its workers are interrupted at commit.
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
pub fn stop(number: i64, id: &str, how: Stop) -> Result<bool, Error> {
    let stopped = owner_sql::query(
        "update bulk.job_entry set state = case when $2 then 'paused' when kind = 'import' then 'aborted' else 'cancelled' end, \
         finished = case when not $2 then clock_timestamp() end \
         where number = $1 and kind <> 'load' \
         and (state in ('waiting', 'in-progress') or (not $2 and state = 'paused')) returning true",
        &[number.into(), (how == Stop::Pause).into()],
        |_| Ok(()),
    )?;
    if stopped.is_empty() {
        return Ok(false);
    }
    if how == Stop::End {
        spawn_index_restore(number)?;
        let workers = owner_sql::query("select bulk.workers($1)", &[number.into()], |row| row.get::<i32>(1))?;
        background::interrupt_at_commit(workers.into_iter().flatten());
        forget(number)?;
    }
    tell(id)?;
    Ok(true)
}

/// Resumes a job that is stopped, failed or interrupted, from where it was; false if it is in no such state any more.
pub fn resume(number: i64, id: &str, workers: usize, from: &[&str]) -> Result<bool, Error> {
    let session_role = owner_sql::query(
        "update bulk.job_entry j set state = 'waiting', origin = $2, finished = null, message = null from pg_roles r \
         where j.number = $1 and r.rolname = j.session_role::name and j.state = any ($3) \
         and (j.state not in ('waiting', 'in-progress') or not exists (select from bulk.workers(j.number))) returning r.oid",
        &[number.into(), database_identity().into(), from.to_vec().into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    let Some(session_role) = session_role.into_iter().flatten().next() else { return Ok(false) };
    owner_sql::run(
        "update bulk.job_file_entry set state = 'waiting', message = null, finished = null, tries = 0 \
         where job = $1 and state = 'error'",
        &[number.into()],
    )?;
    tell(id)?;
    let launch = launch(number, session_role)?;
    for _ in 0..workers {
        background::start_at_commit(launch);
    }
    Ok(true)
}

/// Has the indexes that a job was to put back put back by a job of their own, which begins at commit.
fn spawn_index_restore(number: i64) -> Result<(), Error> {
    let open = "f.job = $1 and f.phase = 1 and f.state in ('waiting', 'in-progress')";
    let made = owner_sql::query(
        &format!(
            "insert into bulk.job_entry (id, kind, role, session_role, origin, state, request, threads) \
             select $2, 'indexes', j.role, j.session_role, j.origin, 'waiting', jsonb_build_object('bucket', j.request->'bucket'), j.threads \
             from bulk.job_entry j where j.number = $1 and j.kind = 'bucket' and exists (select from bulk.job_file_entry f where {open}) \
             returning number, (select r.oid from pg_roles r where r.rolname = session_role::name), threads"
        ),
        &[number.into(), uuid::Uuid::new_v4().to_string().into()],
        |row| Ok((row.get::<i64>(1)?, row.get::<pg_sys::Oid>(2)?, row.get::<i32>(3)?)),
    )?;
    let Some((Some(made), session_role, threads)) = made.into_iter().next() else { return Ok(()) };
    owner_sql::run(
        "insert into bulk.job_plan (job, plan) select $2, plan from bulk.job_plan where job = $1",
        &[number.into(), made.into()],
    )?;
    // Others than those that a worker may still hold.
    owner_sql::run(
        &format!(
            "insert into bulk.job_file_entry (job, ordinal, source, phase) \
             select $2, f.ordinal, f.source, f.phase from bulk.job_file_entry f where {open} order by f.number"
        ),
        &[number.into(), made.into()],
    )?;
    if let Some(session_role) = session_role {
        let launch = launch(made, session_role)?;
        for _ in 0..threads.unwrap_or(1) {
            background::start_at_commit(launch);
        }
    }
    Ok(())
}

/// Ends an interrupted job whose work another takes over, if the current user may act on it: the indexes that it was to put back. None where
/// it is at work, or another's.
pub fn supersede(number: i64, by: &str) -> Result<Option<Vec<String>>, Error> {
    let ended = owner_sql::query(
        "update bulk.job_entry j set state = 'cancelled', finished = clock_timestamp(), message = 'job ' || $2 || ' goes on with it' \
         where j.number = $1 and bulk._state(j.number, j.kind, j.state, j.origin) = 'interrupted' \
         and (pg_has_role($3, 'bulk_admin', 'usage') or exists (select from pg_roles r where r.rolname = j.role::name and pg_has_role($3, r.oid, 'usage'))) \
         returning id",
        &[number.into(), by.into(), switch_user::current().into()],
        |row| row.get::<String>(1),
    )?;
    let Some(id) = ended.into_iter().flatten().next() else { return Ok(None) };
    forget(number)?;
    tell(&id)?;
    let indexes = owner_sql::query(
        "select source from bulk.job_file_entry where job = $1 and phase = 1 and state in ('waiting', 'in-progress') order by number",
        &[number.into()],
        |row| row.get::<String>(1),
    )?;
    Ok(Some(indexes.into_iter().flatten().collect()))
}
