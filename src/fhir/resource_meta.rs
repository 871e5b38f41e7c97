//! What lies beside a resource in its table (id, type, version, times): taken out of the JSON on the way in, put back on
//! the way out, in the place and spelling of each format.

use crate::error::Fault;
use crate::fhir::definitions::Definitions;
use crate::fhir::format::Format;
use crate::fhir::instant;
use crate::jsonb::document::{Document, Member, Span, Str, Value};

/// Id and type of a resource that comes in.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    pub id: Str,
    /// None when the line does not say.
    pub resource_type: Option<Str>,
}

/// Reads a resource's id and type.
///
/// # Errors
/// `NoId`, `BadId` and the like.
pub fn identify(document: &Document, root: Value) -> Result<Identity, Fault> {
    let Value::Object(span) = root else { return Err(Fault::NotAnObject) };
    let id = match document.get(span, "id") {
        Some(Value::String(id)) if !document.str(id).is_empty() => id,
        Some(_) => return Err(Fault::BadId),
        None => return Err(Fault::NoId),
    };
    let resource_type = match document.get(span, "resourceType") {
        Some(Value::String(name)) => Some(name),
        Some(_) => return Err(Fault::NoType),
        None => None,
    };
    Ok(Identity { id, resource_type })
}

/// The sequence of versions goes on behind the highest, and must have somewhere to go.
const MAX_VERSION: i64 = 1_000_000_000_000_000;

/// The server's part of meta, as a line says it. Times in microseconds since 2000-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    pub last_updated: Option<i64>,
    pub version: Option<i64>,
    pub created_at: Option<i64>,
}

/// `meta.lastUpdated`, which must be there.
///
/// # Errors
/// `BadInstant`, and where there is none the fault that says so.
pub fn last_updated(document: &Document, root: Value) -> Result<Meta, Fault> {
    let meta = part(document, root, "meta");
    let last_updated = instant(document, part(document, meta, "lastUpdated"), "meta.lastUpdated")?;
    match last_updated {
        Some(_) => Ok(Meta { last_updated, ..Meta::default() }),
        None => Err(Fault::BadInstant("meta.lastUpdated")),
    }
}

/// All of the server's part that is there; `lastUpdated` must be, where it is `dated`.
///
/// # Errors
/// `BadInstant`, `BadVersion` and the like.
pub fn meta(document: &Document, root: Value, created_at_url: &str, dated: bool) -> Result<Meta, Fault> {
    let meta = part(document, root, "meta");
    let last_updated = instant(document, part(document, meta, "lastUpdated"), "meta.lastUpdated")?;
    if dated && last_updated.is_none() {
        return Err(Fault::BadInstant("meta.lastUpdated"));
    }
    let version = match part(document, meta, "versionId") {
        Value::Null => None,
        Value::String(text) | Value::Number(text) => {
            Some(document.str(text).parse().ok().filter(|version| (1..=MAX_VERSION).contains(version)).ok_or(Fault::BadVersion)?)
        }
        _ => return Err(Fault::BadVersion),
    };
    let created_at = match part(document, meta, "createdAt") {
        Value::Null => created_at_extension(document, meta, created_at_url),
        value => value,
    };
    Ok(Meta { last_updated, version, created_at: instant(document, created_at, "meta.createdAt")? })
}

/// A member of an object; null where there is none.
fn part(document: &Document, value: Value, key: &str) -> Value {
    match value {
        Value::Object(span) => document.get(span, key).unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

fn instant(document: &Document, value: Value, path: &'static str) -> Result<Option<i64>, Fault> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => instant::to_timestamp(document.str(text)).map(Some).ok_or(Fault::BadInstant(path)),
        _ => Err(Fault::BadInstant(path)),
    }
}

fn created_at_extension(document: &Document, meta: Value, url: &str) -> Value {
    let Value::Array(list) = part(document, meta, "extension") else { return Value::Null };
    let found = document.elements(list).iter().find(|&&extension| is_created_at(document, extension, url));
    found.map_or(Value::Null, |&extension| part(document, extension, "valueInstant"))
}

/// Takes id, type and the server's part of meta out of a resource: what is left is stored.
pub fn strip(document: &mut Document, root: Value, created_at_url: &str) -> Value {
    let Value::Object(span) = root else { return root };
    let mark = document.open();
    for index in span.indices() {
        let Member { key, value } = document.member(index);
        match (document.bytes(key), value) {
            (b"id" | b"resourceType", _) => {}
            (b"meta", Value::Object(meta)) => match strip_meta(document, meta, created_at_url) {
                Value::Object(Span { len: 0, .. }) => {}
                rest => document.push_member(key, rest),
            },
            _ => document.push_member(key, value),
        }
    }
    document.close_object(mark)
}

fn strip_meta(document: &mut Document, meta: Span, created_at_url: &str) -> Value {
    let mark = document.open();
    for index in meta.indices() {
        let Member { key, value } = document.member(index);
        match (document.bytes(key), value) {
            (b"versionId" | b"lastUpdated" | b"createdAt", _) => {}
            (b"extension", Value::Array(list)) if has_created_at(document, list, created_at_url) => {
                match without_created_at(document, list, created_at_url) {
                    Value::Array(Span { len: 0, .. }) => {}
                    rest => document.push_member(key, rest),
                }
            }
            _ => document.push_member(key, value),
        }
    }
    document.close_object(mark)
}

fn is_created_at(document: &Document, extension: Value, url: &str) -> bool {
    match extension {
        Value::Object(span) => matches!(document.get(span, "url"), Some(Value::String(found)) if document.str(found) == url),
        _ => false,
    }
}

fn has_created_at(document: &Document, list: Span, url: &str) -> bool {
    document.elements(list).iter().any(|&extension| is_created_at(document, extension, url))
}

fn without_created_at(document: &mut Document, list: Span, url: &str) -> Value {
    let mark = document.open();
    for index in list.indices() {
        let extension = document.element(index);
        if !is_created_at(document, extension, url) {
            document.push_element(extension);
        }
    }
    document.close_array(mark)
}

/// What a row says of its resource. Times as RFC 3339 text in UTC; null times are left out.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub id: &'a str,
    pub resource_type: &'a str,
    pub version_id: &'a str,
    pub last_updated: Option<&'a str>,
    pub created_at: Option<&'a str>,
    /// Whether the table has these columns: then what the JSON says does not count, even where the column is null.
    pub owns_last_updated: bool,
    pub owns_created_at: bool,
}

/// Puts a row's facts into its resource, whose JSON is in `format` already. The columns win over what the JSON says.
/// Keys come out in jsonb's order; in FHIR format meta ends with its extensions, as the documentation shows it.
///
/// # Errors
/// `TooLarge` where there is no memory.
pub fn wrap(document: &mut Document, root: Value, row: &Row, format: Format, created_at_url: &str) -> Result<Value, Fault> {
    let Value::Object(span) = root else { return Err(Fault::NotAnObject) };
    let meta = match document.get(span, "meta") {
        Some(Value::Object(meta)) => meta,
        _ => Span { start: 0, len: 0 },
    };
    let meta = wrap_meta(document, meta, row, format, created_at_url);
    let mark = document.open();
    for index in span.indices() {
        let Member { key, value } = document.member(index);
        if !matches!(document.bytes(key), b"id" | b"resourceType" | b"meta") {
            document.push_member(key, value);
        }
    }
    push_string(document, "id", row.id);
    push_string(document, "resourceType", row.resource_type);
    let key = document.push_str("meta");
    document.push_member(key, meta);
    let wrapped = document.close_object(mark);
    Ok(sorted(document, wrapped))
}

fn sorted(document: &mut Document, value: Value) -> Value {
    match value {
        Value::Object(span) => Value::Object(document.sort_members(span)),
        other => other,
    }
}

fn push_string(document: &mut Document, key: &str, value: &str) {
    let key = document.push_str(key);
    let value = document.push_str(value);
    document.push_member(key, Value::String(value));
}

fn wrap_meta(document: &mut Document, meta: Span, row: &Row, format: Format, created_at_url: &str) -> Value {
    let mut extensions = None;
    let mark = document.open();
    for index in meta.indices() {
        let Member { key, value } = document.member(index);
        let replaced = match document.bytes(key) {
            b"versionId" => true,
            b"lastUpdated" => row.owns_last_updated,
            b"createdAt" => row.owns_created_at,
            b"extension" if format == Format::Fhir => {
                extensions = Some((key, value));
                true
            }
            _ => false,
        };
        if !replaced {
            document.push_member(key, value);
        }
    }
    push_string(document, "versionId", row.version_id);
    if let Some(last_updated) = row.last_updated {
        push_string(document, "lastUpdated", last_updated);
    }
    if let (Some(created_at), Format::Aidbox) = (row.created_at, format) {
        push_string(document, "createdAt", created_at);
    }
    let wrapped = document.close_object(mark);
    let Value::Object(wrapped) = sorted(document, wrapped) else { return wrapped };
    if format == Format::Aidbox {
        return Value::Object(wrapped);
    }
    let mark = document.open();
    for index in wrapped.indices() {
        let Member { key, value } = document.member(index);
        document.push_member(key, value);
    }
    if let Some((key, value)) = with_created_at(document, extensions, row.created_at, created_at_url) {
        document.push_member(key, value);
    }
    document.close_object(mark)
}

/// Meta's extensions with the time of creation as the last of them.
fn with_created_at(document: &mut Document, extensions: Option<(Str, Value)>, created_at: Option<&str>, url: &str) -> Option<(Str, Value)> {
    let Some(created_at) = created_at else { return extensions };
    let mark = document.open();
    if let Some((_, Value::Array(list))) = extensions {
        for index in list.indices() {
            let extension = document.element(index);
            if !is_created_at(document, extension, url) {
                document.push_element(extension);
            }
        }
    }
    let inner = document.open();
    push_string(document, "url", url);
    push_string(document, "valueInstant", created_at);
    let extension = document.close_object(inner);
    document.push_element(extension);
    let list = document.close_array(mark);
    Some((document.push_str("extension"), list))
}

/// A line's resource as it is stored: converted from its format to the table's, without what the row holds.
pub fn to_stored(
    definitions: &Definitions,
    document: &mut Document,
    root: Value,
    resource_type: &str,
    from: Format,
    stored: Format,
    created_at_url: &str,
) -> Value {
    let root = strip(document, root, created_at_url);
    if from == stored { root } else { crate::fhir::convert::resource(definitions, document, root, resource_type, stored) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::definitions::r4;
    use crate::jsonb::{parse, text};

    const URL: &str = "ex:createdAt";

    fn json(document: &Document, value: Value, style: text::Style) -> String {
        let mut out = Vec::new();
        text::write(document, value, style, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn stored(line: &str, from: Format) -> String {
        let mut document = Document::new();
        let root = parse::parse(&mut document, line, 100).unwrap();
        let identity = identify(&document, root).unwrap();
        let kind = document.str(identity.resource_type.unwrap()).to_owned();
        let root = to_stored(r4(), &mut document, root, &kind, from, Format::Aidbox, URL);
        json(&document, root, text::Style::Compact)
    }

    #[test]
    fn what_the_server_owns_is_taken_out() {
        let line = r#"{"id":"1","resourceType":"Patient","meta":{"versionId":"1","lastUpdated":"x","extension":[{"url":"ex:createdAt","valueInstant":"y"}]},"active":true}"#;
        assert_eq!(stored(line, Format::Fhir), r#"{"active":true}"#);
        let line = r#"{"id":"1","resourceType":"Patient","meta":{"profile":["p"],"extension":[{"url":"ex:createdAt"},{"url":"b"}]}}"#;
        assert_eq!(stored(line, Format::Fhir), r#"{"meta":{"profile":["p"],"extension":[{"url":"b"}]}}"#);
    }

    fn wrapped(resource: &str, format: Format, style: text::Style) -> String {
        let mut document = Document::new();
        let root = parse::parse(&mut document, resource, 100).unwrap();
        let time = "2021-06-10T08:26:10.707454Z";
        let row = Row {
            id: "pt-3",
            resource_type: "Patient",
            version_id: "483",
            last_updated: Some(time),
            created_at: Some(time),
            owns_last_updated: true,
            owns_created_at: true,
        };
        let value = wrap(&mut document, root, &row, format, URL).unwrap();
        json(&document, value, style)
    }

    #[test]
    fn lines_come_out_as_documented() {
        let resource = r#"{"name":[{"given":["Charles"]}],"citizenship":[{"code":{"text":"ru"}}]}"#;
        assert_eq!(
            wrapped(resource, Format::Aidbox, text::Style::Spaced),
            r#"{"id": "pt-3", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": "483", "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}], "resourceType": "Patient"}"#
        );
        assert_eq!(
            wrapped(resource, Format::Fhir, text::Style::Compact),
            r#"{"id":"pt-3","meta":{"versionId":"483","lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Charles"]}],"citizenship":[{"code":{"text":"ru"}}],"resourceType":"Patient"}"#
        );
    }
}
