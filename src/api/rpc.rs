//! `bulk.rpc`: calls by the name of a method, `{method, params}` to `{result}` or `{error}`, as the body of `POST /rpc` has them.

use crate::error::Error;
use crate::operation::bucket::{status, submit};
use crate::operation::http_status::{self, Door};
use crate::operation::import::request::short;
use crate::operation::import::rpc as import;
use crate::operation::storage;
use crate::pg::sys::argument::Json;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, sqlstate};
use crate::text::json_members::check_keys;
use pgrx::prelude::*;
use serde_json::{Map, Value, json};

/// A method, its parameters read.
type Method = fn(&Map<String, Value>) -> Result<import::Reply, Error>;

const METHODS: [(&str, Method); 7] = [
    (import::START, import::start),
    ("aidbox.bulk/import-status", import::status),
    ("aidbox.bulk/import-errors", import::errors),
    ("aidbox.bulk/import-cancel", import::cancel),
    ("aidbox.bulk/load-from-bucket", |params| Ok(submit::start(params)?.map(|answer| answer.to_string()))),
    ("aidbox.bulk/storage-healthcheck", |params| {
        check_keys(params, &[])?;
        Ok(storage::healthcheck()?.map(|answer| answer.to_string()))
    }),
    ("aidbox.bulk/load-from-bucket-status", |params| Ok(status::status(params)?.map(|answer| answer.to_string()))),
];

#[pg_extern(sql = false)]
fn rpc(_version: Matched, request: Option<Json>) -> String {
    sqlstate::ok(answer(request.as_ref().map(|request| request.0.as_str()))).0
}

/// The answer as text, and for a call that is refused the SQLSTATE. Of several calls each has an answer of its own.
///
/// # Errors
/// Only what no request can be the cause of.
pub fn answer(request: Option<&str>) -> Result<(String, Option<String>), Error> {
    backend::require_utf8()?;
    let call = match request.map(serde_json::from_str::<Value>) {
        Some(Ok(Value::Array(calls))) => {
            let answers: Vec<String> = calls.iter().map(|call| one(call).map(text)).collect::<Result<_, Error>>()?;
            return Ok((format!("[{}]", answers.join(",")), None));
        }
        Some(Ok(call)) => call,
        Some(Err(_)) | None => Value::Null,
    };
    let reply = one(&call)?;
    let refused = reply.as_ref().err().map(|error| error["code"].as_str().unwrap_or_default().to_owned());
    Ok((text(reply), refused))
}

fn text(reply: import::Reply) -> String {
    match reply {
        Ok(result) => format!("{{\"result\":{result}}}"),
        Err(error) => json!({"error": error}).to_string(),
    }
}

/// Answers one call. Only what no call can be the cause of is an error.
fn one(call: &Value) -> Result<import::Reply, Error> {
    let refuse = |message: String, code: &str| Ok(Err(json!({"message": message, "code": code, "source": "bulk"})));
    let Some(name) = call.get("method").and_then(Value::as_str) else {
        return refuse("a call is a JSON object with a method".to_owned(), "22023");
    };
    let Some((_, method)) = METHODS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = METHODS.iter().map(|(known, _)| *known).collect();
        return refuse(format!("unknown method \"{}\": known are {}", short(name), known.join(", ")), "42883");
    };
    let none = Map::new();
    let params = match call.get("params") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(params)) => params,
        Some(_) => return refuse("params must be a JSON object".to_owned(), "22023"),
    };
    match method(params) {
        Ok(reply) => Ok(reply),
        Err(error) => {
            let state = sqlstate::state(&error);
            refuse(http_status::blame_request(error, Door::Import)?.text, &state)
        }
    }
}
