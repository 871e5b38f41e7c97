//! How an export stands: on its way, or its manifest.

use crate::error::Error;
use crate::fhir::instant;
use crate::job::spec::JobSpec;
use crate::operation::export::request::short;
use crate::operation::export::spec::Export;
use crate::operation::export::target;
use crate::operation::http_status::{self, Door};
use crate::operation::response::{Answer, Refusal};
use crate::pg::state::enums::{JobKind, State};
use crate::pg::state::{export_run as files, job_control, job_report, scheduler};
use crate::pg::sys::latch::Backend;
use crate::pg::sys::privilege::Right;
use crate::pg::sys::{backend, guc};
use crate::pipeline::blocking;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// Seconds after which a client shall ask again: a tenth of the time that it took so far, within these.
const COME_BACK: (u64, u64) = (1, 60);

/// 202, 200 with the manifest, 404, 500.
///
/// # Errors
/// Only what no request can be the cause of.
pub fn status(id: &str) -> Result<Answer, Error> {
    backend::stop_threads_at_exit();
    let unknown = || Answer::from(Refusal::new(404, "not-found", format!("there is no export \"{}\"", short(id))));
    let standing = match job_control::standing(id) {
        Ok(standing) if standing.kind == JobKind::Export => standing,
        Ok(_) | Err(Error::NoJob(_)) => return Ok(unknown()),
        Err(error) => return http_status::blame_request(error, Door::Export).map(Answer::from),
    };
    if !backend::is_standby() {
        scheduler::start_waiting()?;
    }
    let Some((facts, spec, _)) = job_report::report(standing.number)? else { return Ok(unknown()) };
    let Some(export) = JobSpec::from_json(spec)?.work::<Export>()? else { return Ok(unknown()) };
    match standing.state {
        State::Completed => manifest(standing.number, &facts, &export),
        State::Cancelled => Ok(unknown()),
        State::Error => Ok(Refusal::new(500, "exception", facts["message"].as_str().unwrap_or("the export failed")).into()),
        state => on_its_way(standing.number, state, &facts),
    }
}

fn on_its_way(number: i64, state: State, facts: &Value) -> Result<Answer, Error> {
    let (done, all, resources) = files::progress(number)?;
    let progress = match state {
        State::Waiting => facts["message"].as_str().map_or_else(|| "waiting".to_owned(), |why| format!("waiting: {why}")),
        State::Interrupted => "interrupted: bulk.resume_interrupted begins it anew".to_owned(),
        _ => format!("{done} of {all} tasks, {resources} resources"),
    };
    let again = (facts["duration"].as_u64().unwrap_or_default() / 10_000).clamp(COME_BACK.0, COME_BACK.1);
    let progress: String = progress.chars().take(99).collect();
    Ok(Answer::new(202, Value::Null).with("x-progress", progress).with("retry-after", again))
}

fn manifest(number: i64, facts: &Value, export: &Export) -> Result<Answer, Error> {
    let Some(run) = files::runs(number)?.into_iter().next() else {
        return Ok(Refusal::new(404, "not-found", "the files of the export are gone").into());
    };
    let written = files::written(&run)?;
    let keys: Vec<String> = written.iter().map(|(_, _, key, _)| key.clone()).collect();
    let expiry = guc::export_url_expiry();
    let urls = match urls(export, keys, expiry) {
        Ok(urls) => urls,
        Err(error @ Error::MissingRole { .. }) => return http_status::blame_request(error, Door::Export).map(Answer::from),
        // The files are there; another time they may be reached.
        Err(error) => return Ok(Refusal::new(500, "transient", format!("the files cannot be linked to: {error}")).into()),
    };
    let mut body = json!({
        "status": "completed",
        "transactionTime": instant::from_timestamp(run.transaction_time).map(|time| time.as_str().to_owned()),
        "request": facts["request"]["url"],
        "requiresAccessToken": false,
        "output": [],
        "deleted": [],
        "error": [],
    });
    for ((kind, resource_type, _, count), url) in written.iter().zip(urls) {
        let kind_of_lines = if kind == "deleted" { "Bundle" } else { resource_type };
        if let Some(list) = body[kind.as_str()].as_array_mut() {
            list.push(json!({"type": kind_of_lines, "url": url, "count": count}));
        }
    }
    let extension = ["patient-errors", "warnings"].iter().filter_map(|name| Some((*name, facts["request"].get(*name)?.clone())));
    let extension: serde_json::Map<String, Value> = extension.map(|(name, value)| (name.to_owned(), value)).collect();
    if !extension.is_empty() {
        body["extension"] = Value::Object(extension);
    }
    Ok(Answer::new(200, body).with("content-type", "application/json").with("expires", httpdate::fmt_http_date(SystemTime::now() + expiry)))
}

/// Under which files can be read for some time.
fn urls(export: &Export, keys: Vec<String>, expiry: Duration) -> Result<Vec<String>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    Right::to_write(&export.sink.bucket).require()?;
    let (bucket, access) = (export.sink.bucket.clone(), target::access(&export.sink)?);
    blocking::run(&mut Backend, move |interrupt| {
        let fault = |fault| Error::source(&bucket.url(), fault);
        let store = bucket.store(&access, interrupt).map_err(fault)?;
        keys.iter().map(|key| store.signed_url(key, expiry).map(String::from).map_err(fault)).collect()
    })
}
