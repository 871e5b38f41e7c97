//! Two pairs of versions that must fit: this library and the extension's SQL objects, and the server and the headers that the library was
//! built with.

use crate::error::Error;
use crate::pg::sys::sqlstate;
use crate::pg::sys::switch_user::Confined;
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{FromDatum, PgLogLevel, PgSqlErrorCode, function_name, pg_sys};
use std::ffi::CStr;

/// The version of the SQL objects that this library serves, as `bulk.control` has it: major and minor of the crate's own.
const SQL_VERSION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// The first parameter of each function that SQL calls; no argument of SQL's belongs to it. Where the extension of this database has another
/// version than this library, which happens when one of the two was upgraded alone, it ends the call (0A000) before an argument is read: their
/// number and types may be others than the library takes them for. Until the function returns, what it calls is confined.
pub struct Matched {
    _confined: Confined,
}

pgrx::impl_sql_translatable!(Matched, "internal");

// SAFETY: a virtual argument, of which nothing is read.
unsafe impl<'fcx> ArgAbi<'fcx> for Matched {
    unsafe fn unbox_arg_unchecked(_arg: Arg<'_, 'fcx>) -> Matched {
        sqlstate::ok(matches());
        Matched { _confined: Confined::enter() }
    }

    fn is_virtual_arg() -> bool {
        true
    }
}

/// The same for a worker, which reports the error itself. Runs in a transaction.
///
/// # Errors
/// `VersionMismatch` names both versions. It is no error where the database has no extension, or while it is created, altered or dropped: scripts
/// and event triggers may call functions meanwhile.
pub fn matches() -> Result<(), Error> {
    match installed() {
        Some(sql) if sql != SQL_VERSION && !is_changing() => {
            Err(Error::VersionMismatch { library: SQL_VERSION, library_is_newer: is_newer(SQL_VERSION, &sql), sql })
        }
        _ => Ok(()),
    }
}

/// Whether this is called by the extension's own script, or by a trigger of a statement that creates, alters or drops extensions.
fn is_changing() -> bool {
    // SAFETY: reads a backend variable.
    if unsafe { pg_sys::creating_extension } {
        // SAFETY: reads a backend variable, which is set with the other.
        let current = unsafe { pg_sys::CurrentExtensionObject };
        // SAFETY: a catalog look-up by a NUL-terminated name.
        return current == unsafe { pg_sys::get_extension_oid(c"bulk".as_ptr(), true) };
    }
    // SAFETY: reads a backend variable.
    let portal = unsafe { pg_sys::ActivePortal };
    // SAFETY: null, or the portal that runs the client's statement, which lasts as long as that.
    let Some(portal) = (unsafe { portal.as_ref() }) else { return false };
    // SAFETY: null, or the portal's list of planned statements.
    let Some(list) = (unsafe { portal.stmts.as_ref() }) else { return false };
    // SAFETY: a list that is not null has an element.
    let element = unsafe { *list.elements };
    // SAFETY: a list of pointers.
    let first = unsafe { element.ptr_value }.cast::<pg_sys::PlannedStmt>();
    // SAFETY: a portal's statements are planned.
    let utility = unsafe { (*first).utilityStmt };
    // SAFETY: null, or a node, which begins with its tag.
    let Some(node) = (unsafe { utility.as_ref() }) else { return false };
    match node.type_ {
        pg_sys::NodeTag::T_CreateExtensionStmt
        | pg_sys::NodeTag::T_AlterExtensionStmt
        | pg_sys::NodeTag::T_AlterExtensionContentsStmt
        | pg_sys::NodeTag::T_DropOwnedStmt => true,
        pg_sys::NodeTag::T_DropStmt => {
            // SAFETY: the tag says what it is.
            let dropped = unsafe { (*utility.cast::<pg_sys::DropStmt>()).removeType };
            matches!(dropped, pg_sys::ObjectType::OBJECT_EXTENSION | pg_sys::ObjectType::OBJECT_SCHEMA)
        }
        _ => false,
    }
}

/// Whether a version's numbers are greater than another's.
fn is_newer(version: &str, other: &str) -> bool {
    let numbers = |version: &str| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    numbers(version) > numbers(other)
}

/// `extversion` of the extension in this database. The catalog is read at each call, since another session may alter it; it is one page.
fn installed() -> Option<String> {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: a catalog that is always there; this runs in a transaction.
    let relation = unsafe { pg_sys::table_open(pg_sys::ExtensionRelationId, lock) };
    // SAFETY: a sequential scan of an open relation, without keys, under a catalog snapshot.
    let scan = unsafe { pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, std::ptr::null_mut(), 0, std::ptr::null_mut()) };
    let mut found = None;
    while found.is_none() {
        // SAFETY: the scan is open.
        let row = unsafe { pg_sys::systable_getnext(scan) };
        if row.is_null() {
            break;
        }
        // SAFETY: the row is of this relation and stays pinned until the next one is fetched.
        found = unsafe { version_in(relation, row) };
    }
    // SAFETY: opened above, used no more.
    unsafe { pg_sys::systable_endscan(scan) };
    // SAFETY: opened above, used no more.
    unsafe { pg_sys::table_close(relation, lock) };
    found
}

/// The version that a row of `pg_extension` has, when it is this extension's.
///
/// # Safety
/// `row` is a row of `relation`, which is `pg_extension`, and stays valid during the call.
unsafe fn version_in(relation: pg_sys::Relation, row: pg_sys::HeapTuple) -> Option<String> {
    // SAFETY: the caller's relation is open.
    let descriptor = unsafe { (*relation).rd_att };
    let column = |number: u32| {
        let mut null = false;
        // SAFETY: a column of the catalog, of a row that fits the descriptor.
        let datum = unsafe { pg_sys::heap_getattr(row, number as i32, descriptor, &mut null) };
        (!null).then_some(datum)
    };
    let name = column(pg_sys::Anum_pg_extension_extname)?;
    // SAFETY: a value of type name holds a NUL-terminated string.
    let name = unsafe { CStr::from_ptr(name.cast_mut_ptr::<std::ffi::c_char>()) };
    let version = column(pg_sys::Anum_pg_extension_extversion).filter(|_| name == c"bulk")?;
    // SAFETY: a value of type text, which is copied.
    unsafe { String::from_datum(version, false) }
}

/// Warns, once a process that loads the library, when the server is of an older minor version than the headers that it was built with: the
/// server's structs may have grown in between, as `ResultRelInfo` did in November 2024. What this library allocates for the server has slack
/// for the opposite case.
pub fn warn_of_older_server() {
    let built = pg_sys::PG_VERSION_NUM;
    // SAFETY: reads a backend variable. A parallel worker loads what its leader has loaded, which has warned.
    if unsafe { pg_sys::ParallelWorkerNumber } >= 0 {
        return;
    }
    // SAFETY: a setting of the server that exists in every version.
    let setting = unsafe { pg_sys::GetConfigOption(c"server_version_num".as_ptr(), true, false) };
    if setting.is_null() {
        return;
    }
    // SAFETY: a NUL-terminated string.
    let server: u32 = unsafe { CStr::from_ptr(setting) }.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(built);
    // The module's magic block has already refused another major version.
    if server < built {
        let minor = |number: u32| format!("{}.{}", number / 10_000, number % 10_000);
        let message = format!("bulk was built for PostgreSQL {}, and this server is {}", minor(built), minor(server));
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, function_name!())
            .set_hint("Update the server to the newest minor release, or build bulk with this server's pg_config.")
            .report(PgLogLevel::WARNING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_has_the_librarys_version() {
        let control = include_str!("../../../bulk.control");
        assert!(control.contains(&format!("default_version = '{SQL_VERSION}'\n")), "{control}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_newer("1.10", "1.9") && is_newer("2.0", "1.10") && is_newer("1.0.1", "1.0"));
        assert!(!is_newer("1.0", "1.0") && !is_newer("1.9", "1.10"));
    }
}
