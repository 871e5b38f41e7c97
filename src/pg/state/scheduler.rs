//! Starts workers for jobs: where there is room and a task to do, and for jobs whose workers are gone.

use crate::error::Error;
use crate::pg::process::{background, backlog};
use crate::pg::state::job::{Job, database_identity, tell};
use crate::pg::state::worker_start;
use crate::pg::sys::{backend, guc, owner_sql, sql, switch_user};
use pgrx::pg_sys;

/// Tasks of an import that are at work at the same time.
pub const WORKERS: usize = 2;

/// Jobs for which there is something to begin with, by a role that can connect, with how many places their role has: those that wait, and those at
/// work that have tasks waiting. One that is interrupted is none of them.
const OPEN: &str = "from bulk_internal.job j join pg_roles r on r.rolname = j.session_role::name join pg_roles a on a.rolname = j.role::name \
    left join bulk_internal.role_slots() s on s.role = a.oid left join bulk_internal.role_turn t on t.role = j.role \
    where j.database_identity = $1 and has_database_privilege(r.oid, current_database(), 'connect') \
    and ((j.state = 'waiting' and not exists (select from bulk_internal.workers(j.number))) or (j.state = 'in-progress' \
        and (select count(*) from bulk_internal.workers(j.number)) between 1 and coalesce(j.threads - 1, 2147483647) \
        and exists (select from bulk_internal.task f where f.job = j.number and f.state = 'waiting' and f.phase = \
            (select min(o.phase) from bulk_internal.task o where o.job = j.number and bulk_internal.is_open(o.state)))))";
/// Since when a job waits for its turn.
const SINCE: &str = "coalesce(j.queued, j.created)";

/// Starts workers for tasks that no one works on, as far as there is room: first for the roles that have the fewest, then for those whose last turn
/// was the longest ago. The roles for which it did.
///
/// # Errors
/// As `owner_sql::query`.
pub fn start_waiting() -> Result<Vec<String>, Error> {
    let mut started = Vec::new();
    if backend::is_standby() {
        return Ok(started);
    }
    let room = worker_start::room()?;
    if room <= 0 {
        return Ok(started);
    }
    let jobs = owner_sql::select_latest(
        &format!(
            "select number, session_role, xmin, role from (select j.number, r.oid as session_role, j.xmin::text as xmin, {SINCE} as since, j.role, \
                t.served, coalesce(s.places, 0) + row_number() over (partition by a.oid order by {SINCE}, j.number) as place {OPEN}) w \
             where place <= $3 order by place, served nulls first, since, number limit $2"
        ),
        &[database_identity().into(), room.into(), i64::from(guc::max_workers_per_role()).into()],
        |row| Ok((row.get::<i64>(1)?.zip(row.get::<pg_sys::Oid>(2)?), row.get::<String>(3)?, row.get::<String>(4)?)),
    )?;
    let mut all = true;
    for (job, xmin, role) in jobs {
        // What this transaction asks for starts when it commits.
        let Some((number, session_role)) = job else { continue };
        if is_ours(xmin) || background::was_started(number) {
            all = false;
            continue;
        }
        if !worker_start::now(number, session_role)? {
            backlog::add(backend::database());
            return Ok(started);
        }
        started.extend(role);
    }
    if all {
        backlog::forget(backend::database());
    }
    Ok(started)
}

/// Writes down that roles had a turn, in a worker's own transaction.
///
/// # Errors
/// As `owner_sql::query`.
pub fn record_turns(roles: &[String]) -> Result<(), Error> {
    owner_sql::run(
        "insert into bulk_internal.role_turn (role, served) select r, clock_timestamp() from (select distinct r from unnest($1::text[]) r order by r) x \
         on conflict (role) do update set served = excluded.served",
        &[roles.to_vec().into()],
    )
}

/// Whether a worker on a role's jobs is to make room: all places are taken, and another role's job waits that has none, or two fewer.
///
/// # Errors
/// As `owner_sql::query`.
pub fn is_others_turn(role: pg_sys::Oid) -> Result<bool, Error> {
    if worker_start::room()? > 0 {
        return Ok(false);
    }
    let found = owner_sql::select_latest(
        &format!(
            "select {OPEN} and a.oid <> $2 and (s.places is null or s.places < least($3, \
                (select m.places - 1 from bulk_internal.role_slots() m where m.role = $2))) limit 1"
        ),
        &[database_identity().into(), role.into(), i64::from(guc::max_workers_per_role()).into()],
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}

/// Puts a job that this worker leaves for another role's turn at the end of the queue. It waits where all of its workers leave.
///
/// # Errors
/// As `owner_sql::query`.
pub fn requeue(job: &Job) -> Result<(), Error> {
    owner_sql::run(
        "update bulk_internal.job j set queued = clock_timestamp(), state = case when l.all_leave then 'waiting' else j.state end, \
            worked = case when l.all_leave then coalesce(j.worked, interval '0') + (clock_timestamp() - j.at_work_since) else j.worked end, \
            at_work_since = case when not l.all_leave then j.at_work_since end \
         from (select (select count(*) from bulk_internal.workers($1)) <= (select count(*) from bulk_internal.leavers($1)) as all_leave) l \
         where j.number = $1 and j.state = 'in-progress'",
        &[job.number.into()],
    )
}

/// Lets interrupted jobs of all roles wait for workers, after the server was down. Loads of buckets wait for the next call.
///
/// # Errors
/// As `owner_sql::query`.
pub fn resume_all() -> Result<(), Error> {
    let resumed = owner_sql::query(
        "update bulk_internal.job e set state = 'waiting', at_work_since = null, worked = null where state = 'in-progress' and kind not in ('load', 'bucket') and database_identity = $1 \
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
        &format!("select j.number {OPEN} and r.oid = $2 and a.oid = $3 and j.number <> all ($4) order by {SINCE}, j.number limit 1"),
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
            "update bulk_internal.job j set state = 'waiting', database_identity = $2, at_work_since = null, worked = null from pg_roles r where j.id = $1 \
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

/// How many workers are at a job.
///
/// # Errors
/// As `owner_sql::query`.
pub fn workers(number: i64) -> Result<usize, Error> {
    let count = owner_sql::select_latest("select count(*) from bulk_internal.workers($1)", &[number.into()], |row| row.get::<i64>(1))?;
    Ok(count.into_iter().flatten().next().and_then(|count| usize::try_from(count).ok()).unwrap_or_default())
}
