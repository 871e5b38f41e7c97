//! The body of a request to import, in the shape of 2019 (`type`, `storageDetail`, `action`) and in the present one (`resourceType`,
//! `contentEncoding`, `mode`, `update`, `allowedRetryCount`).

use crate::pipeline::load::options::OPTIONS;
use serde_json::{Map, Value};
use std::path::{Component, Path};

/// A request to import. Its errors are sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub id: Option<String>,
    pub action: Action,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Start(Start),
    Pause,
    Abort,
    Resume,
    ForceResume,
}

/// A session to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub shape: ApiVersion,
    pub inputs: Vec<Input>,
    pub mode: Mode,
    /// Times that an input is begun again after a fault of its source.
    pub retries: u32,
    /// The keys that are a load's.
    pub options: Map<String, Value>,
    /// What the status shows again.
    pub shown: Map<String, Value>,
    /// An object that is laid over every `meta`.
    pub meta: Option<Value>,
    /// What ids and references to them get before them.
    pub id_prefix: Option<String>,
}

/// Of the request, and so of its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiVersion {
    Of2019,
    Present,
}

/// How much is one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every few megabytes.
    Bulk,
    /// All inputs together.
    Transaction,
}

/// A source of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// None where each line says its own.
    pub resource_type: Option<String>,
    pub url: String,
    /// A path below `bulk.resource_directory` instead of a URL.
    pub is_resource_file: bool,
}

/// Retries where the request says nothing.
pub const RETRIES: u32 = 2;
const MOST_RETRIES: u64 = 100;
/// Most sources of a session.
pub const MAX_INPUTS: usize = 100_000;
const LONGEST_ID: usize = 256;
/// Keys that are the session's own.
const OWN: &[&str] = &[
    "id",
    "resourceType",
    "action",
    "secret",
    "inputFormat",
    "inputSource",
    "inputs",
    "contentEncoding",
    "mode",
    "allowedRetryCount",
    "storageDetail",
    "source",
    "type",
];
/// Keys of a load that an import has other means for.
const NOT_OURS: &[&str] = &["retries", "temp_table"];
const SHOWN: &[&str] = &["action", "inputFormat", "inputSource", "contentEncoding", "mode", "update", "allowedRetryCount"];

impl Request {
    /// Reads a body, flat or under `resource`.
    ///
    /// # Errors
    /// A sentence that names the key that is wrong.
    pub fn read(body: &Value) -> Result<Request, String> {
        let wrong = "the body must be a JSON object";
        let body = match body.get("resource") {
            Some(inner) => inner,
            None => body,
        };
        let body = body.as_object().ok_or(wrong)?;
        let id = match body.get("id") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) if !id.is_empty() && id.len() <= LONGEST_ID && !id.chars().any(char::is_control) => Some(id.clone()),
            Some(_) => return Err(format!("id must be a string of at most {LONGEST_ID} bytes")),
        };
        let action = match body.get("action") {
            None | Some(Value::Null) => "start",
            Some(Value::String(action)) => action.as_str(),
            Some(_) => "",
        };
        let action = match action {
            "start" => Action::Start(Start::read(body)?),
            "pause" => Action::Pause,
            "abort" => Action::Abort,
            "resume" => Action::Resume,
            "force-resume" => Action::ForceResume,
            _ => return Err("action must be start, pause, abort, resume or force-resume".to_owned()),
        };
        if id.is_none() && !matches!(action, Action::Start(_)) {
            return Err("id is missing".to_owned());
        }
        Ok(Request { id, action })
    }
}

impl Start {
    fn read(body: &Map<String, Value>) -> Result<Start, String> {
        let load: Vec<&str> = OPTIONS.iter().copied().filter(|key| !NOT_OURS.contains(key)).collect();
        if let Some(unknown) = body.keys().find(|key| !OWN.contains(&key.as_str()) && !load.contains(&key.as_str())) {
            let known: Vec<&str> =
                OWN.iter().chain(&load).copied().filter(|key| !matches!(*key, "storageDetail" | "source" | "type")).collect();
            return Err(format!("unrecognized key \"{}\": known are {}", short(unknown), known.join(", ")));
        }
        let mode = match body.get("mode") {
            None | Some(Value::Null) => Mode::Bulk,
            Some(Value::String(mode)) if mode == "bulk" => Mode::Bulk,
            Some(Value::String(mode)) if mode == "transaction" => Mode::Transaction,
            Some(_) => return Err("mode must be bulk or transaction".to_owned()),
        };
        match body.get("contentEncoding") {
            None | Some(Value::Null) => {}
            Some(Value::String(encoding)) if matches!(encoding.as_str(), "gzip" | "plain") => {}
            Some(_) => return Err("contentEncoding must be gzip or plain".to_owned()),
        }
        let retries = match body.get("allowedRetryCount") {
            None | Some(Value::Null) => RETRIES,
            Some(count) => count
                .as_u64()
                .filter(|&count| count <= MOST_RETRIES)
                .and_then(|count| u32::try_from(count).ok())
                .ok_or_else(|| format!("allowedRetryCount must be a whole number from 0 to {MOST_RETRIES}"))?,
        };
        let inputs = body.get("inputs").and_then(Value::as_array).filter(|inputs| !inputs.is_empty());
        let inputs = inputs.ok_or("inputs must be a list of objects with a type and a url")?;
        if inputs.len() > MAX_INPUTS {
            return Err(format!("there are more than {MAX_INPUTS} inputs"));
        }
        let of_2019 =
            body.contains_key("action") || inputs.iter().any(|input| input.get("type").is_some() || input.get("storageDetail").is_some());
        let shape = if of_2019 { ApiVersion::Of2019 } else { ApiVersion::Present };
        let inputs = inputs.iter().enumerate().map(|(index, input)| Input::read(index, input)).collect::<Result<Vec<Input>, String>>()?;
        let pick =
            |keys: &[&str]| body.iter().filter(|(key, _)| keys.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(Start { shape, inputs, mode, retries, options: pick(&load), shown: pick(SHOWN), meta: None, id_prefix: None })
    }
}

impl Input {
    fn read(index: usize, input: &Value) -> Result<Input, String> {
        let text = |key: &str| input.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let resource_type =
            text("resourceType").or_else(|| text("type")).ok_or_else(|| format!("inputs[{index}] has no resourceType (or type)"))?;
        let url = text("url").ok_or_else(|| format!("inputs[{index}] has no url"))?;
        let is_resource_file = match input.get("storageDetail").and_then(|detail| detail.get("type")) {
            None | Some(Value::Null) => false,
            Some(Value::String(kind)) if matches!(kind.as_str(), "url" | "https" | "file") => false,
            Some(Value::String(kind)) if kind == "resource-file" => true,
            Some(_) => return Err(format!("inputs[{index}].storageDetail.type must be url or resource-file")),
        };
        let below = |path: &str| Path::new(path).components().all(|task| matches!(task, Component::Normal(_) | Component::CurDir));
        if is_resource_file && !below(&url) {
            return Err(format!("inputs[{index}].url must be a path below the resource directory"));
        }
        Ok(Input { resource_type: Some(resource_type), url, is_resource_file })
    }
}

/// As much of a text of the caller's as an answer repeats.
pub fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn start(body: Value) -> Start {
        match Request::read(&body).unwrap().action {
            Action::Start(start) => start,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_shapes_are_read() {
        let old =
            start(json!({"id": "a", "action": "start", "inputs": [{"type": "Patient", "url": "x", "storageDetail": {"type": "url"}}]}));
        assert_eq!((old.shape, old.inputs[0].resource_type.as_deref(), old.retries), (ApiVersion::Of2019, Some("Patient"), 2));
        let new = start(json!({"resource": {"id": null, "contentEncoding": "gzip", "mode": "transaction", "allowedRetryCount": 5,
            "update": true, "inputs": [{"resourceType": "Patient", "url": "x"}]}}));
        assert_eq!((new.shape, new.mode, new.retries), (ApiVersion::Present, Mode::Transaction, 5));
        assert_eq!(new.options.get("update"), Some(&json!(true)));
        assert_eq!(Request::read(&json!({"id": "a", "action": "pause", "nonsense": 1})).unwrap().action, Action::Pause);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let input = json!([{"resourceType": "Patient", "url": "x"}]);
        for (body, said) in [
            (json!([]), "object"),
            (json!({}), "inputs"),
            (json!({"inputs": []}), "inputs"),
            (json!({"inputs": [{"url": "x"}]}), "inputs[0] has no resourceType"),
            (json!({"inputs": [{"type": "Patient"}]}), "inputs[0] has no url"),
            (json!({"inputs": input, "mode": "x"}), "mode"),
            (json!({"inputs": input, "contentEncoding": "br"}), "contentEncoding"),
            (json!({"inputs": input, "allowedRetryCount": -1}), "allowedRetryCount"),
            (json!({"inputs": input, "sauce": 1}), "\"sauce\""),
            (json!({"inputs": input, "id": 5}), "id must"),
            (json!({"inputs": input, "id": ""}), "id must"),
            (json!({"action": "pause"}), "id is missing"),
            (json!({"id": "a", "action": "dance"}), "action must"),
            (json!({"inputs": [{"type": "Patient", "url": "../x", "storageDetail": {"type": "resource-file"}}]}), "below"),
            (json!({"inputs": [{"type": "Patient", "url": "/x", "storageDetail": {"type": "resource-file"}}]}), "below"),
        ] {
            let error = Request::read(&body).unwrap_err();
            assert!(error.contains(said), "{body}: {error}");
        }
    }
}
