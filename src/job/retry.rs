//! How often work is tried again, and how long it waits before.

use crate::error::{Error, SourceFault};
use crate::job::cancel;
use crate::pg::attempt::{self, Failure};
use crate::pg::jobs::entry::{self, Job};
use crate::pg::{transaction, wait};
use std::time::Duration;

/// Before an input is begun again, at first; doubled each time.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Lets time pass before a source is asked again, the longer the more often; false when the job is wanted no more.
pub fn rest(job: &Job, tries: u32) -> Result<bool, Failure> {
    let mut left = PAUSE.saturating_mul(1 << tries.min(10)).min(LONGEST_PAUSE);
    while !left.is_zero() {
        let some = left.min(cancel::LOOK);
        attempt::outside(|| {
            wait::pause(some);
            Ok(())
        })?;
        left -= some;
        if !transaction::run(None, || entry::is_wanted(job))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a source may do better when it is asked again.
pub fn may_pass(error: &Error) -> bool {
    let Error::Source { fault, .. } = error else { return false };
    match fault {
        SourceFault::Unreachable(_) | SourceFault::Timeout | SourceFault::Read(_) | SourceFault::Truncated(_) => true,
        SourceFault::Status(status) => matches!(status, 429 | 500 | 502 | 503 | 504),
        _ => false,
    }
}
