//! The keys of `options` and of a request's body.

use crate::error::Error;
use crate::op::field::Delimited;
use crate::pg::printer::Format;
use serde_json::{Map, Value};

/// What a load can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether a missing table of an R4 type is created.
    pub create_tables: bool,
}

/// What `bulk.dump_sql` can be told. Each key counts for some formats only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpOptions(Map<String, Value>);

/// A request to load: what and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRequest {
    pub sources: Vec<String>,
    pub resource_type: Option<String>,
    pub options: LoadOptions,
}

const OPTIONS: &[&str] = &["create-tables"];
const REQUEST: &[&str] = &["source", "resourceType", "create-tables"];

const DELIMITED: &[&str] = &["header", "null", "delimiter"];
const SQL: &[&str] = &["table"];
const ELASTIC_BULK: &[&str] = &["index", "id"];

/// No options.
pub fn none() -> Value {
    Value::Object(Map::new())
}

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

fn string(object: &Map<String, Value>, name: &'static str) -> Result<Option<String>, Error> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        Some(_) => Err(Error::InvalidOption { name, expected: "a string" }),
    }
}

impl DumpOptions {
    /// Reads the argument `options`.
    pub fn read(options: &Value) -> Result<DumpOptions, Error> {
        object(options, "options").map(DumpOptions)
    }

    /// The format of this name with its options.
    pub fn format(&self, name: &str) -> Result<Format, Error> {
        let expected = "tsv, csv, ndjson, json, sql or elastic-bulk";
        let check = |known| check_keys(&self.0, known);
        match name {
            "tsv" | "csv" => {
                check(DELIMITED)?;
                Ok(Format::Delimited { delimited: self.delimited(name == "csv")?, header: boolean(&self.0, "header", false)? })
            }
            "ndjson" | "json" => check(&[]).map(|()| Format::Json),
            "sql" => {
                check(SQL)?;
                let missing = Error::InvalidOption { name: "table", expected: "the name of the table that the statements insert into" };
                Ok(Format::Sql { table: string(&self.0, "table")?.ok_or(missing)? })
            }
            "elastic-bulk" => {
                check(ELASTIC_BULK)?;
                Ok(Format::ElasticBulk { index: string(&self.0, "index")?, id: string(&self.0, "id")? })
            }
            _ => Err(Error::InvalidOption { name: "format", expected }),
        }
    }

    /// What COPY takes, it takes: the rules of both formats are COPY's.
    fn delimited(&self, csv: bool) -> Result<Delimited, Error> {
        let delimiter = string(&self.0, "delimiter")?.unwrap_or_else(|| if csv { "," } else { "\t" }.to_owned());
        let null = string(&self.0, "null")?.unwrap_or_else(|| if csv { "" } else { "\\N" }.to_owned());
        let reserved: &[u8] = if csv { b"\"\r\n" } else { b"\\\r\n.abcdefghijklmnopqrstuvwxyz0123456789" };
        let &[delimiter] = delimiter.as_bytes() else { return Err(Error::InvalidOption { name: "delimiter", expected: "one byte" }) };
        if reserved.contains(&delimiter) || delimiter == 0 {
            return Err(Error::InvalidOption { name: "delimiter", expected: "a byte that means nothing else in this format" });
        }
        if null.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0) || byte == delimiter || (csv && byte == b'"')) {
            return Err(Error::InvalidOption { name: "null", expected: "a text without line ends, quotes and the delimiter" });
        }
        Ok(if csv { Delimited::csv(delimiter, &null) } else { Delimited::text(delimiter, &null) })
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
