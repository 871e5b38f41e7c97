//! A worker's locks say who works on what, and any code can give all advisory locks of its session back: in a worker that is refused.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, function_name};
use std::cell::Cell;
use std::ffi::{c_int, c_void};

thread_local! {
    /// What was asked before, and is asked still.
    static BEFORE: Cell<pg_sys::object_access_hook_type> = const { Cell::new(None) };
}

/// From here on this process refuses `pg_advisory_unlock_all`.
pub fn protect() {
    // SAFETY: reads a variable of this process.
    BEFORE.set(unsafe { pg_sys::object_access_hook });
    // SAFETY: a variable of this process, set while nothing else runs in it.
    unsafe { pg_sys::object_access_hook = Some(at_access) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    if let Some(before) = BEFORE.get() {
        // SAFETY: a hook that was set before, called as the server calls it.
        unsafe { before(access, class, object, part, argument) };
    }
    if access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE && object == pg_sys::Oid::from(pg_sys::F_PG_ADVISORY_UNLOCK_ALL) {
        let message = "pg_advisory_unlock_all() cannot be called while a worker of bulk is at a job";
        ErrorReport::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message, function_name!())
            .set_hint("Give locks back one by one, by pg_advisory_unlock.".to_owned())
            .report(PgLogLevel::ERROR);
    }
}
