//! A cancel of one's own after some time: the server's timer for `statement_timeout`, which background workers do not use otherwise.

use crate::pg::sys::unguarded::{disable_timeout, enable_timeout_every};
use pgrx::pg_sys;
use std::ffi::c_int;
use std::time::Duration;

/// `STATEMENT_TIMEOUT` of `TimeoutId`: `scripts/signatures.sh` compares it with the headers.
const STATEMENT_TIMEOUT: u32 = 3;

/// Between two cancels, in milliseconds: one may meet what nothing cancels.
const AGAIN: c_int = 1000;

/// Has this background worker cancelled after some time, and again each second.
pub fn cancel_after(time: Duration) {
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    // Not a part of a millisecond sooner, which is what the timer counts in.
    let end = now.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)).saturating_add(1000);
    // SAFETY: the server has set the timer up for every process with a connection; it raises nothing but for a timer that is not.
    unsafe { enable_timeout_every(STATEMENT_TIMEOUT, end, AGAIN) };
}

/// The opposite.
pub fn disarm() {
    // SAFETY: the server has set the timer up for every process with a connection; one that does not run may be stopped.
    unsafe { disable_timeout(STATEMENT_TIMEOUT, false) };
}
