//! What jobs report: their state, counts and open tasks.

use crate::error::Error;
use crate::pg::state::job::database_identity;
use crate::pg::sys::{owner_sql, switch_user};
use pgrx::JsonB;
use serde_json::Value;

/// Whether an index is one that another job does without and puts back: its name is a task's, other than this. One whose workers are gone
/// does not count, nor one that cannot get workers; for `bulk.restore_indexes`, no waiting job counts.
pub fn is_held(index: &str, task: Option<i64>) -> Result<bool, Error> {
    let found = owner_sql::query(
        "select from bulk.job_file_entry f join bulk.job_entry j on j.number = f.job where f.phase = 1 and f.source = $1 \
         and f.number <> coalesce($2, 0) and f.state in ('waiting', 'in-progress') and j.state in ('waiting', 'in-progress') \
         and j.origin = $3 and (exists (select from bulk.workers(j.number)) or ($2 is not null and j.state = 'waiting' \
            and exists (select from pg_roles o where o.rolname = j.role::name) and exists (select from pg_roles r \
                where r.rolname = j.session_role::name and has_database_privilege(r.oid, current_database(), 'connect'))))",
        &[index.into(), task.into(), database_identity().into()],
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}

/// Numbers of the jobs of a kind that wait, or have workers.
pub fn live(kind: &str) -> Result<Vec<i64>, Error> {
    let found = owner_sql::query(
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
    let found = owner_sql::query(
        "select j.number, bulk._state(j.number, j.kind, j.state, j.origin) from bulk.job_entry j \
         where j.kind = 'bucket' and j.state in ('waiting', 'in-progress') and (j.request->>'bucket' = $1 \
            or exists (select from bulk.loader_file l where l.job = j.number and l.bucket = $2 and starts_with(l.file, $3))) \
         and (pg_has_role($4, 'bulk_admin', 'usage') or exists (select from pg_roles r where r.rolname = j.role::name and pg_has_role($4, r.oid, 'usage')))",
        &[url.into(), bucket.into(), beginning.into(), switch_user::current().into()],
        |row| Ok(row.get::<i64>(1)?.zip(row.get::<String>(2)?)),
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// The lines that a job rejected, in the order of their sources and lines: `input`, `line`, `type`, `id`, `path`, `message`, and with them
/// `raw` where that is asked for. None when there are more bytes of them.
pub fn rejected(id: &str, with_raw: bool, most: i64) -> Result<Option<Vec<Value>>, Error> {
    let size = owner_sql::select_latest(
        "select coalesce(sum(200 + octet_length(message) + case when $2 then octet_length(raw) else 0 end), 0)::int8 \
         from bulk.load_error where load_id = $1",
        &[id.into(), with_raw.into()],
        |row| row.get::<i64>(1),
    )?;
    if size.into_iter().flatten().any(|size| size > most) {
        return Ok(None);
    }
    let found = owner_sql::select_latest(
        "select jsonb_build_object('input', input, 'line', line, 'type', resource_type, 'id', id, 'path', path, 'message', message, \
            'raw', case when $2 then raw end) \
         from bulk.load_error where load_id = $1 order by input, line, byte_offset",
        &[id.into(), with_raw.into()],
        |row| row.get::<JsonB>(1),
    )?;
    Ok(Some(found.into_iter().flatten().map(|row| row.0).collect()))
}

/// What there is to say of a job: its facts, its spec, and of each source what became of it, its tasks as `threads`.
pub fn report(number: i64) -> Result<Option<(Value, Value, Vec<Value>)>, Error> {
    let facts = owner_sql::select_latest(
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
    let Some((facts, spec)) = facts.into_iter().flatten().next() else { return Ok(None) };
    let tasks = owner_sql::select_latest(
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
    Ok(Some((facts.0, spec.0, tasks.into_iter().flatten().map(|task| task.0).collect())))
}
