//! PostgreSQL's memory contexts: which one is current, and when a short-lived one is emptied.

use pgrx::pg_sys;

/// Runs `work` with `context` current. After an ERROR whoever catches it sets the context back, as always.
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
