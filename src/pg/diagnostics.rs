//! Keeps what pgrx drops of an error on its way through Rust: the names of the schema, table, column, data type and
//! constraint, the context of the functions inside, and SQLSTATEs that are not PostgreSQL's own.
//!
//! PostgreSQL runs the error context callbacks whenever an error is raised. Ours runs twice: when the error is raised below it,
//! it copies the error; when pgrx raises it again at the end of the function, it puts back what is missing.

use pgrx::pg_sys;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

unsafe extern "C-unwind" {
    // Of PostgreSQL's elog.c; pgrx binds neither.
    fn errcode(sqlstate: c_int) -> c_int;
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
}

/// A callback with its state. It lies in the transaction's memory, because it must outlive the Rust frames of `keep`.
#[repr(C)]
struct Node {
    link: pg_sys::ErrorContextCallback,
    /// Whether `keep` is still running.
    inside: bool,
    /// A copy of the last error raised inside.
    error: *mut pg_sys::ErrorData,
}

/// Runs `work`, which calls into PostgreSQL, so that an error of it reaches the client whole.
pub fn keep<T>(work: impl FnOnce() -> T) -> T {
    let mut scope = Scope::enter();
    let result = work();
    scope.leave();
    result
}

struct Scope(*mut Node);

impl Scope {
    fn enter() -> Scope {
        // SAFETY: functions run in a transaction, so its memory context exists.
        let node = unsafe { pg_sys::MemoryContextAlloc(transaction_memory(), size_of::<Node>()) }.cast::<Node>();
        // SAFETY: reads a backend variable.
        let previous = unsafe { pg_sys::error_context_stack };
        let link = pg_sys::ErrorContextCallback { previous, callback: Some(callback), arg: node.cast() };
        // SAFETY: fresh memory of this size, aligned by PostgreSQL for any type.
        unsafe { node.write(Node { link, inside: true, error: ptr::null_mut() }) };
        // SAFETY: the node lives to the transaction's end, what it links to belongs to frames further out.
        unsafe { pg_sys::error_context_stack = node.cast() };
        Scope(node)
    }

    /// The end without an error. After one the node stays linked, for the raising at the function's end; whoever catches that
    /// sets the stack back, as always.
    fn leave(&mut self) {
        // SAFETY: the node that `enter` made.
        let previous = unsafe { (*self.0).link.previous };
        // SAFETY: what was there before.
        unsafe { pg_sys::error_context_stack = previous };
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: the node that `enter` made; no call into PostgreSQL.
        unsafe { (*self.0).inside = false };
    }
}

unsafe extern "C-unwind" fn callback(arg: *mut c_void) {
    // SAFETY: the argument that `enter` gave.
    let node = unsafe { &mut *arg.cast::<Node>() };
    if node.inside {
        node.error = copy_error();
    } else if !node.error.is_null() {
        // SAFETY: copied by the first run into memory that lives as long.
        put_back(unsafe { &*node.error });
        node.error = ptr::null_mut();
    }
}

fn transaction_memory() -> pg_sys::MemoryContext {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::TopTransactionContext }
}

/// A copy of the message that is being raised, in the transaction's memory.
fn copy_error() -> *mut pg_sys::ErrorData {
    // SAFETY: reads a backend variable.
    let outer = unsafe { pg_sys::CurrentMemoryContext };
    // CopyErrorData must not run in ErrorContext, where the error itself lies.
    let memory = transaction_memory();
    // SAFETY: a valid context; set back below.
    unsafe { pg_sys::CurrentMemoryContext = memory };
    // SAFETY: called from a context callback, so a message is on the stack.
    let copy = unsafe { pg_sys::CopyErrorData() };
    // SAFETY: the context that was current.
    unsafe { pg_sys::CurrentMemoryContext = outer };
    copy
}

fn message(error: &pg_sys::ErrorData) -> Option<&CStr> {
    // SAFETY: a field of ErrorData: null or NUL-terminated, and as long-lived as the rest.
    (!error.message.is_null()).then(|| unsafe { CStr::from_ptr(error.message) })
}

/// Completes the error that is being raised, if it is the one that was copied.
fn put_back(error: &pg_sys::ErrorData) {
    let raised = copy_error();
    // SAFETY: a copy just made.
    let same = message(unsafe { &*raised }) == message(error);
    // SAFETY: as above, used no more.
    unsafe { pg_sys::FreeErrorData(raised) };
    if !same {
        return;
    }
    // SAFETY: called from a context callback, so an error is on the stack.
    unsafe { errcode(error.sqlerrcode) };
    for (code, name) in [
        (pg_sys::PG_DIAG_SCHEMA_NAME, error.schema_name),
        (pg_sys::PG_DIAG_TABLE_NAME, error.table_name),
        (pg_sys::PG_DIAG_COLUMN_NAME, error.column_name),
        (pg_sys::PG_DIAG_DATATYPE_NAME, error.datatype_name),
        (pg_sys::PG_DIAG_CONSTRAINT_NAME, error.constraint_name),
    ] {
        if !name.is_null() {
            // SAFETY: as above; the text is NUL-terminated and copied.
            unsafe { pg_sys::err_generic_string(c_int::from(code), name) };
        }
    }
    if !error.context.is_null() {
        // SAFETY: as above; the text is an argument, not a format.
        unsafe { errcontext_msg(c"%s".as_ptr(), error.context) };
    }
}
