//! `bulk.stage_merge` and `bulk.stage_drop`: what follows a load with `temp_table`.

use crate::error::Error;
use crate::fhir::definitions;
use crate::pg::catalog::{ddl, resource_table};
use crate::pg::sys::privilege::Right;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, sqlstate};
use crate::pg::write::staging_table;
use pgrx::prelude::*;
use pgrx::{JsonB, pg_sys};
use serde_json::json;

/// Puts the rows of a stage into its type's table, as the load that filled it was asked to.
#[pg_extern(sql = false)]
fn stage_merge(_version: Matched, name: &str) -> JsonB {
    let merged = || -> Result<u64, Error> {
        backend::require_writable(c"bulk.stage_merge");
        let stage = staging_table::open(name, pg_sys::RowExclusiveLock)?;
        if stage.policy.keep_meta {
            Right::Admin.require()?;
        }
        let target = match resource_table::lookup_for_writing(&stage.resource_type)? {
            Some(target) => target,
            None if definitions::r4().resource(&stage.resource_type).is_some() => ddl::ensure(&stage.resource_type, ddl::Key::AtOnce)?.0,
            None => return Err(Error::UnknownType(stage.resource_type)),
        };
        staging_table::merge(&stage, &target)
    };
    JsonB(json!({"total": sqlstate::ok(merged())}))
}

/// Drops a stage.
#[pg_extern(sql = false)]
fn stage_drop(_version: Matched, name: &str) {
    sqlstate::ok(staging_table::open(name, pg_sys::AccessExclusiveLock).and_then(|stage| staging_table::drop(&stage)));
}
