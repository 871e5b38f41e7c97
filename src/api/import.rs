//! `bulk.import` and its status: sources loaded in the background. The answer is that of the HTTP operation.

use crate::error::Error;
use crate::job::answer::Answer;
use crate::job::import::action::{self, Version};
use crate::job::import::status;
use crate::pg::argument::Json;
use crate::pg::jobs::start;
use crate::pg::version::Matched;
use crate::pg::{lifecycle, report};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::Value;

#[pg_extern(sql = false)]
fn import(_version: Matched, request: Option<Json>, fhir: Option<bool>) -> JsonB {
    let act = || {
        lifecycle::require_utf8()?;
        lifecycle::require_writable(c"bulk.import");
        start::start_waiting()?;
        let body = request.as_ref().map(|request| serde_json::from_str::<Value>(&request.0));
        match body {
            Some(Ok(body)) => action::act(&body, fhir.unwrap_or(false), Version::One),
            Some(Err(_)) | None => Ok(Answer::refuse(400, "the body must be a JSON object")),
        }
    };
    JsonB(report::ok(act()).into_json())
}

#[pg_extern(sql = false)]
fn import_status(_version: Matched, id: Option<&str>, version: i32) -> JsonB {
    let version = if version == 2 { Version::Two } else { Version::One };
    JsonB(report::ok(id.ok_or(Error::Null("id")).and_then(|id| status::status(id, version))).into_json())
}
