//! Starts workers for jobs: where there is room and a task to do, and for jobs whose workers are gone.

use crate::error::Error;
use crate::pg::process::{background, backlog};
use crate::pg::state::job::{Job, database_identity, tell};
use crate::pg::state::worker_start;
use crate::pg::sys::{backend, guc, owner_sql, sql, switch_user};
use pgrx::pg_sys;

/// Tasks of an import that are at work at the same time.
pub const WORKERS: usize = 2;

/// Jobs for which there is something to begin with, by a role that can connect: those that wait, and those at work that have tasks waiting.
/// One that is interrupted is none of them.
const OPEN: &str = "from bulk_internal.job j join pg_roles r on r.rolname = j.session_role::name \
    where j.database_identity = $1 and has_database_privilege(r.oid, current_database(), 'connect') \
    and exists (select from pg_roles o where o.rolname = j.role::name) \
    and (j.state = 'waiting' or (j.state = 'in-progress' \
        and (select count(*) from bulk_internal.workers(j.number)) between 1 and coalesce(j.threads - 1, 2147483647) \
        and exists (select from bulk_internal.task f where f.job = j.number and f.state = 'waiting' and f.phase = \
            (select min(o.phase) from bulk_internal.task o where o.job = j.number and bulk_internal.is_open(o.state)))))";

/// Starts workers for tasks that no one works on, as far as there is room.
///
/// # Errors
/// As `owner_sql::query`.
pub fn start_waiting() -> Result<(), Error> {
    if backend::is_standby() {
        return Ok(());
    }
    let busy = owner_sql::select_latest("select bulk_internal.busy_worker_slots()", &[], |row| row.get::<i64>(1))?;
    let room = i64::from(guc::max_workers()) - busy.into_iter().flatten().next().unwrap_or(0);
    if room <= 0 {
        return Ok(());
    }
    let jobs = owner_sql::select_latest(
        &format!("select j.number, r.oid, j.xmin::text {OPEN} order by j.created, j.number limit $2"),
        &[database_identity().into(), room.into()],
        |row| Ok((row.get::<i64>(1)?.zip(row.get::<pg_sys::Oid>(2)?), row.get::<String>(3)?)),
    )?;
    let mut all = true;
    for (job, xmin) in jobs {
        // What this transaction asks for starts when it commits.
        let Some((number, session_role)) = job else { continue };
        if is_ours(xmin) || background::was_started(number) {
            all = false;
            continue;
        }
        if !worker_start::now(number, session_role)? {
            backlog::add(backend::database());
            return Ok(());
        }
    }
    if all {
        backlog::forget(backend::database());
    }
    Ok(())
}

/// Lets interrupted jobs of all roles wait for workers, after the server was down. Loads of buckets wait for the next call.
///
/// # Errors
/// As `owner_sql::query`.
pub fn resume_all() -> Result<(), Error> {
    let resumed = owner_sql::query(
        "update bulk_internal.job e set state = 'waiting' where state = 'in-progress' and kind not in ('load', 'bucket') and database_identity = $1 \
         and not exists (select from bulk_internal.workers(e.number)) returning id",
        &[database_identity().into()],
        |row| row.get::<String>(1),
    )?;
    resumed.into_iter().flatten().try_for_each(|id| tell(&id))
}

/// Another job that waits, or a task of which does, and that sessions of this role, acting as that one, asked for: what one role leaves behind
/// in a process must meet no other.
///
/// # Errors
/// As `owner_sql::query`.
pub fn next(session_role: pg_sys::Oid, role: pg_sys::Oid, but: &[i64]) -> Result<Option<i64>, Error> {
    let found = owner_sql::select_latest(
        &format!(
            "select j.number {OPEN} and r.oid = $2 and j.role = pg_get_userbyid($3)::text and j.number <> all ($4) order by j.created, j.number limit 1"
        ),
        &[database_identity().into(), session_role.into(), role.into(), but.to_vec().into()],
        |row| row.get::<i64>(1),
    )?;
    Ok(found.into_iter().flatten().next())
}

/// Whether a row was written by the current transaction.
pub fn is_ours(xmin: Option<String>) -> bool {
    let xmin = xmin.and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
    // SAFETY: looks through the current transaction's numbers.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from(xmin)) }
}

/// Starts workers for interrupted jobs that the current user may act on, at commit: their ids.
///
/// # Errors
/// As `owner_sql::query`.
pub fn resume_interrupted() -> Result<Vec<String>, Error> {
    let interrupted = "select id from bulk.job where state operator(pg_catalog.=) 'interrupted' order by created";
    let mine = sql::query(interrupted, &[], |row| row.get::<String>(1))?;
    let mut resumed = Vec::new();
    for id in mine.into_iter().flatten() {
        let found = owner_sql::query(
            "update bulk_internal.job j set state = 'waiting', database_identity = $2 from pg_roles r where j.id = $1 \
             and bulk_internal.is_open(j.state) and not exists (select from bulk_internal.workers(j.number)) and r.rolname = j.session_role::name \
             returning j.number, r.oid",
            &[id.as_str().into(), database_identity().into()],
            |row| Ok(row.get::<i64>(1)?.zip(row.get::<pg_sys::Oid>(2)?)),
        )?;
        if let Some((number, session_role)) = found.into_iter().flatten().next() {
            worker_start::at_commit(number, session_role, 1)?;
            resumed.push(id);
        }
    }
    Ok(resumed)
}

/// Has more workers started for a job at work, at commit, where it has more tasks now: so many in all.
///
/// # Errors
/// As `owner_sql::query`.
pub fn start_more(job: &Job, workers: usize) -> Result<(), Error> {
    let working = owner_sql::query("select count(*) from bulk_internal.workers($1)", &[job.number.into()], |row| row.get::<i64>(1))?;
    let working = working.into_iter().flatten().next().and_then(|count| usize::try_from(count).ok()).unwrap_or(workers);
    worker_start::at_commit(job.number, switch_user::of_session(), workers.saturating_sub(working))
}

/// Starts a worker for a job that is committed, now. False when the server has no room for it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn call(job: &Job) -> Result<bool, Error> {
    worker_start::now(job.number, switch_user::of_session())
}

/// How many workers are at a job.
///
/// # Errors
/// As `owner_sql::query`.
pub fn workers(number: i64) -> Result<usize, Error> {
    let count = owner_sql::select_latest("select count(*) from bulk_internal.workers($1)", &[number.into()], |row| row.get::<i64>(1))?;
    Ok(count.into_iter().flatten().next().and_then(|count| usize::try_from(count).ok()).unwrap_or_default())
}
