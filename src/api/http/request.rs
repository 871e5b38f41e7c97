//! A request as a forwarder hands it over: its path in segments, its query in names and values, what it prefers.

use crate::operation::export::request::{Handling, short};
use crate::operation::response::Refusal;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use url::form_urlencoded;

/// Longest path with its query, and longest body, in bytes. Resources are never sent here, only where they lie.
const MOST_TARGET: usize = 1 << 16;
const MOST_BODY: usize = 16 << 20;

/// What is asked for, in the words of HTTP.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// Decoded. None is empty.
    pub path: Vec<String>,
    pub query: Query,
    pub handling: Handling,
    /// JSON as text, since numbers keep their digits.
    pub body: Option<String>,
}

/// Parameters of the query string; one may be given several times.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query(BTreeMap<String, Vec<String>>);

impl Request {
    /// Reads the arguments of `bulk.http`. The path may have its query with it, as request lines do.
    ///
    /// # Errors
    /// 400 for a path, query or header that cannot be read.
    pub fn read(method: &str, target: &str, query: &str, headers: &str, body: Option<String>) -> Result<Request, Refusal> {
        if target.len() > MOST_TARGET {
            return Err(Refusal::new(414, "too-long", format!("the path and its query must not be longer than {MOST_TARGET} bytes")));
        }
        if body.as_ref().is_some_and(|body| body.len() > MOST_BODY) {
            return Err(Refusal::new(413, "too-long", format!("the body must not be longer than {MOST_BODY} bytes")));
        }
        let (path, in_target) = target.split_once('?').unwrap_or((target, ""));
        let mut read = Query::default();
        read.extend(query)?;
        form_urlencoded::parse(in_target.as_bytes()).try_for_each(|(name, value)| read.add(&name, value.into_owned()))?;
        Ok(Request {
            method: method.to_ascii_uppercase(),
            path: path.strip_prefix('/').unwrap_or(path).split('/').map(segment).collect::<Result<_, _>>()?,
            query: read,
            handling: handling(headers)?,
            body,
        })
    }
}

fn segment(text: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| Refusal::new(400, "invalid", "the path is not UTF-8"))?;
    if decoded.is_empty() || decoded.chars().any(char::is_control) {
        return Err(Refusal::not_found());
    }
    Ok(decoded.into_owned())
}

/// An argument that must be an object, or null.
fn object(text: &str, name: &str) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => Ok(Map::new()),
        _ => Err(Refusal::new(400, "invalid", format!("{name} must be a JSON object"))),
    }
}

/// What `Prefer` says of parameters that are not known.
fn handling(headers: &str) -> Result<Handling, Refusal> {
    let headers = object(headers, "headers")?;
    let of_one = |value: &Value| {
        let text = value.as_str().unwrap_or_default().to_ascii_lowercase();
        text.split([',', ';']).any(|preference| preference.trim().replace(' ', "") == "handling=lenient")
    };
    let prefers = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("prefer")).any(|(_, value)| match value {
        Value::Array(values) => values.iter().any(of_one),
        value => of_one(value),
    });
    Ok(if prefers { Handling::Lenient } else { Handling::Strict })
}

impl Query {
    fn add(&mut self, name: &str, value: String) -> Result<(), Refusal> {
        if name.chars().chain(value.chars()).any(char::is_control) {
            return Err(Refusal::new(400, "invalid", "the query holds a control character"));
        }
        self.0.entry(name.to_owned()).or_default().push(value);
        Ok(())
    }

    /// With those of a JSON object: a value or a list of them for each name.
    fn extend(&mut self, text: &str) -> Result<(), Refusal> {
        for (name, value) in object(text, "query")? {
            let values = match value {
                Value::Array(values) => values,
                value => vec![value],
            };
            for value in values {
                match value {
                    Value::Null => {}
                    Value::String(value) => self.add(&name, value)?,
                    Value::Bool(_) | Value::Number(_) => self.add(&name, value.to_string())?,
                    _ => return Err(Refusal::new(400, "invalid", format!("query parameter \"{}\" must be a text", short(&name)))),
                }
            }
        }
        Ok(())
    }

    /// Refuses all but these.
    ///
    /// # Errors
    /// 400 names the first parameter that the path does not know.
    pub fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(unknown) => {
                let known = if known.is_empty() { "there are none".to_owned() } else { format!("known are {}", known.join(", ")) };
                let text = format!("query parameter \"{}\" is unknown: {known}", short(unknown));
                Err(Refusal::new(400, "not-supported", text).at(short(unknown)))
            }
        }
    }

    /// The one value of a parameter.
    ///
    /// # Errors
    /// 400 where a parameter is given twice.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.0.get(name).map(Vec::as_slice) {
            None => Ok(None),
            Some([value]) => Ok(Some(value)),
            Some(_) => Err(Refusal::new(400, "invalid", format!("query parameter {name} is given twice")).at(name)),
        }
    }

    /// A parameter that is true or false, false where it is not given.
    ///
    /// # Errors
    /// 400 for another value than true or false.
    pub fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.one(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Refusal::new(400, "invalid", format!("query parameter {name} must be true or false")).at(name)),
        }
    }

    /// All of them, each with a list of its values.
    pub fn to_json(&self) -> Value {
        serde_json::json!(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(target: &str, query: Value, headers: Value) -> Result<Request, Refusal> {
        Request::read("get", target, &query.to_string(), &headers.to_string(), None)
    }

    #[test]
    fn paths_and_queries_are_decoded_once() {
        let request = read(
            "/a%2Fb/%24dump?x=1+2&x=%2B&y",
            json!({"x": ["0", true], "z": null}),
            json!({"PREFER": "respond-async, handling=lenient"}),
        )
        .unwrap();
        assert_eq!((request.method.as_str(), request.path), ("GET", vec!["a/b".to_owned(), "$dump".to_owned()]));
        assert_eq!(request.query.to_json(), json!({"x": ["0", "true", "1 2", "+"], "y": [""]}));
        assert_eq!(request.handling, Handling::Lenient);
        assert_eq!(read("rpc", Value::Null, json!({"prefer": ["handling=strict"]})).unwrap().handling, Handling::Strict);
        assert_eq!(read("/%2524dump", json!({}), json!({})).unwrap().path, ["%24dump"]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (target, query, status) in [
            ("", json!({}), 404),
            ("//a", json!({}), 404),
            ("/a/", json!({}), 404),
            ("/a%0d%0ab", json!({}), 404),
            ("/a%00", json!({}), 404),
            ("/%ff", json!({}), 400),
            ("/a?x=%00", json!({}), 400),
            ("/a?%0a=x", json!({}), 400),
            ("/a", json!({"x": "a\r\nb"}), 400),
            ("/a", json!([]), 400),
            ("/a", json!({"x": {}}), 400),
            ("/a", json!({"x": [[]]}), 400),
        ] {
            assert_eq!(read(target, query.clone(), json!({})).unwrap_err().status, status, "{target} {query}");
        }
        assert_eq!(read(&"a".repeat(MOST_TARGET + 1), json!({}), json!({})).unwrap_err().status, 414);
        assert_eq!(Request::read("POST", "/rpc", "{}", "{}", Some(" ".repeat(MOST_BODY + 1))).unwrap_err().status, 413);
        let query = read("/a?x=1&x=2&y=maybe", json!({}), json!({})).unwrap().query;
        let refused = [query.only(&["x"]).unwrap_err(), query.one("x").unwrap_err(), query.flag("y").unwrap_err()];
        assert!(refused.iter().all(|refusal| refusal.status == 400));
        assert!(query.only(&["x", "y"]).is_ok() && !query.flag("z").unwrap());
    }
}
