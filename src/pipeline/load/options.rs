//! The options of a load: the keys of `options`, of a request's body and of an import.

use crate::error::Error;
use crate::fhir::validate::Checks;
use crate::jsonb::document::{self, Document};
use crate::jsonb::parse;
use crate::jsonb::text::{self, Style};
use crate::pipeline::load::existing_rows::{Method, OnConflict, Policy};
use crate::store::net::client_config::{self, HeaderMap};
use crate::text::json_members::{boolean, check_keys, milliseconds, object, string, value, whole};
use serde_json::{Map, Value};
use std::time::Duration;

/// The options of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether a missing table of an R4 type is created.
    pub create_tables: bool,
    /// The text of an object that is laid over every resource.
    pub merge: Option<String>,
    pub strip_nulls: bool,
    /// For sources on web servers.
    pub headers: HeaderMap,
    pub connect_timeout: Option<Duration>,
    pub read_timeout: Option<Duration>,
    pub retries: u32,
    /// Whether a body whose end nothing tells is taken as whole.
    pub accept_unframed: bool,
    pub policy: Policy,
    pub method: Method,
    /// The name of a stage, as SQL spells it.
    pub temp_table: Option<String>,
    /// Lines that may be rejected.
    pub max_errors: u64,
    /// What lines are checked for before they are stored.
    pub checks: Checks,
    /// What a background worker checks them for afterwards.
    pub later: Checks,
    /// What of the options is shown to people: all but what may be secret.
    pub shown: Map<String, Value>,
}

/// A request's own keys stand first, the options after them.
pub const REQUEST: &[&str] = &[
    "source",
    "resourceType",
    "create-tables",
    "merge",
    "strip-nulls",
    "headers",
    "connect-timeout",
    "read-timeout",
    "retries",
    "accept-unframed",
    "update",
    "on-conflict",
    "keep-meta",
    "method",
    "temp_table",
    "max-errors",
    "validation",
];
/// Options that may hold what not everybody should see.
const SECRET: &[&str] = &["source", "headers", "merge"];
const VALIDATION: &[&str] = &["enable", "checks"];
/// The options of a load, by name.
pub const OPTIONS: &[&str] = REQUEST.split_at(2).1;
/// No options.
pub const NONE: &str = "{}";

/// The text of a member of an object: `serde_json` would round its numbers.
fn literal(json: &str, key: &str) -> Option<String> {
    let mut document = Document::new();
    let document::Value::Object(span) = parse::parse(&mut document, json, 1000).ok()? else { return None };
    let mut out = Vec::new();
    text::write(&document, document.get(span, key)?, Style::Compact, &mut out);
    String::from_utf8(out).ok()
}

fn policy(object: &Map<String, Value>) -> Result<Policy, Error> {
    let wrong = Error::InvalidOption { name: "on-conflict", expected: "overwrite, error, skip or newer" };
    let on_conflict = match string(object, "on-conflict").map_err(|_| wrong.clone())?.as_deref() {
        None => OnConflict::default(),
        Some(name) => OnConflict::named(name).ok_or(wrong)?,
    };
    Ok(Policy { on_conflict, keep_history: boolean(object, "update", false)?, keep_meta: boolean(object, "keep-meta", false)? })
}

fn method(object: &Map<String, Value>) -> Result<Method, Error> {
    let wrong = Error::InvalidOption { name: "method", expected: "copy or insert" };
    match string(object, "method").map_err(|_| wrong.clone())?.as_deref() {
        None | Some("copy") => Ok(Method::Copy),
        Some("insert") => Ok(Method::Insert),
        Some(_) => Err(wrong),
    }
}

/// The checks of a name.
///
/// # Errors
/// `InvalidOption` for an unknown word.
pub fn checks_named(name: &str) -> Result<Checks, Error> {
    match name {
        "struct" => Ok(Checks { structure: true, references: false }),
        "refs" => Ok(Checks { structure: false, references: true }),
        "all" => Ok(Checks { structure: true, references: true }),
        _ => Err(Error::InvalidOption { name: "checks", expected: "struct, refs or all" }),
    }
}

/// `{"enable": "on", "checks": "struct"}`: what is checked before lines are stored, and what afterwards. YAML makes booleans of `on` and
/// `off`.
fn checks(object: &Map<String, Value>) -> Result<(Checks, Checks), Error> {
    let none = Checks::default();
    let given = match object.get("validation") {
        None | Some(Value::Null) => return Ok((none, none)),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(Error::InvalidOption { name: "validation", expected: "an object with enable and checks" }),
    };
    check_keys(given, VALIDATION)?;
    let wrong = Error::InvalidOption { name: "checks", expected: "struct, refs or all" };
    let checks = checks_named(string(given, "checks").map_err(|_| wrong)?.as_deref().unwrap_or("struct"))?;
    match given.get("enable").unwrap_or(&Value::Null) {
        Value::Null | Value::Bool(false) => Ok((none, none)),
        Value::Bool(true) => Ok((checks, none)),
        Value::String(enable) if enable == "off" => Ok((none, none)),
        Value::String(enable) if enable == "on" => Ok((checks, none)),
        Value::String(enable) if enable == "async" => Ok((none, checks)),
        _ => Err(Error::InvalidOption { name: "enable", expected: "on, off or async" }),
    }
}

fn headers(object: &Map<String, Value>) -> Result<HeaderMap, Error> {
    let wrong = Error::InvalidOption {
        name: "headers",
        expected: "an object of HTTP headers that are not the connection's or a proxy's, whose values are strings",
    };
    let given = match object.get("headers") {
        None | Some(Value::Null) => return Ok(HeaderMap::new()),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(wrong),
    };
    let pairs: Option<Vec<_>> = given.iter().map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect();
    pairs.and_then(|pairs| client_config::headers(pairs.into_iter())).ok_or(wrong)
}

impl LoadOptions {
    /// Reads the argument `options`.
    ///
    /// # Errors
    /// `UnknownOption` and `InvalidOption` name what is wrong.
    pub fn read(text: &str) -> Result<LoadOptions, Error> {
        let object = object(&value(text, "options")?, "options")?;
        check_keys(&object, OPTIONS)?;
        LoadOptions::from_object(&object, &[text])
    }

    /// Of keys that came from these texts, the first of which counts.
    ///
    /// # Errors
    /// As `read`.
    pub fn from_object(object: &Map<String, Value>, texts: &[&str]) -> Result<LoadOptions, Error> {
        let wrong = Error::InvalidOption { name: "merge", expected: "a JSON object without id and resourceType" };
        let merge = match object.get("merge") {
            None | Some(Value::Null) => None,
            Some(Value::Object(members)) if !members.contains_key("id") && !members.contains_key("resourceType") => {
                Some(texts.iter().find_map(|text| literal(text, "merge")).ok_or(wrong)?)
            }
            Some(_) => return Err(wrong),
        };
        let (checks, later) = checks(object)?;
        let temp_table = string(object, "temp_table")?;
        if temp_table.is_some() && later != Checks::default() {
            return Err(Error::InvalidOption { name: "enable", expected: "on or off beside temp_table" });
        }
        Ok(LoadOptions {
            create_tables: boolean(object, "create-tables", true)?,
            merge,
            strip_nulls: boolean(object, "strip-nulls", false)?,
            headers: headers(object)?,
            connect_timeout: milliseconds(object, "connect-timeout")?,
            read_timeout: milliseconds(object, "read-timeout")?,
            accept_unframed: boolean(object, "accept-unframed", false)?,
            policy: policy(object)?,
            method: method(object)?,
            temp_table,
            max_errors: whole(object, "max-errors", "a whole number of lines", u64::from(u32::MAX))?,
            checks,
            later,
            shown: object
                .iter()
                .filter(|(name, _)| !SECRET.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            retries: u32::try_from(whole(object, "retries", "a whole number from 0 to 100", 100)?).unwrap_or(0),
        })
    }
}
