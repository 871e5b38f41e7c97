//! Counts the lines of a source that is loaded within one transaction.

use crate::error::Error;
use crate::pg::state::job::{self, Job};
use crate::pg::state::task::Progress;
use crate::pipeline::load::batch::Batch;
use crate::pipeline::load::counters::LoadCounters;
use crate::pipeline::load::sink::BatchSink;
use std::rc::Rc;

/// Counts what goes into a sink, and ends it when the job is wanted no more.
pub struct CountingSink<'a> {
    pub sink: &'a mut dyn BatchSink,
    pub job: &'a Job,
    pub progress: &'a mut Progress,
}

impl BatchSink for CountingSink<'_> {
    fn store(&mut self, batch: Rc<Batch>, counters: &mut LoadCounters) -> Result<(), Error> {
        if !job::is_wanted(self.job)? {
            return Err(Error::Stopped);
        }
        self.progress.characters += batch.characters;
        self.progress.written += batch.written() as u64;
        if let Some(end) = &batch.end {
            self.progress.checkpoint = end.clone();
        }
        self.sink.store(batch, counters)
    }

    fn finish(self: Box<Self>, _: &mut LoadCounters) -> Result<(), Error> {
        Ok(())
    }
}
