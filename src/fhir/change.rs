//! What a load changes in every resource before it is stored: an object laid over it, nulls taken out.

use crate::error::Fault;
use crate::jsonb::{Document, Span, Value, parse};
use std::sync::Arc;

/// The changes of one load, shared by its threads.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    over: Option<Arc<(Document, Span)>>,
    strip_nulls: bool,
}

impl Changes {
    /// `over` is the text of a JSON object in the format of the lines.
    pub fn new(over: Option<&str>, strip_nulls: bool, max_depth: usize) -> Result<Changes, Fault> {
        let Some(over) = over else { return Ok(Changes { over: None, strip_nulls }) };
        let mut document = Document::new();
        match parse::parse(&mut document, over, max_depth).map_err(|error| error.fault)? {
            Value::Object(span) => Ok(Changes { over: Some(Arc::new((document, span))), strip_nulls }),
            _ => Err(Fault::NotAnObject),
        }
    }

    /// Lays the object over the resource, key by key and no deeper; then takes the members that are null out of every object, as
    /// `jsonb_strip_nulls` does: an array keeps its nulls, because their places count.
    pub fn apply(&self, document: &mut Document, mut root: Value) -> Value {
        if let (Some(over), Value::Object(span)) = (&self.over, root) {
            let (source, members) = (&over.0, over.1);
            let mark = document.open();
            for index in span.indices() {
                let member = document.member(index);
                document.push_member(member.key, member.value);
            }
            for member in source.members(members) {
                let key = document.push_str(source.str(member.key));
                let value = copy(source, member.value, document);
                // The last of a key wins.
                document.push_member(key, value);
            }
            root = document.close_object(mark);
        }
        if self.strip_nulls && document.has_null_members() { without_nulls(document, root) } else { root }
    }
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
        assert!(Changes::new(Some("[]"), false, 100).is_err() && Changes::new(Some("{"), false, 100).is_err());
    }

    #[test]
    fn nulls_of_objects_go_and_those_of_arrays_stay() {
        assert_eq!(changed(r#"{"a":null,"b":{"c":null},"d":[null,{"e":null,"f":1}]}"#, None, true), r#"{"b":{},"d":[null,{"f":1}]}"#);
        assert_eq!(changed(r#"{"a":1,"a":null,"b":null,"b":2}"#, None, true), r#"{"b":2}"#);
        assert_eq!(changed(r#"{"a":1,"b":2}"#, Some(r#"{"a":null}"#), true), r#"{"b":2}"#);
        assert_eq!(changed(r#"{"a":null}"#, None, false), r#"{"a":null}"#);
    }
}
