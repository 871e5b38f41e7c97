//! The call: a request is routed, its operation done in a savepoint of its own, what went wrong answered.

use crate::api::http::reply::Reply;
use crate::api::http::request::Request;
use crate::api::http::route::{self, From, Missing, Route};
use crate::api::http::stream;
use crate::api::option::LoadRequest;
use crate::api::{load, rpc};
use crate::operation::http_status::{self, Door};
use crate::operation::response::{Answer, Refusal, Wrong};
use crate::operation::{export, import};
use crate::pg::state::scheduler;
use crate::pg::sys::argument::Json;
use crate::pg::sys::version::Matched;
use crate::pg::sys::{backend, subtransaction};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Value, json};

#[pg_extern(sql = false)]
fn http(
    _version: Matched,
    method: Option<&str>,
    path: Option<&str>,
    query: Option<Json>,
    headers: Option<Json>,
    body: Option<Json>,
) -> String {
    let text = |json: Option<Json>| json.map_or_else(|| "null".to_owned(), |json| json.0);
    let body = body.map(|body| body.0);
    let path = path.unwrap_or_default();
    let request = Request::read(method.unwrap_or_default(), path, &text(query), &text(headers), body);
    request.map_or_else(|refusal| refused(route::is_import(path), refusal), |request| answer(&request, route::is_import(path))).into_json()
}

/// The answer to a request that failed outside of `bulk.http`, by its SQLSTATE.
#[pg_extern(sql = false)]
fn http_error(_version: Matched, sqlstate: Option<&str>, message: Option<&str>) -> JsonB {
    let answer = http_status::of_outside(sqlstate.unwrap_or_default(), message.unwrap_or_default());
    JsonB(answer.with("content-type", "application/fhir+json").into_json())
}

fn answer(request: &Request, is_import: bool) -> Reply {
    let route = match route::find(&request.method, &request.path) {
        Ok(route) => route,
        Err(missing) => {
            let reply = refused(is_import, missing.refusal());
            return if let Missing::Method(allowed) = &missing { reply.with("allow", allowed.join(", ")) } else { reply };
        }
    };
    let done = subtransaction::run_all(|| match perform(&route, request) {
        Ok(reply) => Ok(reply),
        Err(Wrong::Refused(refusal)) => Ok(refused(is_import, refusal)),
        Err(Wrong::Failed(error)) => Err(error),
    });
    let door = match route {
        // Whose body says the type.
        Route::Load { resource_type: None, .. } => Door::Body,
        _ => Door::Path,
    };
    done.unwrap_or_else(|failed| refused(is_import, http_status::refusal(&failed, door)))
}

/// Imports have words of their own.
fn refused(is_import: bool, refusal: Refusal) -> Reply {
    if is_import { Answer::refuse(refusal.status, refusal.text).into() } else { refusal.into() }
}

fn perform(route: &Route, request: &Request) -> Result<Reply, Wrong> {
    backend::require_utf8()?;
    let query = &request.query;
    if !matches!(route, Route::Dump { .. } | Route::DumpCsv { .. } | Route::DumpSql | Route::Export { from: From::Query, .. }) {
        query.only(&[])?;
    }
    let body = request.body.as_deref();
    match route {
        Route::Dump { resource_type } => stream::dump(resource_type, query),
        Route::DumpCsv { resource_type } => stream::dump_csv(resource_type, query),
        Route::DumpSql => stream::dump_sql(query, body),
        Route::Load { resource_type, fhir } => {
            let mut wanted = LoadRequest::read(body.unwrap_or("null"), crate::api::option::NONE)?;
            wanted.resource_type = resource_type.clone().or(wanted.resource_type);
            Ok(Reply::json(200, load::run(wanted, *fhir)?.to_string()))
        }
        Route::Import { fhir, version } => {
            backend::require_writable(c"$import");
            scheduler::start_waiting()?;
            Ok(import::control::act(&value(body)?, *fhir, *version)?.into())
        }
        Route::ImportStatus { id, version } => Ok(import::status::status(id, *version)?.into()),
        Route::Export { level, group, from } => {
            let params = match from {
                From::Query => query.to_json(),
                From::Body => parameters(value(body)?)?,
            };
            Ok(export::submit::start(level.word(), &params, group.as_deref(), request.handling)?.into())
        }
        Route::ExportStatus { id } => Ok(export::status::status(id)?.into()),
        Route::ExportCancel { id } => {
            backend::require_writable(c"$export-status");
            Ok(export::submit::cancel(id)?.into())
        }
        Route::Rpc => {
            let (text, refused) = rpc::answer(body)?;
            let status = refused.map_or(200, |code| if code == "42501" { 403 } else { 422 });
            Ok(Reply::json(status, text))
        }
    }
}

/// A body, null where there is none.
fn value(body: Option<&str>) -> Result<Value, Refusal> {
    let read = body.map_or(Ok(Value::Null), serde_json::from_str);
    // What PostgreSQL reads as JSON and serde_json does not is nested out of all measure.
    read.map_err(|_| Refusal::new(400, "structure", "the body cannot be read"))
}

/// The body of a POST to `$export`.
fn parameters(body: Value) -> Result<Value, Refusal> {
    if body.is_null() || body["resourceType"] == json!("Parameters") {
        return Ok(body);
    }
    Err(Refusal::new(422, "invalid", "Request body must be a Parameters resource"))
}
