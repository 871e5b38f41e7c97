//! What became of a load's lines: every line that was read is stored, skipped or rejected.

use crate::error::{Error, Reject};
use std::collections::BTreeMap;

/// Rejects that the error of a failed load tells of.
const TOLD: usize = 10;

/// What became of some lines.
#[derive(Debug, Default)]
pub struct BatchOutcome {
    /// Lines stored, by type.
    pub stored: BTreeMap<String, u64>,
    pub skipped: u64,
    pub rejects: Vec<Reject>,
}

impl BatchOutcome {
    /// Counts lines of a type as stored.
    pub fn store(&mut self, resource_type: &str, lines: u64) {
        match self.stored.get_mut(resource_type) {
            Some(count) => *count += lines,
            None => drop(self.stored.insert(resource_type.to_owned(), lines)),
        }
    }
}

/// The account of a load.
#[derive(Debug)]
pub struct LoadCounters {
    /// Lines that may be rejected.
    most: u64,
    /// Lines that hold something.
    pub read: u64,
    pub stored: BTreeMap<String, u64>,
    pub skipped: u64,
    pub rejected: u64,
    first: Vec<Reject>,
    /// Not yet written down.
    pending: Vec<Reject>,
}

impl LoadCounters {
    /// Counters of a load that may reject so many lines.
    pub fn new(most: u64) -> LoadCounters {
        LoadCounters { most, read: 0, stored: BTreeMap::new(), skipped: 0, rejected: 0, first: Vec::new(), pending: Vec::new() }
    }

    /// Enters what became of lines. The error of the whole load, once too many of them are rejected.
    ///
    /// # Errors
    /// `Rejected`, with the first rejected lines, once there are more than may be.
    pub fn enter(&mut self, outcome: BatchOutcome) -> Result<(), Error> {
        for (resource_type, lines) in outcome.stored {
            *self.stored.entry(resource_type).or_default() += lines;
        }
        self.skipped += outcome.skipped;
        let mut last = None;
        for reject in outcome.rejects {
            self.rejected += 1;
            if self.rejected == self.most.saturating_add(1) {
                last = Some(reject.reason.clone());
            }
            if self.first.len() < TOLD {
                self.first.push(reject.clone());
            }
            self.pending.push(reject);
        }
        match last {
            Some(last) => Err(Error::Rejected { most: self.most, last: Box::new(last), first: std::mem::take(&mut self.first) }),
            None => Ok(()),
        }
    }

    /// Rejects that are not yet written down.
    pub fn take_rejects(&mut self) -> Vec<Reject> {
        std::mem::take(&mut self.pending)
    }

    /// Lines stored, of all types.
    pub fn all_stored(&self) -> u64 {
        self.stored.values().sum()
    }
}

/// Rejects that a block of lines needs to know of: past them the load fails.
pub fn reject_limit(most: u64) -> usize {
    usize::try_from(most.saturating_add(1)).unwrap_or(usize::MAX).max(TOLD)
}
