//! The members of a JSON object, each in the type that is asked for.

use crate::error::Error;
use serde_json::{Map, Value};
use std::time::Duration;

/// Bytes of an option that is repeated in every row.
const MOST_TEXT: usize = 1000;

/// Reads JSON.
///
/// # Errors
/// `InvalidOption` where it is none.
pub fn value(text: &str, name: &'static str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|_| Error::InvalidOption { name, expected: "a JSON object" })
}

/// The members of an object.
///
/// # Errors
/// `InvalidOption` for another value.
pub fn object(value: &Value, name: &'static str) -> Result<Map<String, Value>, Error> {
    value.as_object().cloned().ok_or(Error::InvalidOption { name, expected: "a JSON object" })
}

/// Refuses keys that are not known.
///
/// # Errors
/// `UnknownOption` names the first of them.
pub fn check_keys(object: &Map<String, Value>, known: &'static [&'static str]) -> Result<(), Error> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(name) => Err(Error::UnknownOption { name: name.chars().take(100).collect(), known }),
        None => Ok(()),
    }
}

/// A boolean; `default` where it is missing or null.
///
/// # Errors
/// `InvalidOption` for another value.
pub fn boolean(object: &Map<String, Value>, name: &'static str, default: bool) -> Result<bool, Error> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(Error::InvalidOption { name, expected: "true or false" }),
    }
}

/// A string of at most 1000 bytes; None where it is missing or null.
///
/// # Errors
/// `InvalidOption` for another value.
pub fn string(object: &Map<String, Value>, name: &'static str) -> Result<Option<String>, Error> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) if value.len() <= MOST_TEXT => Ok(Some(value.clone())),
        Some(_) => Err(Error::InvalidOption { name, expected: "a short string" }),
    }
}

/// A number from 0 to `most`; 0 where it is not given.
///
/// # Errors
/// `InvalidOption` for another value.
pub fn whole(object: &Map<String, Value>, name: &'static str, expected: &'static str, most: u64) -> Result<u64, Error> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().filter(|&value| value <= most).ok_or(Error::InvalidOption { name, expected }),
    }
}

/// A time; None for 0, which is no limit.
///
/// # Errors
/// `InvalidOption` for another value.
pub fn milliseconds(object: &Map<String, Value>, name: &'static str) -> Result<Option<Duration>, Error> {
    let value = whole(object, name, "a whole number of milliseconds, 0 for no limit", u64::from(u32::MAX))?;
    Ok((value > 0).then(|| Duration::from_millis(value)))
}
