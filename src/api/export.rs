//! `bulk.export`, its status and its end. The answers are those of the HTTP operations.

use crate::error::Error;
use crate::job::answer::Answer;
use crate::job::export::params::Handling;
use crate::job::export::{call, manifest};
use crate::pg::argument::Json;
use crate::pg::version::Matched;
use crate::pg::{lifecycle, report};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Value, json};

/// An answer as SQL takes it apart.
fn answer(answer: Result<Answer, Error>) -> JsonB {
    let answer = report::ok(answer);
    JsonB(answer.into_json())
}

#[pg_extern(sql = false)]
fn export(_version: Matched, level: Option<&str>, params: Option<Json>, group_id: Option<&str>) -> JsonB {
    // What cannot be read is refused as what is no object.
    let params = params.map_or(Value::Null, |params| serde_json::from_str(&params.0).unwrap_or(json!(false)));
    answer(call::start(level.unwrap_or("system"), &params, group_id, Handling::Strict))
}

#[pg_extern(sql = false)]
fn export_status(_version: Matched, id: Option<&str>) -> JsonB {
    answer(id.ok_or(Error::Null("id")).and_then(manifest::status))
}

#[pg_extern(sql = false)]
fn export_cancel(_version: Matched, id: Option<&str>) -> JsonB {
    lifecycle::require_writable(c"bulk.export_cancel");
    answer(id.ok_or(Error::Null("id")).and_then(call::cancel))
}
