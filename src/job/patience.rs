//! How long work waits for what is outside the database, and whether it is still wanted meanwhile.

use crate::error::{Error, SourceFault};
use crate::op::Control;
use crate::pg::attempt::{self, Failure};
use crate::pg::jobs::{self, Job};
use crate::pg::{transaction, wait};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How long a silent source is waited for before a look at whether the job is still wanted.
const LOOK: Duration = Duration::from_millis(400);
/// Before an input is begun again, at first; doubled each time.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Looks now and then whether the work is wanted, while there is nothing to do.
pub struct Attentive<'a>(pub &'a Job);

impl Control for Attentive<'_> {
    fn wait(&mut self, event: BorrowedFd) -> Result<(), Error> {
        if wait::for_event(event, Some(LOOK)) {
            return Ok(());
        }
        match transaction::run(None, || jobs::is_wanted(self.0)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Stopped),
            Err(failure) => Err(failure.into_error()),
        }
    }
}

/// As `Attentive`, within a transaction.
pub struct Within<'a>(pub &'a Job);

impl Control for Within<'_> {
    fn wait(&mut self, event: BorrowedFd) -> Result<(), Error> {
        if wait::for_event(event, Some(LOOK)) || jobs::is_wanted(self.0)? { Ok(()) } else { Err(Error::Stopped) }
    }
}

/// Lets time pass before a source is asked again, the longer the more often; false when the job is wanted no more.
pub fn rest(job: &Job, tries: u32) -> Result<bool, Failure> {
    let mut left = PAUSE.saturating_mul(1 << tries.min(10)).min(LONGEST_PAUSE);
    while !left.is_zero() {
        let some = left.min(LOOK);
        attempt::outside(|| {
            wait::pause(some);
            Ok(())
        })?;
        left -= some;
        if !transaction::run(None, || jobs::is_wanted(job))? {
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
