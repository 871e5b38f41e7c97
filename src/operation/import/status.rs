//! How a session stands: the BulkImportStatus resource, in the shape of its request, and what `/v2` shows.

use crate::error::Error;
use crate::job::spec::JobSpec;
use crate::operation::import::control::{Version, word};
use crate::operation::import::spec::Import;
use crate::operation::response::Answer;
use crate::pg::state::enums::{JobKind, State};
use crate::pg::state::{job_control, job_report, scheduler};
use serde_json::{Map, Value, json};

/// The status of a session.
///
/// # Errors
/// Only what no request can be the cause of.
pub fn status(id: &str, version: Version) -> Result<Answer, Error> {
    let unknown = || Answer::refuse(404, format!("there is no import \"{id}\""));
    let standing = match job_control::standing(id) {
        Ok(standing) if standing.kind == JobKind::Import => standing,
        Ok(_) | Err(Error::NoJob(_)) => return Ok(unknown()),
        Err(error @ Error::ForeignJob) => return Ok(Answer::refuse(403, error.to_string())),
        Err(error) => return Err(error),
    };
    scheduler::start_waiting()?;
    let Some((facts, spec, inputs)) = job_report::report(standing.number)? else { return Ok(unknown()) };
    let Some(import) = JobSpec::from_json(spec)?.work::<Import>()? else { return Ok(unknown()) };
    let body = match version {
        Version::One => resource(id, standing.state, &import, &facts, &inputs),
        Version::Two => of_version_two(standing.state, &facts, &inputs),
    };
    Ok(Answer::new(200, body))
}

/// Members of `value` by name, where they are not null.
fn members(value: &Value, names: &[&str]) -> Map<String, Value> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), value.get(name).filter(|value| !value.is_null())?.clone()))).collect()
}

fn resource(id: &str, state: State, import: &Import, facts: &Value, inputs: &[Value]) -> Value {
    let request = &facts["request"];
    let mut body =
        members(request, &["type", "action", "inputFormat", "inputSource", "contentEncoding", "mode", "update", "allowedRetryCount"]);
    body.insert("id".to_owned(), json!(id));
    body.insert("resourceType".to_owned(), json!("BulkImportStatus"));
    body.insert("meta".to_owned(), facts["meta"].clone());
    body.insert("time".to_owned(), Value::Object(members(&facts["time"], &["start", "end"])));
    let asked = request["inputs"].as_array().map_or(&[][..], Vec::as_slice);
    if import.of_2019 {
        body.insert("inputs".to_owned(), request["inputs"].clone());
        let jobs: Vec<Value> = asked.iter().zip(inputs).map(|(asked, input)| job_of_2019(asked, input)).collect();
        let message = facts["message"].as_str().unwrap_or_default();
        body.insert("status".to_owned(), json!({"jobs": jobs, "message": message, "process": word(state)}));
        return Value::Object(body);
    }
    let shown: Vec<Value> = asked.iter().zip(inputs).map(|(asked, input)| present(asked, input)).collect();
    body.insert("inputs".to_owned(), Value::Array(shown));
    match word(state) {
        "active" => {}
        // Whatever became of the inputs.
        "done" | "error" => drop(body.insert("status".to_owned(), json!("finished"))),
        other => drop(body.insert("status".to_owned(), json!(other))),
    }
    Value::Object(body)
}

fn job_of_2019(asked: &Value, input: &Value) -> Value {
    let threads: Vec<Value> = input["threads"].as_array().into_iter().flatten().map(thread_of_2019).collect();
    let mut job = json!({"url": asked["url"], "type": asked["type"], "threads": threads});
    if let Some(error) = input["message"].as_str() {
        job["message"] = json!(error);
    }
    job
}

/// Keys in the words of the 2019 page: bytes that were read are inflated ones, symbols characters, the rate bytes a millisecond.
fn thread_of_2019(thread: &Value) -> Value {
    let number = |name: &str| thread[name].as_u64().unwrap_or(0);
    let milliseconds = number("duration");
    let rate = if milliseconds > 0 { number("bytes") as f64 / milliseconds as f64 } else { 0.0 };
    let state = match thread["state"].as_str().unwrap_or_default() {
        "done" => "finished-copying",
        "in-progress" => "copying",
        other => other,
    };
    json!({
        "state": state,
        "bytes": {
            "kbs-rate": rate,
            "bytes-read": number("bytes"),
            "objects-read": number("read"),
            "symbols-read": number("characters"),
            "bytes-written": number("written"),
            "objects-copied": number("stored"),
        },
    })
}

fn present(asked: &Value, input: &Value) -> Value {
    let mut shown = members(asked, &["url", "resourceType"]);
    let mut add = |name: &str, value: &Value| drop(shown.insert(name.to_owned(), value.clone()));
    match input["state"].as_str().unwrap_or_default() {
        "done" => {
            add("status", &json!("finished"));
            add("total", &input["stored"]);
            add("duration", &input["duration"]);
            add("ts", &input["finished"]);
        }
        "error" => {
            add("status", &json!("failed"));
            add("error", &input["message"]);
        }
        "in-progress" => add("status", &json!("in-progress")),
        _ => {}
    }
    if input["rejected"].as_u64().unwrap_or(0) > 0 {
        add("rejected", &input["rejected"]);
    }
    Value::Object(shown)
}

fn of_version_two(state: State, facts: &Value, inputs: &[Value]) -> Value {
    let request = &facts["request"];
    let mut body = members(request, &["type", "contentEncoding", "update", "allowedRetryCount"]);
    let asked = request["inputs"].as_array().map_or(&[][..], Vec::as_slice);
    let shown: Vec<Value> = asked.iter().zip(inputs).map(|(asked, input)| input_of_version_two(asked, input)).collect();
    body.insert("inputs".to_owned(), Value::Array(shown));
    let total: u64 = inputs.iter().filter_map(|input| input["stored"].as_u64()).sum();
    let failed = asked.iter().zip(inputs).find(|(_, input)| input["state"] == "error");
    match word(state) {
        "active" | "paused" => {
            drop(body.insert("status".to_owned(), json!(if state == State::Waiting { "waiting" } else { "in-progress" })))
        }
        ended => {
            body.insert("status".to_owned(), json!("done"));
            let outcome = match ended {
                "done" => "succeeded",
                "aborted" => "canceled",
                _ => "failed",
            };
            body.insert("outcome".to_owned(), json!(outcome));
            if outcome == "succeeded" {
                let message = format!("All input files imported, {total} new resources loaded");
                body.insert(
                    "result".to_owned(),
                    json!({"message": message, "total-files": inputs.len(), "total-imported-resources": total}),
                );
            }
            if let Some((asked, _)) = failed {
                let task = format!("{} {}", of(asked, "resourceType", "type"), asked["url"].as_str().unwrap_or_default());
                let message = format!("Import for some files failed with an error: task '{task} failed");
                body.insert("error".to_owned(), json!({"message": message}));
            }
        }
    }
    Value::Object(body)
}

fn of<'a>(asked: &'a Value, name: &str, other: &str) -> &'a str {
    asked[name].as_str().or_else(|| asked[other].as_str()).unwrap_or_default()
}

fn input_of_version_two(asked: &Value, input: &Value) -> Value {
    let mut shown = json!({"url": asked["url"], "resourceType": of(asked, "resourceType", "type")});
    match input["state"].as_str().unwrap_or_default() {
        "done" => {
            shown["status"] = json!("done");
            shown["outcome"] = json!("succeeded");
            shown["result"] = json!({"imported-resources": input["stored"]});
        }
        "error" => {
            shown["status"] = json!("done");
            shown["outcome"] = json!("failed");
            shown["error"] = json!({"message": input["message"]});
        }
        "in-progress" | "interrupted" => shown["status"] = json!("in-progress"),
        _ => shown["status"] = json!("waiting"),
    }
    shown
}
