//! `bulk.create_resource_table`.

use crate::fhir::definitions;
use crate::pg::catalog::{ddl, resource_table};
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, sqlstate};
use pgrx::prelude::*;

/// The table of a resource type as an oid; created with its history where it is missing.
#[pg_extern(sql = false)]
fn create_resource_table(_version: Matched, resource_type: &str) -> pg_sys::Oid {
    backend::require_writable(c"bulk.create_resource_table");
    sqlstate::ok(resource_table::type_name(definitions::r4(), resource_type).and_then(|name| ddl::ensure(&name, ddl::Key::AtOnce))).0.oid
}
