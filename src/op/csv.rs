//! A type as CSV: a column for every path to a value that any of its resources has, found by one pass over the rows, filled by a second.

use super::field::Delimited;
use super::line::{Recipe, Writer, utf8};
use super::piece::{Form, Piece};
use super::pipe::Make;
use super::rows::{RowBlock, StoredRow};
use crate::error::{Error, Fault};
use crate::fhir::envelope;
use crate::jsonb::{Document, Str, Value};
use rustc_hash::FxHashMap;
use std::cmp::Ordering;

/// Steps of paths that a table may come to: they are held in memory, about 100 bytes each.
const MOST_STEPS: usize = 250_000;

/// Finds the paths of blocks of rows.
#[derive(Debug, Clone)]
pub struct PathFinder(pub Recipe);

/// Paths as a tree: each step a key, or a place in an array.
#[derive(Debug)]
pub struct Paths {
    /// The root stands first.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: FxHashMap<Box<[u8]>, u32>,
    /// Whether a value stands here.
    leaf: bool,
    /// Its column, once they are numbered.
    column: u32,
}

/// A value of a row.
#[derive(Debug, Clone, Copy)]
enum Cell<'a> {
    Stored(Str),
    Text(&'a str),
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { nodes: vec![Node::default()] }
    }
}

impl Paths {
    /// What every row has.
    pub fn of_no_rows() -> Paths {
        let mut paths = Paths::default();
        for name in ["id", "resourceType"] {
            let node = paths.child(0, name.as_bytes());
            paths.nodes[node as usize].leaf = true;
        }
        paths
    }

    fn child(&mut self, parent: u32, step: &[u8]) -> u32 {
        if let Some(&child) = self.nodes[parent as usize].children.get(step) {
            return child;
        }
        let child = self.nodes.len() as u32;
        self.nodes.push(Node::default());
        self.nodes[parent as usize].children.insert(step.into(), child);
        child
    }

    fn note(&mut self, node: u32, document: &Document, value: Value) {
        match value {
            Value::Null => {}
            // Too many already: `merge` says so.
            _ if self.nodes.len() > MOST_STEPS => {}
            Value::Array(span) if span.len > 0 => {
                for (place, &element) in document.elements(span).iter().enumerate() {
                    let child = self.child(node, place.to_string().as_bytes());
                    self.note(child, document, element);
                }
            }
            Value::Object(span) if span.len > 0 => {
                for member in document.members(span) {
                    let child = self.child(node, document.bytes(member.key));
                    self.note(child, document, member.value);
                }
            }
            _ => self.nodes[node as usize].leaf = true,
        }
    }

    /// Adds the paths of others. An error when there are too many.
    pub fn merge(&mut self, others: &Paths) -> Result<(), Error> {
        self.merge_node(0, others, 0);
        if self.nodes.len() > MOST_STEPS { Err(Error::TooManyPaths(MOST_STEPS)) } else { Ok(()) }
    }

    fn merge_node(&mut self, node: u32, others: &Paths, other: u32) {
        let theirs = &others.nodes[other as usize];
        self.nodes[node as usize].leaf |= theirs.leaf;
        for (step, &other) in &theirs.children {
            let child = self.child(node, step);
            self.merge_node(child, others, other);
        }
    }

    /// Numbers the columns in the order of their paths and names them.
    fn number(&mut self) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        self.number_node(0, &mut Vec::new(), &mut names);
        names
    }

    fn number_node(&mut self, node: u32, path: &mut Vec<u8>, names: &mut Vec<Vec<u8>>) {
        let this = &mut self.nodes[node as usize];
        if this.leaf {
            this.column = names.len() as u32;
            names.push(path.clone());
        }
        let mut children: Vec<(Box<[u8]>, u32)> = this.children.iter().map(|(step, &child)| (step.clone(), child)).collect();
        children.sort_unstable_by(|(a, _), (b, _)| compare(a, b));
        let length = path.len();
        for (step, child) in children {
            if length > 0 {
                path.push(b'.');
            }
            path.extend_from_slice(&step);
            self.number_node(child, path, names);
            path.truncate(length);
        }
    }

    /// Where a value of a row belongs.
    fn collect(&self, node: u32, document: &Document, value: Value, cells: &mut Vec<(u32, Cell)>) {
        let this = &self.nodes[node as usize];
        let mut put = |cell| cells.push((this.column, cell));
        match value {
            Value::Null => {}
            Value::Bool(true) => put(Cell::Text("true")),
            Value::Bool(false) => put(Cell::Text("false")),
            Value::Number(text) | Value::String(text) => put(Cell::Stored(text)),
            Value::Array(span) if span.len == 0 => put(Cell::Text("[]")),
            Value::Object(span) if span.len == 0 => put(Cell::Text("{}")),
            Value::Array(span) => {
                for (place, &element) in document.elements(span).iter().enumerate() {
                    if let Some(&child) = this.children.get(place.to_string().as_bytes()) {
                        self.collect(child, document, element, cells);
                    }
                }
            }
            Value::Object(span) => {
                for member in document.members(span) {
                    if let Some(&child) = this.children.get(document.bytes(member.key)) {
                        self.collect(child, document, member.value, cells);
                    }
                }
            }
        }
    }

    fn column(&self, name: &str) -> u32 {
        self.nodes[0].children.get(name.as_bytes()).map_or(0, |&node| self.nodes[node as usize].column)
    }
}

/// The order of steps: places in arrays by number, keys by their bytes.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let is_place = |step: &[u8]| step.iter().all(u8::is_ascii_digit);
    if is_place(a) && is_place(b) { a.len().cmp(&b.len()).then_with(|| a.cmp(b)) } else { a.cmp(b) }
}

/// Reads what is stored of a row: without id, type and the server's part of meta. With it the row's id and type.
fn read<'a>(writer: &mut Writer, recipe: &'a Recipe, row: &StoredRow<'a>) -> Result<(Value, &'a str, &'a str), Fault> {
    let (root, resource_type) = writer.read(recipe, row)?;
    if !matches!(root, Value::Object(_)) {
        return Err(Fault::NotAnObject);
    }
    let root = envelope::strip(writer.document(), root, &recipe.created_at_url);
    if writer.document().is_full() {
        return Err(Fault::TooLarge);
    }
    Ok((root, utf8(row.id)?, resource_type))
}

impl Make<RowBlock> for PathFinder {
    type Made = Paths;
    type Tools = Writer;

    fn make(&self, block: &RowBlock, writer: &mut Writer) -> Result<Paths, Error> {
        let mut paths = Paths::default();
        for row in block.iter() {
            let (root, ..) = read(writer, &self.0, &row).map_err(|fault| row.error(&self.0.table, fault))?;
            paths.note(0, writer.document(), root);
            writer.shrink();
        }
        // A resource without members of its own is no value.
        paths.nodes[0].leaf = false;
        Ok(paths)
    }
}

/// Fills the columns with blocks of rows.
#[derive(Debug)]
pub struct Filler {
    recipe: Recipe,
    paths: Paths,
    names: Vec<Vec<u8>>,
    csv: Delimited,
    form: Form,
}

impl Filler {
    /// `paths` are those of all rows.
    pub fn new(recipe: Recipe, mut paths: Paths, form: Form) -> Filler {
        let names = paths.number();
        Filler { recipe, paths, names, csv: Delimited::csv(b',', ""), form }
    }

    /// The line of the columns' names.
    pub fn header(&self) -> Result<Piece, Error> {
        let mut piece = Piece::default();
        piece.reserve(self.names.iter().map(|name| 2 * name.len() + 3).sum())?;
        piece.begin(self.form);
        for (index, name) in self.names.iter().enumerate() {
            if index > 0 {
                self.csv.separate(&mut piece.bytes);
            }
            self.csv.value(name, false, &mut piece.bytes);
        }
        if !piece.end(self.form) {
            return Err(Error::RowTooLarge);
        }
        piece.finish(self.form)
    }

    pub fn columns(&self) -> usize {
        self.names.len()
    }

    fn line(&self, row: &StoredRow, writer: &mut Writer, out: &mut Vec<u8>) -> Result<(), Fault> {
        let (root, id, resource_type) = read(writer, &self.recipe, row)?;
        let document = &*writer.document();
        let mut cells = vec![(self.paths.column("id"), Cell::Text(id)), (self.paths.column("resourceType"), Cell::Text(resource_type))];
        if !matches!(root, Value::Object(span) if span.len == 0) {
            self.paths.collect(0, document, root, &mut cells);
        }
        cells.sort_unstable_by_key(|&(column, _)| column);
        let bytes = |cell| match cell {
            Cell::Stored(text) => document.bytes(text),
            Cell::Text(text) => text.as_bytes(),
        };
        // At worst every byte is a quote.
        let size: usize = cells.iter().map(|&(_, cell)| 2 * bytes(cell).len() + 2).sum();
        out.try_reserve(size + self.names.len()).map_err(|_| Fault::TooLarge)?;
        let mut written = 0;
        for (column, cell) in cells {
            for _ in written..column {
                self.csv.separate(out);
            }
            written = column;
            self.csv.value(bytes(cell), false, out);
        }
        for _ in written as usize + 1..self.names.len() {
            self.csv.separate(out);
        }
        writer.shrink();
        Ok(())
    }
}

impl Make<RowBlock> for Filler {
    type Made = Piece;
    type Tools = Writer;

    fn make(&self, block: &RowBlock, writer: &mut Writer) -> Result<Piece, Error> {
        let mut piece = Piece::default();
        piece.reserve(block.size() + block.len() * self.columns())?;
        for row in block.iter() {
            let wrong = |fault| row.error(&self.recipe.table, fault);
            piece.begin(self.form);
            self.line(&row, writer, &mut piece.bytes).map_err(wrong)?;
            if !piece.end(self.form) {
                return Err(wrong(Fault::TooLarge));
            }
        }
        piece.finish(self.form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonb::parse;

    #[test]
    fn columns_are_the_union_of_paths_in_order() {
        let mut all = Paths::default();
        for text in [r#"{"name":[{"given":["A"]}],"b":{"c":1}}"#, r#"{"b":2,"a":[0,1,2,3,4,5,6,7,8,9,10],"n":null,"e":{},"f":[]}"#] {
            let mut document = Document::new();
            let root = parse::parse(&mut document, text, 100).unwrap();
            let mut paths = Paths::default();
            paths.note(0, &document, root);
            all.merge(&paths).unwrap();
        }
        let names: Vec<String> = all.number().into_iter().map(|name| String::from_utf8(name).unwrap()).collect();
        let places = (0..=10).map(|place| format!("a.{place}"));
        let expected: Vec<String> = places.chain(["b", "b.c", "e", "f", "name.0.given.0"].map(str::to_owned)).collect();
        assert_eq!(names, expected);
    }
}
