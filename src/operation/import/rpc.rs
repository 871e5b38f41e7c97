//! The calls `aidbox.bulk/import-start`, `-status`, `-errors` and `-cancel`: a session in their words, one at a time.

use crate::error::Error;
use crate::jsonb::document::Document;
use crate::jsonb::parse;
use crate::operation::import::control;
use crate::operation::import::request::{ApiVersion, Input, MAX_INPUTS, Mode, RETRIES, Start};
use crate::pg::state::enums::State;
use crate::pg::state::job_control::{self, JobStatus, Stop};
use crate::pg::state::{job_report, scheduler};
use crate::pg::sys::backend;
use crate::store::redact;
use crate::text::json_members::{check_keys, object, string};
use serde_json::{Map, Value, json};

/// A result as JSON text, since a resource's numbers keep their digits, or what is answered as an error.
pub type Reply = Result<String, Value>;

/// By which these sessions are known.
pub const START: &str = "aidbox.bulk/import-start";

const PARAMETERS: &[&str] = &["format", "meta", "on-conflict", "input", "id_prefix"];
const ERRORS_PARAMETERS: &[&str] = &["omit-resources?"];
/// `max-errors`: no bound, all rejected lines are returned.
const MOST_ERRORS: u32 = u32::MAX;
/// Most bytes of rejected lines in one answer.
const MOST_TOLD: i64 = 32 << 20;
/// Most bytes of a JSON value that is quoted as it is.
const MOST_DEPTH: usize = 1000;

/// Starts a session, unless one is under way.
///
/// # Errors
/// `UnknownOption`, `InvalidOption`, and those of `control::enter`.
pub fn start(params: &Map<String, Value>) -> Result<Reply, Error> {
    backend::require_writable(c"aidbox.bulk/import-start");
    job_control::one_after_another(START);
    if let Some((id, standing)) = latest()?
        && is_active(&standing)
    {
        let message = "There is running import - wait until it finish or cancel it with aidbox.bulk/import-cancel";
        return Ok(Err(json!({"message": message, "import": result(&id, &standing)?})));
    }
    check_keys(params, PARAMETERS)?;
    let fhir = match string(params, "format")?.as_deref() {
        None | Some("fhir") => true,
        Some("aidbox") => false,
        Some(_) => return Err(Error::InvalidOption { name: "format", expected: "fhir or aidbox" }),
    };
    let keep_history = match string(params, "on-conflict")?.as_deref() {
        None | Some("update") => true,
        Some("override") => false,
        Some(_) => return Err(Error::InvalidOption { name: "on-conflict", expected: "update or override" }),
    };
    let meta = match params.get("meta") {
        None | Some(Value::Null) => None,
        Some(meta) => Some(Value::Object(object(meta, "meta")?)),
    };
    let id_prefix = string(params, "id_prefix")?;
    if id_prefix.as_deref().is_some_and(|prefix| !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))) {
        return Err(Error::InvalidOption { name: "id_prefix", expected: "letters, digits, - and . as FHIR ids have them" });
    }
    let options = json!({"update": keep_history, "max-errors": MOST_ERRORS, "validation": {"enable": true, "checks": "struct"}});
    let wanted = Start {
        shape: ApiVersion::Present,
        inputs: inputs(params)?,
        mode: Mode::Bulk,
        retries: RETRIES,
        options: object(&options, "options")?,
        shown: Map::new(),
        meta,
        id_prefix,
    };
    let mut shown = params.clone();
    let names: Vec<Value> = wanted.inputs.iter().map(|input| json!({"url": redact::redact(&input.url)})).collect();
    shown.insert("input".to_owned(), json!(names));
    let request = json!({"method": START, "params": shown, "inputs": names});
    let made = control::enter(None, &wanted, fhir, |_| request)?;
    let id = made.ok_or_else(|| Error::Internal("a new id is a job's already".to_owned()))?;
    let standing = job_control::standing(&id)?;
    Ok(Ok(result(&id, &standing)?.to_string()))
}

fn inputs(params: &Map<String, Value>) -> Result<Vec<Input>, Error> {
    let wrong = Error::InvalidOption { name: "input", expected: "a list of objects with a url" };
    let given =
        params.get("input").and_then(Value::as_array).filter(|given| (1..=MAX_INPUTS).contains(&given.len())).ok_or(wrong.clone())?;
    let read = |input: &Value| match input.as_object().map(|input| (input.len(), input.get("url"))) {
        Some((1, Some(Value::String(url)))) => Ok(Input { resource_type: None, url: url.clone(), is_resource_file: false }),
        _ => Err(wrong.clone()),
    };
    given.iter().map(read).collect()
}

/// How the last session stands.
///
/// # Errors
/// `UnknownOption`.
pub fn status(params: &Map<String, Value>) -> Result<Reply, Error> {
    check_keys(params, &[])?;
    match latest()? {
        Some((id, standing)) => Ok(Ok(result(&id, &standing)?.to_string())),
        None => Ok(none()),
    }
}

/// The lines that the last session rejected.
///
/// # Errors
/// `UnknownOption`, `InvalidOption`.
pub fn errors(params: &Map<String, Value>) -> Result<Reply, Error> {
    check_keys(params, ERRORS_PARAMETERS)?;
    let omits = match params.get("omit-resources?") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(omits)) => *omits,
        Some(_) => return Err(Error::InvalidOption { name: "omit-resources?", expected: "true or false" }),
    };
    let Some((id, _)) = latest()? else { return Ok(none()) };
    let Some(lines) = job_report::rejected(&id, !omits, MOST_TOLD)? else {
        let message = format!("the wrong lines are more than are told at once: they stand in bulk.load_error, under load_id \"{id}\"");
        return Ok(Err(json!({"message": message, "code": "54000", "source": "bulk"})));
    };
    let told: Vec<String> = lines.iter().map(entry).collect();
    Ok(Ok(format!("[{}]", told.join(","))))
}

/// A line that was rejected.
fn entry(line: &Value) -> String {
    let mut error = json!({"message": line["message"]});
    if let Some(path) = line["path"].as_str() {
        error["path"] = Value::Array(steps(path));
    }
    let mut entry = json!({"input_no": line["input"], "line_no": line["line"], "errors": [error]});
    for key in ["type", "id"] {
        if !line[key].is_null() {
            entry[key] = line[key].clone();
        }
    }
    let mut text = entry.to_string();
    if let Some(raw) = line["raw"].as_str() {
        // What is no JSON that PostgreSQL holds, or was cut, is shown as it is.
        let is_json = parse::parse(&mut Document::new(), raw, MOST_DEPTH).is_ok();
        let resource = if is_json { raw.to_owned() } else { json!(raw).to_string() };
        text.truncate(text.len() - 1);
        text.push_str(&format!(",\"resource\":{resource}}}"));
    }
    text
}

/// `name[0].given` in its steps: names, and places from 0.
fn steps(path: &str) -> Vec<Value> {
    path.split(['.', '['])
        .map(|step| step.trim_end_matches(']'))
        .map(|step| step.parse::<u64>().map_or(json!(step), |at| json!(at)))
        .collect()
}

/// Ends the session that is under way.
///
/// # Errors
/// `UnknownOption`.
pub fn cancel(params: &Map<String, Value>) -> Result<Reply, Error> {
    backend::require_writable(c"aidbox.bulk/import-cancel");
    check_keys(params, &[])?;
    match latest()? {
        Some((id, standing)) if is_active(&standing) && job_control::stop(standing.number, &id, Stop::End)? => {
            let standing = job_control::standing(&id)?;
            Ok(Ok(json!({"message": "Import Canceled", "import": result(&id, &standing)?}).to_string()))
        }
        _ => Ok(none()),
    }
}

fn none() -> Reply {
    Err(json!({"message": "No active imports"}))
}

fn latest() -> Result<Option<(String, JobStatus)>, Error> {
    let Some(id) = job_control::latest(START)? else { return Ok(None) };
    let standing = job_control::standing(&id)?;
    Ok(Some((id, standing)))
}

fn is_active(standing: &JobStatus) -> bool {
    standing.state.is_open() || matches!(standing.state, State::Interrupted | State::Paused)
}

/// The parameters, and what became of each input and of all.
fn result(id: &str, standing: &JobStatus) -> Result<Value, Error> {
    scheduler::start_waiting()?;
    let unknown = || Error::NoJob(id.to_owned());
    let (facts, _, inputs) = job_report::report(standing.number)?.ok_or_else(unknown)?;
    let mut result = facts["request"]["params"].clone();
    let number = |input: &Value, name: &str| input[name].as_u64().unwrap_or(0);
    let sum = |name: &str| inputs.iter().map(|input| number(input, name)).sum::<u64>();
    let errors = sum("rejected");
    let shown = inputs.iter().map(|input| {
        let mut shown = json!({"url": input["source"], "count": number(input, "stored"), "errors": number(input, "rejected"), "time": number(input, "duration")});
        match input["state"].as_str() {
            Some("done") => shown["status"] = json!("loaded"),
            Some("error") => {
                shown["status"] = json!("failed");
                shown["message"] = input["message"].clone();
            }
            _ => {}
        }
        shown
    });
    result["input"] = json!(shown.collect::<Vec<Value>>());
    result["status"] = json!(match standing.state {
        State::Done if errors == 0 => "finished",
        State::Done | State::Error => "failed",
        State::Aborted | State::Cancelled => "canceled",
        _ => "in-progress",
    });
    result["count"] = json!(sum("stored"));
    result["errors"] = json!(errors);
    result["time"] = json!(number(&facts, "duration"));
    result["id"] = json!(id);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_steps() {
        assert_eq!(steps("name[0].given"), [json!("name"), json!(0), json!("given")]);
        assert_eq!(steps("a.b[12][3]"), [json!("a"), json!("b"), json!(12), json!(3)]);
    }
}
