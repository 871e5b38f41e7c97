//! What a load changes in every resource before it is stored: an object laid over it, nulls taken out, ids put under a prefix.

use crate::error::Fault;
use crate::fhir::id_prefix;
use crate::jsonb::document::{Document, Span, Value};
use crate::jsonb::parse;
use std::sync::Arc;

/// The changes of one load, shared by its threads.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    over: Option<Overlay>,
    /// Laid over `meta`.
    over_meta: Option<Overlay>,
    prefix: Option<Arc<str>>,
    strip_nulls: bool,
}

/// An object whose members take the place of others.
#[derive(Debug, Clone)]
struct Overlay(Arc<(Document, Span)>);

impl Overlay {
    /// Of the text of a JSON object.
    fn new(text: &str, max_depth: usize) -> Result<Overlay, Fault> {
        let mut document = Document::new();
        match parse::parse(&mut document, text, max_depth).map_err(|error| error.fault)? {
            Value::Object(span) => Ok(Overlay(Arc::new((document, span)))),
            _ => Err(Fault::NotAnObject),
        }
    }

    /// Key by key and no deeper.
    fn lay(&self, document: &mut Document, under: Span) -> Value {
        let (source, members) = (&self.0.0, self.0.1);
        let mark = document.open();
        for index in under.indices() {
            let member = document.member(index);
            // What stays has each key once: a check would stumble over two.
            if source.find(members, document.str(member.key)).is_none() {
                document.push_member(member.key, member.value);
            }
        }
        for member in source.members(members) {
            let key = document.push_str(source.str(member.key));
            let value = copy(source, member.value, document);
            document.push_member(key, value);
        }
        document.close_object(mark)
    }
}

impl Changes {
    /// `over` is the text of a JSON object in the format of the lines.
    ///
    /// # Errors
    /// `Syntax` and other faults of `merge` where it is no object that can be stored.
    pub fn new(over: Option<&str>, strip_nulls: bool, max_depth: usize) -> Result<Changes, Fault> {
        Ok(Changes { over: over.map(|over| Overlay::new(over, max_depth)).transpose()?, strip_nulls, ..Changes::default() })
    }

    /// Beside it, an object that is laid over each `meta`, and what ids and references to them get before them.
    ///
    /// # Errors
    /// Those of `meta`, as `new`.
    pub fn with(self, meta: Option<&str>, prefix: Option<&str>, max_depth: usize) -> Result<Changes, Fault> {
        let over_meta = meta.map(|meta| Overlay::new(meta, max_depth)).transpose()?;
        Ok(Changes { over_meta, prefix: prefix.map(Arc::from), ..self })
    }

    /// Lays the object over the resource, key by key and no deeper; then takes the members that are null out of every object, as
    /// `jsonb_strip_nulls` does: an array keeps its nulls, because their places count.
    pub fn apply(&self, document: &mut Document, mut root: Value) -> Value {
        if let (Some(over), Value::Object(span)) = (&self.over, root) {
            root = over.lay(document, span);
        }
        if let (Some(over), Value::Object(span)) = (&self.over_meta, root) {
            root = lay_over_meta(document, span, over);
        }
        if let Some(prefix) = &self.prefix {
            id_prefix::apply(document, root, prefix);
        }
        if self.strip_nulls && document.has_null_members() { without_nulls(document, root) } else { root }
    }
}

fn lay_over_meta(document: &mut Document, span: Span, over: &Overlay) -> Value {
    let known = match document.get(span, "meta") {
        Some(Value::Object(meta)) => meta,
        _ => Span { start: 0, len: 0 },
    };
    let meta = over.lay(document, known);
    let mark = document.open();
    for index in span.indices() {
        let member = document.member(index);
        if document.bytes(member.key) != b"meta" {
            document.push_member(member.key, member.value);
        }
    }
    let key = document.push_str("meta");
    document.push_member(key, meta);
    document.close_object(mark)
}

/// A value of one document in another.
fn copy(source: &Document, value: Value, to: &mut Document) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value,
        Value::Number(text) => Value::Number(to.push_str(source.str(text))),
        Value::String(text) => Value::String(to.push_str(source.str(text))),
        Value::Array(span) => {
            let mark = to.open();
            for &element in source.elements(span) {
                let element = copy(source, element, to);
                to.push_element(element);
            }
            to.close_array(mark)
        }
        Value::Object(span) => {
            let mark = to.open();
            for member in source.members(span) {
                let key = to.push_str(source.str(member.key));
                let value = copy(source, member.value, to);
                to.push_member(key, value);
            }
            to.close_object(mark)
        }
    }
}

fn without_nulls(document: &mut Document, value: Value) -> Value {
    match value {
        Value::Array(span) => {
            let mark = document.open();
            for index in span.indices() {
                let element = without_nulls(document, document.element(index));
                document.push_element(element);
            }
            document.close_array(mark)
        }
        Value::Object(span) => {
            // Where a key stands twice its last value counts, null or not.
            let span = document.sort_members(span);
            let mark = document.open();
            for index in span.indices() {
                let member = document.member(index);
                if member.value != Value::Null {
                    let value = without_nulls(document, member.value);
                    document.push_member(member.key, value);
                }
            }
            document.close_object(mark)
        }
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonb::{decode, encode, text};

    fn changed(line: &str, over: Option<&str>, strip_nulls: bool) -> String {
        let mut document = Document::new();
        let root = parse::parse(&mut document, line, 100).unwrap();
        let root = Changes::new(over, strip_nulls, 100).unwrap().apply(&mut document, root);
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        encode::encode(&mut document, root, &mut bytes).unwrap();
        let root = decode::decode(&mut document, &bytes[4..], 100).unwrap();
        text::write(&document, root, text::Style::Compact, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_object_is_laid_over_shallowly() {
        assert_eq!(
            changed(r#"{"a":{"x":1},"b":2}"#, Some(r#"{"a":{"y":1.10},"c":["é\n",null]}"#), false),
            r#"{"a":{"y":1.10},"b":2,"c":["é\n",null]}"#
        );
        assert_eq!(changed("{}", Some("{}"), false), "{}");
        assert_eq!(changed(r#"{"a":1,"a":2}"#, Some(r#"{"b":1}"#), false), r#"{"a":2,"b":1}"#);
        // No key occurs twice: validation looks at the document before it is stored.
        let mut document = Document::new();
        let root = parse::parse(&mut document, r#"{"a":1,"b":2}"#, 100).unwrap();
        let Value::Object(span) = Changes::new(Some(r#"{"a":3}"#), false, 100).unwrap().apply(&mut document, root) else { panic!() };
        assert_eq!(document.members(span).len(), 2);
        assert!(Changes::new(Some("[]"), false, 100).is_err() && Changes::new(Some("{"), false, 100).is_err());
    }

    #[test]
    fn an_object_is_laid_over_meta() {
        for (line, after) in [
            (r#"{"meta":{"tag":[1],"source":"b"},"a":1}"#, r#"{"a":1,"meta":{"tag":[1],"source":"app"}}"#),
            (r#"{"a":1}"#, r#"{"a":1,"meta":{"source":"app"}}"#),
            (r#"{"meta":5}"#, r#"{"meta":{"source":"app"}}"#),
        ] {
            let mut document = Document::new();
            let root = parse::parse(&mut document, line, 100).unwrap();
            let changes = Changes::default().with(Some(r#"{"source":"app"}"#), None, 100).unwrap();
            let root = changes.apply(&mut document, root);
            let mut out = Vec::new();
            text::write(&document, root, text::Style::Compact, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), after);
        }
    }

    #[test]
    fn nulls_of_objects_go_and_those_of_arrays_stay() {
        assert_eq!(changed(r#"{"a":null,"b":{"c":null},"d":[null,{"e":null,"f":1}]}"#, None, true), r#"{"b":{},"d":[null,{"f":1}]}"#);
        assert_eq!(changed(r#"{"a":1,"a":null,"b":null,"b":2}"#, None, true), r#"{"b":2}"#);
        assert_eq!(changed(r#"{"a":1,"b":2}"#, Some(r#"{"a":null}"#), true), r#"{"b":2}"#);
        assert_eq!(changed(r#"{"a":null}"#, None, false), r#"{"a":null}"#);
    }
}
