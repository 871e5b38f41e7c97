//! A cancel of one's own after some time: the server's timer for `statement_timeout`, which background workers do not use otherwise.

use crate::pg::sys::unguarded::{disable_timeout, enable_timeout_after};
use std::ffi::c_int;
use std::time::Duration;

/// `STATEMENT_TIMEOUT` of `TimeoutId`: `scripts/signatures.sh` compares it with the headers.
const STATEMENT_TIMEOUT: u32 = 3;

/// Has this background worker cancelled after some time.
pub fn cancel_after(time: Duration) {
    // Not a part of one sooner.
    let milliseconds = c_int::try_from(time.as_millis() + 1).unwrap_or(c_int::MAX);
    // SAFETY: the server has set the timer up for every process with a connection; it raises nothing but for a timer that is not.
    unsafe { enable_timeout_after(STATEMENT_TIMEOUT, milliseconds) };
}

/// The opposite, if it has not happened yet.
pub fn disarm() {
    // SAFETY: the server has set the timer up for every process with a connection; one that does not run may be stopped.
    unsafe { disable_timeout(STATEMENT_TIMEOUT, false) };
}
