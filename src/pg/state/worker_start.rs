//! Starts background workers for jobs: the one place that does.

use crate::error::Error;
use crate::pg::process::background::{self, Launch};
use crate::pg::sys::{backend, guc, owner_sql};
use pgrx::pg_sys;

/// Has so many workers started for a job when the transaction commits, connected as a role.
///
/// # Errors
/// As `owner_sql::select_latest`.
pub fn at_commit(job: i64, session_role: pg_sys::Oid, workers: usize) -> Result<(), Error> {
    let launch = launch(job, session_role)?;
    // One comes in any case: it finds a place that is free by then, or leaves the job to those who have one.
    let workers = workers.min(usize::try_from(room()?).unwrap_or_default().max(1));
    (0..workers).for_each(|_| background::start_at_commit(launch));
    Ok(())
}

/// Starts a worker for a job that is committed. False when the server has no room for it.
///
/// # Errors
/// As `owner_sql::select_latest`.
pub fn now(job: i64, session_role: pg_sys::Oid) -> Result<bool, Error> {
    Ok(background::start(launch(job, session_role)?))
}

/// Places of `bulk.max_workers` that nobody has.
///
/// # Errors
/// As `owner_sql::select_latest`.
pub fn room() -> Result<i64, Error> {
    let busy = owner_sql::select_latest("select bulk_internal.busy_worker_slots()", &[], |row| row.get::<i64>(1))?;
    Ok(i64::from(guc::max_workers()) - busy.into_iter().flatten().next().unwrap_or(0))
}

fn launch(job: i64, session_role: pg_sys::Oid) -> Result<Launch, Error> {
    // Assigns no transaction id: the process that holds a snapshot must go on seeing what is committed by `select_latest`.
    let may_login =
        owner_sql::select_latest("select rolcanlogin from pg_roles where oid = $1", &[session_role.into()], |row| row.get::<bool>(1))?;
    Ok(Launch { job, database: backend::database(), session_role, may_login: may_login.into_iter().flatten().next().unwrap_or(false) })
}
