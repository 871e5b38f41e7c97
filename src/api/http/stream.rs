//! Answers that are streams: all that can be known before the first byte is known before the statement is handed out.

use crate::api::dump;
use crate::api::http::reply::Reply;
use crate::api::http::request::Query;
use crate::api::option::DumpOptions;
use crate::fhir::instant;
use crate::operation::export::request::short;
use crate::operation::response::{Refusal, Wrong};
use crate::pg::read::{query_printer, table_scan};
use crate::pg::sys::backend;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::quote_literal;
use serde_json::{Value, json};

/// `GET /<type>/$dump`.
///
/// # Errors
/// The refusal of a request that is wrong, as 4xx; an error that no request can be the cause of.
pub fn dump(name: &str, query: &Query) -> Result<Reply, Wrong> {
    query.only(&["_since", "fhir", "gzip"])?;
    let since = query.one("_since")?.map(since).transpose()?;
    let (fhir, gzip) = (query.flag("fhir")?, query.flag("gzip")?);
    let (name, table) = dump::lookup(name)?;
    if let Some(table) = table {
        table_scan::check(&table, since.as_ref().map(|(time, _)| *time))?;
    }
    let since = since.map_or_else(|| "null".to_owned(), |(_, text)| format!("{}::pg_catalog.timestamptz", quote_literal(text)));
    let statement = format!("select bulk.dump_bytes({}, {since}, {fhir}, {gzip})", quote_literal(name));
    Ok(Reply::stream(statement, "application/ndjson", gzip))
}

/// `GET /<type>/$dump-csv`.
///
/// # Errors
/// As `dump`.
pub fn dump_csv(name: &str, query: &Query) -> Result<Reply, Wrong> {
    query.only(&["gzip"])?;
    let gzip = query.flag("gzip")?;
    let (name, table) = dump::lookup(name)?;
    if let Some(table) = table {
        table_scan::check(&table, None)?;
    }
    Ok(Reply::stream(format!("select bulk.dump_csv_bytes({}, {gzip})", quote_literal(name)), "text/csv", gzip))
}

/// `POST /$dump-sql`.
///
/// # Errors
/// As `dump`.
pub fn dump_sql(query: &Query, body: Option<&str>) -> Result<Reply, Wrong> {
    query.only(&["_format", "gzip"])?;
    let gzip = query.flag("gzip")?;
    let body = body.and_then(|body| serde_json::from_str::<Value>(body).ok());
    let Some(body) = body.as_ref().and_then(Value::as_object) else {
        return Err(Refusal::new(400, "invalid", "the body must be a JSON object with a query").into());
    };
    if let Some(unknown) = body.keys().find(|key| !["query", "format", "options"].contains(&key.as_str())) {
        let text = format!("unrecognized key \"{}\": known are query, format, options", short(unknown));
        return Err(Refusal::new(400, "invalid", text).into());
    }
    let text = |key: &'static str| match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Refusal::new(400, "invalid", format!("{key} must be a text")).at(key)),
    };
    let asked = text("query")?.ok_or_else(|| Refusal::new(400, "required", "the query is missing").at("query"))?;
    let format = match text("format")? {
        Some(format) => format,
        None => query.one("_format")?.unwrap_or("tsv"),
    };
    let options = body.get("options").filter(|options| !options.is_null()).cloned().unwrap_or_else(|| json!({})).to_string();
    backend::require_utf8()?;
    query_printer::check(asked, DumpOptions::read(&options)?.format(format)?)?;
    let content_type = match format {
        "csv" => "application/CSV",
        "ndjson" | "json" => "application/ndjson",
        "sql" => "application/sql",
        "elastic-bulk" => "application/x-ndjson",
        _ => "text/tab-separated-values",
    };
    let arguments = [asked, format, &options].map(quote_literal);
    Ok(Reply::stream(format!("select bulk.dump_sql_bytes({}, {gzip})", arguments.join(", ")), content_type, gzip))
}

/// A FHIR date or time, also as text that PostgreSQL reads under any setting. In a query string a plus may have become a space.
fn since(text: &str) -> Result<(TimestampWithTimeZone, String), Refusal> {
    let read = || {
        let (start, _) = instant::range(&text.replace(' ', "+"))?;
        Some((TimestampWithTimeZone::try_from(start).ok()?, instant::from_timestamp(start)?.as_str().to_owned()))
    };
    read().ok_or_else(|| Refusal::new(400, "invalid", "_since must be a date or a time, as 2021-06-10T08:26:10Z").at("_since"))
}
