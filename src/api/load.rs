//! `bulk.load`, both signatures.

use crate::api::option::{self, LoadRequest};
use crate::error::Error;
use crate::fhir::definitions;
use crate::fhir::validate::Checks;
use crate::job::plan::Validate;
use crate::job::validate;
use crate::op;
use crate::op::batch::TakeMeta;
use crate::op::checkpoint::Checkpoint;
use crate::op::ledger::{self, Ledger};
use crate::op::option::LoadOptions;
use crate::op::sink::Sink;
use crate::pg::argument::Json;
use crate::pg::checked::Checked;
use crate::pg::journal::{self, Journal};
use crate::pg::role::Right;
use crate::pg::sink::{Strict, Tolerant};
use crate::pg::version::Matched;
use crate::pg::wait::Backend;
use crate::pg::{lifecycle, loading, report, setting, table};
use crate::store::source::Source;
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Loads one source. A source that starts with `{` is a whole request: so an untyped literal finds its way.
#[pg_extern(sql = false)]
fn load(_version: Matched, source: Option<&str>, resource_type: Option<&str>, fhir: Option<bool>, options: Option<Json>) -> JsonB {
    let source = report::ok(source.ok_or(Error::Null("source")));
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
    JsonB(report::ok(request.and_then(|request| run(request, fhir))))
}

/// Loads what a request's body says.
#[pg_extern(sql = false)]
fn load_request(_version: Matched, request: Option<Json>, fhir: Option<bool>) -> JsonB {
    let request = request.ok_or(Error::Null("request")).and_then(|request| LoadRequest::read(&request.0, option::NONE));
    JsonB(report::ok(request.and_then(|request| run(request, fhir.unwrap_or(false)))))
}

/// The id of this session's last load that succeeded; null before the first.
#[pg_extern(sql = false)]
fn last_load_id(_version: Matched) -> Option<String> {
    journal::last_load()
}

/// Loads what is asked for: the answer.
pub fn run(request: LoadRequest, fhir: bool) -> Result<Value, Error> {
    lifecycle::require_utf8()?;
    lifecycle::require_writable(c"bulk.load");
    let LoadRequest { sources, resource_type, options } = request;
    let (names, sources) = sources_of(&sources)?;
    if options.policy.keep_meta {
        Right::Admin.require()?;
    }
    lifecycle::stop_threads_at_exit();
    let definitions = definitions::r4();
    let resource_type = resource_type.map(|name| table::type_name(definitions, &name)).transpose()?;
    let changes = loading::changes(&options)?;
    let journal = Journal::open_load(&json!({"source": names, "resourceType": resource_type, "fhir": fhir, "options": &options.shown}))?;
    let destination = loading::destination(&options);
    let compression = destination.compression.clone();
    let mut sink: Box<dyn Sink> = match options.max_errors {
        0 => Box::new(Strict::new(destination, resource_type.as_deref())?),
        _ => Box::new(Tolerant::new(destination, resource_type.as_deref(), journal.clone())?),
    };
    if options.checks.references {
        sink = Box::new(Checked::new(sink, definitions, ledger::enough(options.max_errors)));
    }
    let mut ledger = Ledger::new(options.max_errors);
    let access = loading::access(&options, &sources)?;
    for source in sources {
        let plan = op::load::Plan {
            recipe: loading::recipe(&source.name(), resource_type.as_deref(), fhir, &options, &changes, &compression),
            source,
            access: access.clone(),
            threads: setting::encode_threads(),
            from: Checkpoint::default(),
            span: None,
            division: None,
            confirm: false,
        };
        op::load::load(plan, &mut *sink, &mut ledger, &mut Backend)?;
    }
    sink.finish(&mut ledger)?;
    let answer = match resource_type {
        Some(name) => json!({"total": ledger.stored.get(&name).copied().unwrap_or(0)}),
        None => json!(ledger.stored.iter().filter(|(_, lines)| **lines > 0).collect::<BTreeMap<_, _>>()),
    };
    let validation = validate_later(&journal, &options, &ledger)?;
    journal.close_load(&ledger, validation.map(|id| format!("validation is job {id}")).as_deref())?;
    Ok(answer)
}

/// Has what was stored validated by a background worker once it is committed: the job's id.
fn validate_later(journal: &Journal, options: &LoadOptions, ledger: &Ledger) -> Result<Option<String>, Error> {
    let checks = options.later;
    if checks == Checks::default() {
        return Ok(None);
    }
    let mut tables = Vec::new();
    for resource_type in ledger.stored.iter().filter(|(_, lines)| **lines > 0).map(|(name, _)| name) {
        tables.extend(table::lookup(resource_type)?.map(|table| (resource_type.clone(), table)));
    }
    let request = json!({"load": journal.id()});
    // Rows of this load have its time, unless they took their lines': then all the tables' rows are looked at.
    let written_at = (options.policy.take_meta() == TakeMeta::Nothing).then(lifecycle::transaction_time);
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
