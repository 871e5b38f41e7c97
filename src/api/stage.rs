//! `bulk.stage_merge` and `bulk.stage_drop`: what follows a load with `temp_table`.

use crate::error::Error;
use crate::fhir::definitions;
use crate::pg::role::Right;
use crate::pg::version::Matched;
use crate::pg::{create, lifecycle, report, stage, table};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::json;

/// Puts the rows of a stage into its type's table, as the load that filled it was asked to.
#[pg_extern(sql = false)]
fn stage_merge(_version: Matched, name: &str) -> JsonB {
    let merged = || -> Result<u64, Error> {
        lifecycle::require_writable(c"bulk.stage_merge");
        let stage = stage::open(name)?;
        if stage.policy.keep_meta {
            Right::Admin.require()?;
        }
        let target = match table::lookup_for_writing(&stage.resource_type)? {
            Some(target) => target,
            None if definitions::r4().resource(&stage.resource_type).is_some() => {
                create::ensure(&stage.resource_type, create::Key::AtOnce)?.0
            }
            None => return Err(Error::UnknownType(stage.resource_type)),
        };
        stage::merge(&stage, &target)
    };
    JsonB(json!({"total": report::ok(merged())}))
}

/// Drops a stage.
#[pg_extern(sql = false)]
fn stage_drop(_version: Matched, name: &str) {
    report::ok(stage::open(name).and_then(|stage| stage::drop(&stage)));
}
