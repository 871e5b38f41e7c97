//! The task of an export that begins it, and keeps its snapshot while others look through it.

use crate::error::Error;
use crate::fhir::instant;
use crate::job::slot;
use crate::job::step::Step;
use crate::operation::export::cleanup;
use crate::operation::export::spec::{Export, PatientScope};
use crate::pg::catalog::resource_table::{self, Oids};
use crate::pg::process::{exported_snapshot, transaction};
use crate::pg::read::cursor_scan;
use crate::pg::state::enums::TaskKind;
use crate::pg::state::export_run as files;
use crate::pg::state::job::{self, Job};
use crate::pg::state::scheduler::{self, WORKERS};
use crate::pg::state::task::{NewTask, Task};
use crate::pg::state::worker_start;
use crate::pg::sys::latch;
use crate::pg::sys::subtransaction::{self, Failure};
use std::time::{Duration, Instant};

/// Pages of a range, with what lies beside them, 32 MB, and ranges of a table at most: those of a larger one are larger.
const PAGES: u32 = 4096;
const RANGES: u32 = 64;
/// Between two looks at how far the others are, within these; and between two at whether there are others.
const POLL_INTERVALS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
const CALL: Duration = Duration::from_secs(1);
/// How long prepared transactions are waited for, and workers.
const PREPARED: Duration = Duration::from_secs(60);
const ALONE: Duration = Duration::from_secs(300);

/// Begins an export, or begins it anew, and stays until it has ended.
///
/// # Errors
/// `NoRole`, `Prepared`, `TableBusy`, `NoWorker`, and what a transaction meets.
pub fn hold(job: &Job, export: &Export, task: &Task) -> Result<Step, Failure> {
    if job.role.is_none() {
        return Err(Failure::Ours(Error::NoRole));
    }
    slot::leave_place()?;
    transaction::run(None, || files::begin_anew(job, task))?;
    // A worker that is still at an earlier task sees that it is gone, and finds no other.
    while transaction::run(None, || scheduler::workers(job.number))? > 1 {
        if !transaction::run(None, || job::is_wanted(job))? {
            return Ok(Step::Unwanted);
        }
        pause(POLL_INTERVALS.1)?;
    }
    let old = transaction::run(None, || files::runs(job.number))?;
    cleanup::runs(job, &export.sink, &old)?;
    let (tables, tasks) = transaction::run(job.role, || divide(export))?;
    let transaction_time = horizon(job, &tables)?;
    let folder = folder(transaction_time);
    transaction::run(None, || {
        job::begin(job)?;
        files::begin(job, &folder, transaction_time, &tasks)
    })?;
    exported_snapshot::hold(job.role, job.number, &tables, || supervise(job))
}

/// The moment up to which nothing will be missed, once no prepared transaction stands in its way.
fn horizon(job: &Job, tables: &Oids) -> Result<i64, Failure> {
    let began = Instant::now();
    loop {
        let horizon = transaction::run(None, exported_snapshot::horizon)?;
        if !transaction::run(None, || exported_snapshot::is_prepared(tables))? {
            return Ok(horizon);
        }
        if began.elapsed() > PREPARED || !transaction::run(None, || job::is_wanted(job))? {
            return Err(Failure::Ours(Error::Prepared));
        }
        pause(POLL_INTERVALS.1)?;
    }
}

/// `<datetime>_<uuid>`.
fn folder(time: i64) -> String {
    let time: String = instant::from_timestamp(time).map(|time| time.as_str()[..19].replace(':', "-")).unwrap_or_default();
    format!("{time}Z_{}", uuid::Uuid::new_v4())
}

/// The tables that are looked through, and the tasks in which that is done: the largest first.
fn divide(export: &Export) -> Result<(Oids, Vec<NewTask>), Error> {
    let (mut tables, mut tasks) = (Vec::new(), Vec::new());
    for (resource_type, name) in &export.tables {
        let Some(table) = resource_table::find_qualified(name)?.map(resource_table::describe).transpose()? else { continue };
        let task = |kind, pages| NewTask { pages, ..NewTask::new(kind, name.clone(), Some(resource_type.clone())) };
        match cursor_scan::pages(&table) {
            Some((pages, _)) => {
                let size = pages.saturating_add(cursor_scan::pages_beside(&table));
                let ranges = size.div_ceil(PAGES.max(size.div_ceil(RANGES))).clamp(1, pages.max(1));
                for range in 0..ranges {
                    let bound = |range: u32| (u64::from(pages) * u64::from(range) / u64::from(ranges)) as u32;
                    // What is behind the last page that was counted belongs to the last range.
                    let end = if range + 1 == ranges { u32::MAX } else { bound(range + 1) };
                    tasks.push((size / ranges, task(TaskKind::Table, (ranges > 1).then_some((bound(range), end)))));
                }
            }
            None => tasks.push((u32::MAX, task(TaskKind::Table, None))),
        }
        if export.since.is_some() {
            tables.extend(resource_table::history(&table).map(|(oid, _)| oid));
            tasks.push((0, task(TaskKind::Deleted, None)));
        }
        tables.push(table.oid);
    }
    let looked_up: &[&str] = match export.scope {
        PatientScope::Everybodys => &[],
        PatientScope::AllPatients | PatientScope::Patients(_) => &["Patient"],
        PatientScope::Members { .. } => &["Patient", "Group"],
    };
    for resource_type in looked_up {
        tables.extend(resource_table::lookup(resource_type)?.map(|table| table.oid));
    }
    tasks.sort_by_key(|(pages, _)| std::cmp::Reverse(*pages));
    Ok((resource_table::with_children(tables)?, tasks.into_iter().map(|(_, task)| task).collect()))
}

fn pause(time: Duration) -> Result<(), Failure> {
    subtransaction::outside(|| {
        latch::pause(time);
        Ok(())
    })
}

/// In the snapshot's transaction: sees to it that there are workers, until nothing is left to do or nobody wants it.
fn supervise(job: &Job) -> Result<Step, Error> {
    let began = Instant::now();
    let mut called: Option<Instant> = None;
    let mut seen = began;
    loop {
        if !job::is_wanted(job)? {
            return Ok(Step::Unwanted);
        }
        let (is_open, is_left) = files::standing(job)?;
        if !is_open {
            return Ok(Step::Done);
        }
        if is_left && called.is_none_or(|called| called.elapsed() >= CALL) {
            let there = scheduler::workers(job.number)?;
            // This one is there as well. While others have all places, it waits for its turn.
            if there > 1 || worker_start::room()? <= 0 {
                seen = Instant::now();
            } else if seen.elapsed() > ALONE {
                return Err(Error::NoWorker);
            }
            for _ in there..=WORKERS {
                scheduler::start_waiting()?;
            }
            called = Some(Instant::now());
        }
        latch::pause((began.elapsed() / 50).clamp(POLL_INTERVALS.0, POLL_INTERVALS.1));
    }
}
