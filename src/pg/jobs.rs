//! Jobs as they are written down: entered with their parts, started, stopped, gone on with, ended.

use super::background::{self, Launch};
use super::parts::{NewPart, Part};
use super::{launcher, lifecycle, owner, role, setting};
use crate::error::Error;
use pgrx::{JsonB, Spi, pg_sys};
use serde_json::Value;
use std::ffi::CString;

/// A job to enter.
#[derive(Debug)]
pub struct Order<'a> {
    /// None for one that is made.
    pub id: Option<&'a str>,
    pub kind: &'a str,
    /// What was asked for, shown to the role: without secrets.
    pub request: Value,
    /// What its workers go by.
    pub plan: Value,
    /// What of it is kept apart, and only until the job ends.
    pub secret: Option<Value>,
    pub parts: &'a [NewPart],
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
    pub kind: String,
    /// None when it is gone.
    pub role: Option<pg_sys::Oid>,
    pub plan: Value,
    pub secret: Option<Value>,
    pub threads: Option<usize>,
}

/// Enters a job of the current user, whose workers start when the transaction commits: its id and number. None when the id is a job's already.
pub fn enter(order: Order) -> Result<Option<(String, i64)>, Error> {
    let id = order.id.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let (role, session_role) = (role::current(), role::of_session());
    let numbers = owner::query(
        "insert into bulk.job_entry (id, kind, role, session_role, origin, state, request, threads) \
         values ($1, $2, pg_get_userbyid($3), pg_get_userbyid($4), $6, 'waiting', $5, $7) \
         on conflict do nothing returning number",
        &[
            id.as_str().into(),
            order.kind.into(),
            role.into(),
            session_role.into(),
            JsonB(order.request).into(),
            origin().into(),
            order.threads.and_then(|threads| i32::try_from(threads).ok()).into(),
        ],
        |row| row.get::<i64>(1),
    )?;
    let Some(number) = numbers.into_iter().flatten().next() else { return Ok(None) };
    owner::run("insert into bulk.job_plan (job, plan) values ($1, $2)", &[number.into(), JsonB(order.plan).into()])?;
    let (sources, types): (Vec<&str>, Vec<Option<&str>>) =
        order.parts.iter().map(|part| (part.source.as_str(), part.resource_type.as_deref())).unzip();
    owner::run(
        "insert into bulk.job_file_entry (job, source, resource_type, ordinal) \
         select $1, p.source, p.resource_type, p.ordinal - 1 \
         from rows from (unnest($2), unnest($3)) with ordinality as p (source, resource_type, ordinal) order by p.ordinal",
        &[number.into(), sources.into(), types.into()],
    )?;
    if let Some(secret) = order.secret {
        owner::run("insert into bulk.job_secret (job, secret) values ($1, $2)", &[number.into(), JsonB(secret).into()])?;
    }
    tell(&id)?;
    let launch = launch(number, session_role)?;
    for _ in 0..order.workers {
        background::start_at_commit(launch);
    }
    Ok(Some((id, number)))
}

/// Tells whoever listens that a job has another state.
fn tell(id: &str) -> Result<(), Error> {
    owner::run("select pg_notify('bulk_job', $1)", &[id.into()])
}

/// The database, told apart from its copies: a copy does not go on with jobs by itself.
pub fn origin() -> String {
    // SAFETY: reads what the server knows of itself.
    let system = unsafe { pg_sys::GetSystemIdentifier() };
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{system}/{}/{host}", lifecycle::database().to_u32())
}

fn launch(job: i64, session_role: pg_sys::Oid) -> Result<Launch, Error> {
    // Without a number for the transaction: whoever keeps a snapshot must go on seeing what is new by `look`.
    let may_login = owner::look("select rolcanlogin from pg_roles where oid = $1", &[session_role.into()], |row| row.get::<bool>(1))?;
    Ok(Launch { job, database: lifecycle::database(), session_role, may_login: may_login.into_iter().flatten().next().unwrap_or(false) })
}

/// The job of a worker; None when it has ended or is gone.
pub fn open(number: i64) -> Result<Option<Job>, Error> {
    let found = owner::look(
        "select j.id, j.kind, r.oid, p.plan, s.secret, j.threads from bulk.job_entry j join bulk.job_plan p on p.job = j.number \
         left join bulk.job_secret s on s.job = j.number \
         left join pg_roles r on r.rolname = j.role::name \
         where j.number = $1 and j.state in ('waiting', 'in-progress') and j.origin = $2",
        &[number.into(), origin().into()],
        |row| {
            Ok(Job {
                number,
                id: row.get(1)?.unwrap_or_default(),
                kind: row.get(2)?.unwrap_or_default(),
                role: row.get(3)?,
                plan: row.get::<JsonB>(4)?.map_or(Value::Null, |plan| plan.0),
                secret: row.get::<JsonB>(5)?.map(|secret| secret.0),
                threads: row.get::<i32>(6)?.and_then(|threads| usize::try_from(threads).ok()),
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// Enters that a job is at work, if it is not yet.
pub fn begin(job: &Job) -> Result<(), Error> {
    let begun = owner::query(
        "update bulk.job_entry set state = 'in-progress', started = coalesce(started, clock_timestamp()) \
         where number = $1 and state = 'waiting' returning true",
        &[job.number.into()],
        |_| Ok(()),
    )?;
    if begun.is_empty() { Ok(()) } else { tell(&job.id) }
}

/// Whether a job is still to be done: nobody has cancelled or deleted it.
pub fn is_wanted(job: &Job) -> Result<bool, Error> {
    let found = owner::look(
        "select from bulk.job_entry where number = $1 and id = $2 and state in ('waiting', 'in-progress')",
        &[job.number.into(), job.id.as_str().into()],
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}

/// Ends a job, unless parts of it are open.
pub fn end(job: &Job) -> Result<(), Error> {
    let ended = owner::query(
        "update bulk.job_entry j set finished = clock_timestamp(), message = f.message, \
         state = case when j.kind = 'bucket' then 'completed' when f.failed then 'error' when j.kind = 'export' then 'completed' else 'done' end \
         from (select coalesce(bool_or(state = 'error'), false) as failed, \
            coalesce(bool_or(state in ('waiting', 'in-progress')), false) as open, \
            (array_agg(message order by number) filter (where message is not null))[1] as message \
            from bulk.job_file_entry where job = $1) f \
         where j.number = $1 and j.state in ('waiting', 'in-progress') and not f.open returning j.state",
        &[job.number.into()],
        |row| row.get::<String>(1),
    )?;
    match ended.into_iter().flatten().next() {
        None => Ok(()),
        // One that failed may be taken up again.
        Some(state) if state == "error" => tell(&job.id),
        Some(_) => forget(job.number).and_then(|()| tell(&job.id)),
    }
}

/// Forgets a job's secrets.
fn forget(number: i64) -> Result<(), Error> {
    owner::run("delete from bulk.job_secret where job = $1", &[number.into()])
}

/// Ends a job as failed, whatever its parts are.
pub fn fail(job: &Job, message: &str) -> Result<(), Error> {
    owner::run(
        "update bulk.job_entry set state = 'error', message = $2, finished = clock_timestamp() \
         where number = $1 and state in ('waiting', 'in-progress')",
        &[job.number.into(), message.into()],
    )?;
    if job.kind == "bucket" {
        // A call begins anew, with an account of its own.
        forget(job.number)?;
    }
    tell(&job.id)
}

/// Jobs for which there is something to begin with, by a role that can connect: those that wait, and those at work that have parts waiting.
/// One that is interrupted is none of them.
const OPEN: &str = "from bulk.job_entry j join pg_roles r on r.rolname = j.session_role::name \
    where j.origin = $1 and has_database_privilege(r.oid, current_database(), 'connect') \
    and exists (select from pg_roles o where o.rolname = j.role::name) \
    and (j.state = 'waiting' or (j.state = 'in-progress' \
        and (select count(*) from bulk.workers(j.number)) between 1 and coalesce(j.threads - 1, 2147483647) \
        and exists (select from bulk.job_file_entry f where f.job = j.number and f.state = 'waiting' and f.phase = \
            (select min(o.phase) from bulk.job_file_entry o where o.job = j.number and o.state in ('waiting', 'in-progress')))))";

/// Starts workers for parts that no one works on, as far as there is room.
pub fn start_waiting() -> Result<(), Error> {
    if lifecycle::is_standby() {
        return Ok(());
    }
    let busy = owner::look(
        "select count(*) from pg_locks where locktype = 'advisory' and granted and objsubid = 16963 and database = $1",
        &[lifecycle::database().into()],
        |row| row.get::<i64>(1),
    )?;
    let room = i64::from(setting::max_workers()) - busy.into_iter().flatten().next().unwrap_or(0);
    if room <= 0 {
        return Ok(());
    }
    let jobs = owner::look(
        &format!("select j.number, r.oid, j.xmin::text {OPEN} order by j.number limit $2"),
        &[origin().into(), room.into()],
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
        if !background::start(launch(number, session_role)?) {
            launcher::note(lifecycle::database());
            return Ok(());
        }
    }
    if all {
        launcher::forget(lifecycle::database());
    }
    Ok(())
}

/// What the workers of a job go by.
pub fn plan(number: i64) -> Result<Option<Value>, Error> {
    let found = owner::look("select plan from bulk.job_plan where job = $1", &[number.into()], |row| row.get::<JsonB>(1))?;
    Ok(found.into_iter().flatten().next().map(|plan| plan.0))
}

/// Has interrupted jobs wait for workers, whoever asked for them: a server that was down is there again. A bucket waits to be called for again.
pub fn resume_all() -> Result<(), Error> {
    let resumed = owner::query(
        "update bulk.job_entry e set state = 'waiting' where state = 'in-progress' and kind not in ('load', 'bucket') and origin = $1 \
         and not exists (select from bulk.workers(e.number)) returning id",
        &[origin().into()],
        |row| row.get::<String>(1),
    )?;
    resumed.into_iter().flatten().try_for_each(|id| tell(&id))
}

/// Another job that waits, or a part of which does, and that sessions of this role, acting as that one, asked for: what one role leaves behind
/// in a process must meet no other.
pub fn next(session_role: pg_sys::Oid, role: pg_sys::Oid, but: &[i64]) -> Result<Option<i64>, Error> {
    let found = owner::look(
        &format!(
            "select j.number {OPEN} and r.oid = $2 and j.role = pg_get_userbyid($3)::text and j.number <> all ($4) order by j.number limit 1"
        ),
        &[origin().into(), session_role.into(), role.into(), but.to_vec().into()],
        |row| row.get::<i64>(1),
    )?;
    Ok(found.into_iter().flatten().next())
}

/// Whether a row was written by the current transaction.
fn is_ours(xmin: Option<String>) -> bool {
    let xmin = xmin.and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
    // SAFETY: looks through the current transaction's numbers.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from(xmin)) }
}

/// Starts workers for interrupted jobs that the current user may act on, at commit: their ids.
pub fn resume_interrupted() -> Result<Vec<String>, Error> {
    let mine = visible("select id from bulk.job where state operator(pg_catalog.=) 'interrupted' order by created")?;
    let mut resumed = Vec::new();
    for id in mine {
        let found = owner::query(
            "update bulk.job_entry j set state = 'waiting', origin = $2 from pg_roles r where j.id = $1 \
             and j.state in ('waiting', 'in-progress') and not exists (select from bulk.workers(j.number)) and r.rolname = j.session_role::name \
             returning j.number, r.oid",
            &[id.as_str().into(), origin().into()],
            |row| Ok(row.get::<i64>(1)?.zip(row.get::<pg_sys::Oid>(2)?)),
        )?;
        if let Some((number, session_role)) = found.into_iter().flatten().next() {
            background::start_at_commit(launch(number, session_role)?);
            resumed.push(id);
        }
    }
    Ok(resumed)
}

/// What the current user sees by a query of one text column.
fn visible(query: &str) -> Result<Vec<String>, Error> {
    let found = super::diagnostics::keep(None, || {
        Spi::connect_mut(|client| {
            client.update(query, None, &[])?.map(|row| row.get::<String>(1)).collect::<Result<Vec<_>, pgrx::spi::Error>>()
        })
    });
    found.map(|found| found.into_iter().flatten().collect()).map_err(|error| Error::Internal(error.to_string()))
}

/// Others of the current user who ask for the same wait to this transaction's end, and see what it did.
pub fn one_after_another(what: &str) {
    super::create::lock(role::current(), what);
}

/// The job whose request says this method, of those on which the current user may act: one that has not ended before others, else the last.
pub fn latest(method: &str) -> Result<Option<String>, Error> {
    let found = owner::look(
        "select j.id from bulk.job_entry j where j.request->>'method' = $1 \
         and (pg_has_role($2, 'bulk_admin', 'usage') \
            or exists (select from pg_roles r where r.rolname = j.role::name and pg_has_role($2, r.oid, 'usage'))) \
         order by j.state in ('waiting', 'in-progress', 'paused') desc, j.number desc limit 1",
        &[method.into(), role::current().into()],
        |row| row.get::<String>(1),
    )?;
    Ok(found.into_iter().flatten().next())
}

/// The lines that a job rejected, in the order of their sources and lines: `input`, `line`, `type`, `id`, `path`, `message`, and with them
/// `raw` where that is asked for. None when there are more bytes of them.
pub fn rejected(id: &str, with_raw: bool, most: i64) -> Result<Option<Vec<Value>>, Error> {
    let size = owner::look(
        "select coalesce(sum(200 + octet_length(message) + case when $2 then octet_length(raw) else 0 end), 0)::int8 \
         from bulk.load_error where load_id = $1",
        &[id.into(), with_raw.into()],
        |row| row.get::<i64>(1),
    )?;
    if size.into_iter().flatten().any(|size| size > most) {
        return Ok(None);
    }
    let found = owner::look(
        "select jsonb_build_object('input', input, 'line', line, 'type', resource_type, 'id', id, 'path', path, 'message', message, \
            'raw', case when $2 then raw end) \
         from bulk.load_error where load_id = $1 order by input, line, byte_offset",
        &[id.into(), with_raw.into()],
        |row| row.get::<JsonB>(1),
    )?;
    Ok(Some(found.into_iter().flatten().map(|row| row.0).collect()))
}

/// Where a job is, to whom may see it.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    pub number: i64,
    pub kind: String,
    pub state: String,
    /// Whether what it says was written by the current transaction.
    pub is_ours: bool,
}

/// How a job stands. An unknown id is an error, and so is one of others' that the current user has no say in.
pub fn standing(id: &str) -> Result<Standing, Error> {
    let look = || {
        owner::look(
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
    Ok(Standing { number, kind, state, is_ours: is_ours(xmin) })
}

/// Whether the current user may act on a role's jobs.
fn may_act(role: &str) -> Result<bool, Error> {
    let answer = super::diagnostics::keep(None, || Spi::get_one_with_args::<bool>("select bulk.may_see($1)", &[role.into()]));
    answer.map(|answer| answer.unwrap_or(false)).map_err(|error| Error::Internal(error.to_string()))
}

/// Ends a job that has not ended. Its workers are interrupted at commit.
pub fn cancel(id: &str) -> Result<bool, Error> {
    let Standing { number, .. } = match standing(id) {
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
    let stopped = owner::query(
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
        hand_on_indexes(number)?;
        let workers = owner::query("select bulk.workers($1)", &[number.into()], |row| row.get::<i32>(1))?;
        background::interrupt_at_commit(workers.into_iter().flatten());
        forget(number)?;
    }
    tell(id)?;
    Ok(true)
}

/// Has a job that is stopped, failed or interrupted gone on with, where it was; false when it is in no such state any more.
pub fn go_on(number: i64, id: &str, workers: usize, from: &[&str]) -> Result<bool, Error> {
    let session_role = owner::query(
        "update bulk.job_entry j set state = 'waiting', origin = $2, finished = null, message = null from pg_roles r \
         where j.number = $1 and r.rolname = j.session_role::name and j.state = any ($3) \
         and (j.state not in ('waiting', 'in-progress') or not exists (select from bulk.workers(j.number))) returning r.oid",
        &[number.into(), origin().into(), from.to_vec().into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    let Some(session_role) = session_role.into_iter().flatten().next() else { return Ok(false) };
    owner::run(
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
fn hand_on_indexes(number: i64) -> Result<(), Error> {
    let open = "f.job = $1 and f.phase = 1 and f.state in ('waiting', 'in-progress')";
    let made = owner::query(
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
    owner::run("insert into bulk.job_plan (job, plan) select $2, plan from bulk.job_plan where job = $1", &[number.into(), made.into()])?;
    // Others than those that a worker may still hold.
    owner::run(
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

/// Whether an index is one that another job does without and puts back: its name is a part's, other than this. One whose workers are gone
/// does not count, nor one that waits for them in vain; before whoever asks by hand, none that waits.
pub fn is_held(index: &str, part: Option<i64>) -> Result<bool, Error> {
    let found = owner::query(
        "select from bulk.job_file_entry f join bulk.job_entry j on j.number = f.job where f.phase = 1 and f.source = $1 \
         and f.number <> coalesce($2, 0) and f.state in ('waiting', 'in-progress') and j.state in ('waiting', 'in-progress') \
         and j.origin = $3 and (exists (select from bulk.workers(j.number)) or ($2 is not null and j.state = 'waiting' \
            and exists (select from pg_roles o where o.rolname = j.role::name) and exists (select from pg_roles r \
                where r.rolname = j.session_role::name and has_database_privilege(r.oid, current_database(), 'connect'))))",
        &[index.into(), part.into(), origin().into()],
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}

/// Numbers of the jobs of a kind that wait, or have workers.
pub fn live(kind: &str) -> Result<Vec<i64>, Error> {
    let found = owner::query(
        "select j.number from bulk.job_entry j where j.kind = $1 and j.state in ('waiting', 'in-progress') \
         and bulk._state(j.number, j.kind, j.state, j.origin) in ('waiting', 'in-progress')",
        &[kind.into()],
        |row| row.get::<i64>(1),
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// How the jobs of a bucket that have not ended stand, of those that the current user may act on: waiting, in-progress, interrupted. They were
/// asked for by its URL, or files of it are theirs, as they are written down.
pub fn of_bucket(url: &str, bucket: &str, beginning: &str) -> Result<Vec<(i64, String)>, Error> {
    let found = owner::query(
        "select j.number, bulk._state(j.number, j.kind, j.state, j.origin) from bulk.job_entry j \
         where j.kind = 'bucket' and j.state in ('waiting', 'in-progress') and (j.request->>'bucket' = $1 \
            or exists (select from bulk.loader_file l where l.job = j.number and l.bucket = $2 and starts_with(l.file, $3))) \
         and (pg_has_role($4, 'bulk_admin', 'usage') or exists (select from pg_roles r where r.rolname = j.role::name and pg_has_role($4, r.oid, 'usage')))",
        &[url.into(), bucket.into(), beginning.into(), role::current().into()],
        |row| Ok(row.get::<i64>(1)?.zip(row.get::<String>(2)?)),
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// Ends an interrupted job whose work another takes over, if the current user may act on it: the indexes that it was to put back. None where
/// it is at work, or another's.
pub fn supersede(number: i64, by: &str) -> Result<Option<Vec<String>>, Error> {
    let ended = owner::query(
        "update bulk.job_entry j set state = 'cancelled', finished = clock_timestamp(), message = 'job ' || $2 || ' goes on with it' \
         where j.number = $1 and bulk._state(j.number, j.kind, j.state, j.origin) = 'interrupted' \
         and (pg_has_role($3, 'bulk_admin', 'usage') or exists (select from pg_roles r where r.rolname = j.role::name and pg_has_role($3, r.oid, 'usage'))) \
         returning id",
        &[number.into(), by.into(), role::current().into()],
        |row| row.get::<String>(1),
    )?;
    let Some(id) = ended.into_iter().flatten().next() else { return Ok(None) };
    forget(number)?;
    tell(&id)?;
    let indexes = owner::query(
        "select source from bulk.job_file_entry where job = $1 and phase = 1 and state in ('waiting', 'in-progress') order by number",
        &[number.into()],
        |row| row.get::<String>(1),
    )?;
    Ok(Some(indexes.into_iter().flatten().collect()))
}

/// Parts of an import that are at work at the same time.
pub const WORKERS: usize = 2;

/// Has more workers started for a job at work, at commit, where it has more parts now: so many in all.
pub fn start_more(job: &Job, workers: usize) -> Result<(), Error> {
    let working = owner::query("select count(*) from bulk.workers($1)", &[job.number.into()], |row| row.get::<i64>(1))?;
    let working = working.into_iter().flatten().next().and_then(|count| usize::try_from(count).ok()).unwrap_or(workers);
    let launch = launch(job.number, role::of_session())?;
    for _ in working..workers {
        background::start_at_commit(launch);
    }
    Ok(())
}

/// Starts a worker for a job that is committed, now. False when the server has no room for it.
pub fn call(job: &Job) -> Result<bool, Error> {
    Ok(background::start(launch(job.number, role::of_session())?))
}

/// For whom a job is; None when the role is gone.
pub fn role(number: i64) -> Result<Option<pg_sys::Oid>, Error> {
    let found = owner::look(
        "select r.oid from bulk.job_entry j join pg_roles r on r.rolname = j.role::name where j.number = $1",
        &[number.into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    Ok(found.into_iter().flatten().next())
}

/// How many workers are at a job.
pub fn workers(number: i64) -> Result<usize, Error> {
    let count = owner::look("select count(*) from bulk.workers($1)", &[number.into()], |row| row.get::<i64>(1))?;
    Ok(count.into_iter().flatten().next().and_then(|count| usize::try_from(count).ok()).unwrap_or_default())
}

/// A text for the activity of a worker.
pub fn activity(job: &Job, part: &Part) -> CString {
    CString::new(format!("bulk.{} of {}, job {}", job.kind, part.source, job.id)).unwrap_or_default()
}

/// What there is to say of a job: its facts, its plan, and of each source what became of it, its parts as `threads`.
pub fn report(number: i64) -> Result<Option<(Value, Value, Vec<Value>)>, Error> {
    let facts = owner::look(
        "select jsonb_build_object('state', j.state, 'request', j.request, 'message', j.message, \
            'time', jsonb_build_object('start', j.started, 'end', j.finished), \
            'duration', round(extract(epoch from coalesce(j.finished, clock_timestamp()) - j.started) * 1000)::int8, \
            'meta', jsonb_build_object('createdAt', j.created, 'lastUpdated', coalesce(j.finished, j.started, j.created), \
                'versionId', e.number::text)), p.plan \
         from bulk.job_entry e join bulk.job j on j.id = e.id join bulk.job_plan p on p.job = e.number \
         where e.number = $1",
        &[number.into()],
        |row| Ok(row.get::<JsonB>(1)?.zip(row.get::<JsonB>(2)?)),
    )?;
    let Some((facts, plan)) = facts.into_iter().flatten().next() else { return Ok(None) };
    let parts = owner::look(
        "select jsonb_build_object('state', case when bool_or(f.state = 'in-progress') then 'in-progress' when bool_or(f.state = 'error') then 'error' \
                when bool_and(f.state = 'done') then 'done' when bool_and(f.state = 'waiting') then 'waiting' else 'in-progress' end, \
            'source', min(f.source), 'read', sum(f.read), 'stored', sum(f.stored), 'rejected', sum(f.rejected), \
            'message', (array_agg(f.message order by f.number) filter (where f.message is not null))[1], 'finished', max(f.finished), \
            'duration', round(extract(epoch from max(coalesce(f.finished, j.finished, clock_timestamp())) - min(f.started)) * 1000)::int8, \
            'threads', jsonb_agg(jsonb_build_object('state', f.state, 'read', f.read, 'stored', f.stored, 'bytes', f.bytes, \
                'characters', f.characters, 'written', f.written, \
                'duration', round(extract(epoch from coalesce(f.finished, j.finished, clock_timestamp()) - f.started) * 1000)::int8) \
                order by f.number)) \
         from bulk.job_file_entry f join bulk.job_entry j on j.number = f.job where f.job = $1 group by f.ordinal order by f.ordinal",
        &[number.into()],
        |row| row.get::<JsonB>(1),
    )?;
    Ok(Some((facts.0, plan.0, parts.into_iter().flatten().map(|part| part.0).collect())))
}
