//! PostgreSQL's memory contexts: which one is current, and when a short-lived one is emptied.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Runs `work` with `context` current. After an ERROR the handler that catches it resets the context.
pub fn within<T>(context: pg_sys::MemoryContext, work: impl FnOnce() -> T) -> T {
    // SAFETY: reads a backend variable.
    let before = unsafe { pg_sys::CurrentMemoryContext };
    // SAFETY: a valid context.
    unsafe { pg_sys::CurrentMemoryContext = context };
    let result = work();
    // SAFETY: the context that was current.
    unsafe { pg_sys::CurrentMemoryContext = before };
    result
}

/// A new context inside another, deleted with it at the latest.
pub fn child(parent: pg_sys::MemoryContext, name: &'static CStr) -> pg_sys::MemoryContext {
    let [least, first, most] = [pg_sys::ALLOCSET_DEFAULT_MINSIZE, pg_sys::ALLOCSET_DEFAULT_INITSIZE, pg_sys::ALLOCSET_DEFAULT_MAXSIZE];
    // SAFETY: a valid context; the name is kept, not copied, and never goes.
    unsafe { pg_sys::AllocSetContextCreateInternal(parent, name.as_ptr(), least as usize, first as usize, most as usize) }
}

/// Runs `work` with a context of its own current, which goes with it. What it returns must not lie there.
pub fn temporary<T>(name: &'static CStr, work: impl FnOnce() -> T) -> T {
    // SAFETY: reads a backend variable.
    let context = child(unsafe { pg_sys::CurrentMemoryContext }, name);
    let result = within(context, work);
    // SAFETY: made above, no longer current.
    unsafe { pg_sys::MemoryContextDelete(context) };
    result
}

/// Empties what an executor's expressions left behind for one row.
pub fn reset_per_tuple(estate: *mut pg_sys::EState) {
    // SAFETY: a state that its caller keeps open.
    let context = unsafe { (*estate).es_per_tuple_exprcontext };
    if !context.is_null() {
        // SAFETY: an expression context of that state.
        let memory = unsafe { (*context).ecxt_per_tuple_memory };
        // SAFETY: used no more.
        unsafe { pg_sys::MemoryContextReset(memory) };
    }
}
