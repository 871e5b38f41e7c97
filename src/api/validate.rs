//! `bulk.validate`: stored resources against the definitions, in a background worker.

use crate::api::option::{self, ValidateOptions};
use crate::error::Error;
use crate::fhir::definitions;
use crate::operation::validate::{self, Validate};
use crate::pg::catalog::resource_table;
use crate::pg::state::scheduler;
use crate::pg::sys::argument::Json;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, sqlstate};
use pgrx::prelude::*;
use serde_json::json;

/// Asks for it. A type that is FHIR's but has no table has no resources.
#[pg_extern(sql = false, name = "validate")]
fn validate_stored(_version: Matched, resource_type: Option<&str>, checks: Option<&str>, options: Option<Json>) -> String {
    let ask = || {
        backend::require_utf8()?;
        backend::require_writable(c"bulk.validate");
        let resource_type = resource_table::type_name(definitions::r4(), resource_type.ok_or(Error::Null("resource_type"))?)?;
        let name = checks.unwrap_or("struct");
        let checks = option::checks_named(name)?;
        let options = ValidateOptions::read(options.as_ref().map_or(option::NONE, |options| &options.0))?;
        let found = resource_table::lookup(&resource_type)?;
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
        scheduler::start_waiting()?;
        validate::ask(request, plan, &tables)
    };
    sqlstate::ok(ask())
}
