//! Validation of stored resources: a table, some pages a step, each step with what it found in one transaction.

use crate::error::Error;
use crate::fhir::validate::Checks;
use crate::fhir::{definitions, structure};
use crate::job::plan::{Plan, Validate, Work};
use crate::job::step::Step;
use crate::op::examine::Examine;
use crate::op::line::Recipe;
use crate::op::pipe::Pipe;
use crate::pg::dangling::Referrers;
use crate::pg::jobs::entry::{self, Job, Order};
use crate::pg::journal::Journal;
use crate::pg::part::{NewPart, Part};
use crate::pg::parts::{self, Advance};
use crate::pg::scan::{self, Filter, When};
use crate::pg::table::{self, Table};
use crate::pg::wait::Backend;
use crate::pg::{lifecycle, setting};
use serde_json::Value;
use std::collections::HashSet;

/// Pages of a step: a transaction, and at most as much to find.
const PAGES: u32 = 512;
/// References that are looked at together.
const REFERENCES: u64 = 50_000;

/// Asks for the validation of tables. `request` is what is shown of it.
pub fn ask(request: Value, validate: Validate, tables: &[(String, Table)]) -> Result<String, Error> {
    let plan = Plan { settings: setting::taken_over(), work: Work::Validate(validate) };
    let parts: Vec<NewPart> = tables
        .iter()
        .map(|(resource_type, table)| NewPart { source: table.name.clone(), resource_type: Some(resource_type.clone()) })
        .collect();
    let order =
        Order { id: None, kind: "validate", request, plan: plan.to_json()?, secret: None, parts: &parts, workers: 1, threads: None };
    entry::enter(order)?.map(|(id, _)| id).ok_or_else(|| Error::Internal("an id was made twice".to_owned()))
}

/// Looks through the next pages of a part.
pub fn step(job: &Job, request: Validate, part: &mut Part) -> Result<Step, Error> {
    lifecycle::require_utf8()?;
    let resource_type = part.resource_type.clone().unwrap_or_default();
    let Some(oid) = table::find_qualified(&part.source)? else { return Err(Error::UnknownType(resource_type)) };
    let table = table::describe(oid)?;
    let found = scan::pages(&table);
    let storage =
        found.as_ref().map_or_else(|| format!("{} {}", table.name, entry::origin()), |(_, file)| format!("{file} {}", entry::origin()));
    parts::settle(job, part, &storage)?;
    let pages = found.map(|(pages, _)| pages);
    // What is written behind the table's end of the beginning is written in its course.
    let size = part.size.unwrap_or(i64::from(pages.unwrap_or(1)));
    let end = (part.position + i64::from(PAGES)).min(size);
    let mut filter = Filter::default();
    if pages.is_some() {
        filter.pages(part.position as u32, end as u32);
    }
    if let Some(written_at) = request.written_at.filter(|_| table.has_ts) {
        filter.written(When::At, written_at);
    }
    let (read, rejected) = look(job, request, &table, resource_type, filter)?;
    let position = if pages.is_some() { end } else { size };
    parts::advance(part, Advance { position, size, read, rejected })?;
    if let Some(most) = request.max_errors
        && part.progress.rejected > most
    {
        return Ok(Step::TooMany(most));
    }
    Ok(if position < size { Step::More } else { Step::Done })
}

/// How many resources were read, and how many of them are invalid. What is wrong with them is written down.
fn look(job: &Job, request: Validate, table: &Table, resource_type: String, filter: Filter) -> Result<(u64, u64), Error> {
    let definitions = definitions::r4();
    let stored = setting::resource_format();
    let examine = Examine {
        recipe: Recipe {
            definitions,
            resource_type,
            table: table.name.clone(),
            stored,
            to: stored,
            created_at_url: setting::created_at_url(),
            max_depth: setting::max_depth(),
            has_created_at: table.has_cts,
            has_last_updated: table.has_ts,
        },
        structure: structure::r4(),
        checks: Checks { structure: request.structure, references: request.references },
    };
    let journal = Journal::of(&job.id);
    let mut referrers = Referrers::new(definitions, &table.name);
    // Ids of the invalid resources among those whose references are still to be looked at.
    let mut invalid: HashSet<String> = HashSet::new();
    let (mut read, mut count) = (0, 0);
    scan::with_rows(table, filter, |rows| {
        let mut pipe = Pipe::new(rows, examine, setting::dump_threads());
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
fn dangling(referrers: Referrers, invalid: &HashSet<String>, journal: &Journal) -> Result<u64, Error> {
    let mut ids: HashSet<String> = HashSet::new();
    referrers.dangling(|findings| {
        ids.extend(findings.iter().filter(|finding| !invalid.contains(&finding.id)).map(|finding| finding.id.clone()));
        journal.find(findings)
    })?;
    Ok(ids.len() as u64)
}
