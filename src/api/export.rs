//! `bulk.export`, its status and its end. The answers are those of the HTTP operations.

use crate::error::Error;
use crate::operation::export::request::Handling;
use crate::operation::export::{status, submit};
use crate::operation::response::Answer;
use crate::pg::sys::argument::Json;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, sqlstate};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Value, json};

/// An answer as SQL takes it apart.
fn answer(answer: Result<Answer, Error>) -> JsonB {
    let answer = sqlstate::ok(answer);
    JsonB(answer.into_json())
}

#[pg_extern(sql = false)]
fn export(_version: Matched, level: Option<&str>, params: Option<Json>, group_id: Option<&str>) -> JsonB {
    // What cannot be read is refused as what is no object.
    let params = params.map_or(Value::Null, |params| serde_json::from_str(&params.0).unwrap_or(json!(false)));
    answer(submit::start(level.unwrap_or("system"), &params, group_id, Handling::Strict))
}

#[pg_extern(sql = false)]
fn export_status(_version: Matched, id: Option<&str>) -> JsonB {
    answer(id.ok_or(Error::Null("id")).and_then(status::status))
}

#[pg_extern(sql = false)]
fn export_cancel(_version: Matched, id: Option<&str>) -> JsonB {
    backend::require_writable(c"bulk.export_cancel");
    answer(id.ok_or(Error::Null("id")).and_then(submit::cancel))
}
