//! `bulk.create_resource_table`.

use crate::fhir::definitions;
use crate::pg::version::Matched;
use crate::pg::{create, lifecycle, report, table};
use pgrx::prelude::*;

/// The table of a resource type as an oid; created with its history where it is missing.
#[pg_extern(sql = false)]
fn create_resource_table(_version: Matched, resource_type: &str) -> pg_sys::Oid {
    lifecycle::require_writable(c"bulk.create_resource_table");
    report::ok(table::type_name(definitions::r4(), resource_type).and_then(|name| create::ensure(&name, create::Key::AtOnce))).0.oid
}
