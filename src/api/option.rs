//! The keys of `options` and of requests, beside those of a load.

use crate::error::Error;
use crate::pg::read::query_printer::Format;
use crate::pipeline::dump::text_format::Delimited;
use crate::pipeline::load::options::{LoadOptions, OPTIONS, REQUEST};
pub use crate::pipeline::load::options::{NONE, checks_named};
use crate::text::json_members::{boolean, check_keys, object, string, value, whole};
use serde_json::{Map, Value};

/// The options of `bulk.dump_sql`. Each key counts for some formats only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpOptions(Map<String, Value>);

/// The options of `bulk.validate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidateOptions {
    /// Invalid resources at which it ends.
    pub max_errors: Option<u64>,
}

/// A request to load: what and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRequest {
    pub sources: Vec<String>,
    pub resource_type: Option<String>,
    pub options: LoadOptions,
}

const VALIDATE: &[&str] = &["max-errors"];
const DELIMITED: &[&str] = &["header", "null", "delimiter"];
const SQL: &[&str] = &["table"];
const ELASTIC_BULK: &[&str] = &["index", "id"];

impl DumpOptions {
    /// Reads the argument `options`.
    ///
    /// # Errors
    /// `UnknownOption` and `InvalidOption` name what is wrong.
    pub fn read(text: &str) -> Result<DumpOptions, Error> {
        object(&value(text, "options")?, "options").map(DumpOptions)
    }

    /// The format of this name with its options.
    ///
    /// # Errors
    /// `InvalidOption` for an unknown format.
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
            return Err(Error::InvalidOption { name: "null", expected: "a short text without line ends, quotes and the delimiter" });
        }
        Ok(if csv { Delimited::csv(delimiter, &null) } else { Delimited::text(delimiter, &null) })
    }
}

impl ValidateOptions {
    /// Reads the argument `options`.
    ///
    /// # Errors
    /// `UnknownOption` and `InvalidOption` name what is wrong.
    pub fn read(text: &str) -> Result<ValidateOptions, Error> {
        let object = object(&value(text, "options")?, "options")?;
        check_keys(&object, VALIDATE)?;
        let max_errors = whole(&object, "max-errors", "a whole number of resources", u64::from(u32::MAX))?;
        Ok(ValidateOptions { max_errors: object.get("max-errors").filter(|value| !value.is_null()).map(|_| max_errors) })
    }
}

impl LoadRequest {
    /// Reads the body of `$load`, and options beside it, whose keys count where the body does not have them.
    ///
    /// # Errors
    /// `UnknownOption` and `InvalidOption` name what is wrong.
    pub fn read(text: &str, options: &str) -> Result<LoadRequest, Error> {
        let request = object(&value(text, "request")?, "request")?;
        check_keys(&request, REQUEST)?;
        let mut object = object(&value(options, "options")?, "options")?;
        check_keys(&object, OPTIONS)?;
        object.extend(request);
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
        Ok(LoadRequest { sources, resource_type, options: LoadOptions::from_object(&object, &[text, options])? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_read_and_unknown_keys_named() {
        let request = LoadRequest::read(
            r#"{"source": ["a", "b"], "resourceType": "Patient", "create-tables": false, "merge": {"n": 1.10}}"#,
            r#"{"create-tables": true, "merge": {}, "retries": 3}"#,
        )
        .unwrap();
        assert_eq!(request.options.retries, 3);
        assert_eq!(request.sources, ["a", "b"]);
        assert!(!request.options.create_tables);
        assert_eq!(request.options.merge.as_deref(), Some(r#"{"n":1.10}"#));
        assert!(
            matches!(LoadRequest::read(r#"{"source": "a", "sauce": 1}"#, NONE), Err(Error::UnknownOption { name, .. }) if name == "sauce")
        );
        for wrong in [json!({}), json!([]), json!({"source": []}), json!({"source": [1]}), json!({"source": "a", "create-tables": "x"})] {
            assert!(matches!(LoadRequest::read(&wrong.to_string(), NONE), Err(Error::InvalidOption { .. })), "{wrong}");
        }
    }
}
