//! Waiting before work is tried again, while the job is still wanted. What is tried again, and how long to wait, says `crate::retry`.

use crate::job::cancel;
use crate::pg::process::transaction;
use crate::pg::state::job::{self, Job};
use crate::pg::sys::latch;
use crate::pg::sys::subtransaction::{self, Failure};
use crate::retry::Backoff;

/// Times that a step of a task is tried again.
pub const MAX_STEP_TRIES: u32 = 5;

/// Lets time pass after so many tries that failed; false when the job is wanted no more.
///
/// # Errors
/// A cancel, or the end of the extension.
pub fn back_off(job: &Job, backoff: Backoff, failed: u32) -> Result<bool, Failure> {
    let mut left = backoff.pause(failed);
    while !left.is_zero() {
        let some = left.min(cancel::CANCEL_POLL_INTERVAL);
        subtransaction::outside(|| {
            latch::pause(some);
            Ok(())
        })?;
        left -= some;
        if !transaction::run(None, || job::is_wanted(job))? {
            return Ok(false);
        }
    }
    Ok(true)
}
