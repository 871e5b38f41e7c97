//! The sink of an import: group after group of rows, each in a transaction of its own, with the checkpoint, the counts and the lines
//! that were rejected.

use crate::error::{Error, Reject};
use crate::pg::catalog::resource_table;
use crate::pg::process::transaction;
use crate::pg::state::job::{self, Job};
use crate::pg::state::load_error::LoadErrors;
use crate::pg::state::task::{Progress, Task};
use crate::pg::state::task_progress;
use crate::pg::sys::latch;
use crate::pg::sys::sqlstate;
use crate::pg::sys::subtransaction::Failure;
use crate::pg::write::destination::Destination;
use crate::pg::write::group_sink;
use crate::pipeline::load::batch::Batch;
use crate::pipeline::load::counters::{BatchOutcome, LoadCounters};
use crate::pipeline::load::existing_rows::Method;
use crate::pipeline::load::sink::BatchSink;
use crate::retry::{self, Backoff};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Bytes of a group.
const GROUP: usize = 16 << 20;
/// Bytes of a line that is rejected, beside its text.
const REJECT: usize = 400;
/// How long rows may wait for others.
const GROUP_TIME: Duration = Duration::from_secs(1);
/// Groups that are looked up at most before ids are taken for new again.
const MAX_PROBE_GROUPS: u32 = 64;

/// A sink of one task of a job.
pub struct CheckpointSink<'a> {
    job: &'a Job,
    task: &'a mut Task,
    destination: Destination,
    /// None where each line says its own.
    resource_type: Option<String>,
    /// Lines of the task that may be rejected.
    max_errors: u64,
    group: Vec<Rc<Batch>>,
    rejects: Vec<Reject>,
    began: Instant,
    new_ids: NewIdHeuristic,
}

/// Whether the ids of the next group are taken for new. A look-up of all costs a fifth of the load; a group that fails is written twice.
struct NewIdHeuristic {
    /// Groups to look up first.
    probe_groups: u32,
    /// The same after the next disappointment.
    next: u32,
}

impl NewIdHeuristic {
    fn lose(&mut self) {
        self.probe_groups = self.next;
        self.next = (self.next * 2).min(MAX_PROBE_GROUPS);
    }

    /// A group was looked up, and so many of its rows were there.
    fn learn(&mut self, found: u64) {
        self.probe_groups = if found > 0 { self.probe_groups.max(1) } else { self.probe_groups.saturating_sub(1) };
    }
}

impl<'a> CheckpointSink<'a> {
    /// A sink that commits groups of a task's rows with its checkpoint, and lets so many lines be rejected.
    pub fn new(job: &'a Job, task: &'a mut Task, destination: Destination, max_errors: u64) -> CheckpointSink<'a> {
        let resource_type = task.resource_type.clone();
        let new_ids = NewIdHeuristic { probe_groups: 1, next: 2 };
        CheckpointSink {
            job,
            task,
            destination,
            resource_type,
            max_errors,
            group: Vec::new(),
            rejects: Vec::new(),
            began: Instant::now(),
            new_ids,
        }
    }

    /// Commits what came whole before the source failed.
    ///
    /// # Errors
    /// Those of the group's transaction.
    pub fn commit_rest(&mut self, counters: &mut LoadCounters) -> Result<(), Error> {
        self.rejects.extend(counters.take_rejects());
        let whole = self.group.iter().rposition(|batch| batch.end.is_some()).map_or(0, |last| last + 1);
        self.group.truncate(whole);
        let Some(end) = self.group.last().and_then(|batch| batch.end.as_ref()) else { return Ok(()) };
        let lines = end.position.lines;
        self.rejects.retain(|reject| reject.place.line <= lines);
        self.commit(false)
    }

    /// Commits the group. With it the task may end. Where other transactions stand in its way it is tried again, until it is committed or the job
    /// is not wanted: beside them, then while nobody else writes to its tables.
    fn commit(&mut self, end: bool) -> Result<(), Error> {
        let mut destination = self.destination.clone();
        // Where lines may be rejected a duplicate key would be taken for a line's fault.
        destination.expect_new = self.new_ids.probe_groups == 0 && self.max_errors == 0;
        destination.found.set(0);
        let mut conflicts = 0;
        let progress = loop {
            let alone = conflicts >= retry::TRIES_BESIDE_OTHERS;
            let failure = match transaction::run(self.job.role, || self.write(&destination, alone, end)) {
                Ok(progress) => break progress,
                Err(Failure::Ours(error)) => return Err(error),
                Err(failure) => failure,
            };
            let is_duplicate = matches!(&failure, Failure::Server { sqlstate, .. } if sqlstate::sqlstate(*sqlstate) == "23505");
            if is_duplicate && destination.expect_new {
                destination.expect_new = false;
                self.new_ids.lose();
            } else if is_duplicate && destination.method != Method::Insert {
                // Another session inserted one of the ids: INSERT can bear that.
                destination.method = Method::Insert;
            } else if failure.is_transient_conflict() {
                conflicts += 1;
                self.wait_for_others(&failure, conflicts)?;
            } else {
                return Err(failure.into_error());
            }
        };
        if !destination.expect_new {
            self.new_ids.learn(destination.found.get());
        }
        self.task.progress = progress;
        self.group.clear();
        self.rejects.clear();
        self.began = Instant::now();
        Ok(())
    }

    /// Lets time pass after a conflict with another transaction, and says in the task with whom it was.
    fn wait_for_others(&self, failure: &Failure, conflicts: u32) -> Result<(), Error> {
        let message = failure.whole_message();
        transaction::run(None, || task_progress::record_wait(self.task, &message)).map_err(Failure::into_error)?;
        latch::pause(Backoff::QUICK.pause(conflicts));
        Ok(())
    }

    /// Writes the group. Rows are locked in one order, by table and id, over all of it: two that do this do not wait for each other.
    fn write(&self, destination: &Destination, alone: bool, end: bool) -> Result<Progress, Error> {
        if !job::is_wanted(self.job)? {
            return Err(Error::Stopped);
        }
        let journal = LoadErrors::of_input(&self.job.id, self.task.ordinal);
        let before = &self.task.progress;
        let mut counters = LoadCounters::new(self.max_errors.saturating_sub(before.rejected));
        counters.read = self.group.iter().map(|batch| batch.rows.len() as u64).sum::<u64>() + self.rejects.len() as u64;
        counters.enter(BatchOutcome { rejects: self.rejects.clone(), ..BatchOutcome::default() })?;
        if alone {
            resource_table::keep_others_off(self.group.iter().flat_map(|batch| &batch.types).map(String::as_str))?;
        }
        let mut sink = group_sink::open(destination.clone(), self.resource_type.as_deref(), self.max_errors, journal)?;
        match self.group.as_slice() {
            [] => {}
            [batch] => sink.store(Rc::clone(batch), &mut counters)?,
            batches => sink.store(Rc::new(Batch::merge(batches)?), &mut counters)?,
        }
        sink.finish(&mut counters)?;
        if counters.read != counters.all_stored() + counters.skipped + counters.rejected {
            return Err(Error::Internal("the counts of lines do not agree".to_owned()));
        }
        let last = self.group.last();
        let progress = Progress {
            checkpoint: last.and_then(|batch| batch.end.clone()).unwrap_or_else(|| before.checkpoint.clone()),
            read: before.read + counters.read,
            stored: before.stored + counters.all_stored(),
            skipped: before.skipped + counters.skipped,
            rejected: before.rejected + counters.rejected,
            characters: before.characters + self.group.iter().map(|batch| batch.characters).sum::<u64>(),
            written: before.written + self.group.iter().map(|batch| batch.written() as u64).sum::<u64>(),
        };
        task_progress::advance_input(self.task, &progress)?;
        if end {
            task_progress::end(self.task, None)?;
        }
        Ok(progress)
    }

    /// Whether the group's last batch ends where loading can go on.
    fn is_whole(&self) -> bool {
        self.group.last().is_some_and(|batch| batch.end.is_some())
    }
}

impl BatchSink for CheckpointSink<'_> {
    fn store(&mut self, batch: Rc<Batch>, counters: &mut LoadCounters) -> Result<(), Error> {
        self.rejects.extend(counters.take_rejects());
        self.group.push(batch);
        let left = self.max_errors.saturating_sub(self.task.progress.rejected);
        if self.rejects.len() as u64 > left {
            LoadCounters::new(left).enter(BatchOutcome { rejects: std::mem::take(&mut self.rejects), ..BatchOutcome::default() })?;
        }
        let rejects: usize = self.rejects.iter().map(|reject| REJECT + reject.raw.len() + reject.place.source.len()).sum();
        let size = rejects + self.group.iter().map(|batch| batch.memory()).sum::<usize>();
        if self.is_whole() && (size >= GROUP || self.began.elapsed() >= GROUP_TIME) { self.commit(false) } else { Ok(()) }
    }

    fn idle(&mut self) -> Result<(), Error> {
        if self.is_whole() && self.began.elapsed() >= GROUP_TIME { self.commit(false) } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>, _: &mut LoadCounters) -> Result<(), Error> {
        self.commit(true)
    }
}
