//! The jobs table: a job is entered with its tasks, begun, ended.

use crate::error::Error;
use crate::pg::state::enums::{JobKind, State};
use crate::pg::state::task::{self, NewTask, Task};
use crate::pg::state::worker_start;
use crate::pg::sys::{backend, owner_sql, switch_user};
use pgrx::{JsonB, pg_sys};
use serde_json::Value;
use std::ffi::CString;
use std::time::Duration;

/// A job to enter.
#[derive(Debug)]
pub struct NewJob<'a> {
    /// None for one that is made.
    pub id: Option<&'a str>,
    pub kind: JobKind,
    /// What was asked for, shown to the role: without secrets.
    pub request: Value,
    /// What its workers go by.
    pub spec: Value,
    /// What of it is kept apart, and only until the job ends.
    pub secret: Option<Value>,
    pub tasks: &'a [NewTask],
    /// That start at once.
    pub workers: usize,
    /// Workers that may be at it at a time; None for as many as there are.
    pub threads: Option<usize>,
}

/// A job as its workers know it.
#[derive(Debug)]
pub struct Job {
    pub number: i64,
    pub id: String,
    pub kind: JobKind,
    /// None when it is gone.
    pub role: Option<pg_sys::Oid>,
    /// Whose session asked; None when it is gone.
    pub session_role: Option<pg_sys::Oid>,
    pub spec: Value,
    pub secret: Option<Value>,
    pub threads: Option<usize>,
    /// How long it has been at work.
    pub at_work: Duration,
}

/// Enters a job of the current user, whose workers start when the transaction commits: its id and number. None when the id is a job's already.
///
/// # Errors
/// As `owner_sql::query`.
pub fn enter(new_job: NewJob) -> Result<Option<(String, i64)>, Error> {
    let id = new_job.id.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let (role, session_role) = (switch_user::current(), switch_user::of_session());
    let numbers = owner_sql::query(
        "insert into bulk_internal.job (id, kind, role, session_role, database_identity, state, request, threads) \
         values ($1, $2::bulk_internal.job_kind, pg_get_userbyid($3), pg_get_userbyid($4), $6, 'waiting', $5, $7) \
         on conflict (id) do nothing returning number",
        &[
            id.as_str().into(),
            new_job.kind.word().into(),
            role.into(),
            session_role.into(),
            JsonB(new_job.request).into(),
            database_identity().into(),
            new_job.threads.and_then(|threads| i32::try_from(threads).ok()).into(),
        ],
        |row| row.get::<i64>(1),
    )?;
    let Some(number) = numbers.into_iter().flatten().next() else { return Ok(None) };
    owner_sql::run("insert into bulk_internal.job_spec (job, spec) values ($1, $2)", &[number.into(), JsonB(new_job.spec).into()])?;
    task::insert(number, 0, new_job.tasks)?;
    if let Some(secret) = new_job.secret {
        owner_sql::run("insert into bulk_internal.job_secret (job, secret) values ($1, $2)", &[number.into(), JsonB(secret).into()])?;
    }
    tell(&id)?;
    worker_start::at_commit(number, session_role, new_job.workers)?;
    Ok(Some((id, number)))
}

/// Notifies listeners (`bulk_job`) that a job's state changed.
///
/// # Errors
/// As `owner_sql::query`.
pub fn tell(id: &str) -> Result<(), Error> {
    owner_sql::run("select pg_notify('bulk_job', $1)", &[id.into()])
}

/// How the message of a task begins that failed with another, which says why.
pub const ROLLED_BACK: &str = "rolled back: ";

/// Identifies the database, so that a copy of it does not resume jobs by itself.
pub fn database_identity() -> String {
    // SAFETY: reads what the server knows of itself.
    let system = unsafe { pg_sys::GetSystemIdentifier() };
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{system}/{}/{host}", backend::database().to_u32())
}

/// The job of a worker; None when it has ended or is gone.
///
/// # Errors
/// As `owner_sql::query`.
pub fn open(number: i64) -> Result<Option<Job>, Error> {
    let found = owner_sql::select_latest(
        "select j.id, j.kind::text, r.oid, p.spec, s.secret, j.threads, c.oid, \
            extract(epoch from coalesce(j.worked, interval '0') + coalesce(clock_timestamp() - j.at_work_since, interval '0'))::float8 from bulk_internal.job j join bulk_internal.job_spec p on p.job = j.number \
         left join bulk_internal.job_secret s on s.job = j.number \
         left join pg_roles r on r.rolname = j.role::name left join pg_roles c on c.rolname = j.session_role::name \
         where j.number = $1 and bulk_internal.is_open(j.state) and j.database_identity = $2",
        &[number.into(), database_identity().into()],
        |row| {
            Ok(Job {
                number,
                id: row.get(1)?.unwrap_or_default(),
                kind: row.get::<String>(2)?.and_then(|kind| JobKind::read(&kind)).unwrap_or(JobKind::Load),
                role: row.get(3)?,
                spec: row.get::<JsonB>(4)?.map_or(Value::Null, |spec| spec.0),
                secret: row.get::<JsonB>(5)?.map(|secret| secret.0),
                session_role: row.get(7)?,
                threads: row.get::<i32>(6)?.and_then(|threads| usize::try_from(threads).ok()),
                at_work: row.get::<f64>(8)?.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default(),
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// The state of a job that is committed by now; None where there is no such job.
///
/// # Errors
/// As `owner_sql::query`.
pub fn committed_state(number: i64) -> Result<Option<State>, Error> {
    let found = owner_sql::select_latest("select state::text from bulk_internal.job where number = $1", &[number.into()], |row| {
        row.get::<String>(1)
    })?;
    Ok(found.into_iter().flatten().next().and_then(|state| State::read(&state)))
}

/// Enters that a job is at work, if it is not yet.
///
/// # Errors
/// As `owner_sql::query`.
pub fn begin(job: &Job) -> Result<(), Error> {
    let begun = owner_sql::query(
        "update bulk_internal.job set state = 'in-progress', started = coalesce(started, clock_timestamp()), \
            at_work_since = coalesce(at_work_since, clock_timestamp()) \
         where number = $1 and state = 'waiting' returning true",
        &[job.number.into()],
        |_| Ok(()),
    )?;
    if begun.is_empty() { Ok(()) } else { tell(&job.id) }
}

/// Whether a job is still to be done: nobody has cancelled or deleted it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn is_wanted(job: &Job) -> Result<bool, Error> {
    let found = owner_sql::select_latest(
        "select from bulk_internal.job where number = $1 and id = $2 and bulk_internal.is_open(state)",
        &[job.number.into(), job.id.as_str().into()],
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}

/// Ends a job, unless tasks of it are open: whether it did. It has begun with the first of them, which is written down a moment before it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn end(job: &Job) -> Result<bool, Error> {
    let ended = owner_sql::query(
        "update bulk_internal.job j set started = least(j.started, f.first), finished = clock_timestamp(), message = f.message, \
         state = case when j.kind = 'bucket' then 'completed' when f.failed then 'error' when j.kind = 'export' then 'completed' \
            else 'done' end::bulk_internal.state \
         from (select coalesce(bool_or(state = 'error'), false) as failed, \
            coalesce(bool_or(bulk_internal.is_open(state)), false) as open, \
            min(started) as first, (array_agg(message order by starts_with(message, $2), ordinal, number) filter (where message is not null))[1] as message \
            from bulk_internal.task where job = $1) f \
         where j.number = $1 and bulk_internal.is_open(j.state) and not f.open returning j.state::text",
        &[job.number.into(), ROLLED_BACK.into()],
        |row| row.get::<String>(1),
    )?;
    match ended.into_iter().flatten().next() {
        None => return Ok(false),
        // One that failed may be taken up again.
        Some(state) if state == "error" => tell(&job.id)?,
        Some(_) => forget(job.number).and_then(|()| tell(&job.id))?,
    }
    Ok(true)
}

/// Forgets a job's secrets.
///
/// # Errors
/// As `owner_sql::query`.
pub fn forget(number: i64) -> Result<(), Error> {
    owner_sql::run("delete from bulk_internal.job_secret where job = $1", &[number.into()])
}

/// Ends a job as failed, whatever its tasks are; false where it had ended.
///
/// # Errors
/// As `owner_sql::query`.
pub fn fail(job: &Job, message: &str) -> Result<bool, Error> {
    let failed = owner_sql::query(
        "update bulk_internal.job set state = 'error', message = $2, finished = clock_timestamp() \
         where number = $1 and bulk_internal.is_open(state) returning true",
        &[job.number.into(), message.into()],
        |_| Ok(()),
    )?;
    if failed.is_empty() {
        return Ok(false);
    }
    if job.kind == JobKind::Bucket {
        // A call begins anew, with an account of its own.
        forget(job.number)?;
    }
    tell(&job.id)?;
    Ok(true)
}

/// What the workers of a job go by.
///
/// # Errors
/// As `owner_sql::query`.
pub fn spec(number: i64) -> Result<Option<Value>, Error> {
    let found =
        owner_sql::select_latest("select spec from bulk_internal.job_spec where job = $1", &[number.into()], |row| row.get::<JsonB>(1))?;
    Ok(found.into_iter().flatten().next().map(|spec| spec.0))
}

/// A text for the activity of a worker.
pub fn activity(job: &Job, task: &Task) -> CString {
    CString::new(format!("bulk.{} of {}, job {}", job.kind.word(), task.source, job.id)).unwrap_or_default()
}

/// For whom a job is; None when the role is gone.
///
/// # Errors
/// As `owner_sql::query`.
pub fn role(number: i64) -> Result<Option<pg_sys::Oid>, Error> {
    let found = owner_sql::select_latest(
        "select r.oid from bulk_internal.job j join pg_roles r on r.rolname = j.role::name where j.number = $1",
        &[number.into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    Ok(found.into_iter().flatten().next())
}
