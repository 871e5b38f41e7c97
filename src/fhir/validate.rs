//! Checks a resource against the base definitions: unknown elements, cardinality, JSON types, patterns of primitives, required
//! elements, choice types. In FHIR and in Aidbox format.
//!
//! By the rules of FHIR's JSON, nothing is empty or null but the places that keep a primitive and its companion aligned.

use crate::fhir::format::Format;
use crate::fhir::reference::{self, Target};
use crate::fhir::structure::{Entry, Kind, Literal, PrimitiveId, ShapeId, Structure};
use crate::jsonb::document::{Document, Span, Str, Value};

/// What is wrong where. It never says what the resource holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// From the resource: `name[0].given`.
    pub path: String,
    pub problem: String,
}

/// A relative reference: to another resource of the same database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it stands.
    pub path: String,
    pub resource_type: String,
    pub id: String,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checks {
    /// Whether elements, their types and cardinalities are checked.
    pub structure: bool,
    pub references: bool,
}

/// What was found, of what was looked for.
#[derive(Debug, Default)]
pub struct Found {
    pub findings: Vec<Finding>,
    pub references: Vec<Reference>,
}

/// Looks through a resource; findings end it once there are `most`. Of types that are not FHIR's nothing is known.
pub fn check(
    structure: &Structure,
    document: &Document,
    root: Value,
    resource_type: &str,
    format: Format,
    checks: Checks,
    most: usize,
) -> Found {
    let mut checker = Checker { structure, document, format, path: Vec::new(), checks, most, within_entry: false, found: Found::default() };
    match (structure.resource(resource_type), root) {
        (Some(shape), Value::Object(span)) => checker.object(span, shape, true),
        (Some(_), _) => checker.find("expected object".to_owned()),
        (None, _) => {}
    }
    checker.found
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Key(Str),
    Index(usize),
}

struct Checker<'a> {
    structure: &'a Structure,
    document: &'a Document,
    format: Format,
    /// From the resource to what is looked at.
    path: Vec<Step>,
    checks: Checks,
    most: usize,
    /// Inside a resource that is no part of the one that is stored: an entry of a Bundle, a parameter. Its references may be meant within that.
    within_entry: bool,
    found: Found,
}

/// Keys longer than that are cut in a path.
const LONGEST_KEY: usize = 100;

impl<'a> Checker<'a> {
    fn find(&mut self, problem: String) {
        if self.checks.structure && !self.is_done() {
            let path = self.text_of_path();
            self.found.findings.push(Finding { path, problem });
        }
    }

    fn find_at(&mut self, step: Step, problem: String) {
        self.path.push(step);
        self.find(problem);
        self.path.pop();
    }

    fn text_of_path(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match *step {
                Step::Key(key) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.extend(self.document.str(key).chars().take(LONGEST_KEY));
                }
                Step::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        text
    }

    fn is_done(&self) -> bool {
        self.found.findings.len() == self.most
    }

    fn object(&mut self, span: Span, id: ShapeId, is_resource: bool) {
        let structure = self.structure;
        let shape = structure.shape(id);
        if span.len == 0 {
            self.find("must not be empty".to_owned());
        }
        if self.checks.references && id == structure.reference() && !self.within_entry {
            self.refer(span);
        }
        // Slots whose value or companion was met: of a choice the type that was chosen stays.
        let (mut values, mut companions) = (0u128, 0u128);
        for index in span.indices() {
            let member = self.document.member(index);
            let key = self.document.bytes(member.key);
            if is_resource && key == b"resourceType" {
                continue;
            }
            self.path.push(Step::Key(member.key));
            match shape.entry(self.format, key) {
                None => self.find("unknown element".to_owned()),
                Some(entry) => {
                    let bit = 1 << entry.slot;
                    let is_companion = entry.kind == Kind::Companion;
                    let seen = if is_companion { &mut companions } else { &mut values };
                    if *seen & bit != 0 {
                        let problem = if entry.choice { "another type of the same element is given" } else { "is given twice" };
                        self.find(problem.to_owned());
                    } else {
                        *seen |= bit;
                        if entry.choice && values & companions & bit != 0 && !self.is_of_one_type(span, id, entry) {
                            self.find("another type of the same element is given".to_owned());
                        }
                        self.element(span, key, member.value, entry);
                    }
                }
            }
            self.path.pop();
            if self.is_done() {
                return;
            }
        }
        let mut missing = shape.required & !(values | companions);
        while missing != 0 {
            let name = shape.names[missing.trailing_zeros() as usize];
            missing &= missing - 1;
            self.find_missing(name);
        }
    }

    fn find_missing(&mut self, name: &str) {
        if self.is_done() || !self.checks.structure {
            return;
        }
        let path = self.text_of_path();
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        self.found.findings.push(Finding { path, problem: "required element is missing".to_owned() });
    }

    /// Notes a reference, if it is a relative one; that to a version is one to its resource.
    fn refer(&mut self, span: Span) {
        let string = |key| match self.document.get(span, key) {
            Some(Value::String(text)) => Some(self.document.str(text)),
            _ => None,
        };
        let of = |text: &'a str| match reference::split(text.split_once("/_history/").map_or(text, |(resource, _)| resource)) {
            Target::Relative(kind, id) => Some((kind, id)),
            Target::Local(_) | Target::Uri(_) => None,
        };
        let target = match self.format {
            Format::Fhir => string("reference").and_then(of),
            Format::Aidbox => string("resourceType").zip(string("id")).or_else(|| string("uri").and_then(of)),
        };
        if let Some((resource_type, id)) = target {
            let reference = Reference { path: self.text_of_path(), resource_type: resource_type.to_owned(), id: id.to_owned() };
            self.found.references.push(reference);
        }
    }

    /// Whether the value and the companion of a choice are of one type, in FHIR format.
    fn is_of_one_type(&self, span: Span, id: ShapeId, entry: Entry) -> bool {
        let shape = self.structure.shape(id);
        let keys = self.document.members(span).iter().map(|member| self.document.bytes(member.key));
        let mut same = keys.filter(|key| shape.entry(self.format, key).is_some_and(|other| other.slot == entry.slot));
        let plain = |key: &'a [u8]| key.strip_prefix(b"_").unwrap_or(key);
        let first = same.next().map(plain);
        same.all(|key| Some(plain(key)) == first)
    }

    /// An element's value, whether one or many.
    fn element(&mut self, owner: Span, key: &[u8], value: Value, entry: Entry) {
        if !entry.many {
            return self.one(value, entry.kind);
        }
        let Value::Array(list) = value else { return self.find("expected array".to_owned()) };
        if list.len == 0 {
            self.find("must not be empty".to_owned());
        }
        for (place, index) in list.indices().enumerate() {
            let element = self.document.element(index);
            self.path.push(Step::Index(place));
            match element {
                Value::Null if self.has_twin(owner, key, place, entry.kind) => {}
                _ => self.one(element, entry.kind),
            }
            self.path.pop();
            if self.is_done() {
                return;
            }
        }
    }

    /// Whether a null in a list of primitives, or of their companions, keeps the place of something in the other list.
    fn has_twin(&self, owner: Span, key: &[u8], place: usize, kind: Kind) -> bool {
        let twin = match (kind, std::str::from_utf8(key)) {
            (Kind::Primitive(_), Ok(key)) => self.document.get(owner, &format!("_{key}")),
            (Kind::Companion, Ok(key)) => self.document.get(owner, key.trim_start_matches('_')),
            _ => None,
        };
        let Some(Value::Array(list)) = twin else { return false };
        self.document.elements(list).get(place).is_some_and(|value| *value != Value::Null)
    }

    fn one(&mut self, value: Value, kind: Kind) {
        match (kind, value) {
            (_, Value::Null) => self.find("must not be null".to_owned()),
            (Kind::Primitive(primitive), _) => self.primitive(value, primitive),
            (_, Value::Array(_)) => self.find("expected object, found array".to_owned()),
            (Kind::Companion, Value::Object(span)) => self.in_fhir(span, self.structure.element()),
            (Kind::Extension, Value::Object(span)) => self.in_fhir(span, self.structure.extension()),
            (Kind::Shape(shape), Value::Object(span)) => self.object(span, shape, false),
            (Kind::Resource, Value::Object(span)) => self.resource(span),
            (Kind::Choice(index), Value::Object(span)) => self.choice(span, index),
            _ => self.find("expected object".to_owned()),
        }
    }

    /// Extensions keep FHIR format.
    fn in_fhir(&mut self, span: Span, shape: ShapeId) {
        let format = std::mem::replace(&mut self.format, Format::Fhir);
        self.object(span, shape, false);
        self.format = format;
    }

    fn resource(&mut self, span: Span) {
        let Some(index) = self.document.find(span, "resourceType") else { return self.find_missing("resourceType") };
        let member = self.document.member(index);
        let shape = match member.value {
            Value::String(name) => self.structure.resource(self.document.str(name)),
            _ => None,
        };
        let contained = matches!(self.path.first(), Some(Step::Key(key)) if self.document.bytes(*key) == b"contained");
        let outside = self.within_entry;
        self.within_entry = outside || !contained;
        match shape {
            Some(shape) => self.object(span, shape, true),
            None => self.find_at(Step::Key(member.key), "unknown resource type".to_owned()),
        }
        self.within_entry = outside;
    }

    /// `value: {string}`: one type, with its companion.
    fn choice(&mut self, span: Span, index: u16) {
        let structure = self.structure;
        let variants = structure.choice(index);
        if span.len == 0 {
            self.find("must not be empty".to_owned());
        }
        let mut chosen: Option<&[u8]> = None;
        for (place, index) in span.indices().enumerate() {
            let member = self.document.member(index);
            let key = self.document.bytes(member.key);
            self.path.push(Step::Key(member.key));
            let plain = key.strip_prefix(b"_").unwrap_or(key);
            match variants.iter().find(|(code, _)| code.as_bytes() == key) {
                None => self.find("not a type of this element".to_owned()),
                Some(_) if chosen.is_some_and(|chosen| chosen != plain) => {
                    self.find("another type of the same element is given".to_owned())
                }
                Some(_) if place >= 2 => self.find("is given twice".to_owned()),
                Some((_, kind)) => self.one(member.value, *kind),
            }
            chosen = Some(plain);
            self.path.pop();
            if self.is_done() {
                return;
            }
        }
    }

    fn primitive(&mut self, value: Value, id: PrimitiveId) {
        let primitive = self.structure.primitive(id);
        let (literal, text) = match value {
            Value::Bool(_) => (Literal::Boolean, None),
            Value::Number(text) => (Literal::Number, Some(text)),
            Value::String(text) => (Literal::String, Some(text)),
            Value::Array(_) => return self.find(format!("expected {}, found array", name_of(primitive.literal))),
            Value::Object(_) | Value::Null => return self.find(format!("expected {}", name_of(primitive.literal))),
        };
        if literal != primitive.literal {
            return self.find(format!("expected {}", name_of(primitive.literal)));
        }
        let text = text.map(|text| self.document.bytes(text));
        if text.is_some_and(|text| text.is_empty() || !primitive.matches(text)) {
            self.find(format!("is no {}", primitive.name));
        }
    }
}

fn name_of(literal: Literal) -> &'static str {
    match literal {
        Literal::Boolean => "boolean",
        Literal::Number => "number",
        Literal::String => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::structure::r4;
    use crate::jsonb::parse;

    fn findings(resource_type: &str, text: &str, format: Format) -> Vec<String> {
        let mut document = Document::new();
        let root = parse::parse(&mut document, text, 6000).unwrap();
        let found = check(r4(), &document, root, resource_type, format, Checks { structure: true, references: false }, 10);
        found.findings.into_iter().map(|finding| format!("{}: {}", finding.path, finding.problem)).collect()
    }

    #[test]
    // A table of cases.
    #[allow(clippy::too_many_lines)]
    fn what_is_wrong_is_found_where_it_is() {
        for (resource_type, text, expected) in [
            ("Patient", r#"{"id":"1","resourceType":"Patient"}"#, &[][..]),
            ("Patient", r#"{"name":[{"given":"A"}]}"#, &["name[0].given: expected array"]),
            ("Patient", r#"{"name":{"given":["A"]}}"#, &["name: expected array"]),
            ("Patient", r#"{"name":[]}"#, &["name: must not be empty"]),
            ("Patient", r#"{"name":[{}]}"#, &["name[0]: must not be empty"]),
            ("Patient", r#"{"name":[null]}"#, &["name[0]: must not be null"]),
            ("Patient", r#"{"name":[[{"text":"x"}]]}"#, &["name[0]: expected object, found array"]),
            ("Patient", r#"{"active":"true"}"#, &["active: expected boolean"]),
            ("Patient", r#"{"active":[true]}"#, &["active: expected boolean, found array"]),
            ("Patient", r#"{"active":null}"#, &["active: must not be null"]),
            ("Patient", r#"{"gender":1}"#, &["gender: expected string"]),
            ("Patient", r#"{"gender":""}"#, &["gender: is no code"]),
            ("Patient", r#"{"birthDate":"1.1.2000"}"#, &["birthDate: is no date"]),
            ("Patient", r#"{"multipleBirthInteger":1.5}"#, &["multipleBirthInteger: is no integer"]),
            (
                "Patient",
                r#"{"multipleBirthInteger":1,"multipleBirthBoolean":true}"#,
                &["multipleBirthBoolean: another type of the same element is given"],
            ),
            ("Patient", r#"{"multipleBirthInteger":1,"_multipleBirthInteger":{"id":"x"}}"#, &[]),
            (
                "Patient",
                r#"{"multipleBirthInteger":1,"_multipleBirthBoolean":{"id":"x"}}"#,
                &["_multipleBirthBoolean: another type of the same element is given"],
            ),
            ("Patient", r#"{"active":true,"active":true}"#, &["active: is given twice"]),
            (
                "Patient",
                r#"{"colour":"red","contact":[{"x":1},{"y":2}]}"#,
                &["colour: unknown element", "contact[0].x: unknown element", "contact[1].y: unknown element"],
            ),
            (
                "Patient",
                r#"{"contained":[{"id":"a"},{"resourceType":"Nonsense"},{"resourceType":"Patient","x":1}]}"#,
                &[
                    "contained[0].resourceType: required element is missing",
                    "contained[1].resourceType: unknown resource type",
                    "contained[2].x: unknown element",
                ],
            ),
            ("Patient", r#"{"name":[{"given":["A",null,"B"],"_given":[null,{"id":"x"}]}]}"#, &[]),
            (
                "Patient",
                r#"{"name":[{"given":["A",null],"_given":[{"id":"x"},null]}]}"#,
                &["name[0].given[1]: must not be null", "name[0]._given[1]: must not be null"],
            ),
            ("Patient", r#"{"_name":[{"id":"x"}]}"#, &["_name: unknown element"]),
            ("Patient", r#"{"_gender":{"extension":[{"url":"u","valueString":""}]}}"#, &["_gender.extension[0].valueString: is no string"]),
            (
                "Patient",
                r#"{"extension":[{"valueCode":"a","valueString":"b"}]}"#,
                &["extension[0].valueString: another type of the same element is given", "extension[0].url: required element is missing"],
            ),
            ("Observation", r#"{}"#, &["code: required element is missing", "status: required element is missing"]),
            (
                "Observation",
                r#"{"status":"final","code":{"text":"x"},"valueQuantity":{"value":"1"},"component":[{"valueString":"x"}]}"#,
                &["valueQuantity.value: expected number", "component[0].code: required element is missing"],
            ),
            ("Observation", r#"{"_status":{"extension":[{"url":"absent"}]},"code":{"text":"x"},"subject":{"reference":"Patient/1"}}"#, &[]),
            ("Custom", r#"{"whatever":[]}"#, &[]),
        ] {
            let text = if text == "{}" { r#"{"id":"1"}"# } else { text };
            assert_eq!(findings(resource_type, text, Format::Fhir), expected, "{text}");
        }
    }

    #[test]
    fn aidbox_format_has_its_own_keys() {
        for (text, expected) in [
            (
                r#"{"status":"final","code":{"text":"x"},"value":{"string":"a","_string":{"id":"x"}},"subject":{"resourceType":"Patient","id":"1"}}"#,
                &[][..],
            ),
            (
                r#"{"status":"final","code":{"text":"x"},"valueString":"a","subject":{"reference":"Patient/1"}}"#,
                &["valueString: unknown element"],
            ),
            (r#"{"status":"final","code":{"text":"x"},"value":{"string":1}}"#, &["value.string: expected string"]),
            (
                r#"{"status":"final","code":{"text":"x"},"value":{"string":"a","Quantity":{"value":1}}}"#,
                &["value.Quantity: another type of the same element is given"],
            ),
            (r#"{"status":"final","code":{"text":"x"},"value":{"Address":{"text":"x"}}}"#, &["value.Address: not a type of this element"]),
            (
                r#"{"status":"final","code":{"text":"x"},"value":"a","effective":{}}"#,
                &["value: expected object", "effective: must not be empty"],
            ),
            (r#"{"status":"final","code":{"text":"x"},"extension":[{"url":"u","valueReference":{"reference":"Patient/1"}}]}"#, &[]),
            (
                r#"{"status":"final","code":{"text":"x"},"meta":{"createdAt":"2020-01-01T00:00:00Z"},"focus":[{"localRef":"a"},{"uri":"urn:x"}]}"#,
                &[],
            ),
        ] {
            let found = findings("Observation", text, Format::Aidbox);
            let found: Vec<&String> = found.iter().filter(|finding| !finding.starts_with("subject.reference")).collect();
            assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{text}");
        }
        assert_eq!(
            findings("Observation", r#"{"status":"final","code":{"text":"x"},"meta":{"createdAt":"2020-01-01T00:00:00Z"}}"#, Format::Fhir),
            ["meta.createdAt: unknown element"]
        );
    }

    #[test]
    fn deep_resources_are_no_danger() {
        let depth = 2000;
        let text = format!(r#"{{"extension":{}"x"{}}}"#, r#"[{"url":"u","extension":"#.repeat(depth), "}]".repeat(depth));
        let found = std::thread::Builder::new()
            .stack_size(8 << 20)
            .spawn(move || findings("Patient", &text, Format::Fhir))
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(found.len(), 1);
    }
}
