//! What an error of PostgreSQL's says when it comes out of our functions. pgrx drops some of it on its way through Rust (the names
//! of the schema, table, column, data type and constraint, the context of the functions inside, SQLSTATEs that are not
//! PostgreSQL's own): that is put back. Where the error was met in a source is added; the content of a row is taken out.
//!
//! PostgreSQL runs the error context callbacks whenever an error is raised. Ours runs twice: when the error is raised below it,
//! it copies the error; when pgrx raises it again at the end of the function, it completes that.

use crate::pg::sys::lock_holder;
use crate::pg::sys::memory_context;
use crate::pg::sys::sqlstate;
use crate::pg::sys::unguarded::{errcode, errcontext_msg, errdetail, errhint};
use crate::retry;
use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

/// A callback with its state. It lies in the transaction's memory, because it must outlive the Rust frames of `with_context`.
#[repr(C)]
struct Node {
    link: pg_sys::ErrorContextCallback,
    /// Whether `with_context` is still running.
    inside: bool,
    /// A copy of the last error raised inside.
    error: *mut pg_sys::ErrorData,
    /// What is added to the error's context; null for nothing.
    place: *mut c_char,
}

/// Runs `work`, which calls into PostgreSQL, so that an error of it reaches the client whole. `place` becomes part of its
/// context: what of which source was being stored.
pub fn with_context<T>(place: Option<&str>, work: impl FnOnce() -> T) -> T {
    let scope = Scope::enter(place);
    let result = work();
    scope.leave();
    result
}

struct Scope(*mut Node);

impl Scope {
    fn enter(place: Option<&str>) -> Scope {
        let (node, place) = memory_context::within(transaction_memory(), || {
            // SAFETY: allocates in the transaction's memory.
            let node = unsafe { pg_sys::palloc(size_of::<Node>()) }.cast::<Node>();
            let place = place.and_then(|place| CString::new(place).ok());
            // SAFETY: copies a NUL-terminated string.
            let place = place.map_or(ptr::null_mut(), |place| unsafe { pg_sys::pstrdup(place.as_ptr()) });
            (node, place)
        });
        // SAFETY: reads a backend variable.
        let previous = unsafe { pg_sys::error_context_stack };
        let link = pg_sys::ErrorContextCallback { previous, callback: Some(callback), arg: node.cast() };
        // SAFETY: fresh memory of this size, aligned by PostgreSQL for any type.
        unsafe { node.write(Node { link, inside: true, error: ptr::null_mut(), place }) };
        // SAFETY: the node lives to the transaction's end, what it links to belongs to frames further out.
        unsafe { pg_sys::error_context_stack = node.cast() };
        Scope(node)
    }

    /// The end without an error. After one the node stays linked, for the rethrow at the function's end; the handler that catches that
    /// sets the stack back, as always.
    fn leave(self) {
        let node = self.0;
        std::mem::forget(self);
        // SAFETY: the node that `enter` made.
        let previous = unsafe { (*node).link.previous };
        // SAFETY: what was there before.
        unsafe { pg_sys::error_context_stack = previous };
        free(node);
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: the node that `enter` made; no call into PostgreSQL.
        unsafe { (*self.0).inside = false };
    }
}

/// A node that `enter` made, linked no more.
fn free(node: *mut Node) {
    free_error(node);
    // SAFETY: as said.
    let place = unsafe { (*node).place };
    if !place.is_null() {
        // SAFETY: allocated by `enter`.
        unsafe { pg_sys::pfree(place.cast()) };
    }
    // SAFETY: allocated by `enter`, used no more.
    unsafe { pg_sys::pfree(node.cast()) };
}

fn free_error(node: *mut Node) {
    // SAFETY: a node that is still there.
    let error = unsafe { std::mem::replace(&mut (*node).error, ptr::null_mut()) };
    if !error.is_null() {
        // SAFETY: a copy of ours, used no more.
        unsafe { pg_sys::FreeErrorData(error) };
    }
}

/// The SQLSTATE of the error that was raised inside a `with_context` which began since `previous` was on top of the stack.
pub fn state_since(previous: *mut pg_sys::ErrorContextCallback) -> Option<c_int> {
    // SAFETY: reads a backend variable.
    let mut link = unsafe { pg_sys::error_context_stack };
    while !link.is_null() && link != previous {
        // SAFETY: a callback that is still linked; ours live to the transaction's end.
        let known = unsafe { &*link };
        if is_ours(known) {
            // SAFETY: our callbacks are linked by nodes.
            let error = unsafe { (*link.cast::<Node>()).error };
            // SAFETY: null or a copy of ours.
            return unsafe { error.as_ref() }.map(|error| error.sqlerrcode);
        }
        link = known.previous;
    }
    None
}

/// Sets the stack back to what it was, and forgets the errors that were raised since.
pub fn forget_since(previous: *mut pg_sys::ErrorContextCallback) {
    // SAFETY: reads a backend variable.
    let mut link = unsafe { pg_sys::error_context_stack };
    // SAFETY: what was there before.
    unsafe { pg_sys::error_context_stack = previous };
    while !link.is_null() && link != previous {
        // SAFETY: a callback that was still linked; ours live to the transaction's end.
        let known = unsafe { *link };
        if is_ours(&known) {
            free(link.cast());
        }
        link = known.previous;
    }
}

fn is_ours(link: &pg_sys::ErrorContextCallback) -> bool {
    link.callback.is_some_and(|known| known as usize == callback as *const () as usize)
}

unsafe extern "C-unwind" fn callback(arg: *mut c_void) {
    let node = arg.cast::<Node>();
    // SAFETY: called from a context callback, so a message is on the stack.
    let code = unsafe { pg_sys::geterrcode() };
    if is_notice(code) {
        return;
    }
    if code == pgrx::PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE as c_int {
        lock_holder::annotate();
    }
    let raised = copy_error();
    // SAFETY: a copy just made.
    let data = unsafe { &*raised };
    if data.elevel >= pgrx::PgLogLevel::ERROR as c_int {
        // SAFETY: the argument that `enter` gave.
        let known = unsafe { &*node };
        if known.inside {
            free_error(node);
            // SAFETY: a node on the stack of a caller that has not returned, since it is still linked.
            unsafe { (*node).error = raised };
            return;
        }
        // SAFETY: null or a copy of ours.
        if let Some(first) = unsafe { known.error.as_ref() }
            && message(first) == message(data)
        {
            complete(first, known.place);
            free_error(node);
        }
    }
    // SAFETY: the copy of above, used no more.
    unsafe { pg_sys::FreeErrorData(raised) };
}

/// SQLSTATEs of the classes 00 and 01, which notices and warnings have: the first two of its five characters, six bits each.
fn is_notice(code: c_int) -> bool {
    let class = code & 0xFFF;
    class == 0 || class == 1 << 6
}

fn transaction_memory() -> pg_sys::MemoryContext {
    // SAFETY: reads a backend variable; functions run in a transaction, so it is set.
    unsafe { pg_sys::TopTransactionContext }
}

/// A copy of the message that is being raised, in the transaction's memory: CopyErrorData must not run in ErrorContext, where
/// the error itself lies.
fn copy_error() -> *mut pg_sys::ErrorData {
    memory_context::within(transaction_memory(), || {
        // SAFETY: called from a context callback, so a message is on the stack.
        unsafe { pg_sys::CopyErrorData() }
    })
}

fn message(error: &pg_sys::ErrorData) -> Option<&CStr> {
    // SAFETY: a field of ErrorData: null or NUL-terminated, and as long-lived as the rest.
    (!error.message.is_null()).then(|| unsafe { CStr::from_ptr(error.message) })
}

/// What to do when another transaction stood in the way of rows that a session writes itself.
const CONFLICT_HINT: &CStr =
    c"If another transaction writes the same resources, load again, or use bulk.import, which tries again by itself.";

/// Completes the error that is being raised by what `first` said.
fn complete(first: &pg_sys::ErrorData, place: *const c_char) {
    // SAFETY: called from a context callback, so an error is on the stack.
    unsafe { errcode(first.sqlerrcode) };
    for (code, name) in [
        (pg_sys::PG_DIAG_SCHEMA_NAME, first.schema_name),
        (pg_sys::PG_DIAG_TABLE_NAME, first.table_name),
        (pg_sys::PG_DIAG_COLUMN_NAME, first.column_name),
        (pg_sys::PG_DIAG_DATATYPE_NAME, first.datatype_name),
        (pg_sys::PG_DIAG_CONSTRAINT_NAME, first.constraint_name),
    ] {
        if !name.is_null() {
            // SAFETY: an error is being reported on this stack; the text is NUL-terminated and copied.
            unsafe { pg_sys::err_generic_string(c_int::from(code), name) };
        }
    }
    // SAFETY: a field of ErrorData: null or NUL-terminated, and as long-lived as the rest.
    let detail = (!first.detail.is_null()).then(|| unsafe { CStr::from_ptr(first.detail) });
    if let Some(detail) = detail.and_then(|detail| without_content(first.sqlerrcode, detail.to_bytes())) {
        // SAFETY: an error is being reported on this stack; the text is NUL-terminated, copied, and has no format signs.
        unsafe { errdetail(detail.as_ptr()) };
    }
    let is_known_id = detail.is_some_and(|detail| detail.to_bytes().starts_with(b"Key (id)="));
    if !place.is_null() && (is_known_id || retry::is_transient_state(&sqlstate::sqlstate(first.sqlerrcode))) {
        // SAFETY: called from a context callback; the text has no format signs.
        unsafe { errhint(CONFLICT_HINT.as_ptr()) };
    }
    for context in [first.context.cast_const(), place] {
        if !context.is_null() {
            // SAFETY: an error is being reported on this stack; the text is an argument, not a format, and is copied.
            unsafe { errcontext_msg(c"%s".as_ptr(), context) };
        }
    }
}

/// What stands for a DETAIL that shows what a resource says, patients' data, which messages and logs must not hold: of the row as a whole, or of a
/// key other than id.
pub fn without_content(sqlstate: c_int, detail: &[u8]) -> Option<&'static CStr> {
    use pgrx::PgSqlErrorCode as Code;
    let is = |code: Code| sqlstate == code as c_int;
    if is(Code::ERRCODE_NOT_NULL_VIOLATION) || is(Code::ERRCODE_CHECK_VIOLATION) || is(Code::ERRCODE_WITH_CHECK_OPTION_VIOLATION) {
        return Some(c"The failing row is not shown.");
    }
    let of_key =
        [Code::ERRCODE_UNIQUE_VIOLATION, Code::ERRCODE_EXCLUSION_VIOLATION, Code::ERRCODE_FOREIGN_KEY_VIOLATION].into_iter().any(is);
    (of_key && !detail.starts_with(b"Key (id)=")).then_some(c"The key is not shown.")
}
