//! What jobs report: their state, counts and open tasks.

use crate::error::Error;
use crate::pg::state::enums::{JobKind, State};
use crate::pg::state::job::database_identity;
use crate::pg::sys::{owner_sql, switch_user};
use crate::store::bucket::BucketPlace;
use pgrx::JsonB;
use serde_json::Value;

/// Whether an index is one that another job does without and puts back: its name is a task's, other than this. One whose workers are gone
/// does not count, nor one that cannot get workers; for `bulk.restore_indexes`, no waiting job counts.
///
/// # Errors
/// As `owner_sql::query`.
pub fn is_held(index: &str, task: Option<i64>) -> Result<bool, Error> {
    let found = owner_sql::query(
        "select from bulk_internal.task f join bulk_internal.job j on j.number = f.job where f.kind = 'index' and f.source = $1 \
         and f.number <> coalesce($2, 0) and bulk_internal.is_open(f.state) and bulk_internal.is_open(j.state) \
         and j.database_identity = $3 and (exists (select from bulk_internal.workers(j.number)) or ($2 is not null and j.state = 'waiting' \
            and exists (select from pg_roles o where o.rolname = j.role::name) and exists (select from pg_roles r \
                where r.rolname = j.session_role::name and has_database_privilege(r.oid, current_database(), 'connect'))))",
        &[index.into(), task.into(), database_identity().into()],
        |_| Ok(()),
    )?;
    Ok(!found.is_empty())
}

/// Numbers of the jobs of a kind that wait, or have workers.
///
/// # Errors
/// As `owner_sql::query`.
pub fn live(kind: JobKind) -> Result<Vec<i64>, Error> {
    let found = owner_sql::select_latest(
        "select j.number from bulk_internal.job j where j.kind = $1::bulk_internal.job_kind and bulk_internal.is_open(j.state) \
         and bulk_internal.seen_state(j.number, j.kind, j.state, j.database_identity) in ('waiting', 'in-progress')",
        &[kind.word().into()],
        |row| row.get::<i64>(1),
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// How the jobs of a bucket that have not ended stand, of those that the current user may act on: waiting, in-progress, interrupted. They were
/// asked for by its URL, or files of it below a path are theirs.
///
/// # Errors
/// As `owner_sql::query`.
pub fn of_bucket(url: &str, bucket: &BucketPlace, path: &str) -> Result<Vec<(i64, State)>, Error> {
    let found = owner_sql::query(
        "select j.number, bulk_internal.seen_state(j.number, j.kind, j.state, j.database_identity)::text from bulk_internal.job j \
         join bulk_internal.job_spec s on s.job = j.number \
         where j.kind = 'bucket' and bulk_internal.is_open(j.state) and s.spec->'work'->>'endpoint' = $3 and (j.request->>'bucket' = $1 \
            or exists (select from bulk_internal.loader_file l where l.job = j.number and l.store = $2 and l.endpoint = $3 and l.bucket = $4 \
                and starts_with(l.file, $5))) \
         and bulk_internal.may_act(pg_get_userbyid($6), j.role)",
        &[
            url.into(),
            bucket.store.into(),
            bucket.endpoint.as_str().into(),
            bucket.name.as_str().into(),
            path.into(),
            switch_user::current().into(),
        ],
        |row| Ok(row.get::<i64>(1)?.zip(row.get::<String>(2)?.and_then(|state| State::read(&state)))),
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// The lines that a job rejected, in the order of their sources and lines: `input`, `line`, `type`, `id`, `path`, `message`, and with them
/// `raw` where that is asked for. None when there are more bytes of them.
///
/// # Errors
/// As `owner_sql::query`.
pub fn rejected(id: &str, with_raw: bool, most: i64) -> Result<Option<Vec<Value>>, Error> {
    let size = owner_sql::select_latest(
        "select coalesce(sum(200 + octet_length(message) + case when $2 then octet_length(raw) else 0 end), 0)::int8 \
         from bulk_internal.load_error where load_id = $1",
        &[id.into(), with_raw.into()],
        |row| row.get::<i64>(1),
    )?;
    if size.into_iter().flatten().any(|size| size > most) {
        return Ok(None);
    }
    let found = owner_sql::select_latest(
        "select jsonb_build_object('input', input, 'line', line, 'type', resource_type, 'id', id, 'path', path, 'message', message, \
            'raw', case when $2 then raw end) \
         from bulk_internal.load_error where load_id = $1 order by input, line, byte_offset",
        &[id.into(), with_raw.into()],
        |row| row.get::<JsonB>(1),
    )?;
    Ok(Some(found.into_iter().flatten().map(|row| row.0).collect()))
}

/// What there is to say of a job: its facts, its spec, and of each source what became of it, its tasks as `threads`.
///
/// # Errors
/// As `owner_sql::query`.
pub fn report(number: i64) -> Result<Option<(Value, Value, Vec<Value>)>, Error> {
    let facts = owner_sql::select_latest(
        "select jsonb_build_object('state', j.state, 'request', j.request, 'message', j.message, \
            'time', jsonb_build_object('start', j.started, 'end', j.finished), \
            'duration', round(extract(epoch from coalesce(j.finished, clock_timestamp()) - j.started) * 1000)::int8, \
            'meta', jsonb_build_object('createdAt', j.created, 'lastUpdated', coalesce(j.finished, j.started, j.created), \
                'versionId', e.number::text)), p.spec \
         from bulk_internal.job e join bulk.job j on j.id = e.id join bulk_internal.job_spec p on p.job = e.number \
         where e.number = $1",
        &[number.into()],
        |row| Ok(row.get::<JsonB>(1)?.zip(row.get::<JsonB>(2)?)),
    )?;
    let Some((facts, spec)) = facts.into_iter().flatten().next() else { return Ok(None) };
    let tasks = owner_sql::select_latest(
        "select jsonb_build_object('state', case when bool_or(f.state = 'in-progress') then 'in-progress' when bool_or(f.state = 'error') then 'error' \
                when bool_and(f.state = 'done') then 'done' when bool_and(f.state = 'waiting') then 'waiting' else 'in-progress' end, \
            'source', min(f.source), 'read', sum(f.read), 'stored', sum(f.stored), 'rejected', sum(f.rejected), \
            'message', (array_agg(f.message order by s.range_from) filter (where f.message is not null))[1], 'finished', max(f.finished), \
            'duration', round(extract(epoch from max(coalesce(f.finished, j.finished, clock_timestamp())) - min(f.started)) * 1000)::int8, \
            'threads', jsonb_agg(jsonb_build_object('state', f.state, 'read', f.read, 'stored', f.stored, 'bytes', s.bytes, \
                'characters', s.characters, 'written', f.written, \
                'duration', round(extract(epoch from coalesce(f.finished, j.finished, clock_timestamp()) - f.started) * 1000)::int8) \
                order by s.range_from)) \
         from bulk_internal.task f join bulk_internal.job j on j.number = f.job \
            left join bulk_internal.task_source s on s.task = f.number where f.job = $1 group by f.ordinal order by f.ordinal",
        &[number.into()],
        |row| row.get::<JsonB>(1),
    )?;
    Ok(Some((facts.0, spec.0, tasks.into_iter().flatten().map(|task| task.0).collect())))
}
