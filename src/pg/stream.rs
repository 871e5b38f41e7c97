//! The end of a set-returning function that is not read to its end (LIMIT, a closed cursor): what it holds of PostgreSQL goes
//! by a callback of the query's own.

use super::rows;
use pgrx::pg_sys;
use std::ffi::CString;

/// Has a portal closed when the query that calls the function ends. After an error the transaction's end does it.
pub fn close_with_query(fcinfo: pg_sys::FunctionCallInfo, portal: CString) {
    // SAFETY: a set-returning function is always called with a ReturnSetInfo.
    let info = unsafe { (*fcinfo).resultinfo }.cast::<pg_sys::ReturnSetInfo>();
    if info.is_null() {
        return;
    }
    // SAFETY: as above.
    let context = unsafe { (*info).econtext };
    let name = Box::into_raw(Box::new(portal));
    // SAFETY: the callback runs once, before the context goes.
    unsafe { pg_sys::RegisterExprContextCallback(context, Some(close), pg_sys::Datum::from(name)) };
}

unsafe extern "C-unwind" fn close(arg: pg_sys::Datum) {
    // SAFETY: made by `close_with_query`, given back here only.
    let portal = unsafe { Box::from_raw(arg.cast_mut_ptr::<CString>()) };
    rows::close(&portal);
}
