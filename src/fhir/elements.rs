//! Which elements of resources are asked for: a resource with some of them, tagged as such.

use crate::fhir::definitions::{Definitions, FhirKey};
use crate::jsonb::document::{Document, Member, Value};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What every resource keeps.
const ALWAYS: [&[u8]; 3] = [b"resourceType", b"id", b"meta"];
const SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";

/// Names of elements at the root of a resource, without `[x]`: of all types and of some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elements {
    of_all: BTreeSet<String>,
    of: BTreeMap<String, BTreeSet<String>>,
}

impl Elements {
    /// Adds `name` or `Patient.name`. False for what is neither.
    #[must_use]
    pub fn add(&mut self, definitions: &Definitions, text: &str) -> bool {
        let is_name = |name: &str| name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
        match text.split_once('.') {
            None if is_name(text) => self.of_all.insert(text.to_owned()),
            Some((of, name)) if is_name(name) && definitions.resource(of).is_some() => {
                self.of.entry(of.to_owned()).or_default().insert(name.to_owned())
            }
            _ => return false,
        };
        true
    }

    /// Whether no elements are named: all are wanted.
    pub fn is_empty(&self) -> bool {
        self.of_all.is_empty() && self.of.is_empty()
    }

    /// The types that are named.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.of.keys().map(String::as_str)
    }

    /// The resource, in FHIR format, with what is asked for of it; whole where nothing is asked for of its type.
    pub fn cut(&self, definitions: &Definitions, document: &mut Document, root: Value, resource_type: &str) -> Value {
        let of_type = self.of.get(resource_type);
        let Value::Object(members) = root else { return root };
        if self.of_all.is_empty() && of_type.is_none() {
            return root;
        }
        let is_asked = |name: &str| self.of_all.contains(name) || of_type.is_some_and(|of| of.contains(name));
        let shape = definitions.resource(resource_type);
        let mark = document.open();
        for index in members.indices() {
            let Member { key, value } = document.member(index);
            let bytes = document.bytes(key);
            let base = match shape.and_then(|shape| definitions.fhir_key(shape, bytes)) {
                Some(FhirKey::Variant(variant)) => variant.base,
                _ => std::str::from_utf8(bytes).unwrap_or_default().trim_start_matches('_'),
            };
            if bytes == b"meta" {
                let tagged = tagged(document, value);
                document.push_member(key, tagged);
            } else if ALWAYS.contains(&bytes) || is_asked(base) {
                document.push_member(key, value);
            }
        }
        document.close_object(mark)
    }
}

fn tagged(document: &mut Document, meta: Value) -> Value {
    let tag = {
        let mark = document.open();
        for (key, value) in [("system", SYSTEM), ("code", "SUBSETTED"), ("display", "subsetted")] {
            let (key, value) = (document.push_str(key), document.push_str(value));
            document.push_member(key, Value::String(value));
        }
        document.close_object(mark)
    };
    let Value::Object(members) = meta else { return meta };
    let mark = document.open();
    let mut tags = vec![];
    for index in members.indices() {
        let Member { key, value } = document.member(index);
        match value {
            Value::Array(list) if document.bytes(key) == b"tag" => tags = document.elements(list).to_vec(),
            value => document.push_member(key, value),
        }
    }
    let list = document.open();
    tags.into_iter().chain([tag]).for_each(|tag| document.push_element(tag));
    let list = document.close_array(list);
    let key = document.push_str("tag");
    document.push_member(key, list);
    document.close_object(mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::definitions::r4;
    use crate::jsonb::parse;
    use crate::jsonb::text::{self, Style};

    fn cut(asked: &[&str], resource: &str) -> String {
        let mut elements = Elements::default();
        asked.iter().for_each(|name| assert!(elements.add(r4(), name), "{name}"));
        let mut document = Document::new();
        let root = parse::parse(&mut document, resource, 20).unwrap();
        let cut = elements.cut(r4(), &mut document, root, "Patient");
        let mut out = Vec::new();
        text::write(&document, cut, Style::Compact, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_left() {
        let patient = r#"{"id":"a","meta":{"tag":[{"code":"x"}]},"resourceType":"Patient","name":[],"deceasedBoolean":true,"_birthDate":{},"birthDate":"2000"}"#;
        let tag = r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED","display":"subsetted"}"#;
        let mandatory = format!(r#""id":"a","meta":{{"tag":[{{"code":"x"}},{tag}]}},"resourceType":"Patient""#);
        assert_eq!(cut(&["nonsense"], patient), format!("{{{mandatory}}}"));
        assert_eq!(cut(&["Patient.deceased"], patient), format!(r#"{{{mandatory},"deceasedBoolean":true}}"#));
        assert_eq!(
            cut(&["name", "Patient.birthDate"], patient),
            format!(r#"{{{mandatory},"name":[],"_birthDate":{{}},"birthDate":"2000"}}"#)
        );
        assert_eq!(cut(&["Observation.code"], patient), patient);
        let mut elements = Elements::default();
        for wrong in ["", "Patient.name.given", "Nothing.name", "a b", "Patient."] {
            assert!(!elements.add(r4(), wrong), "{wrong}");
        }
    }
}
