//! What workers write down of their work.

use crate::error::Error;
use crate::pg::process::transaction;
use crate::pg::sys::subtransaction::Failure;

/// Times that what is to be written down is tried, should a cancel meet it: that was meant for the work.
const CANCEL_TRIES: u32 = 3;
/// Times that it is tried when another transaction wrote the same rows.
const CONFLICT_TRIES: u32 = 10;

/// Runs a transaction that records progress.
///
/// # Errors
/// Those of `work`, a cancel that came more than twice, and a conflict that came ten times.
pub fn record<T>(work: impl Fn() -> Result<T, Error>) -> Result<T, Failure> {
    let (mut cancels, mut conflicts) = (0, 0);
    loop {
        match transaction::run(None, &work) {
            Err(failure) if failure.is_cancel() && cancels + 1 < CANCEL_TRIES => cancels += 1,
            Err(failure) if failure.is_transient_conflict() && conflicts + 1 < CONFLICT_TRIES => conflicts += 1,
            done => return done,
        }
    }
}
