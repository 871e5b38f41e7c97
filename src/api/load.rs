//! `bulk.load`, both signatures.

use crate::api::option::{self, LoadRequest};
use crate::error::Error;
use crate::fhir::definitions;
use crate::fhir::validate::Checks;
use crate::operation::validate::{self, Validate};
use crate::pg::catalog::resource_table;
use crate::pg::process::load_threads::LoadThreads;
use crate::pg::state::load_error::{self, LoadErrors};
use crate::pg::sys::argument::Json;
use crate::pg::sys::latch::Backend;
use crate::pg::sys::privilege::Right;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, sqlstate};
use crate::pg::write::assemble;
use crate::pg::write::group_sink;
use crate::pg::write::reference_check::CheckedSink;
use crate::pipeline::load::checkpoint::Checkpoint;
use crate::pipeline::load::counters::{self, LoadCounters};
use crate::pipeline::load::encode::TakeMeta;
use crate::pipeline::load::options::LoadOptions;
use crate::pipeline::load::source_reader;
use crate::store::source::Source;
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Loads one source. A source that starts with `{` is a whole request: so an untyped literal finds its way.
#[pg_extern(sql = false)]
fn load(_version: Matched, source: Option<&str>, resource_type: Option<&str>, fhir: Option<bool>, options: Option<Json>) -> JsonB {
    let source = sqlstate::ok(source.ok_or(Error::Null("source")));
    let fhir = fhir.unwrap_or(false);
    let options = options.as_ref().map_or(option::NONE, |options| &options.0);
    let request = if source.trim_start().starts_with('{') {
        LoadRequest::read(source, options)
            .map(|request| LoadRequest { resource_type: resource_type.map(str::to_owned).or(request.resource_type), ..request })
    } else {
        LoadOptions::read(options).map(|options| LoadRequest {
            sources: vec![source.to_owned()],
            resource_type: resource_type.map(str::to_owned),
            options,
        })
    };
    JsonB(sqlstate::ok(request.and_then(|request| run(request, fhir))))
}

/// Loads what a request's body says.
#[pg_extern(sql = false)]
fn load_request(_version: Matched, request: Option<Json>, fhir: Option<bool>) -> JsonB {
    let request = request.ok_or(Error::Null("request")).and_then(|request| LoadRequest::read(&request.0, option::NONE));
    JsonB(sqlstate::ok(request.and_then(|request| run(request, fhir.unwrap_or(false)))))
}

/// The id of this session's last load that succeeded; null before the first.
#[pg_extern(sql = false)]
fn last_load_id(_version: Matched) -> Option<String> {
    load_error::last_load()
}

/// Loads what is asked for: the answer.
///
/// # Errors
/// `DatabaseEncoding`, `MissingRole`, `InvalidOption` and the like before anything is read; `Source` for a source that fails; `Rejected` for lines that do.
pub fn run(request: LoadRequest, fhir: bool) -> Result<Value, Error> {
    backend::require_utf8()?;
    backend::require_writable(c"bulk.load");
    let LoadRequest { sources, resource_type, options } = request;
    let (names, sources) = sources_of(&sources)?;
    if options.policy.keep_meta {
        Right::Admin.require()?;
    }
    backend::stop_threads_at_exit();
    let definitions = definitions::r4();
    let resource_type = resource_type.map(|name| resource_table::type_name(definitions, &name)).transpose()?;
    let changes = assemble::changes(&options)?;
    let journal = LoadErrors::open_load(&json!({"source": names, "resourceType": resource_type, "fhir": fhir, "options": &options.shown}))?;
    let destination = assemble::destination(&options);
    let compression = destination.compression.clone();
    let mut sink = group_sink::open(destination, resource_type.as_deref(), options.max_errors, journal.clone())?;
    if options.checks.references {
        sink = Box::new(CheckedSink::new(sink, definitions, counters::reject_limit(options.max_errors)));
    }
    let mut counters = LoadCounters::new(options.max_errors);
    let access = assemble::access(&options, &sources)?;
    let threads = LoadThreads::take();
    for source in sources {
        let plan = source_reader::LoadInput {
            config: assemble::config(&source.name(), resource_type.as_deref(), fhir, &options, &changes, &compression),
            source,
            access: access.clone(),
            threads: threads.count(),
            from: Checkpoint::default(),
            span: None,
            division: None,
        };
        source_reader::load(plan, &mut *sink, &mut counters, &mut Backend)?;
    }
    threads.give_back();
    sink.finish(&mut counters)?;
    let answer = match resource_type {
        Some(name) => json!({"total": counters.stored.get(&name).copied().unwrap_or(0)}),
        None => json!(counters.stored.iter().filter(|(_, lines)| **lines > 0).collect::<BTreeMap<_, _>>()),
    };
    let validation = validate_later(&journal, &options, &counters)?;
    journal.close_load(&counters, validation.map(|id| format!("validation is job {id}")).as_deref())?;
    Ok(answer)
}

/// Has what was stored validated by a background worker once it is committed: the job's id.
fn validate_later(journal: &LoadErrors, options: &LoadOptions, counters: &LoadCounters) -> Result<Option<String>, Error> {
    let checks = options.later;
    if checks == Checks::default() {
        return Ok(None);
    }
    let mut tables = Vec::new();
    for resource_type in counters.stored.iter().filter(|(_, lines)| **lines > 0).map(|(name, _)| name) {
        tables.extend(resource_table::lookup(resource_type)?.map(|table| (resource_type.clone(), table)));
    }
    let request = json!({"load": journal.id()});
    // Rows of this load have its time, unless they took their lines': then all the tables' rows are looked at.
    let written_at = (options.policy.take_meta() == TakeMeta::Nothing).then(backend::transaction_time);
    let plan = Validate { structure: checks.structure, references: checks.references, written_at, max_errors: None };
    validate::ask(request, plan, &tables).map(Some)
}

/// The sources' names, and the sources, patterns among them resolved, if the caller may read them.
fn sources_of(texts: &[String]) -> Result<(Vec<String>, Vec<Source>), Error> {
    let (mut names, mut sources) = (Vec::new(), Vec::new());
    for text in texts {
        let source = Source::parse(text)?;
        Right::to_read(&source).require()?;
        names.push(source.name());
        sources.extend(source.resolve(&mut || {
            pgrx::check_for_interrupts!();
        })?);
    }
    Ok((names, sources))
}
