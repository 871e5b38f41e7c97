//! A resource type's table: found through the search path, in the shape that rows are read from and written to.

use crate::error::Error;
use crate::fhir::definitions::{self, Definitions};
use crate::pg::sys::{owner_sql, sql, switch_user};
use pgrx::{PgRelation, pg_sys};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};

/// Tables by what they are in the catalog.
pub type Oids = Vec<pg_sys::Oid>;

/// A table of resources, its names ready for SQL.
#[derive(Debug, Clone)]
pub struct Table {
    pub oid: pg_sys::Oid,
    pub schema: pg_sys::Oid,
    /// `"schema"."table"`, quoted where needed.
    pub name: String,
    /// The name alone, for messages.
    pub plain_name: String,
    pub has_cts: bool,
    pub has_ts: bool,
    pub has_resource_type: bool,
    /// Type of the column `status`, qualified and quoted.
    pub status_type: String,
}

impl Table {
    /// Refuses a table whose name no longer means it. It is locked, so that it keeps its own; its schema can be renamed all the same, and
    /// something else come to stand in its place.
    ///
    /// # Errors
    /// `WrongShape`.
    pub fn require_name(&self) -> Result<(), Error> {
        if qualified(self.schema, &self.plain_name) == self.name {
            return Ok(());
        }
        Err(Error::WrongShape { table: self.plain_name.clone(), reason: "its schema was renamed while it was used".to_owned() })
    }
}

/// The condition that a row's column `status`, named with its table's alias, is `deleted`: by the output function of its type, which is the type's
/// own. A cast to text can be anybody's.
pub fn is_deleted(column: &str) -> String {
    format!("pg_catalog.concat({column}) operator(pg_catalog.=) 'deleted'")
}

/// The condition that it is anything else, or nothing.
pub fn is_current(column: &str) -> String {
    format!("pg_catalog.concat({column}) operator(pg_catalog.<>) 'deleted'")
}

/// A type's name as FHIR spells it, or the name of a type of the installation's own.
///
/// # Errors
/// `InvalidType` for a name that is no type's.
pub fn type_name(definitions: &Definitions, name: &str) -> Result<String, Error> {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.len() < 56 && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if !plain {
        return Err(Error::InvalidType(name.chars().take(100).collect()));
    }
    Ok(definitions.resource_name(name).unwrap_or(name).to_owned())
}

/// Whether a trigger, its own or that of a table below it, may keep rows from a table, and a statement can return those that it wrote: one that a
/// rule rewrites cannot.
pub fn returns_what_triggers_leave(oid: pg_sys::Oid) -> bool {
    // SAFETY: the oid comes from a look-up; a table dropped since is an ERROR.
    let relation = unsafe { PgRelation::with_lock(oid, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open relation has its row of the catalog.
    let row = unsafe { *relation.rd_rel };
    (row.relhastriggers || row.relhassubclass) && !row.relhasrules
}

/// The parts of a name as SQL spells it: one to three. None when it is no name.
pub fn parts_of(name: &str) -> Option<Vec<String>> {
    let name = CString::new(name).ok()?;
    // The function writes into it.
    // SAFETY: copies a NUL-terminated string.
    let copy = unsafe { pg_sys::pstrdup(name.as_ptr()) };
    let mut list = std::ptr::null_mut();
    // SAFETY: a string of ours, and where the list goes.
    let is_name = unsafe { pg_sys::SplitIdentifierString(copy, b'.' as std::ffi::c_char, &mut list) };
    // SAFETY: null for none, else a list.
    let cells = unsafe { list.as_ref() }.map_or(&[][..], |list| {
        // SAFETY: a list has as many elements as it says.
        unsafe { std::slice::from_raw_parts(list.elements, list.length as usize) }
    });
    let part = |cell: &pg_sys::ListCell| {
        // SAFETY: a list of pointers.
        let text = unsafe { cell.ptr_value };
        // SAFETY: a NUL-terminated string in the copy.
        unsafe { CStr::from_ptr(text.cast()) }.to_string_lossy().into_owned()
    };
    let parts: Vec<String> = cells.iter().map(part).collect();
    (is_name && (1..=3).contains(&parts.len())).then_some(parts)
}

/// The parts of a table's name as SQL spells it: with or without its schema.
///
/// # Errors
/// `InvalidTable` for a text that is no name.
pub fn parts(name: &str) -> Result<Vec<String>, Error> {
    parts_of(name).filter(|parts| parts.len() < 3).ok_or_else(|| Error::InvalidTable(name.chars().take(100).collect()))
}

/// The schema of this name.
///
/// # Errors
/// `InvalidTable` where there is no such schema.
pub fn schema(name: &str) -> Result<pg_sys::Oid, Error> {
    let name = CString::new(name).map_err(|_| Error::NoSchema)?;
    // SAFETY: a NUL-terminated name; a missing schema is an ERROR, as a missing right is.
    Ok(unsafe { pg_sys::LookupExplicitNamespace(name.as_ptr(), false) })
}

/// The relation of a name as SQL spells it.
///
/// # Errors
/// `InvalidTable` for a text that is no name.
pub fn find_qualified(name: &str) -> Result<Option<pg_sys::Oid>, Error> {
    Ok(match parts(name)?.as_slice() {
        [of, plain] => sql::relation(plain, schema(of)?),
        [plain] => find(plain),
        _ => None,
    })
}

/// Schemas of the search path in their order, without the system's.
pub fn search_path() -> Vec<pg_sys::Oid> {
    let mut schemas = [pg_sys::InvalidOid; 64];
    // SAFETY: the array has the room that is said.
    let count = unsafe { pg_sys::fetch_search_path_array(schemas.as_mut_ptr(), schemas.len() as i32) };
    let count = usize::try_from(count).unwrap_or(0).min(schemas.len());
    schemas[..count].iter().copied().filter(|&schema| schema != pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE)).collect()
}

/// The relation that a name without a schema means: the first in the search path. The session's temporary tables stand first, but for a path
/// that says where they stand: functions of another's rights put them last.
pub fn find(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: a NUL-terminated name; a catalog look-up.
    let oid = unsafe { pg_sys::RelnameGetRelid(name.as_ptr()) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether a type has a table, or could have one. What a session asks for by name it remembers for its life, also that it is not there: names
/// that a source makes up are looked for in the catalog itself.
pub fn may_be_there(definitions: &Definitions, resource_type: &str) -> bool {
    definitions.resource_name(resource_type).is_some()
        || CString::new(resource_type.to_ascii_lowercase()).is_ok_and(|name| is_any_relation(&name))
}

/// Whether a relation of this name is in any schema, by the catalog's index.
fn is_any_relation(name: &CStr) -> bool {
    let mut plain = pg_sys::NameData::default();
    // SAFETY: copies as much of a NUL-terminated string as a name holds.
    unsafe { pg_sys::namestrcpy(&mut plain, name.as_ptr()) };
    let mut key = pg_sys::ScanKeyData::default();
    let (column, equal) = (pg_sys::Anum_pg_class_relname as pg_sys::AttrNumber, pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber);
    let value = pg_sys::Datum::from(&raw const plain);
    // SAFETY: a key on a column of type name, with the function that compares names; the name outlives the scan.
    unsafe { pg_sys::ScanKeyInit(&mut key, column, equal, pg_sys::Oid::from(pg_sys::F_NAMEEQ), value) };
    // SAFETY: a catalog.
    let relations = unsafe { pg_sys::table_open(pg_sys::RelationRelationId, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open catalog, its index whose first column is the name, a snapshot of what is committed by now, and one key.
    let scan = unsafe {
        pg_sys::systable_beginscan(relations, pg_sys::Oid::from(pg_sys::ClassNameNspIndexId), true, std::ptr::null_mut(), 1, &mut key)
    };
    // SAFETY: the scan has just begun.
    let found = unsafe { !pg_sys::systable_getnext(scan).is_null() };
    // SAFETY: begun above.
    unsafe { pg_sys::systable_endscan(scan) };
    // SAFETY: opened above.
    unsafe { pg_sys::table_close(relations, pg_sys::AccessShareLock as i32) };
    found
}

/// The table of a resource type, if there is one. The type has passed `type_name`.
///
/// # Errors
/// `WrongShape` for a table without the columns of resources.
pub fn lookup(resource_type: &str) -> Result<Option<Table>, Error> {
    if !may_be_there(definitions::r4(), resource_type) {
        return Ok(None);
    }
    find(&resource_type.to_ascii_lowercase()).map(describe).transpose()
}

/// The same, locked for writing to the transaction's end, so that it stays as it is described.
///
/// # Errors
/// As `lookup`, and `WrongShape` where `id` has no unique key.
pub fn lookup_for_writing(resource_type: &str) -> Result<Option<Table>, Error> {
    let name = resource_type.to_ascii_lowercase();
    let mut found = if may_be_there(definitions::r4(), resource_type) { find(&name) } else { None };
    // Until the name still means the table that was locked, as PostgreSQL does; a table that is renamed again and again is refused below.
    for _ in 0..100 {
        let Some(oid) = found else { return Ok(None) };
        // SAFETY: any oid may be locked.
        unsafe { pg_sys::LockRelationOid(oid, pg_sys::RowExclusiveLock as i32) };
        let again = find(&name);
        if again == found {
            let table = describe(oid)?;
            require_statuses(&table)?;
            return Ok(Some(table));
        }
        found = again;
    }
    Err(Error::Internal(format!("table {name} does not stay what it is")))
}

/// Refuses a table whose enum of statuses lacks those that rows get.
fn require_statuses(table: &Table) -> Result<(), Error> {
    let lacks = sql::value::<bool>(
        "select t.typtype operator(pg_catalog.=) 'e' and (select pg_catalog.count(*) from pg_catalog.pg_enum e \
            where e.enumtypid operator(pg_catalog.=) t.oid and e.enumlabel operator(pg_catalog.=) any ('{created,updated}')) \
            operator(pg_catalog.<) 2 from pg_catalog.pg_type t where t.oid operator(pg_catalog.=) $1::pg_catalog.regtype",
        &[table.status_type.as_str().into()],
    )?;
    if lacks != Some(true) {
        return Ok(());
    }
    let reason = format!("the type of its column status, {}, has no values created and updated", table.status_type);
    Err(Error::WrongShape { table: table.plain_name.clone(), reason })
}

/// Waits until nobody writes to the tables of these types, and lets nobody begin to, to the transaction's end. Tables are locked in the order of
/// their types, so that two who do this do not wait for each other.
///
/// # Errors
/// `Internal` for a table that others drop and make all the while.
pub fn keep_others_off<'a>(resource_types: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let resource_types: BTreeSet<&str> = resource_types.collect();
    for resource_type in resource_types {
        if let Some(found) = lookup(resource_type)? {
            // SAFETY: any oid may be locked.
            unsafe { pg_sys::LockRelationOid(found.oid, pg_sys::ShareRowExclusiveLock as i32) };
        }
    }
    Ok(())
}

/// `"schema"."name"`.
pub fn qualified(schema: pg_sys::Oid, name: &str) -> String {
    // SAFETY: a catalog look-up; null when the schema is gone.
    let schema = unsafe { pg_sys::get_namespace_name(schema) };
    let schema = if schema.is_null() { String::new() } else { text(schema) };
    pgrx::spi::quote_qualified_identifier(schema, name.to_owned())
}

fn text(name: *const std::ffi::c_char) -> String {
    // SAFETY: a NUL-terminated string that PostgreSQL just made.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// Reads a table's shape.
///
/// # Errors
/// As `lookup`.
pub fn describe(oid: pg_sys::Oid) -> Result<Table, Error> {
    // SAFETY: the oid comes from a look-up; a table dropped since is an ERROR.
    let relation = unsafe { PgRelation::with_lock(oid, pg_sys::AccessShareLock as i32) };
    let plain_name = relation.name().to_owned();
    let wrong = |reason: String| Error::WrongShape { table: plain_name.clone(), reason };
    let descriptor = relation.tuple_desc();
    let column = |name: &str| descriptor.iter().find(|a| !a.is_dropped() && a.name() == name).map(|a| a.type_oid().value());
    for (name, kinds) in [
        ("id", [pg_sys::TEXTOID, pg_sys::VARCHAROID].as_slice()),
        ("txid", &[pg_sys::INT8OID, pg_sys::INT4OID]),
        ("resource", &[pg_sys::JSONBOID]),
    ] {
        match column(name) {
            Some(kind) if kinds.contains(&kind) => {}
            Some(_) => return Err(wrong(format!("column {name} has another type"))),
            None => return Err(wrong(format!("it has no column {name}"))),
        }
    }
    let Some(status) = column("status") else { return Err(wrong("it has no column status".to_owned())) };
    for name in ["ts", "cts"] {
        if column(name).is_some_and(|kind| kind != pg_sys::TIMESTAMPTZOID) {
            return Err(wrong(format!("column {name} is no timestamptz")));
        }
    }
    // SAFETY: the type of a column that exists.
    let status_type = text(unsafe { pg_sys::format_type_be_qualified(status) });
    let schema = relation.namespace_oid();
    Ok(Table {
        oid,
        schema,
        name: qualified(schema, &plain_name),
        has_cts: column("cts").is_some(),
        has_ts: column("ts").is_some(),
        has_resource_type: column("resource_type").is_some(),
        status_type,
        plain_name: plain_name.clone(),
    })
}

/// The table of earlier versions beside a table, if the current user may read it.
pub fn history(table: &Table) -> Option<(pg_sys::Oid, String)> {
    let (oid, name) = find_history(table)?;
    readable(oid).then(|| (oid, qualified(table.schema, &name)))
}

/// The table of earlier versions, and the columns that it shares with its table, ready for SQL.
pub struct HistoryColumns {
    pub table: String,
    pub names: Vec<String>,
}

/// Where a table's versions are kept.
///
/// # Errors
/// `NoHistory`, `WrongShape`.
pub fn history_columns(table: &Table) -> Result<HistoryColumns, Error> {
    let (oid, name) = find_history(table).ok_or_else(|| Error::NoHistory(table.plain_name.clone()))?;
    let columns = |oid| {
        // SAFETY: the oid comes from a look-up; a table dropped since is an ERROR.
        let relation = unsafe { PgRelation::with_lock(oid, pg_sys::AccessShareLock as i32) };
        let descriptor = relation.tuple_desc();
        let plain = descriptor.iter().filter(|column| !column.is_dropped() && column.attgenerated == 0);
        plain.map(|column| column.name().to_owned()).collect::<Vec<String>>()
    };
    let theirs = columns(oid);
    let shared = columns(table.oid).into_iter().filter(|name| theirs.contains(name));
    Ok(HistoryColumns { table: qualified(table.schema, &name), names: shared.map(pgrx::spi::quote_identifier).collect() })
}

/// The name of the table of earlier versions that the current user may not read.
pub fn unreadable_history(table: &Table) -> Option<String> {
    find_history(table).filter(|(oid, _)| !readable(*oid)).map(|(_, name)| name)
}

fn find_history(table: &Table) -> Option<(pg_sys::Oid, String)> {
    let name = format!("{}_history", table.plain_name);
    let oid = sql::relation(&name, table.schema)?;
    // A table that is no history has no say, nor has one of another owner: whoever may create in the schema could put it there, a view that runs
    // what they like among it.
    let (kind, owner) = kind_and_owner(oid);
    let is_trusted = || {
        // SAFETY: a catalog look-up with a role that exists.
        owner == kind_and_owner(table.oid).1 || owner == switch_user::current() || unsafe { pg_sys::superuser_arg(owner) }
    };
    let is_table = [pg_sys::RELKIND_RELATION, pg_sys::RELKIND_PARTITIONED_TABLE, pg_sys::RELKIND_FOREIGN_TABLE].contains(&kind);
    if !is_table || !is_trusted() || describe(oid).is_err() {
        return None;
    }
    Some((oid, name))
}

fn kind_and_owner(oid: pg_sys::Oid) -> (u8, pg_sys::Oid) {
    // SAFETY: the oid comes from a look-up; a table dropped since is an ERROR.
    let relation = unsafe { PgRelation::with_lock(oid, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open relation has its row of the catalog.
    let row = unsafe { *relation.rd_rel };
    (row.relkind as u8, row.relowner)
}

/// The name alone, for messages; empty for one that is gone.
pub fn plain_name(oid: pg_sys::Oid) -> String {
    // SAFETY: a catalog look-up; null when the table is gone.
    let name = unsafe { pg_sys::get_rel_name(oid) };
    if name.is_null() { String::new() } else { text(name) }
}

/// The table of a qualified name and that of its earlier versions, if they are there. Nothing is locked.
///
/// # Errors
/// As `find_qualified`.
pub fn with_history(name: &str) -> Result<Oids, Error> {
    let history = match parts(name)?.as_slice() {
        [of, plain] => sql::relation(&format!("{plain}_history"), schema(of)?),
        _ => None,
    };
    Ok(find_qualified(name)?.into_iter().chain(history).collect())
}

/// These tables and what is below them, partitions and children.
///
/// # Errors
/// Those of the query.
pub fn with_children(tables: Oids) -> Result<Oids, Error> {
    let found = owner_sql::select_latest(
        "with recursive t (oid) as (select unnest($1::oid[]) union select i.inhrelid from pg_inherits i join t on i.inhparent = t.oid) select oid from t",
        &[tables.into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// Refuses a table of which the current user may read nothing.
///
/// # Errors
/// `Unreadable` (42501).
pub fn require_readable(table: &Table) -> Result<(), Error> {
    let mode = pg_sys::ACL_SELECT as pg_sys::AclMode;
    // SAFETY: a catalog look-up for a relation that exists.
    let any = unsafe { pg_sys::pg_attribute_aclcheck_all(table.oid, switch_user::current(), mode, pg_sys::AclMaskHow::ACLMASK_ANY) };
    if readable(table.oid) || any == pg_sys::AclResult::ACLCHECK_OK { Ok(()) } else { Err(Error::Unreadable(table.plain_name.clone())) }
}

fn readable(oid: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up for a relation that exists.
    let answer = unsafe { pg_sys::pg_class_aclcheck(oid, switch_user::current(), pg_sys::ACL_SELECT as pg_sys::AclMode) };
    answer == pg_sys::AclResult::ACLCHECK_OK
}
