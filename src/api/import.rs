//! `bulk.import` and its status: sources loaded in the background. The answer is that of the HTTP operation.

use crate::error::Error;
use crate::operation::import::control::{self, Version};
use crate::operation::import::status;
use crate::operation::response::Answer;
use crate::pg::state::scheduler;
use crate::pg::sys::argument::Json;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, sqlstate};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::Value;

#[pg_extern(sql = false)]
fn import(_version: Matched, request: Option<Json>, fhir: Option<bool>) -> JsonB {
    let act = || {
        backend::require_utf8()?;
        backend::require_writable(c"bulk.import");
        scheduler::start_waiting()?;
        let body = request.as_ref().map(|request| serde_json::from_str::<Value>(&request.0));
        match body {
            Some(Ok(body)) => control::act(&body, fhir.unwrap_or(false), Version::One),
            Some(Err(_)) | None => Ok(Answer::refuse(400, "the body must be a JSON object")),
        }
    };
    JsonB(sqlstate::ok(act()).into_json())
}

#[pg_extern(sql = false)]
fn import_status(_version: Matched, id: Option<&str>, version: i32) -> JsonB {
    let version = if version == 2 { Version::Two } else { Version::One };
    JsonB(sqlstate::ok(id.ok_or(Error::Null("id")).and_then(|id| status::status(id, version))).into_json())
}
