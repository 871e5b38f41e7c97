//! How the main thread waits for the others.

use crate::error::Error;
use std::os::fd::BorrowedFd;

/// The main thread's side of waiting.
pub trait WaitControl {
    /// Returns when `event` can be read. A cancel or a shutdown ends the statement from inside; an error is that nobody wants the work any
    /// more.
    fn wait(&mut self, event: BorrowedFd) -> Result<(), Error>;
}
