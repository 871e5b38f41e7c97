//! The keys of `options` and of a request's body.

use crate::error::Error;
use serde_json::{Map, Value};

/// What a load can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether a missing table of an R4 type is created.
    pub create_tables: bool,
}

/// A request to load: what and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRequest {
    pub sources: Vec<String>,
    pub resource_type: Option<String>,
    pub options: LoadOptions,
}

const OPTIONS: &[&str] = &["create-tables"];
const REQUEST: &[&str] = &["source", "resourceType", "create-tables"];

fn object(value: &Value, name: &'static str) -> Result<Map<String, Value>, Error> {
    value.as_object().cloned().ok_or(Error::InvalidOption { name, expected: "a JSON object" })
}

fn check_keys(object: &Map<String, Value>, known: &'static [&'static str]) -> Result<(), Error> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(name) => Err(Error::UnknownOption { name: name.chars().take(100).collect(), known }),
        None => Ok(()),
    }
}

fn boolean(object: &Map<String, Value>, name: &'static str, default: bool) -> Result<bool, Error> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(Error::InvalidOption { name, expected: "true or false" }),
    }
}

impl LoadOptions {
    /// Reads the argument `options`.
    pub fn read(options: &Value) -> Result<LoadOptions, Error> {
        let object = object(options, "options")?;
        check_keys(&object, OPTIONS)?;
        LoadOptions::from_object(&object)
    }

    fn from_object(object: &Map<String, Value>) -> Result<LoadOptions, Error> {
        Ok(LoadOptions { create_tables: boolean(object, "create-tables", true)? })
    }
}

impl LoadRequest {
    /// Reads the body of `$load`.
    pub fn read(request: &Value) -> Result<LoadRequest, Error> {
        let object = object(request, "request")?;
        check_keys(&object, REQUEST)?;
        let wrong = Error::InvalidOption { name: "source", expected: "a URL or a list of URLs" };
        let sources = match object.get("source") {
            Some(Value::String(source)) => vec![source.clone()],
            Some(Value::Array(list)) if !list.is_empty() => {
                list.iter().map(|source| source.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or(wrong)?
            }
            _ => return Err(wrong),
        };
        let resource_type = match object.get("resourceType") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.clone()),
            Some(_) => return Err(Error::InvalidOption { name: "resourceType", expected: "the name of a resource type" }),
        };
        Ok(LoadRequest { sources, resource_type, options: LoadOptions::from_object(&object)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_read_and_unknown_keys_named() {
        let request = LoadRequest::read(&json!({"source": ["a", "b"], "resourceType": "Patient", "create-tables": false})).unwrap();
        assert_eq!(request.sources, ["a", "b"]);
        assert!(!request.options.create_tables);
        assert!(
            matches!(LoadRequest::read(&json!({"source": "a", "sauce": 1})), Err(Error::UnknownOption { name, .. }) if name == "sauce")
        );
        for wrong in [json!({}), json!([]), json!({"source": []}), json!({"source": [1]}), json!({"source": "a", "create-tables": "x"})] {
            assert!(matches!(LoadRequest::read(&wrong), Err(Error::InvalidOption { .. })), "{wrong}");
        }
    }
}
