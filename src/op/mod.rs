//! The verbs as pipelines: what runs on threads, in which order results come back, what bounds the memory. Knows the
//! database only through the small traits here.

pub mod aside;
pub mod batch;
pub mod checkpoint;
pub mod crew;
pub mod csv;
pub mod dump;
pub mod examine;
pub mod export;
pub mod field;
pub mod gzip;
pub mod ids;
pub mod ledger;
pub mod line;
pub mod load;
pub mod option;
pub mod outbox;
pub mod piece;
pub mod pipe;
pub mod policy;
pub mod queue;
pub mod rows;
pub mod seen;
pub mod spool;

use crate::error::Error;
use ledger::Ledger;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

/// Stores resources. Called on the main thread, batch after batch, in the order of the source's lines.
pub trait Sink {
    fn store(&mut self, batch: Rc<batch::Batch>, ledger: &mut Ledger) -> Result<(), Error>;

    /// Called while there is nothing to store.
    fn idle(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends what `store` began. After an error the caller's transaction ends it.
    fn finish(self: Box<Self>, ledger: &mut Ledger) -> Result<(), Error>;
}

/// The main thread's side of waiting.
pub trait Control {
    /// Returns when `event` can be read. A cancel or a shutdown ends the statement from inside; an error is that nobody wants the work any
    /// more.
    fn wait(&mut self, event: BorrowedFd) -> Result<(), Error>;
}
