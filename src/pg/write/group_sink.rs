//! Where a load's batches end: in tables, at once, when the first line that is rejected ends the load; or group by group, each of which is
//! taken back when PostgreSQL refuses one of its rows, to find the rows that it refuses.

use crate::error::{Error, Reason};
use crate::pg::state::load_error::LoadErrors;
use crate::pg::sys::progress_copy::{Direction, Progress};
use crate::pg::sys::subtransaction::{self, Failure};
use crate::pg::write::destination::Destination;
use crate::pg::write::table_router::TableRouter;
use crate::pipeline::load::batch::{Batch, Row};
use crate::pipeline::load::counters::{BatchOutcome, LoadCounters};
use crate::pipeline::load::sink::BatchSink;
use pgrx::pg_sys;
use std::rc::Rc;

/// Bytes of a group. Each is a subtransaction, and a backend should not have more than 64 that wrote.
const GROUP: usize = 16 << 20;

/// The sink of a load that bears so many lines that are rejected: `StrictSink` for none, else `TolerantSink`, which writes them to `journal`.
///
/// # Errors
/// `UnknownType`, `WrongShape` and the like where the one type has no table to load into.
pub fn open(
    destination: Destination,
    resource_type: Option<&str>,
    max_errors: u64,
    journal: LoadErrors,
) -> Result<Box<dyn BatchSink>, Error> {
    Ok(match max_errors {
        0 => Box::new(StrictSink::new(destination, resource_type)?),
        _ => Box::new(TolerantSink::new(destination, resource_type, journal)?),
    })
}

/// All or nothing.
#[derive(Debug)]
pub struct StrictSink {
    upsert: TableRouter,
    progress: Progress,
}

impl StrictSink {
    /// Of one type, whose table must be there or be made.
    ///
    /// # Errors
    /// As `TableRouter::prepare`.
    pub fn new(destination: Destination, resource_type: Option<&str>) -> Result<StrictSink, Error> {
        let mut upsert = TableRouter::new(destination);
        let progress = prepare(&mut upsert, resource_type)?;
        Ok(StrictSink { upsert, progress })
    }
}

/// Prepares the one type's table; of one type, its table is shown.
fn prepare(upsert: &mut TableRouter, resource_type: Option<&str>) -> Result<Progress, Error> {
    let table = match resource_type {
        Some(name) => {
            upsert.prepare(name)?;
            upsert.table(name)
        }
        None => None,
    };
    Ok(Progress::start(Direction::Load, table.unwrap_or(pg_sys::InvalidOid)))
}

impl BatchSink for StrictSink {
    fn store(&mut self, batch: Rc<Batch>, counters: &mut LoadCounters) -> Result<(), Error> {
        counters.enter(self.upsert.store(&batch)?)?;
        self.progress.add(batch.rows.len() as u64, batch.size);
        Ok(())
    }

    fn finish(self: Box<Self>, _: &mut LoadCounters) -> Result<(), Error> {
        self.upsert.close()?;
        self.progress.end();
        Ok(())
    }
}

/// Stores the rows that PostgreSQL accepts and records those that it refuses.
#[derive(Debug)]
pub struct TolerantSink {
    destination: Destination,
    group: Vec<Rc<Batch>>,
    progress: Progress,
    journal: LoadErrors,
}

impl TolerantSink {
    /// As `StrictSink::new`. Rejects go to the journal.
    ///
    /// # Errors
    /// As `TableRouter::prepare`.
    pub fn new(destination: Destination, resource_type: Option<&str>, journal: LoadErrors) -> Result<TolerantSink, Error> {
        let mut upsert = TableRouter::new(destination.clone());
        let progress = prepare(&mut upsert, resource_type)?;
        upsert.close()?;
        Ok(TolerantSink { destination, group: Vec::new(), progress, journal })
    }

    /// Stores the group, whole or without what is refused.
    fn flush(&mut self, counters: &mut LoadCounters) -> Result<(), Error> {
        let group = std::mem::take(&mut self.group);
        match self.try_all(&group.iter().map(|batch| &**batch).collect::<Vec<_>>()) {
            Ok(outcome) => counters.enter(outcome)?,
            Err(Failure::Ours(error)) => return Err(error),
            Err(_) if group.len() > 1 => {
                for batch in &group {
                    self.store_part(batch, counters)?;
                }
            }
            Err(failure) => self.find_refused_rows(&group[0], failure, counters)?,
        }
        self.write_down(counters)
    }

    fn try_all(&self, batches: &[&Batch]) -> Result<BatchOutcome, Failure> {
        subtransaction::run(|| {
            let mut upsert = TableRouter::new(self.destination.clone());
            let mut sum = BatchOutcome::default();
            for batch in batches {
                let BatchOutcome { stored, skipped, rejects } = upsert.store(batch)?;
                stored.iter().for_each(|(resource_type, lines)| sum.store(resource_type, *lines));
                sum.skipped += skipped;
                sum.rejects.extend(rejects);
            }
            upsert.close()?;
            Ok(sum)
        })
    }

    fn store_part(&self, part: &Batch, counters: &mut LoadCounters) -> Result<(), Error> {
        match self.try_all(&[part]) {
            Ok(outcome) => counters.enter(outcome),
            Err(Failure::Ours(error)) => Err(error),
            Err(failure) => self.find_refused_rows(part, failure, counters),
        }
    }

    /// Stores the halves of what failed, in the order of their lines.
    fn find_refused_rows(&self, part: &Batch, failure: Failure, counters: &mut LoadCounters) -> Result<(), Error> {
        let count = part.rows.len();
        if let ([row], Failure::Server { sqlstate, message, .. }) = (part.rows.as_slice(), &failure) {
            let reason = Reason::Server { sqlstate: *sqlstate, message: message.clone() };
            return counters.enter(BatchOutcome { rejects: vec![part.reject(row, reason)], ..BatchOutcome::default() });
        }
        if count < 2 {
            failure.raise();
        }
        let rows: Vec<&Row> = part.rows.iter().collect();
        let (first, second) = rows.split_at(count / 2);
        self.store_part(&part.part(first)?, counters)?;
        self.store_part(&part.part(second)?, counters)
    }
}

impl BatchSink for TolerantSink {
    fn store(&mut self, batch: Rc<Batch>, counters: &mut LoadCounters) -> Result<(), Error> {
        self.progress.add(batch.rows.len() as u64, batch.size);
        if !batch.rows.is_empty() {
            self.group.push(batch);
        }
        if self.group.iter().map(|batch| batch.memory()).sum::<usize>() >= GROUP { self.flush(counters) } else { self.write_down(counters) }
    }

    fn write_down(&mut self, counters: &mut LoadCounters) -> Result<(), Error> {
        let mut rejects = counters.take_rejects();
        rejects.sort_by_key(|reject| reject.place.line);
        self.journal.reject(&rejects)
    }

    fn finish(mut self: Box<Self>, counters: &mut LoadCounters) -> Result<(), Error> {
        if !self.group.is_empty() {
            self.flush(counters)?;
        }
        self.write_down(counters)?;
        self.progress.end();
        Ok(())
    }
}
