//! The table of buckets' files: which are known, which job loads them, and the outcome of each.

use crate::error::Error;
use crate::pg::catalog::ddl;
use crate::pg::state::enums::JobKind;
use crate::pg::state::job_report;
use crate::pg::sys::{owner_sql, switch_user};
use crate::store::bucket::BucketPlace;
use pgrx::datum::DatumWithOid;
use pgrx::{JsonB, pg_sys};
use serde_json::Value;

/// Objects of one listing, a column for each of their facts.
#[derive(Debug, Default)]
pub struct Listed {
    /// As they are written down.
    pub files: Vec<String>,
    /// The resource type that each name begins with.
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

/// A file that a job loads.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    pub bucket: &'a BucketPlace,
    pub file: &'a str,
    pub job: i64,
}

/// Whether a row `l` is of the bucket that `bucket_arguments` give.
const IN_BUCKET: &str = "l.store = $1 and l.endpoint = $2 and l.bucket = $3";
/// Whether a row `l` is what the role of $4 may see.
const SEEN: &str = "bulk_internal.may_act(pg_get_userbyid($4), l.role)";

fn bucket_arguments(bucket: &BucketPlace) -> [DatumWithOid<'_>; 3] {
    [bucket.store.into(), bucket.endpoint.as_str().into(), bucket.name.as_str().into()]
}

/// A bucket and more as arguments.
fn arguments<'a>(bucket: &'a BucketPlace, more: impl IntoIterator<Item = DatumWithOid<'a>>) -> Vec<DatumWithOid<'a>> {
    bucket_arguments(bucket).into_iter().chain(more).collect()
}

/// Calls for one bucket, or one directory of the server, go one after another, to the end of the transaction.
pub fn lock(bucket: &BucketPlace, directory: &str) {
    ddl::lock_in_time(&format!("bucket {}://{}/{}/{directory}", bucket.store, bucket.endpoint, bucket.name));
}

/// Records what is new, and finds what is left to do: not what a job is at, nor what belongs to others. `source` names the store in errors.
///
/// # Errors
/// As `owner_sql::query`.
pub fn take(bucket: &BucketPlace, source: &str, listed: &Listed, covered: &[String]) -> Result<Taken, Error> {
    let role = switch_user::current();
    let new = insert_new(bucket, listed, role)?;
    let live = job_report::live(JobKind::Bucket)?;
    let continued = take_up(bucket, listed, role, &live)?;
    mark_gone(bucket, source, listed, role, &live, covered)?;
    let changed = changed(bucket, listed, role)?;
    let held = owner_sql::select_latest(
        &format!("select count(*) from bulk_internal.loader_file l where {IN_BUCKET} and l.file = any ($5) and not {SEEN}"),
        &arguments(bucket, [role.into(), listed.files.clone().into()]),
        |row| row.get::<i64>(1),
    )?;
    let held = held.into_iter().flatten().next().unwrap_or_default();
    Ok(Taken { new, continued, changed, held })
}

/// Whether a row `l` was left by a job that is none of $5. Rows without a job were entered just now.
const LEFT: &str = "l.status in ('pending', 'in-progress') and l.job <> all ($5)";

/// Records the files that are new: their names.
fn insert_new(bucket: &BucketPlace, listed: &Listed, role: pg_sys::Oid) -> Result<Vec<String>, Error> {
    let new = owner_sql::query(
        "insert into bulk_internal.loader_file (store, endpoint, bucket, file, type, size, last_modified, etag, role) \
         select $1, $2, $3, f.file, f.type, f.size, f.modified::timestamptz, f.etag, pg_get_userbyid($4) \
         from rows from (unnest($5), unnest($6), unnest($7), unnest($8), unnest($9)) as f (file, type, size, modified, etag) \
         order by f.file collate \"C\" on conflict do nothing returning file",
        &arguments(bucket, std::iter::once(role.into()).chain(columns(listed))),
        |row| row.get::<String>(1),
    )?;
    Ok(new.into_iter().flatten().collect())
}

/// Files, types, sizes, times and ETags, an array each.
fn columns(listed: &Listed) -> [DatumWithOid<'_>; 5] {
    [
        listed.files.clone().into(),
        listed.types.clone().into(),
        listed.sizes.clone().into(),
        listed.modified.clone().into(),
        listed.plain_etags().into(),
    ]
}

/// Takes up the files that jobs have left which are no more: their names.
fn take_up(bucket: &BucketPlace, listed: &Listed, role: pg_sys::Oid, live: &[i64]) -> Result<Vec<String>, Error> {
    let continued = owner_sql::query(
        &format!(
            "update bulk_internal.loader_file l set status = 'pending', type = f.type, size = f.size, last_modified = f.modified::timestamptz, \
                etag = f.etag, start = null \
             from rows from (unnest($6), unnest($7), unnest($8), unnest($9), unnest($10)) as f (file, type, size, modified, etag) \
             where {IN_BUCKET} and l.file = f.file and {LEFT} and {SEEN} returning l.file"
        ),
        &arguments(bucket, [role.into(), live.to_vec().into()].into_iter().chain(columns(listed))),
        |row| row.get::<String>(1),
    )?;
    Ok(continued.into_iter().flatten().collect())
}

/// Ends the files that jobs have left and that the bucket has no more, of those that the listing covers.
fn mark_gone(
    bucket: &BucketPlace,
    source: &str,
    listed: &Listed,
    role: pg_sys::Oid,
    live: &[i64],
    covered: &[String],
) -> Result<(), Error> {
    owner_sql::run(
        &format!(
            "update bulk_internal.loader_file l set status = 'error', \"end\" = clock_timestamp(), message = 'NoSuchKey: the object is gone', \
                error = jsonb_build_object('source', $8, 'code', 'NoSuchKey') \
             where {IN_BUCKET} and {LEFT} and {SEEN} and l.file <> all ($6) and exists (select from unnest($7) p where starts_with(l.file, p))"
        ),
        &arguments(bucket, [role.into(), live.to_vec().into(), listed.files.clone().into(), covered.to_vec().into(), source.into()]),
    )
}

/// The files that were loaded and have changed since.
fn changed(bucket: &BucketPlace, listed: &Listed, role: pg_sys::Oid) -> Result<Vec<String>, Error> {
    let changed = owner_sql::select_latest(
        // Not every listing tells ETags.
        &format!(
            "select l.file from bulk_internal.loader_file l \
             join rows from (unnest($5), unnest($6), unnest($7), unnest($8), unnest($9)) as f (file, type, size, modified, etag) on f.file = l.file \
             where {IN_BUCKET} and l.status = 'done' and case when l.etag is null or f.etag is null \
                then l.size <> f.size or l.last_modified <> f.modified::timestamptz else l.etag <> f.etag end and {SEEN} order by 1"
        ),
        &arguments(bucket, std::iter::once(role.into()).chain(columns(listed))),
        |row| row.get::<String>(1),
    )?;
    Ok(changed.into_iter().flatten().collect())
}

/// Has files belong to a job.
///
/// # Errors
/// As `owner_sql::query`.
pub fn assign(bucket: &BucketPlace, files: Vec<String>, job: i64) -> Result<(), Error> {
    owner_sql::run(
        &format!("update bulk_internal.loader_file l set job = $4 where {IN_BUCKET} and l.file = any ($5)"),
        &arguments(bucket, [job.into(), files.into()]),
    )
}

/// Whether a row `l` is the file of a `Name`.
const NAMED: &str = "l.store = $1 and l.endpoint = $2 and l.bucket = $3 and l.job = $4 and l.file = $5";

impl<'a> Name<'a> {
    fn arguments(&self, more: impl IntoIterator<Item = DatumWithOid<'a>>) -> Vec<DatumWithOid<'a>> {
        let own: [DatumWithOid<'a>; 2] = [self.job.into(), self.file.into()];
        arguments(self.bucket, own.into_iter().chain(more))
    }
}

/// Records that a file is in progress; false when it is not to be loaded any more: its row was deleted, or another job has it.
///
/// # Errors
/// As `owner_sql::query`.
pub fn begin(name: Name) -> Result<bool, Error> {
    let begun = owner_sql::query(
        &format!(
            "update bulk_internal.loader_file l set status = 'in-progress', start = clock_timestamp(), \"end\" = null, message = null, \
                error = null where {NAMED} and l.status in ('pending', 'in-progress') returning true"
        ),
        &name.arguments([]),
        |_| Ok(()),
    )?;
    Ok(!begun.is_empty())
}

/// The same while it is loaded: to the transaction's end its row stays.
///
/// # Errors
/// As `owner_sql::query`.
pub fn hold(name: Name) -> Result<bool, Error> {
    let held = owner_sql::query(
        &format!("select from bulk_internal.loader_file l where {NAMED} and l.status = 'in-progress' for update"),
        &name.arguments([]),
        |_| Ok(()),
    )?;
    Ok(!held.is_empty())
}

/// An ETag without the signs around it, which not all answers of a server have.
fn plain(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// Records that a file is loaded: with its rows.
///
/// # Errors
/// As `owner_sql::query`.
pub fn done(name: Name, loaded: u64, size: Option<u64>, etag: Option<&str>) -> Result<(), Error> {
    owner_sql::run(
        &format!(
            "update bulk_internal.loader_file l set status = 'done', \"end\" = clock_timestamp(), loaded = $6, size = coalesce($7, l.size), \
                etag = coalesce($8, l.etag) where {NAMED}"
        ),
        &name.arguments([(loaded as i64).into(), size.map(|size| size as i64).into(), etag.map(|etag| plain(etag).to_owned()).into()]),
    )
}

/// Records why a file is not loaded.
///
/// # Errors
/// As `owner_sql::query`.
pub fn fail(name: Name, message: &str, error: Value) -> Result<(), Error> {
    owner_sql::run(
        &format!(
            "update bulk_internal.loader_file l set status = 'error', \"end\" = clock_timestamp(), message = $6, error = $7 where {NAMED}"
        ),
        &name.arguments([message.to_owned().into(), JsonB(error).into()]),
    )
}

/// The places of a bucket of which the current user sees files.
///
/// # Errors
/// As `owner_sql::query`.
pub fn endpoints(store: &str, name: &str) -> Result<Vec<String>, Error> {
    let found = owner_sql::select_latest(
        "select distinct l.endpoint from bulk_internal.loader_file l where l.store = $1 and l.bucket = $2 \
         and bulk_internal.may_act(pg_get_userbyid($3), l.role) order by 1",
        &[store.into(), name.into(), switch_user::current().into()],
        |row| row.get::<String>(1),
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// Forgets a file that the current user may see; false where there is none.
///
/// # Errors
/// As `owner_sql::query`.
pub fn forget(bucket: &BucketPlace, file: &str) -> Result<bool, Error> {
    let gone = owner_sql::query(
        &format!("delete from bulk_internal.loader_file l where {IN_BUCKET} and {SEEN} and l.file = $5 returning true"),
        &arguments(bucket, [switch_user::current().into(), file.into()]),
        |_| Ok(()),
    )?;
    Ok(!gone.is_empty())
}

/// How many files there are of a bucket that the current user sees.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub total: i64,
    pub pending: i64,
    pub error: i64,
}

/// Counts them; those of a directory begin with its path.
///
/// # Errors
/// As `owner_sql::query`.
pub fn counts(bucket: &BucketPlace, path: &str) -> Result<Counts, Error> {
    let found = owner_sql::select_latest(
        &format!(
            "select count(*), count(*) filter (where status in ('pending', 'in-progress')), count(*) filter (where status = 'error') \
             from bulk_internal.loader_file l where {IN_BUCKET} and starts_with(file, $5) and {SEEN}"
        ),
        &arguments(bucket, [switch_user::current().into(), path.to_owned().into()]),
        |row| {
            let count = |column| row.get::<i64>(column).map(Option::unwrap_or_default);
            Ok(Counts { total: count(1)?, pending: count(2)?, error: count(3)? })
        },
    )?;
    Ok(found.into_iter().next().unwrap_or_default())
}
