//! `bulk.load`, both signatures.

use super::option::{self, LoadOptions, LoadRequest};
use crate::error::Error;
use crate::fhir::change::Changes;
use crate::fhir::{Format, definitions};
use crate::op;
use crate::op::batch::{Recipe, Rules};
use crate::pg::argument::Json;
use crate::pg::role::Right;
use crate::pg::upsert::Upsert;
use crate::pg::wait::Backend;
use crate::pg::{lifecycle, report, setting, table};
use crate::store::Source;
use crate::store::opened::Access;
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Value, json};

/// Loads one source. A source that starts with `{` is a whole request: so an untyped literal finds its way.
#[pg_extern(sql = false)]
fn load(source: Option<&str>, resource_type: Option<&str>, fhir: Option<bool>, options: Option<Json>) -> JsonB {
    let source = report::ok(source.ok_or(Error::Null("source")));
    let fhir = fhir.unwrap_or(false);
    let request = LoadOptions::read(options.as_ref().map_or(option::NONE, |options| &options.0)).and_then(|options| {
        if source.trim_start().starts_with('{') {
            let mut request = LoadRequest::read(source)?;
            request.resource_type = resource_type.map(str::to_owned).or(request.resource_type);
            request.options = request.options.or(options);
            return Ok(request);
        }
        Ok(LoadRequest { sources: vec![source.to_owned()], resource_type: resource_type.map(str::to_owned), options })
    });
    JsonB(report::ok(request.and_then(|request| run(request, fhir))))
}

/// Loads what a request's body says.
#[pg_extern(sql = false)]
fn load_request(request: Option<Json>, fhir: Option<bool>) -> JsonB {
    let request = request.ok_or(Error::Null("request")).and_then(|request| LoadRequest::read(&request.0));
    JsonB(report::ok(request.and_then(|request| run(request, fhir.unwrap_or(false)))))
}

fn run(request: LoadRequest, fhir: bool) -> Result<Value, Error> {
    lifecycle::require_utf8()?;
    lifecycle::require_writable(c"bulk.load");
    let sources: Vec<Source> = request.sources.iter().map(|text| Source::parse(text)).collect::<Result<_, _>>()?;
    for source in &sources {
        match source {
            Source::File(_) => Right::ReadServerFiles.require()?,
            Source::Http(_) => Right::Remote.require()?,
        }
    }
    lifecycle::stop_threads_at_exit();
    let definitions = definitions::r4();
    let resource_type = request.resource_type.map(|name| table::type_name(definitions, &name)).transpose()?;
    let wrong = |_| Error::InvalidOption { name: "merge", expected: "a JSON object that can be stored" };
    let changes = Changes::new(request.options.merge.as_deref(), request.options.strip_nulls, setting::max_depth()).map_err(wrong)?;
    let access = Access {
        allowed_hosts: setting::allowed_hosts(),
        headers: request.options.headers,
        connect_timeout: request.options.connect_timeout,
        read_timeout: request.options.read_timeout,
        retries: request.options.retries,
    };
    let compression = Rules::default();
    let mut sink = Upsert::new(definitions, request.options.create_tables, request.options.policy, compression.clone());
    if let Some(name) = &resource_type {
        sink.prepare(name)?;
    }
    sink.show_progress(resource_type.as_deref());
    for source in sources {
        let plan = op::load::Plan {
            recipe: Recipe {
                source: source.name(),
                definitions,
                resource_type: resource_type.clone(),
                from: if fhir { Format::Fhir } else { Format::Aidbox },
                stored: setting::resource_format(),
                created_at_url: setting::created_at_url(),
                changes: changes.clone(),
                compression: compression.clone(),
                max_line: setting::max_line(),
                max_depth: setting::max_depth(),
            },
            source,
            access: access.clone(),
            threads: setting::encode_threads(),
        };
        op::load::load(plan, &mut sink, &mut Backend)?;
    }
    let stored = sink.close()?;
    Ok(match resource_type {
        Some(name) => json!({"total": stored.get(&name).copied().unwrap_or(0)}),
        None => json!(stored),
    })
}
