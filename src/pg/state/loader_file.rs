//! The table of buckets' files: which are known, which job loads them, and the outcome of each.

use crate::error::Error;
use crate::pg::catalog::ddl;
use crate::pg::state::job_report;
use crate::pg::sys::{owner_sql, switch_user};
use pgrx::{JsonB, pg_sys};
use serde_json::Value;

/// Objects of one listing, a column for each of their facts.
#[derive(Debug, Default)]
pub struct Listed {
    /// As they are written down.
    pub files: Vec<String>,
    pub types: Vec<String>,
    pub sizes: Vec<i64>,
    pub modified: Vec<Option<String>>,
    pub etags: Vec<Option<String>>,
}

impl Listed {
    /// ETags without the signs around them, which not all answers of a server have.
    fn plain_etags(&self) -> Vec<Option<&str>> {
        self.etags.iter().map(|etag| etag.as_deref().map(plain)).collect()
    }
}

/// What a call finds in its bucket.
#[derive(Debug, Default)]
pub struct Taken {
    /// Files that nobody has written down before.
    pub new: Vec<String>,
    /// Files that a job left behind.
    pub continued: Vec<String>,
    /// Files that are loaded, and have another content now.
    pub changed: Vec<String>,
    /// How many are others', of whom the current user sees nothing.
    pub held: i64,
}

/// A file by the names under which it is written down.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    pub bucket: &'a str,
    pub file: &'a str,
    pub job: i64,
}

/// Whether a row `l` is the role's of $3.
const SEEN: &str = "(pg_has_role($3, 'bulk_admin', 'usage') or exists (select from pg_roles r where r.rolname = l.role and pg_has_role($3, r.oid, 'usage')))";

/// Calls for one bucket go one after another, to the end of the transaction.
pub fn lock(bucket: &str) {
    ddl::lock(pg_sys::InvalidOid, &format!("bucket {bucket}"));
}

/// Writes down what is new, by the word for the store where errors are its, and finds what is left to do: not what a job is at, nor what belongs to others.
pub fn take(bucket: &str, source: &str, listed: &Listed, covered: &[String]) -> Result<Taken, Error> {
    let role = switch_user::current();
    let new = insert_new(bucket, listed, role)?;
    let live = job_report::live("bucket")?;
    let continued = take_up(bucket, listed, role, &live)?;
    mark_gone(bucket, source, listed, role, &live, covered)?;
    let changed = changed(bucket, listed, role)?;
    let held = owner_sql::select_latest(
        &format!("select count(*) from bulk.loader_file l where l.bucket = $1 and l.file = any ($2) and not {SEEN}"),
        &[bucket.into(), listed.files.clone().into(), role.into()],
        |row| row.get::<i64>(1),
    )?;
    let held = held.into_iter().flatten().next().unwrap_or_default();
    Ok(Taken { new, continued, changed, held })
}

/// Rows without a job were entered just now.
const LEFT: &str = "l.bucket = $1 and l.status in ('pending', 'in-progress') and l.job <> all ($2)";

/// Writes down the files that are new: their names.
fn insert_new(bucket: &str, listed: &Listed, role: pg_sys::Oid) -> Result<Vec<String>, Error> {
    let new = owner_sql::query(
        "insert into bulk.loader_file (bucket, file, type, size, last_modified, etag, role) \
         select $1, f.file, f.type, f.size, f.modified::timestamptz, f.etag, pg_get_userbyid($7) \
         from rows from (unnest($2), unnest($3), unnest($4), unnest($5), unnest($6)) as f (file, type, size, modified, etag) \
         on conflict do nothing returning file",
        &[
            bucket.into(),
            listed.files.clone().into(),
            listed.types.clone().into(),
            listed.sizes.clone().into(),
            listed.modified.clone().into(),
            listed.plain_etags().into(),
            role.into(),
        ],
        |row| row.get::<String>(1),
    )?;
    Ok(new.into_iter().flatten().collect())
}

/// Takes up the files that jobs have left which are no more: their names.
fn take_up(bucket: &str, listed: &Listed, role: pg_sys::Oid, live: &[i64]) -> Result<Vec<String>, Error> {
    let continued = owner_sql::query(
        &format!(
            "update bulk.loader_file l set status = 'pending', type = f.type, size = f.size, last_modified = f.modified::timestamptz, \
                etag = f.etag, start = null \
             from rows from (unnest($4), unnest($5), unnest($6), unnest($7), unnest($8)) as f (file, type, size, modified, etag) \
             where l.file = f.file and {LEFT} and {SEEN} returning l.file"
        ),
        &[
            bucket.into(),
            live.to_vec().into(),
            role.into(),
            listed.files.clone().into(),
            listed.types.clone().into(),
            listed.sizes.clone().into(),
            listed.modified.clone().into(),
            listed.plain_etags().into(),
        ],
        |row| row.get::<String>(1),
    )?;
    Ok(continued.into_iter().flatten().collect())
}

/// Ends the files that jobs have left and that the bucket has no more, of those that the listing covers.
fn mark_gone(bucket: &str, source: &str, listed: &Listed, role: pg_sys::Oid, live: &[i64], covered: &[String]) -> Result<(), Error> {
    owner_sql::run(
        &format!(
            "update bulk.loader_file l set status = 'error', \"end\" = clock_timestamp(), message = 'NoSuchKey: the object is gone', \
                error = jsonb_build_object('source', $6, 'code', 'NoSuchKey') \
             where {LEFT} and {SEEN} and l.file <> all ($4) and exists (select from unnest($5) p where starts_with(l.file, p))"
        ),
        &[bucket.into(), live.to_vec().into(), role.into(), listed.files.clone().into(), covered.to_vec().into(), source.into()],
    )
}

/// The files that were loaded and have changed since.
fn changed(bucket: &str, listed: &Listed, role: pg_sys::Oid) -> Result<Vec<String>, Error> {
    let changed = owner_sql::select_latest(
        // Not every listing tells ETags.
        &format!(
            "select l.file from bulk.loader_file l \
         join rows from (unnest($2), unnest($3), unnest($4), unnest($5)) as f (file, size, modified, etag) on f.file = l.file \
         where l.bucket = $1 and l.status = 'done' and case when l.etag is null or f.etag is null \
            then l.size <> f.size or l.last_modified <> f.modified::timestamptz else l.etag <> f.etag end and {} order by 1",
            SEEN.replace("$3", "$6")
        ),
        &[
            bucket.into(),
            listed.files.clone().into(),
            listed.sizes.clone().into(),
            listed.modified.clone().into(),
            listed.plain_etags().into(),
            role.into(),
        ],
        |row| row.get::<String>(1),
    )?;
    Ok(changed.into_iter().flatten().collect())
}

/// Has files belong to a job.
pub fn assign(bucket: &str, files: Vec<String>, job: i64) -> Result<(), Error> {
    owner_sql::run("update bulk.loader_file set job = $3 where bucket = $1 and file = any ($2)", &[bucket.into(), files.into(), job.into()])
}

/// Writes down that a file is at work; false when it is not to be loaded any more: its row was deleted, or another job has it.
pub fn begin(name: Name) -> Result<bool, Error> {
    let begun = owner_sql::query(
        "update bulk.loader_file set status = 'in-progress', start = clock_timestamp(), \"end\" = null, message = null, error = null \
         where bucket = $1 and file = $2 and job = $3 and status in ('pending', 'in-progress') returning true",
        &[name.bucket.into(), name.file.into(), name.job.into()],
        |_| Ok(()),
    )?;
    Ok(!begun.is_empty())
}

/// The same while it is loaded: to the transaction's end its row stays.
pub fn hold(name: Name) -> Result<bool, Error> {
    let held = owner_sql::query(
        "select from bulk.loader_file where bucket = $1 and file = $2 and job = $3 and status = 'in-progress' for update",
        &[name.bucket.into(), name.file.into(), name.job.into()],
        |_| Ok(()),
    )?;
    Ok(!held.is_empty())
}

/// An ETag without the signs around it, which not all answers of a server have.
fn plain(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// Writes down that a file is loaded: with its rows.
pub fn done(name: Name, loaded: u64, size: Option<u64>, etag: Option<&str>) -> Result<(), Error> {
    owner_sql::run(
        "update bulk.loader_file set status = 'done', \"end\" = clock_timestamp(), loaded = $4, size = coalesce($5, size), etag = coalesce($6, etag) \
         where bucket = $1 and file = $2 and job = $3",
        &[
            name.bucket.into(),
            name.file.into(),
            name.job.into(),
            (loaded as i64).into(),
            size.map(|size| size as i64).into(),
            etag.map(plain).into(),
        ],
    )
}

/// Writes down why a file is not loaded.
pub fn fail(name: Name, message: &str, error: Value) -> Result<(), Error> {
    owner_sql::run(
        "update bulk.loader_file set status = 'error', \"end\" = clock_timestamp(), message = $4, error = $5 \
         where bucket = $1 and file = $2 and job = $3",
        &[name.bucket.into(), name.file.into(), name.job.into(), message.into(), JsonB(error).into()],
    )
}

/// How many files there are of a bucket that the current user sees.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub total: i64,
    pub pending: i64,
    pub error: i64,
}

/// Counts them; those of a directory begin with its path.
pub fn counts(bucket: &str, beginning: &str) -> Result<Counts, Error> {
    let found = owner_sql::select_latest(
        &format!(
            "select count(*), count(*) filter (where status in ('pending', 'in-progress')), count(*) filter (where status = 'error') \
         from bulk.loader_file l where bucket = $1 and starts_with(file, $2) and {SEEN}"
        ),
        &[bucket.into(), beginning.into(), switch_user::current().into()],
        |row| {
            let count = |column| row.get::<i64>(column).map(Option::unwrap_or_default);
            Ok(Counts { total: count(1)?, pending: count(2)?, error: count(3)? })
        },
    )?;
    Ok(found.into_iter().next().unwrap_or_default())
}
