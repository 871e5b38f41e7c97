//! What a resource must look like by the base definitions of one FHIR version: for every shape its elements by their keys in both
//! formats, made for looking up. Profiles, value sets and invariants are not in it.

use crate::fhir::definition_table::{self, Element, Row};
use crate::fhir::format::Format;
use crate::text::key_map::Keys;
use regex_automata::dfa::Automaton;
use regex_automata::dfa::dense::{self, DFA};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};
use rustc_hash::FxHashMap;
use std::sync::OnceLock;

/// A shape by its index: a resource, a data type or a backbone element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeId(u16);

/// A primitive type by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrimitiveId(u8);

/// What stands under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Primitive(PrimitiveId),
    /// The companion of a primitive: its id and extensions.
    Companion,
    Shape(ShapeId),
    /// An extension, and all that is in it, is in FHIR format wherever it stands.
    Extension,
    /// A resource, whose own `resourceType` says its shape.
    Resource,
    /// In Aidbox format: an object with one of these types as its key. An index for `Structure::choice`.
    Choice(u16),
}

/// An element under one of its keys.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Which of the shape's elements it is; the types of a choice are one.
    pub slot: u8,
    pub many: bool,
    /// Whether the element is a choice, whose type its key says (FHIR format).
    pub choice: bool,
    pub kind: Kind,
}

/// A resource, a data type or a backbone element.
#[derive(Debug, Default)]
pub struct Shape {
    fhir: Keys<Entry>,
    aidbox: Keys<Entry>,
    /// Bits of the slots that must be taken.
    pub required: u128,
    /// By slot, without `[x]`.
    pub names: Vec<&'static str>,
}

impl Shape {
    /// What a key means. None for a key that is no element.
    #[inline]
    pub fn entry(&self, format: Format, key: &[u8]) -> Option<Entry> {
        match format {
            Format::Fhir => self.fhir.get(key),
            Format::Aidbox => self.aidbox.get(key),
        }
    }
}

/// The JSON type of a primitive's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Literal {
    Boolean,
    Number,
    String,
}

/// A primitive type.
pub struct Primitive {
    pub name: &'static str,
    pub literal: Literal,
    /// What the text of a value matches, whole.
    pattern: DFA<Vec<u32>>,
}

impl Primitive {
    /// Whether a text is a value of the type, by the regular expression of the definitions.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.pattern.try_search_fwd(&Input::new(text).anchored(Anchored::Yes)).is_ok_and(|end| end.is_some())
    }
}

/// The types of one choice element: their keys in Aidbox format.
pub type Choice = Vec<(String, Kind)>;

/// The base definitions of one FHIR version.
pub struct Structure {
    shapes: Vec<Shape>,
    primitives: Vec<Primitive>,
    choices: Vec<Choice>,
    resources: FxHashMap<&'static str, ShapeId>,
    element: ShapeId,
    extension: ShapeId,
    reference: ShapeId,
}

impl std::fmt::Debug for Structure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Structure").field("shapes", &self.shapes.len()).finish_non_exhaustive()
    }
}

/// FHIR R4 (4.0.1), read at first use.
pub fn r4() -> &'static Structure {
    static R4: OnceLock<Structure> = OnceLock::new();
    R4.get_or_init(|| Reader::new(definition_table::rows(definition_table::R4)).read())
}

impl Structure {
    /// The shape of a resource type; None for an unknown one.
    pub fn resource(&self, name: &str) -> Option<ShapeId> {
        self.resources.get(name).copied()
    }

    /// A shape by its id.
    pub fn shape(&self, id: ShapeId) -> &Shape {
        &self.shapes[usize::from(id.0)]
    }

    /// A primitive type by its id.
    pub fn primitive(&self, id: PrimitiveId) -> &Primitive {
        &self.primitives[usize::from(id.0)]
    }

    /// The types of a choice element by its index.
    pub fn choice(&self, index: u16) -> &Choice {
        &self.choices[usize::from(index)]
    }

    /// The shape of a primitive's companion.
    pub fn element(&self) -> ShapeId {
        self.element
    }

    /// The shape of Extension.
    pub fn extension(&self) -> ShapeId {
        self.extension
    }

    /// The shape of Reference.
    pub fn reference(&self) -> ShapeId {
        self.reference
    }
}

/// Makes a structure from the table.
struct Reader {
    rows: Vec<Row>,
    by_path: FxHashMap<&'static str, usize>,
    primitives: FxHashMap<&'static str, PrimitiveId>,
    made: Structure,
}

impl Reader {
    fn new(rows: Vec<Row>) -> Reader {
        let by_path: FxHashMap<&str, usize> = rows.iter().enumerate().map(|(index, row)| (row.path, index)).collect();
        let shape = |path: &str| ShapeId(by_path.get(path).map_or(0, |&index| index as u16));
        let mut primitives = FxHashMap::default();
        let mut found = Vec::new();
        for row in &rows {
            if let Some(pattern) = row.pattern.and_then(pattern) {
                primitives.insert(row.path, PrimitiveId(found.len() as u8));
                found.push(Primitive { name: row.path, literal: literal(row.path), pattern });
            }
        }
        let made = Structure {
            shapes: Vec::new(),
            primitives: found,
            choices: Vec::new(),
            resources: FxHashMap::default(),
            element: shape("Element"),
            extension: shape("Extension"),
            reference: shape("Reference"),
        };
        Reader { rows, by_path, primitives, made }
    }

    fn read(mut self) -> Structure {
        for index in 0..self.rows.len() {
            let row = &self.rows[index];
            let (path, is_resource) = (row.path, row.kind == "resource");
            if is_resource {
                self.made.resources.insert(path, ShapeId(index as u16));
            }
            let mut shape = Shape::default();
            let mut from = Some(index);
            while let Some(owner) = from {
                for element in 0..self.rows[owner].elements.len() {
                    self.add(&mut shape, owner, element);
                }
                from = self.by_path.get(self.rows[owner].base).copied();
            }
            if path == "Reference" {
                self.make_reference(&mut shape);
            }
            if path == "Meta" {
                let slot = shape.slot("createdAt");
                shape.aidbox.insert(b"createdAt", Entry { slot, many: false, choice: false, kind: self.kind("instant") });
            }
            self.made.shapes.push(shape);
        }
        self.made
    }

    fn kind(&self, code: &str) -> Kind {
        match (code.trim_start_matches('@'), self.primitives.get(code)) {
            (_, Some(&primitive)) => Kind::Primitive(primitive),
            ("Extension", _) => Kind::Extension,
            ("Resource", _) => Kind::Resource,
            (path, _) => Kind::Shape(ShapeId(self.by_path.get(path).map_or(0, |&index| index as u16))),
        }
    }

    fn add(&mut self, shape: &mut Shape, owner: usize, element: usize) {
        let Element { name, choice, required, many, ref types } = self.rows[owner].elements[element];
        let slot = shape.slot(name);
        if required {
            shape.required |= 1 << slot;
        }
        let entry = |kind, choice| Entry { slot, many, choice, kind };
        if !choice {
            // The definitions of 4.0.1 call a resource's id a string.
            let code = if self.rows[owner].path == "Resource" && name == "id" { "id" } else { types.first().copied().unwrap_or_default() };
            let kind = self.kind(code);
            for keys in [&mut shape.fhir, &mut shape.aidbox] {
                keys.insert(name.as_bytes(), entry(kind, false));
                if matches!(kind, Kind::Primitive(_)) {
                    keys.insert(format!("_{name}").as_bytes(), entry(Kind::Companion, false));
                }
            }
            return;
        }
        let mut variants = Choice::new();
        for code in types {
            let (kind, key) = (self.kind(code), definition_table::choice_key(name, code));
            shape.fhir.insert(key.as_bytes(), entry(kind, true));
            variants.push(((*code).to_owned(), kind));
            if matches!(kind, Kind::Primitive(_)) {
                shape.fhir.insert(format!("_{key}").as_bytes(), entry(Kind::Companion, true));
                variants.push((format!("_{code}"), Kind::Companion));
            }
        }
        shape.aidbox.insert(name.as_bytes(), entry(Kind::Choice(self.made.choices.len() as u16), false));
        self.made.choices.push(variants);
    }

    /// The parts of a reference in Aidbox format.
    fn make_reference(&self, shape: &mut Shape) {
        for (name, code) in [("id", "string"), ("resourceType", "code"), ("localRef", "string"), ("uri", "uri")] {
            let slot = shape.slot(name);
            shape.aidbox.insert(name.as_bytes(), Entry { slot, many: false, choice: false, kind: self.kind(code) });
        }
    }
}

impl Shape {
    /// The slot of an element, a new one for a new name.
    fn slot(&mut self, name: &'static str) -> u8 {
        let known = self.names.iter().position(|known| *known == name);
        known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        }) as u8
    }
}

fn literal(name: &str) -> Literal {
    match name {
        "boolean" => Literal::Boolean,
        "decimal" | "integer" | "unsignedInt" | "positiveInt" => Literal::Number,
        _ => Literal::String,
    }
}

/// An XML Schema pattern as an automaton: what it matches, it matches whole, byte by byte.
fn pattern(text: &str) -> Option<DFA<Vec<u32>>> {
    let text = if text.is_empty() { r"[ \r\n\t\S]+" } else { text };
    dense::Builder::new().syntax(syntax::Config::new().unicode(false).utf8(false)).build(&format!(r"\A(?:{text})\z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_there() {
        let structure = r4();
        assert_eq!(structure.resources.len(), 146);
        assert_eq!(structure.primitives.len(), 20);
        assert!(structure.shapes.iter().all(|shape| shape.names.len() <= 128));
        let patient = structure.shape(structure.resource("Patient").unwrap());
        assert!(patient.entry(Format::Fhir, b"name").unwrap().many);
        assert!(patient.entry(Format::Fhir, b"_name").is_none());
        assert!(matches!(patient.entry(Format::Fhir, b"_gender").unwrap().kind, Kind::Companion));
        assert!(patient.entry(Format::Fhir, b"deceasedBoolean").unwrap().choice);
        assert!(matches!(patient.entry(Format::Aidbox, b"deceased").unwrap().kind, Kind::Choice(_)));
        assert!(patient.entry(Format::Aidbox, b"deceasedBoolean").is_none());
        let observation = structure.shape(structure.resource("Observation").unwrap());
        let required: Vec<&str> =
            (0..observation.names.len()).filter(|slot| observation.required >> slot & 1 == 1).map(|slot| observation.names[slot]).collect();
        assert_eq!(required, ["code", "status"]);
    }

    #[test]
    fn primitives_match_whole() {
        let structure = r4();
        let primitive = |name: &str| structure.primitives.iter().find(|primitive| primitive.name == name).unwrap();
        for (name, good, bad) in [
            ("date", ["2020", "2020-02", "2020-02-30"], ["20", "2020-13", "2020-1-1"]),
            ("dateTime", ["2020", "2020-02-02", "2020-02-02T10:00:00.5+01:00"], ["2020-02-02T10:00", "2020-02-02T10:00:00", "x2020"]),
            (
                "instant",
                ["2020-02-02T10:00:00Z", "2020-02-02T23:59:60.123-14:00", "1999-12-31T00:00:00+00:00"],
                ["2020", "", "2020-02-02T24:00:00Z"],
            ),
            ("id", ["a", "A-1.b", "0"], ["", "a_b", "ä"]),
            ("code", ["a", "a b", "ä"], ["", " a", "a  b"]),
            ("positiveInt", ["1", "10", "999"], ["0", "-1", "01"]),
            ("decimal", ["1.10", "-0.5e10", "0"], ["+1", ".5", "01"]),
            ("string", ["a", "\u{a0}", " x\r\n\t"], ["", "\u{b}", "\u{c}"]),
            ("uri", ["a:b", "x", "ä"], ["a b", " ", "\n"]),
            ("base64Binary", ["AAAA", "AA==", " AAAA\nAAAA "], ["", "A", "AA-="]),
            (
                "uuid",
                ["urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"; 3],
                ["0c3151bd", "", "urn:uuid:0C3151BD-1cbf-4d64-b04d-cd9187a4c6e0"],
            ),
        ] {
            assert!(good.iter().all(|text| primitive(name).matches(text.as_bytes())), "{name}");
            assert!(!bad.iter().any(|text| primitive(name).matches(text.as_bytes())), "{name}");
        }
    }
}
