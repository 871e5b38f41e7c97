//! Creates a resource type's table with what it needs (its history, the enum of statuses, the sequence of versions), once,
//! also if several sessions do so at once.

use crate::error::Error;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::sys::lock_holder::{self, Awaited};
use crate::pg::sys::{error_context, sql, sqlstate, switch_user};
use pgrx::pg_sys;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Sequence that gives every stored version its number.
pub const SEQUENCE: &str = "transaction_id_seq";
const STATUS: &str = "resource_status";
const LABELS: [&str; 4] = ["created", "updated", "deleted", "recreated"];

/// When a new table gets its primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    AtOnce,
    /// By `add_key`, once its rows are there.
    Later,
}

/// The table of a resource type, created where it is missing, and whether it lacks its key. The type has passed `resource_table::type_name`.
///
/// # Errors
/// `NoSchema` where the search path has none that can be written to; `WrongShape` for a table of another shape,
/// `WrongStatusType` for an enum of statuses that is none. An ERROR where the role may not create tables.
pub fn ensure(resource_type: &str, key: Key) -> Result<(Table, Key), Error> {
    let history = |found: &Table| sql::relation(&format!("{}_history", found.plain_name), found.schema);
    if let Some(found) = resource_table::lookup(resource_type)?
        && history(&found).is_some()
    {
        return Ok((found, Key::AtOnce));
    }
    let table_name = resource_type.to_ascii_lowercase();
    let schema = match resource_table::lookup(resource_type)? {
        Some(found) => found.schema,
        None => creation_schema()?,
    };
    // From here on another session that creates the same table waits, or has been faster.
    lock(schema, &table_name);
    ensure_sequence(schema);
    let status = ensure_status(schema)?;
    let literal = pgrx::spi::quote_literal(resource_type);
    let missing = sql::relation(&table_name, schema).is_none();
    if missing {
        let name = resource_table::qualified(schema, &table_name);
        let constraint = if key == Key::Later { "not null" } else { "primary key" };
        run(&format!("create table {name} (id pg_catalog.text {constraint}, {})", columns(&status, &literal)));
    }
    let history_name = format!("{table_name}_history");
    if sql::relation(&history_name, schema).is_none() {
        run(&format!(
            "create table {} (id pg_catalog.text, {}, primary key (id, txid))",
            resource_table::qualified(schema, &history_name),
            columns(&status, &literal)
        ));
    }
    let found =
        resource_table::lookup(resource_type)?.ok_or_else(|| Error::Internal(format!("table {table_name} is not in the search path")))?;
    Ok((found, if missing { key } else { Key::AtOnce }))
}

/// Makes an unlogged table of the shape of a type's, of a name in its parts: the first schema of the search path where it names none.
/// Its version and times may be missing. Says whether it was made now: another session may have been faster.
///
/// # Errors
/// As `ensure`.
pub fn create_staging_table(name: &[String], resource_type: &str) -> Result<(pg_sys::Oid, bool), Error> {
    let (schema, plain) = match name {
        [plain] => (creation_schema()?, plain),
        [schema, plain] => (resource_table::schema(schema)?, plain),
        _ => return Err(Error::NoSchema),
    };
    lock(schema, plain);
    if let Some(found) = sql::relation(plain, schema) {
        return Ok((found, false));
    }
    let status = ensure_status(schema)?;
    let columns = columns(&status, &pgrx::spi::quote_literal(resource_type));
    let name = resource_table::qualified(schema, plain);
    run(&format!("create unlogged table {name} (id pg_catalog.text primary key, {columns})"));
    run(&format!("alter table {name} alter txid drop not null, alter cts drop default, alter ts drop default"));
    sql::relation(plain, schema).map(|oid| (oid, true)).ok_or_else(|| Error::Internal(format!("table {plain} is missing")))
}

/// Gives a table that was created without it its primary key.
pub fn add_key(table: &Table) {
    run(&format!("alter table {} add primary key (id)", table.name));
}

/// What both tables have beside id.
fn columns(status: &str, resource_type: &str) -> String {
    format!(
        "txid pg_catalog.int8 not null, cts pg_catalog.timestamptz default pg_catalog.now(), ts pg_catalog.timestamptz default pg_catalog.now(), \
         resource_type pg_catalog.text default {resource_type}, status {status} not null, resource pg_catalog.jsonb not null"
    )
}

/// The sequence's oid, created in `schema` when the search path has none.
pub fn ensure_sequence(schema: pg_sys::Oid) -> pg_sys::Oid {
    let found = || sql::relation(SEQUENCE, schema).or_else(|| resource_table::find(SEQUENCE));
    if let Some(found) = found() {
        return found;
    }
    lock(schema, SEQUENCE);
    if found().is_none() {
        run(&format!("create sequence {}", resource_table::qualified(schema, SEQUENCE)));
    }
    found().unwrap_or(pg_sys::InvalidOid)
}

/// The qualified name of the enum of a table in this schema.
///
/// # Errors
/// `WrongStatusType` where the type that stands first is not to be trusted: it has not the four labels, which a domain with another's check can hide
/// behind, or casts that run a function, or another than the table's owner could drop it, and the column with it.
fn ensure_status(schema: pg_sys::Oid) -> Result<String, Error> {
    let in_path =
        || std::iter::once(schema).chain(resource_table::search_path()).find_map(|home| Some((home, sql::type_named(STATUS, home)?)));
    if in_path().is_none() {
        lock(schema, STATUS);
    }
    let Some((home, found)) = in_path() else {
        let name = resource_table::qualified(schema, STATUS);
        run(&format!("create type {name} as enum ({})", LABELS.map(|label| format!("'{label}'")).join(", ")));
        return Ok(name);
    };
    let name = resource_table::qualified(home, STATUS);
    let labels = LABELS.map(str::to_owned).to_vec();
    let is_known = sql::value::<bool>(
        "select (select pg_catalog.count(*) from pg_catalog.pg_enum e where e.enumtypid operator(pg_catalog.=) t.oid \
            and e.enumlabel::pg_catalog.text operator(pg_catalog.=) any ($2)) operator(pg_catalog.=) pg_catalog.cardinality($2) \
         and not exists (select from pg_catalog.pg_cast c where c.castsource operator(pg_catalog.=) t.oid \
            or c.casttarget operator(pg_catalog.=) t.oid) \
         and (t.typnamespace operator(pg_catalog.=) $3 or t.typowner operator(pg_catalog.=) $4 or t.typowner operator(pg_catalog.=) \
            (select x.extowner from pg_catalog.pg_extension x where x.extname operator(pg_catalog.=) 'bulk')) \
         from pg_catalog.pg_type t where t.oid operator(pg_catalog.=) $1",
        &[found.into(), labels.into(), schema.into(), switch_user::current().into()],
    )?;
    if is_known == Some(true) { Ok(name) } else { Err(Error::WrongStatusType(name)) }
}

/// Where `create table` without a schema would go.
fn creation_schema() -> Result<pg_sys::Oid, Error> {
    resource_table::search_path().first().copied().ok_or(Error::NoSchema)
}

/// Takes the lock under which a thing of this name is created in a schema, to the transaction's end: others who would create it wait,
/// and find it.
pub fn lock(schema: pg_sys::Oid, name: &str) {
    take(&tag(schema, name));
}

/// Takes the lock of a name that others may choose too, to the transaction's end. The wait ends after five seconds with 55P03, which names who has it.
pub fn lock_in_time(name: &str) {
    // Of 64 bits, so that nobody finds another name of the same lock.
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
    let tag = pg_sys::LOCKTAG { locktag_field2: (hash >> 32) as u32, locktag_field3: hash as u32, ..tag(pg_sys::InvalidOid, name) };
    lock_holder::within(|| lock_holder::naming(Awaited::Lock(tag), || error_context::with_context(None, || take(&tag))));
}

fn tag(schema: pg_sys::Oid, name: &str) -> pg_sys::LOCKTAG {
    // Advisory locks of users have 1 or 2 here.
    const OURS: u16 = 29;
    let hash = name.bytes().fold(2_166_136_261u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    pg_sys::LOCKTAG {
        // SAFETY: reads a backend variable.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: schema.to_u32(),
        locktag_field3: hash,
        locktag_field4: OURS,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

fn take(tag: &pg_sys::LOCKTAG) {
    // SAFETY: a lock of the transaction; a cancel ends the wait for it.
    unsafe { pg_sys::LockAcquire(tag, pg_sys::ExclusiveLock as i32, false, false) };
    // SAFETY: takes up what others created before the lock was ours: that it was not there is remembered else.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Runs a statement all of whose names are qualified. What fails is raised.
pub fn run(statement: &str) {
    sqlstate::ok(sql::run(statement, &[]));
}
