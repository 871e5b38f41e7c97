//! `bulk.validate`: stored resources against the definitions, in a background worker.

use crate::api::option::{self, ValidateOptions};
use crate::error::Error;
use crate::fhir::definitions;
use crate::job::plan::Validate;
use crate::job::validate;
use crate::pg::argument::Json;
use crate::pg::jobs::start;
use crate::pg::version::Matched;
use crate::pg::{lifecycle, report, table};
use pgrx::prelude::*;
use serde_json::json;

/// Asks for it. A type that is FHIR's but has no table has no resources.
#[pg_extern(sql = false, name = "validate")]
fn validate_stored(_version: Matched, resource_type: Option<&str>, checks: Option<&str>, options: Option<Json>) -> String {
    let ask = || {
        lifecycle::require_utf8()?;
        lifecycle::require_writable(c"bulk.validate");
        let resource_type = table::type_name(definitions::r4(), resource_type.ok_or(Error::Null("resource_type"))?)?;
        let name = checks.unwrap_or("struct");
        let checks = option::checks_named(name)?;
        let options = ValidateOptions::read(options.as_ref().map_or(option::NONE, |options| &options.0))?;
        let found = table::lookup(&resource_type)?;
        if found.is_none() && definitions::r4().resource(&resource_type).is_none() {
            return Err(Error::UnknownType(resource_type));
        }
        let mut request = json!({"resourceType": resource_type, "checks": name});
        if let Some(most) = options.max_errors {
            request["max-errors"] = json!(most);
        }
        let tables: Vec<_> = found.map(|table| (resource_type, table)).into_iter().collect();
        let plan =
            Validate { structure: checks.structure, references: checks.references, written_at: None, max_errors: options.max_errors };
        start::start_waiting()?;
        validate::ask(request, plan, &tables)
    };
    report::ok(ask())
}
