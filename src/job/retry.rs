//! How often work is tried again, and how long it waits before.

use crate::error::{Error, SourceFault};
use crate::job::cancel;
use crate::pg::process::transaction;
use crate::pg::state::job::{self, Job};
use crate::pg::sys::latch;
use crate::pg::sys::subtransaction::{self, Failure};
use std::time::Duration;

/// Times that a step is tried again when what failed may pass.
pub const MAX_STEP_TRIES: u32 = 5;
/// Before an input is begun again, at first; doubled each time.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Lets time pass before a source is asked again, the longer the more often; false when the job is wanted no more.
pub fn back_off(job: &Job, tries: u32) -> Result<bool, Failure> {
    let mut left = PAUSE.saturating_mul(1 << tries.min(10)).min(LONGEST_PAUSE);
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

/// Whether a source may do better when it is asked again.
pub fn is_transient(error: &Error) -> bool {
    let Error::Source { fault, .. } = error else { return false };
    match fault {
        SourceFault::Unreachable(_) | SourceFault::Timeout | SourceFault::Read(_) | SourceFault::Truncated(_) => true,
        SourceFault::Status(status) => matches!(status, 429 | 500 | 502 | 503 | 504),
        _ => false,
    }
}
