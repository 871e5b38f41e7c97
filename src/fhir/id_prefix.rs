//! Ids under a prefix: a resource's own and, so that they still lead to it, those of the references `Type/id`.

use crate::fhir::reference::{Target, split};
use crate::jsonb::document::{Document, Member, Value};

/// Members of a reference in Aidbox format. What has others beside type and id is a resource.
const REFERENCE: [&[u8]; 6] = [b"resourceType", b"id", b"display", b"type", b"identifier", b"extension"];

/// Puts a prefix before the id of a resource, in either format, and before those of its references.
pub fn apply(document: &mut Document, root: Value, prefix: &str) {
    let Value::Object(span) = root else { return };
    if let Some(index) = document.find(span, "id") {
        lengthen(document, index, prefix, 0);
    }
    span.indices().for_each(|index| below(document, index, prefix));
}

/// Looks through a member's value.
fn below(document: &mut Document, index: usize, prefix: &str) {
    let Member { key, value } = document.member(index);
    match value {
        Value::String(text) if document.bytes(key) == b"reference" => {
            if let Target::Relative(kind, _) = split(document.str(text)) {
                let before = kind.len() + 1;
                lengthen(document, index, prefix, before);
            }
        }
        // Contained resources have names of their own, which only `#` and `localRef` mean.
        value => within(document, value, prefix, document.bytes(key) == b"contained"),
    }
}

fn within(document: &mut Document, value: Value, prefix: &str, are_resources: bool) {
    match value {
        Value::Array(span) => span.indices().for_each(|index| within(document, document.element(index), prefix, are_resources)),
        Value::Object(span) => {
            let is_reference = !are_resources
                && document.find(span, "resourceType").is_some()
                && document.members(span).iter().all(|member| REFERENCE.contains(&document.bytes(member.key)));
            if let (true, Some(index)) = (is_reference, document.find(span, "id")) {
                lengthen(document, index, prefix, 0);
            }
            span.indices().for_each(|index| below(document, index, prefix));
        }
        _ => {}
    }
}

/// Puts the prefix into a member's string behind its first bytes.
fn lengthen(document: &mut Document, index: usize, prefix: &str, behind: usize) {
    let Member { key, value: Value::String(text) } = document.member(index) else { return };
    let start = document.text_len();
    let (before, rest) = (document.part(text, 0, behind), document.part(text, behind, document.bytes(text).len()));
    document.append_str(before);
    document.append(prefix.as_bytes());
    document.append_str(rest);
    let value = Value::String(document.finish_str(start));
    document.set_member(index, Member { key, value });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonb::{parse, text};

    #[test]
    fn ids_and_what_leads_to_them_get_the_prefix() {
        for (before, after) in [
            (r#"{"id":"1","x":[{"id":"e"}]}"#, r#"{"id":"a-1","x":[{"id":"e"}]}"#),
            (
                r##"{"id":"1","subject":{"reference":"Patient/2","display":"é"},"author":[{"reference":"#c"},{"reference":"http://x/Patient/2"}]}"##,
                r##"{"id":"a-1","subject":{"reference":"Patient/a-2","display":"é"},"author":[{"reference":"#c"},{"reference":"http://x/Patient/2"}]}"##,
            ),
            (
                r#"{"id":"1","subject":{"resourceType":"Patient","id":"2"},"contained":[{"resourceType":"Patient","id":"c","link":[{"other":{"resourceType":"Patient","id":"3"}}]}],"author":{"localRef":"c"}}"#,
                r#"{"id":"a-1","subject":{"resourceType":"Patient","id":"a-2"},"contained":[{"resourceType":"Patient","id":"c","link":[{"other":{"resourceType":"Patient","id":"a-3"}}]}],"author":{"localRef":"c"}}"#,
            ),
            (
                r#"{"subject":{"resourceType":"Patient","identifier":{"value":"1"}}}"#,
                r#"{"subject":{"resourceType":"Patient","identifier":{"value":"1"}}}"#,
            ),
            ("[]", "[]"),
        ] {
            let mut document = Document::new();
            let root = parse::parse(&mut document, before, 100).unwrap();
            apply(&mut document, root, "a-");
            let mut out = Vec::new();
            text::write(&document, root, text::Style::Compact, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), after);
        }
    }
}
