//! Two pairs of versions that must fit: this library and the extension's SQL objects, and the server and the headers that the library was
//! built with.

use super::report;
use crate::error::Error;
use pgrx::{FromDatum, PgLogLevel, PgSqlErrorCode, ereport, pg_sys};
use std::ffi::CStr;

/// The version of the SQL objects that this library serves, as `bulk.control` has it: major and minor of the crate's own.
const SQL_VERSION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// Refuses to work (0A000) where the extension of this database has another version than this library, which happens when one of the two
/// was upgraded alone: each function that SQL calls begins with it.
pub fn require_match() {
    report::ok(matches());
}

/// The same for a worker, which reports the error itself. Runs in a transaction.
///
/// # Errors
/// `VersionMismatch` names both versions. It is no error where the database has no extension, or while one is created or altered: scripts
/// may call functions of the version that they make.
pub fn matches() -> Result<(), Error> {
    // SAFETY: reads a backend variable.
    if unsafe { pg_sys::creating_extension } {
        return Ok(());
    }
    match installed() {
        Some(sql) if sql != SQL_VERSION => {
            Err(Error::VersionMismatch { library: SQL_VERSION, library_is_newer: is_newer(SQL_VERSION, &sql), sql })
        }
        _ => Ok(()),
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

/// Says, once a process, when the server is of an older minor version than the headers that this library was built with: the server's
/// structs may have grown in between, as `ResultRelInfo` did in November 2024. What this library allocates for the server has slack for the
/// opposite case.
pub fn warn_of_older_server() {
    let built = pg_sys::PG_VERSION_NUM;
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
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("bulk was built for PostgreSQL {}, and this server is {}", minor(built), minor(server)),
            "Update the server to the newest minor release, or build bulk with this server's pg_config."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_has_the_librarys_version() {
        let control = include_str!("../../bulk.control");
        assert!(control.contains(&format!("default_version = '{SQL_VERSION}'\n")), "{control}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_newer("1.10", "1.9") && is_newer("2.0", "1.10") && is_newer("1.0.1", "1.0"));
        assert!(!is_newer("1.0", "1.0") && !is_newer("1.9", "1.10"));
    }
}
