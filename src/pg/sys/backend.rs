//! What happens once a process: threads end before the backend's shared memory goes, however the backend ends.

use crate::error::Error;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Has threads stopped when this process exits. FATAL unwinds nothing, so no `Drop` would do it. Idempotent.
pub fn stop_threads_at_exit() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the callback stays valid, since a library is never unloaded.
        unsafe { pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0)) }
    }
}

/// Keeps the stack of the library out of errors, whatever the server's environment says: it is none of a client's business, and where calls call
/// one another it grows without bound.
pub fn leave_out_backtraces() {
    // SAFETY: while a library is loaded this process has one thread.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
}

/// For functions that write: refuses a read-only transaction and a standby, before anything else is done.
pub fn require_writable(function: &CStr) {
    // SAFETY: a NUL-terminated name, as below.
    unsafe { pg_sys::PreventCommandIfReadOnly(function.as_ptr()) };
    require_primary(function);
}

/// For functions that have to do with workers: refuses a standby.
pub fn require_primary(function: &CStr) {
    // SAFETY: a NUL-terminated name.
    unsafe { pg_sys::PreventCommandDuringRecovery(function.as_ptr()) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: std::ffi::c_int, _arg: pg_sys::Datum) {
    crate::pipeline::thread_group::stop_all();
}

/// Refuses a database whose text is not UTF-8: jsonb made here would not be in its encoding.
///
/// # Errors
/// `DatabaseEncoding` (0A000).
pub fn require_utf8() -> Result<(), Error> {
    // SAFETY: reads a backend variable.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    if encoding == pg_sys::pg_enc::PG_UTF8 as i32 { Ok(()) } else { Err(Error::DatabaseEncoding) }
}

/// When the current transaction began, which is the `ts` of what it stores: microseconds since 2000-01-01 UTC.
pub fn transaction_time() -> i64 {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// The database of this process.
pub fn database() -> pg_sys::Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::MyDatabaseId }
}

/// Whether this server only follows another.
pub fn is_standby() -> bool {
    // SAFETY: reads what the server knows of itself.
    unsafe { pg_sys::RecoveryInProgress() }
}
