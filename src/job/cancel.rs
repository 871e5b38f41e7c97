//! Whether work is still wanted while it waits for what is outside the database.

use crate::error::Error;
use crate::pg::process::transaction;
use crate::pg::state::job::{self, Job};
use crate::pg::sys::latch;
use crate::pipeline::wait_control::WaitControl;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How long a silent source is waited for before a look at whether the job is still wanted.
pub const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(400);

/// Looks now and then whether the work is wanted, while there is nothing to do.
pub struct CancelPoll<'a>(pub &'a Job);

impl WaitControl for CancelPoll<'_> {
    fn wait(&mut self, event: BorrowedFd) -> Result<(), Error> {
        if latch::for_event(event, Some(CANCEL_POLL_INTERVAL)) {
            return Ok(());
        }
        match transaction::run(None, || job::is_wanted(self.0)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Stopped),
            Err(failure) => Err(failure.into_error()),
        }
    }
}

/// As `CancelPoll`, within a transaction.
pub struct CancelPollInTransaction<'a>(pub &'a Job);

impl WaitControl for CancelPollInTransaction<'_> {
    fn wait(&mut self, event: BorrowedFd) -> Result<(), Error> {
        if latch::for_event(event, Some(CANCEL_POLL_INTERVAL)) || job::is_wanted(self.0)? { Ok(()) } else { Err(Error::Stopped) }
    }
}
