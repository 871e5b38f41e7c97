//! Where a load's batches go.

use crate::error::Error;
use crate::pipeline::load::batch;
use crate::pipeline::load::counters::LoadCounters;
use std::rc::Rc;

/// Stores resources. Called on the main thread, batch after batch, in the order of the source's lines.
pub trait BatchSink {
    fn store(&mut self, batch: Rc<batch::Batch>, counters: &mut LoadCounters) -> Result<(), Error>;

    /// Writes down the rejects that are known, so that they are not kept in memory.
    ///
    /// # Errors
    /// Where they cannot be written.
    fn write_down(&mut self, _counters: &mut LoadCounters) -> Result<(), Error> {
        Ok(())
    }

    /// Called while there is nothing to store.
    fn idle(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends what `store` began. After an error the caller's transaction ends it.
    fn finish(self: Box<Self>, counters: &mut LoadCounters) -> Result<(), Error>;
}
