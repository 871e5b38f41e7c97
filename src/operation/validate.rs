//! Validation of stored resources: a table, some pages a step, each step with what it found in one transaction.

use crate::error::Error;
use crate::fhir::validate::Checks;
use crate::fhir::{definitions, structure};
use crate::job::retry;
use crate::job::spec::{JobSpec, Work};
use crate::job::step::Step;
use crate::job::worker::Operation;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::process::{background, transaction};
use crate::pg::read::cursor_scan::{self, Filter, When};
use crate::pg::state::enums::{JobKind, TaskKind};
use crate::pg::state::job::{self, Job, NewJob};
use crate::pg::state::load_error::LoadErrors;
use crate::pg::state::task::{NewTask, Task};
use crate::pg::state::task_progress::{self, Advance};
use crate::pg::sys::latch::Backend;
use crate::pg::sys::subtransaction::Failure;
use crate::pg::sys::{backend, guc, kept_settings};
use crate::pg::write::dangling_references::Referrers;
use crate::pipeline::dump::render::RenderConfig;
use crate::pipeline::parallel_map::ParallelMap;
use crate::pipeline::validate_rows::RowValidator;
use crate::retry::Backoff;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;

/// Pages of a step: a transaction, and at most as much to find.
const PAGES: u32 = 512;
/// References that are looked at together.
const REFERENCES: u64 = 50_000;

/// Looks through the tables that are the job's tasks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Validate {
    /// Whether resources are checked against the definitions.
    pub structure: bool,
    pub references: bool,
    /// Rows of this `ts` only, in microseconds since 2000-01-01 UTC.
    pub written_at: Option<i64>,
    /// Invalid resources at which it ends.
    pub max_errors: Option<u64>,
}

impl Work for Validate {
    const NAME: &'static str = "validate";
}

/// Asks for the validation of tables. `request` is what is shown of it.
///
/// # Errors
/// As `job::enter`.
pub fn ask(request: Value, validate: Validate, tables: &[(String, Table)]) -> Result<String, Error> {
    let spec = JobSpec::new(kept_settings::settings_to_keep()?, &validate)?;
    let tasks: Vec<NewTask> = tables
        .iter()
        .map(|(resource_type, table)| NewTask::new(TaskKind::Table, table.name.clone(), Some(resource_type.clone())))
        .collect();
    let new_job = NewJob {
        id: None,
        kind: JobKind::Validate,
        request,
        spec: spec.to_json()?,
        secret: None,
        tasks: &tasks,
        workers: 1,
        threads: None,
    };
    job::enter(new_job)?.map(|(id, _)| id).ok_or_else(|| Error::Internal("an id was made twice".to_owned()))
}

impl Operation for Validate {
    fn task(&mut self, job: &Job, task: &mut Task) -> Result<Step, Failure> {
        let mut tries = 0;
        loop {
            background::reload_configuration();
            let before = task.clone();
            let stepped = transaction::run(job.role, || {
                if job.role.is_none() {
                    return Err(Error::NoRole);
                }
                if job::is_wanted(job)? { step(job, *self, task) } else { Ok(Step::Unwanted) }
            });
            match stepped {
                Err(failure) if failure.is_transient_conflict() && tries < retry::MAX_STEP_TRIES => {
                    tries += 1;
                    *task = before;
                    if !retry::back_off(job, Backoff::QUICK, tries)? {
                        return Ok(Step::Unwanted);
                    }
                }
                ended => return ended,
            }
        }
    }
}

/// Looks through the next pages of a task.
fn step(job: &Job, request: Validate, task: &mut Task) -> Result<Step, Error> {
    backend::require_utf8()?;
    let resource_type = task.resource_type.clone().unwrap_or_default();
    let Some(oid) = resource_table::find_qualified(&task.source)? else { return Err(Error::UnknownType(resource_type)) };
    let table = resource_table::describe(oid)?;
    let found = cursor_scan::pages(&table);
    let storage = found
        .as_ref()
        .map_or_else(|| format!("{} {}", table.name, job::database_identity()), |(_, file)| format!("{file} {}", job::database_identity()));
    task_progress::settle(job, task, &storage)?;
    let pages = found.map(|(pages, _)| pages);
    // What is written behind the table's end of the beginning is written in its course.
    let size = task.size.unwrap_or(i64::from(pages.unwrap_or(1)));
    let end = (task.position + i64::from(PAGES)).min(size);
    let mut filter = Filter::default();
    if pages.is_some() {
        filter.pages(task.position as u32, end as u32);
    }
    if let Some(written_at) = request.written_at.filter(|_| table.has_ts) {
        filter.written(When::At, written_at);
    }
    let (read, rejected) = validate_pages(job, request, &table, resource_type, filter)?;
    let position = if pages.is_some() { end } else { size };
    task_progress::advance(task, Advance { position, size, read, rejected })?;
    if let Some(most) = request.max_errors
        && task.progress.rejected > most
    {
        return Ok(Step::TooMany(most));
    }
    Ok(if position < size { Step::More } else { Step::Done })
}

/// How many resources were read, and how many of them are invalid. What is wrong with them is written down.
fn validate_pages(job: &Job, request: Validate, table: &Table, resource_type: String, filter: Filter) -> Result<(u64, u64), Error> {
    let definitions = definitions::r4();
    let stored = guc::resource_format();
    let examine = RowValidator {
        config: RenderConfig {
            definitions,
            resource_type,
            table: table.name.clone(),
            stored,
            to: stored,
            created_at_url: guc::created_at_url(),
            max_depth: guc::max_depth(),
            has_created_at: table.has_cts,
            has_last_updated: table.has_ts,
        },
        structure: structure::r4(),
        checks: Checks { structure: request.structure, references: request.references },
    };
    let journal = LoadErrors::of(&job.id);
    let mut referrers = Referrers::new(definitions, &table.name);
    // Ids of the invalid resources among those whose references are still to be looked at.
    let mut invalid: HashSet<String> = HashSet::new();
    let (mut read, mut count) = (0, 0);
    cursor_scan::with_rows(table, filter, |rows| {
        let mut pipe = ParallelMap::new(rows, examine, guc::dump_threads());
        while let Some(examined) = pipe.next(&mut Backend)? {
            read += examined.read;
            count += examined.invalid;
            journal.find(&examined.findings)?;
            if request.references {
                invalid.extend(examined.findings.into_iter().map(|finding| finding.id));
                examined.referrers.iter().for_each(|referrer| referrers.put(referrer));
                if referrers.len() >= REFERENCES {
                    let some = std::mem::replace(&mut referrers, Referrers::new(definitions, &table.name));
                    count += dangling(some, &std::mem::take(&mut invalid), &journal)?;
                }
            }
        }
        // Within, because that is where the last of them were kept.
        count += dangling(referrers, &invalid, &journal)?;
        Ok(())
    })?;
    Ok((read, count))
}

/// Writes down references that lead nowhere: of how many resources that are not invalid anyhow.
fn dangling(referrers: Referrers, invalid: &HashSet<String>, journal: &LoadErrors) -> Result<u64, Error> {
    let mut ids: HashSet<String> = HashSet::new();
    referrers.dangling(|findings| {
        ids.extend(findings.iter().filter(|finding| !invalid.contains(&finding.id)).map(|finding| finding.id.clone()));
        journal.find(findings)
    })?;
    Ok(ids.len() as u64)
}
