//! The official search parameters and the patient compartment: which elements of a resource they mean, from the table of one FHIR version
//! (`definitions/r4-search.txt`, whose notation `scripts/search.py` describes).

use crate::fhir::format::Format;
use crate::jsonb::document::{Document, Value};
use rustc_hash::FxHashMap;
use serde_json::json;
use std::sync::OnceLock;

/// What a parameter's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Token,
    Date,
    Reference,
    String,
}

/// Elements of a resource in FHIR format.
#[derive(Debug)]
pub struct Path {
    steps: Vec<Step>,
    /// The data type of what is at its end.
    pub kind: &'static str,
    /// The only type of resource that counts where several may be referred to.
    pub target: Option<&'static str>,
}

#[derive(Debug)]
struct Step {
    key: &'static str,
    is_list: bool,
    /// A member and the value that it must have.
    only: Option<(&'static str, &'static str)>,
}

/// A search parameter of one type (https://hl7.org/fhir/R4/searchparameter-registry.html).
#[derive(Debug)]
pub struct Parameter {
    pub kind: Kind,
    pub paths: Vec<Path>,
}

/// The parameters of one FHIR version.
#[derive(Debug)]
pub struct Parameters {
    by_type: FxHashMap<&'static str, FxHashMap<&'static str, Parameter>>,
    compartment: FxHashMap<&'static str, Vec<Path>>,
}

/// FHIR R4 (4.0.1), read at first use.
pub fn r4() -> &'static Parameters {
    static R4: OnceLock<Parameters> = OnceLock::new();
    R4.get_or_init(|| Parameters::read(include_str!("definitions/r4-search.txt")))
}

impl Parameters {
    fn read(table: &'static str) -> Parameters {
        let mut parameters = Parameters { by_type: FxHashMap::default(), compartment: FxHashMap::default() };
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split('\t');
            let (Some(of), Some(code), Some(kind)) = (fields.next(), fields.next(), fields.next()) else { continue };
            let paths = fields.filter_map(Path::read).collect();
            let kind = match kind {
                "token" => Kind::Token,
                "date" => Kind::Date,
                "reference" => Kind::Reference,
                "string" => Kind::String,
                _ => {
                    parameters.compartment.insert(of, paths);
                    continue;
                }
            };
            parameters.by_type.entry(of).or_default().insert(code, Parameter { kind, paths });
        }
        parameters
    }

    /// A type's parameter, or one of all types.
    pub fn get(&self, resource_type: &str, code: &str) -> Option<&Parameter> {
        let of = |of: &str| self.by_type.get(of)?.get(code);
        of("Resource").or_else(|| of(resource_type))
    }

    /// Where resources of a type refer to the patients in whose compartments they are; None for a type that is in none.
    pub fn compartment(&self, resource_type: &str) -> Option<&[Path]> {
        self.compartment.get(resource_type).map(Vec::as_slice)
    }

    /// The types that are in compartments of patients, in the order of their names.
    pub fn compartment_types(&self) -> Vec<&'static str> {
        let mut types: Vec<&'static str> = self.compartment.keys().copied().collect();
        types.sort_unstable();
        types
    }
}

impl Path {
    fn read(text: &'static str) -> Option<Path> {
        let (steps, kind) = text.rsplit_once(':')?;
        let (kind, target) = match kind.split_once('(') {
            Some((kind, target)) => (kind, target.strip_suffix(')')),
            None => (kind, None),
        };
        Some(Path { steps: steps.split('.').map(Step::read).collect(), kind, target })
    }

    /// Calls `found` with what is at the path's end, until it says so: whether it did.
    pub fn any(&self, document: &Document, root: Value, found: &mut dyn FnMut(Value) -> bool) -> bool {
        below(document, root, &self.steps, found)
    }

    /// A JSON object that is contained in every stored resource that refers to this one here.
    pub fn pattern(&self, resource_type: &str, id: &str, stored: Format) -> String {
        let reference = match stored {
            Format::Aidbox => json!({"id": id, "resourceType": resource_type}),
            Format::Fhir => json!({"reference": format!("{resource_type}/{id}")}),
        };
        let around = |inner: serde_json::Value, step: &Step| {
            let inner = if step.is_list { json!([inner]) } else { inner };
            json!({ step.key: inner })
        };
        self.steps.iter().rev().fold(reference, around).to_string()
    }
}

fn below(document: &Document, value: Value, steps: &[Step], found: &mut dyn FnMut(Value) -> bool) -> bool {
    match (value, steps) {
        (Value::Array(list), _) => document.elements(list).iter().any(|&element| below(document, element, steps, found)),
        (Value::Null, _) => false,
        (value, []) => found(value),
        (Value::Object(members), [step, rest @ ..]) => {
            let Some(inner) = document.get(members, step.key) else { return false };
            match step.only {
                None => below(document, inner, rest, found),
                Some((member, wanted)) => {
                    let mut chosen = |value: Value| has(document, value, member, wanted) && below(document, value, rest, &mut *found);
                    below(document, inner, &[], &mut chosen)
                }
            }
        }
        _ => false,
    }
}

fn has(document: &Document, value: Value, member: &str, wanted: &str) -> bool {
    let Value::Object(members) = value else { return false };
    matches!(document.get(members, member), Some(Value::String(text)) if document.str(text) == wanted)
}

impl Step {
    fn read(text: &'static str) -> Step {
        let (text, only) = match text.split_once('[') {
            Some((text, only)) => (text, only.trim_end_matches(']').split_once('=')),
            None => (text, None),
        };
        let key = text.trim_end_matches('*');
        Step { key, is_list: key.len() < text.len(), only }
    }
}

/// The patient whom a Reference of FHIR format means.
pub fn patient(document: &Document, reference: Value) -> Option<&str> {
    let Value::Object(members) = reference else { return None };
    let Some(Value::String(text)) = document.get(members, "reference") else { return None };
    document.str(text).strip_prefix("Patient/").filter(|id| !id.is_empty() && !id.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonb::parse;

    #[test]
    fn the_table_holds_what_the_definitions_hold() {
        assert_eq!(r4().compartment_types().len(), 66);
        assert!(r4().compartment("Practitioner").is_none());
        assert_eq!(r4().get("Observation", "date").unwrap().kind, Kind::Date);
        assert_eq!(r4().get("Observation", "_id").unwrap().kind, Kind::Token);
        assert!(r4().get("Observation", "value-quantity").is_none());
    }

    #[test]
    fn paths_lead_through_lists_and_choose() {
        let mut document = Document::new();
        let text = r#"{"telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "a@b"}],
            "link": [{"other": {"reference": "Patient/a"}}, {"other": {"reference": "RelatedPerson/b"}}]}"#;
        let root = parse::parse(&mut document, text, 20).unwrap();
        let mut values = Vec::new();
        let path = &r4().get("Patient", "email").unwrap().paths[0];
        path.any(&document, root, &mut |value| {
            values.push(value);
            false
        });
        assert_eq!(values.len(), 1);
        assert!(has(&document, values[0], "value", "a@b"));
        let path = &r4().compartment("Patient").unwrap()[0];
        assert!(path.any(&document, root, &mut |value| patient(&document, value) == Some("a")));
        assert!(!path.any(&document, root, &mut |value| patient(&document, value) == Some("b")));
        assert_eq!(path.pattern("Patient", "a", Format::Aidbox), r#"{"link":[{"other":{"id":"a","resourceType":"Patient"}}]}"#);
        assert_eq!(path.pattern("Patient", "a", Format::Fhir), r#"{"link":[{"other":{"reference":"Patient/a"}}]}"#);
    }
}
