//! What workers write down of their work.

use crate::error::Error;
use crate::pg::process::transaction;
use crate::pg::sys::guc;
use crate::pg::sys::subtransaction::Failure;

/// Times that what is to be written down is tried, should a cancel meet it: that was meant for the work.
const NOTE_TRIES: u32 = 3;

/// Runs a transaction that records progress, with a lock timeout of 5 s: a session that locks a job's row must not block a worker.
///
/// # Errors
/// Those of `work`, and a cancel that came more than twice.
pub fn record<T>(work: impl Fn() -> Result<T, Error>) -> Result<T, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        match transaction::run(None, || guc::within(&[(c"lock_timeout", c"5s")], &work)) {
            Err(failure) if failure.is_cancel() && tries < NOTE_TRIES => {}
            done => return done,
        }
    }
}
