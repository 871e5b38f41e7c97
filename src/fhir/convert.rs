//! Between FHIR's JSON and Aidbox's, in place, driven by the definitions. Both ways are each other's inverse; what the
//! definitions do not know stays as it is, and so do extensions.
//!
//! | element | FHIR | Aidbox |
//! |---|---|---|
//! | reference | `{"reference": "Patient/1"}` | `{"resourceType": "Patient", "id": "1"}` |
//! | | `{"reference": "#p"}` | `{"localRef": "p"}` |
//! | | any other string | `{"uri": …}`, verbatim |
//! | logical reference | `{"type": "Patient", "identifier": …}` | `{"resourceType": "Patient", "identifier": …}` |
//! | choice | `"valueString": "a"` | `"value": {"string": "a"}` |
//! | its companion | `"_valueString": {…}` | `"value": {"_string": {…}}` |

use crate::fhir::definitions::{AidboxKey, Content, Definitions, FhirKey, ShapeId, Variant};
use crate::fhir::format::Format;
use crate::fhir::reference::{Target, split};
use crate::jsonb::document::{Document, Member, Span, Value};

/// Converts a resource of the given type into `to`; a type outside the definitions is returned as it came.
pub fn resource(definitions: &Definitions, document: &mut Document, root: Value, resource_type: &str, to: Format) -> Value {
    let Some(shape) = definitions.resource(resource_type) else { return root };
    Converter { definitions, document, to }.shape(root, shape)
}

/// Members from which on an object may hold the same key again and again: no FHIR type has as many elements.
const MANY: u32 = 256;

struct Converter<'a> {
    definitions: &'a Definitions,
    document: &'a mut Document,
    to: Format,
}

impl<'a> Converter<'a> {
    fn content(&mut self, value: Value, content: Content) -> Value {
        match (value, content) {
            (_, Content::Opaque) => value,
            (Value::Array(span), _) => {
                for index in span.indices() {
                    let element = self.document.element(index);
                    let converted = self.content(element, content);
                    self.document.set_element(index, converted);
                }
                value
            }
            (Value::Object(_), Content::Shape(shape)) => self.shape(value, shape),
            (Value::Object(span), Content::Reference) => {
                if let Some(shape) = self.definitions.reference() {
                    self.shape(value, shape);
                }
                match self.to {
                    Format::Aidbox => self.split_reference(span),
                    Format::Fhir => self.join_reference(span),
                }
            }
            (Value::Object(span), Content::Resource) => match self.document.get(span, "resourceType") {
                Some(Value::String(name)) => match self.definitions.resource(self.document.str(name)) {
                    Some(shape) => self.shape(value, shape),
                    None => value,
                },
                _ => value,
            },
            _ => value,
        }
    }

    fn shape(&mut self, value: Value, shape: ShapeId) -> Value {
        match (value, self.to) {
            (Value::Object(span), Format::Aidbox) => self.nest(span, shape),
            (Value::Object(span), Format::Fhir) => self.flatten(span, shape),
            _ => value,
        }
    }

    fn nest(&mut self, span: Span, shape: ShapeId) -> Value {
        let mut variants = 0;
        for index in span.indices() {
            let member = self.document.member(index);
            match self.definitions.fhir_key(shape, self.document.bytes(member.key)) {
                Some(FhirKey::Element(content)) => self.convert_member(index, content),
                Some(FhirKey::Variant(variant)) => {
                    self.convert_member(index, variant.content);
                    variants += 1;
                }
                None => {}
            }
        }
        if variants == 0 { Value::Object(span) } else { self.nest_choices(span, shape) }
    }

    fn convert_member(&mut self, index: usize, content: Content) {
        if content != Content::Opaque {
            let Member { key, value } = self.document.member(index);
            let value = self.content(value, content);
            self.document.set_member(index, Member { key, value });
        }
    }

    /// `valueString` becomes `value: {string}`. Variants of one element (a value and its companion) share the object,
    /// at the place of the first.
    fn nest_choices(&mut self, span: Span, shape: ShapeId) -> Value {
        // A key that stands a hundred thousand times must not cost the square of that. Equal keys go, the last one stays.
        let span = if span.len > MANY { self.document.sort_members(span) } else { span };
        let outer = self.document.open();
        for index in span.indices() {
            let member = self.document.member(index);
            let base = match self.variant(index, shape) {
                // A key that stands where the choice would go is not FHIR; both stay as they are.
                Some(variant) if self.document.find(span, variant.base).is_none() => variant.base,
                _ => {
                    self.document.push_member(member.key, member.value);
                    continue;
                }
            };
            let is_same = |at: usize| self.variant(at, shape).is_some_and(|variant| variant.base == base);
            if (span.start as usize..index).any(is_same) {
                continue;
            }
            let inner = self.document.open();
            for index in index..span.indices().end {
                if let Some(variant) = self.variant(index, shape).filter(|variant| variant.base == base) {
                    let code = self.document.push_str(&variant.code);
                    let value = self.document.member(index).value;
                    self.document.push_member(code, value);
                }
            }
            let nested = self.document.close_object(inner);
            let key = self.document.push_str(base);
            self.document.push_member(key, nested);
        }
        self.document.close_object(outer)
    }

    /// The variant of a choice element that a member in FHIR format is, if it is one.
    fn variant(&self, index: usize, shape: ShapeId) -> Option<&'a Variant> {
        match self.definitions.fhir_key(shape, self.document.bytes(self.document.member(index).key)) {
            Some(FhirKey::Variant(variant)) => Some(variant),
            _ => None,
        }
    }

    fn flatten(&mut self, span: Span, shape: ShapeId) -> Value {
        let mut choices = 0;
        for index in span.indices() {
            let member = self.document.member(index);
            match self.definitions.aidbox_key(shape, self.document.bytes(member.key)) {
                Some(AidboxKey::Element(content)) => self.convert_member(index, content),
                Some(AidboxKey::Choice(variants)) => choices += usize::from(self.choice(member.value, variants).is_some()),
                None => {}
            }
        }
        if choices == 0 { Value::Object(span) } else { self.flatten_choices(span, shape) }
    }

    /// The members of a nested choice, if it is one: an object all of whose keys are variants.
    fn choice(&self, value: Value, variants: &[Variant]) -> Option<Span> {
        let Value::Object(inner) = value else { return None };
        let known = |member: &Member| variants.iter().any(|variant| variant.code.as_bytes() == self.document.bytes(member.key));
        (inner.len > 0 && self.document.members(inner).iter().all(known)).then_some(inner)
    }

    /// `value: {string}` becomes `valueString`, at the same place.
    fn flatten_choices(&mut self, span: Span, shape: ShapeId) -> Value {
        let definitions = self.definitions;
        let outer = self.document.open();
        for index in span.indices() {
            let member = self.document.member(index);
            let variants = match definitions.aidbox_key(shape, self.document.bytes(member.key)) {
                Some(AidboxKey::Choice(variants)) => variants,
                _ => &[],
            };
            let Some(inner) = self.choice(member.value, variants) else {
                self.document.push_member(member.key, member.value);
                continue;
            };
            for index in inner.indices() {
                let member = self.document.member(index);
                let code = self.document.bytes(member.key);
                if let Some(variant) = variants.iter().find(|variant| variant.code.as_bytes() == code) {
                    let value = self.content(member.value, variant.content);
                    let key = self.document.push_str(&variant.key);
                    self.document.push_member(key, value);
                }
            }
        }
        self.document.close_object(outer)
    }

    /// A FHIR reference to Aidbox's. An object that already has a key which the split would add keeps its string whole.
    fn split_reference(&mut self, span: Span) -> Value {
        let has = |key: &str| self.document.find(span, key).is_some();
        let taken = has("resourceType") || has("uri") || has("localRef");
        let (at, reference) = match self.document.find(span, "reference") {
            // An id beside it would make a target of the type.
            None if taken || has("id") => return Value::Object(span),
            None => return self.rename_logical(span, "type", "resourceType"),
            Some(at) => match self.document.member(at).value {
                Value::String(reference) if !taken => (at, reference),
                _ => return Value::Object(span),
            },
        };
        // The element's own id would collide with the target's.
        let element_id = has("id");
        let mark = self.document.open();
        for index in span.indices() {
            let member = self.document.member(index);
            if self.document.bytes(member.key) != b"reference" {
                self.document.push_member(member.key, member.value);
            } else if index == at {
                let text = self.document.str(reference);
                let (parts, count) = match split(text) {
                    Target::Relative(kind, _) if !element_id => ([("resourceType", 0, kind.len()), ("id", kind.len() + 1, text.len())], 2),
                    Target::Local(_) => ([("localRef", 1, text.len()), ("", 0, 0)], 1),
                    _ => ([("uri", 0, text.len()), ("", 0, 0)], 1),
                };
                for (key, from, to) in parts.into_iter().take(count) {
                    let key = self.document.push_str(key);
                    let part = self.document.part(reference, from, to);
                    self.document.push_member(key, Value::String(part));
                }
            }
        }
        self.document.close_object(mark)
    }

    /// Aidbox's reference to FHIR's.
    fn join_reference(&mut self, span: Span) -> Value {
        let string = |key: &str| match self.document.get(span, key) {
            Some(Value::String(s)) => Some(s),
            _ => None,
        };
        let has = |key: &str| self.document.find(span, key).is_some();
        if has("reference") {
            return Value::Object(span);
        }
        let start = self.document.text_len();
        let (reference, used): (_, &[&str]) = match (string("uri"), string("localRef"), string("resourceType"), string("id")) {
            (Some(uri), ..) => (uri, &["uri"]),
            (_, Some(local), ..) => {
                self.document.append(b"#");
                self.document.append_str(local);
                (self.document.finish_str(start), &["localRef"])
            }
            (_, _, Some(kind), Some(id)) => {
                self.document.append_str(kind);
                self.document.append(b"/");
                self.document.append_str(id);
                (self.document.finish_str(start), &["resourceType", "id"])
            }
            _ => return self.rename_logical(span, "resourceType", "type"),
        };
        let mark = self.document.open();
        let mut written = false;
        for index in span.indices() {
            let member = self.document.member(index);
            if !used.iter().any(|key| key.as_bytes() == self.document.bytes(member.key)) {
                self.document.push_member(member.key, member.value);
            } else if !written {
                let key = self.document.push_str("reference");
                self.document.push_member(key, Value::String(reference));
                written = true;
            }
        }
        self.document.close_object(mark)
    }

    /// A reference without a target names its type under `type` in FHIR and under `resourceType` in Aidbox format.
    fn rename_logical(&mut self, span: Span, from: &str, to: &str) -> Value {
        if let (Some(index), None) = (self.document.find(span, from), self.document.find(span, to)) {
            let value = self.document.member(index).value;
            if let Value::String(_) = value {
                let key = self.document.push_str(to);
                self.document.set_member(index, Member { key, value });
            }
        }
        Value::Object(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::definitions::r4;
    use crate::jsonb::{parse, text};

    fn json(document: &Document, value: Value) -> String {
        let mut out = Vec::new();
        text::write(document, value, text::Style::Compact, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn there_and_back(kind: &str, fhir: &str, aidbox: &str) {
        let mut document = Document::new();
        let root = parse::parse(&mut document, fhir, 100).unwrap();
        let there = resource(r4(), &mut document, root, kind, Format::Aidbox);
        assert_eq!(json(&document, there), aidbox);
        let back = resource(r4(), &mut document, there, kind, Format::Fhir);
        assert_eq!(json(&document, back), fhir);
    }

    #[test]
    fn formats_convert_there_and_back() {
        there_and_back("Observation", r#"{"valueString":"test"}"#, r#"{"value":{"string":"test"}}"#);
        there_and_back(
            "Observation",
            r#"{"_valueString":{"id":"a"},"component":[{"valueCodeableConcept":{"text":"a"}}],"status":"final"}"#,
            r#"{"value":{"_string":{"id":"a"}},"component":[{"value":{"CodeableConcept":{"text":"a"}}}],"status":"final"}"#,
        );
        there_and_back(
            "Observation",
            r#"{"valueString":"a","_valueString":{"id":"a"},"subject":{"reference":"Patient/1","type":"Patient","display":"d"}}"#,
            r#"{"value":{"string":"a","_string":{"id":"a"}},"subject":{"resourceType":"Patient","id":"1","type":"Patient","display":"d"}}"#,
        );
        there_and_back(
            "MedicationRequest",
            r##"{"medicationReference":{"reference":"#m"},"contained":[{"resourceType":"Observation","valueBoolean":true},{"resourceType":"Custom","valueString":"x"}]}"##,
            r##"{"medication":{"Reference":{"localRef":"m"}},"contained":[{"resourceType":"Observation","value":{"boolean":true}},{"resourceType":"Custom","valueString":"x"}]}"##,
        );
        there_and_back("Library", r#"{"effectivePeriod":{"start":"2020"}}"#, r#"{"effectivePeriod":{"start":"2020"}}"#);
        there_and_back(
            "Patient",
            r#"{"extension":[{"url":"u","valueReference":{"reference":"Patient/1"}}],"managingOrganization":{"type":"Organization","identifier":{"assigner":{"reference":"http://x/Organization/1"}}}}"#,
            r#"{"extension":[{"url":"u","valueReference":{"reference":"Patient/1"}}],"managingOrganization":{"resourceType":"Organization","identifier":{"assigner":{"uri":"http://x/Organization/1"}}}}"#,
        );
        // Keys that would collide with what the split adds.
        there_and_back(
            "Patient",
            r#"{"managingOrganization":{"id":"e","reference":"Organization/1"}}"#,
            r#"{"managingOrganization":{"id":"e","uri":"Organization/1"}}"#,
        );
        there_and_back(
            "Patient",
            r#"{"managingOrganization":{"id":"e","type":"Organization"}}"#,
            r#"{"managingOrganization":{"id":"e","type":"Organization"}}"#,
        );
        there_and_back("Observation", r#"{"value":"odd","valueString":"a"}"#, r#"{"value":"odd","valueString":"a"}"#);
        there_and_back(
            "Questionnaire",
            r#"{"item":[{"item":[{"item":[{"enableWhen":[{"answerCoding":{"code":"a"}}],"initial":[{"valueDecimal":1.10}]}]}]}]}"#,
            r#"{"item":[{"item":[{"item":[{"enableWhen":[{"answer":{"Coding":{"code":"a"}}}],"initial":[{"value":{"decimal":1.10}}]}]}]}]}"#,
        );
        there_and_back(
            "Parameters",
            r#"{"parameter":[{"part":[{"name":"p","valueAnnotation":{"authorString":"a"}}],"resource":{"resourceType":"Patient","deceasedBoolean":true}}]}"#,
            r#"{"parameter":[{"part":[{"name":"p","value":{"Annotation":{"author":{"string":"a"}}}}],"resource":{"resourceType":"Patient","deceased":{"boolean":true}}}]}"#,
        );
        there_and_back("Foo", r#"{"valueString":"a"}"#, r#"{"valueString":"a"}"#);
    }
}
