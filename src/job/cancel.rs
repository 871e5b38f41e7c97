//! Whether work is still wanted while it waits for what is outside the database.

use crate::error::Error;
use crate::pg::process::transaction;
use crate::pg::state::job::{self, Job};
use crate::pg::sys::latch;
use crate::pipeline::wait_control::Control;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How long a silent source is waited for before a look at whether the job is still wanted.
pub const LOOK: Duration = Duration::from_millis(400);

/// Looks now and then whether the work is wanted, while there is nothing to do.
pub struct Attentive<'a>(pub &'a Job);

impl Control for Attentive<'_> {
    fn wait(&mut self, event: BorrowedFd) -> Result<(), Error> {
        if latch::for_event(event, Some(LOOK)) {
            return Ok(());
        }
        match transaction::run(None, || job::is_wanted(self.0)) {
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
        if latch::for_event(event, Some(LOOK)) || job::is_wanted(self.0)? { Ok(()) } else { Err(Error::Stopped) }
    }
}
