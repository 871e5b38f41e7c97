//! What the official definitions say of every element, from the table of one FHIR version (`definitions/r4.txt`, whose
//! notation `scripts/definitions.py` describes). Another version is another table.

use crate::fhir::definition_table::{self, Element};
use crate::text::key_map::Keys;
use rustc_hash::FxHashMap;
use std::sync::OnceLock;

/// A shape by its index: a resource, a data type or a backbone element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeId(u16);

/// What may stand under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A primitive, or what conversion leaves alone (extensions).
    Opaque,
    /// A data type or backbone element.
    Shape(ShapeId),
    /// A reference.
    Reference,
    /// A resource, whose own `resourceType` says its shape.
    Resource,
}

/// One type that a choice element allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Name of the element without `[x]`.
    pub base: &'static str,
    /// The type as Aidbox's key: `string`, `Quantity`; with `_` in front for the companion of a primitive.
    pub code: String,
    /// The key in FHIR: `valueString`, `_valueString`.
    pub key: String,
    pub content: Content,
}

/// What a key means in an object of FHIR format.
#[derive(Debug, Clone, Copy)]
pub enum FhirKey<'a> {
    Element(Content),
    Variant(&'a Variant),
}

/// What a key means in an object of Aidbox format.
#[derive(Debug, Clone, Copy)]
pub enum AidboxKey<'a> {
    Element(Content),
    /// A choice element: its variants.
    Choice(&'a [Variant]),
}

#[derive(Debug, Clone, Copy)]
enum FhirEntry {
    Element(Content),
    Variant(u32),
}

#[derive(Debug, Clone, Copy)]
enum AidboxEntry {
    Element(Content),
    Choice { first: u32, count: u32 },
}

#[derive(Debug, Default)]
struct Shape {
    fhir: Keys<FhirEntry>,
    aidbox: Keys<AidboxEntry>,
}

/// The definitions of one FHIR version.
#[derive(Debug)]
pub struct Definitions {
    shapes: Vec<Shape>,
    variants: Vec<Variant>,
    resources: FxHashMap<&'static str, ShapeId>,
    reference: Option<ShapeId>,
    /// Lower-cased name to name.
    resource_names: FxHashMap<String, &'static str>,
}

/// FHIR R4 (4.0.1), read at first use.
pub fn r4() -> &'static Definitions {
    static R4: OnceLock<Definitions> = OnceLock::new();
    R4.get_or_init(|| Definitions::read(definition_table::R4))
}

impl Definitions {
    fn read(table: &'static str) -> Definitions {
        let rows = definition_table::rows(table);
        let by_path: FxHashMap<&str, usize> = rows.iter().enumerate().map(|(index, row)| (row.path, index)).collect();
        let content = |code: &str| match code.trim_start_matches('@') {
            // Kept as they are, with their `value[x]`: the documented default of the format.
            "Extension" => Content::Opaque,
            "Reference" => Content::Reference,
            "Resource" => Content::Resource,
            path => match by_path.get(path) {
                Some(&index) if rows[index].pattern.is_none() => Content::Shape(ShapeId(index as u16)),
                _ => Content::Opaque,
            },
        };
        let mut definitions = Definitions {
            shapes: rows.iter().map(|_| Shape::default()).collect(),
            variants: Vec::new(),
            resources: FxHashMap::default(),
            reference: by_path.get("Reference").map(|&index| ShapeId(index as u16)),
            resource_names: FxHashMap::default(),
        };
        for (index, row) in rows.iter().enumerate() {
            if row.kind == "resource" {
                definitions.resources.insert(row.path, ShapeId(index as u16));
                definitions.resource_names.insert(row.path.to_ascii_lowercase(), row.path);
            }
            let mut from = Some(row);
            while let Some(owner) = from {
                for element in &owner.elements {
                    definitions.add(index, element, &content);
                }
                from = by_path.get(owner.base).map(|&base| &rows[base]);
            }
        }
        definitions
    }

    fn add(&mut self, shape: usize, element: &Element, content: &impl Fn(&str) -> Content) {
        let name = element.name;
        if !element.choice {
            let content = element.types.first().map_or(Content::Opaque, |code| content(code));
            self.shapes[shape].fhir.insert(name.as_bytes(), FhirEntry::Element(content));
            self.shapes[shape].aidbox.insert(name.as_bytes(), AidboxEntry::Element(content));
            return;
        }
        let first = self.variants.len() as u32;
        for &code in &element.types {
            let key = definition_table::choice_key(name, code);
            let content = content(code);
            if content == Content::Opaque {
                self.variants.push(Variant { base: name, code: format!("_{code}"), key: format!("_{key}"), content: Content::Opaque });
            }
            self.variants.push(Variant { base: name, code: code.to_owned(), key, content });
        }
        let variants = first..self.variants.len() as u32;
        let keys = &mut self.shapes[shape].fhir;
        for index in variants.clone() {
            keys.insert(self.variants[index as usize].key.as_bytes(), FhirEntry::Variant(index));
        }
        self.shapes[shape].aidbox.insert(name.as_bytes(), AidboxEntry::Choice { first, count: variants.len() as u32 });
    }

    /// The shape of a resource type; its name must be spelled as FHIR spells it.
    pub fn resource(&self, name: &str) -> Option<ShapeId> {
        self.resources.get(name).copied()
    }

    /// A resource type's name as FHIR spells it, whatever the case of `name`.
    pub fn resource_name(&self, name: &str) -> Option<&'static str> {
        self.resource_names.get(name.to_ascii_lowercase().as_str()).copied()
    }

    /// Names of all resource types, in no order.
    pub fn resource_types(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.resources.keys().copied()
    }

    /// What a key of an object in FHIR format means. None for keys that the definitions do not know.
    pub fn fhir_key(&self, shape: ShapeId, key: &[u8]) -> Option<FhirKey<'_>> {
        Some(match self.shapes[usize::from(shape.0)].fhir.get(key)? {
            FhirEntry::Element(content) => FhirKey::Element(content),
            FhirEntry::Variant(index) => FhirKey::Variant(&self.variants[index as usize]),
        })
    }

    /// What a key of an object in Aidbox format means. None for keys that the definitions do not know.
    pub fn aidbox_key(&self, shape: ShapeId, key: &[u8]) -> Option<AidboxKey<'_>> {
        Some(match self.shapes[usize::from(shape.0)].aidbox.get(key)? {
            AidboxEntry::Element(content) => AidboxKey::Element(content),
            AidboxEntry::Choice { first, count } => AidboxKey::Choice(&self.variants[first as usize..(first + count) as usize]),
        })
    }

    /// The shape of a Reference itself (identifier, extension …).
    pub fn reference(&self) -> Option<ShapeId> {
        self.reference
    }

    /// Every choice element as (path, name, sorted type codes), for comparison with other tables.
    #[cfg(test)]
    pub fn choices() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
        definition_table::rows(definition_table::R4)
            .into_iter()
            .flat_map(|row| row.elements.into_iter().filter(|e| e.choice).map(move |e| (row.path, e.name, e.types)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_what_the_definitions_hold() {
        assert_eq!(r4().resource_types().count(), 146);
        // 186, less those that stand in an abstract or a profile: none.
        assert_eq!(Definitions::choices().len(), 186);
        assert_eq!(r4().resource_name("medicationrequest"), Some("MedicationRequest"));
        assert_eq!(r4().resource("medicationrequest"), None);
    }

    #[test]
    fn an_element_that_only_looks_like_a_choice_is_none() {
        let library = r4().resource("Library").unwrap();
        assert!(matches!(r4().fhir_key(library, b"effectivePeriod"), Some(FhirKey::Element(Content::Shape(_)))));
        let observation = r4().resource("Observation").unwrap();
        assert!(
            matches!(r4().fhir_key(observation, b"effectivePeriod"), Some(FhirKey::Variant(v)) if v.base == "effective" && v.code == "Period")
        );
        assert!(matches!(r4().fhir_key(observation, b"_valueString"), Some(FhirKey::Variant(v)) if v.code == "_string"));
        assert!(r4().fhir_key(observation, b"_valueQuantity").is_none());
        assert!(matches!(r4().aidbox_key(observation, b"value"), Some(AidboxKey::Choice(_))));
    }
}
