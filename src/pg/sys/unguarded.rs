//! Functions of the server that are declared again without pgrx's guard, which would cost as much as they do: they are called for every row or
//! value, within one guard around all, or they are handed to the server as signal handlers.

use pgrx::pg_sys::Oid;
use std::ffi::{c_char, c_int};

/// Declares functions of the server, and compares each at compile time with the signature that pgrx read from the server's headers. The
/// caller sees to it that an ERROR of theirs meets a guard of pgrx's before it meets Rust.
macro_rules! unguarded {
    ($(fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)?;)+) => {
        unsafe extern "C-unwind" {
            $(fn $name($($argument: $kind),*) $(-> $result)?;)+
        }
        $(const _: unsafe fn($($kind),*) $(-> $result)? = ::pgrx::pg_sys::$name;)+
    };
}
pub(crate) use unguarded;

/// An enum of the server's.
type TimeoutId = u32;

// pgrx does not bind these. `scripts/signatures.sh` compares each with the headers of every version: a declaration stands on one line.
unsafe extern "C-unwind" {
    /// src/backend/commands/sequence.c.
    pub fn nextval_internal(sequence: Oid, check_permissions: bool) -> i64;
    /// src/backend/utils/misc/timeout.c, as that below: `TimeoutId` is an enum.
    pub fn enable_timeout_every(id: TimeoutId, fin_time: i64, delay_ms: c_int);
    /// Stops a timer.
    pub fn disable_timeout(id: TimeoutId, keep_indicator: bool);
    /// src/backend/utils/error/elog.c, as those below.
    pub fn errcode(sqlstate: c_int) -> c_int;
    /// Adds a line to the context of the error that is being reported.
    pub fn errcontext_msg(format: *const c_char, ...) -> c_int;
    /// Sets the DETAIL of the error that is being reported.
    pub fn errdetail(format: *const c_char, ...) -> c_int;
    /// Sets the HINT of the error that is being reported.
    pub fn errhint(format: *const c_char, ...) -> c_int;
}
