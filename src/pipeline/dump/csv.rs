//! A type as CSV: a column for every path to a value that any of its resources has, found by one pass over the rows, filled by a second.

use crate::error::{Error, Fault};
use crate::fhir::resource_meta;
use crate::jsonb::document::{Document, Str, Value};
use crate::pipeline::dump::render::{RenderConfig, Writer, utf8};
use crate::pipeline::dump::stored_rows::{RowBlock, StoredRow};
use crate::pipeline::dump::text_format::Delimited;
use crate::pipeline::output_block::{OutputBlock, OutputEncoding};
use crate::pipeline::parallel_map::BlockTransform;
use rustc_hash::FxHashMap;
use std::cmp::Ordering;

/// Bytes that a type's paths may take in memory, and their names.
const MOST_BYTES: usize = 32 << 20;
/// What a step takes beside its text, about.
const STEP: usize = 100;

/// Finds the paths of blocks of rows.
#[derive(Debug, Clone)]
pub struct PathFinder(pub RenderConfig);

/// Paths as a tree: each step a key, or a place in an array.
#[derive(Debug)]
pub struct Paths {
    /// The root stands first.
    nodes: Vec<Node>,
    bytes: usize,
    /// Whether some were left out for want of room.
    too_many: bool,
}

#[derive(Debug, Default)]
struct Node {
    children: FxHashMap<Box<[u8]>, u32>,
    /// Whether a value stands here.
    leaf: bool,
    /// Its column, once they are numbered.
    column: Option<u32>,
}

/// A value of a row.
#[derive(Debug, Clone, Copy)]
enum Cell<'a> {
    Stored(Str),
    Text(&'a str),
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { nodes: vec![Node::default()], bytes: 0, too_many: false }
    }
}

impl Paths {
    /// What every row has.
    pub fn of_no_rows() -> Paths {
        let mut paths = Paths::default();
        for name in ["id", "resourceType"] {
            if let Some(node) = paths.child(0, name.as_bytes()) {
                paths.nodes[node as usize].leaf = true;
            }
        }
        paths
    }

    /// The node one step further; None when there is no room for another.
    fn child(&mut self, parent: u32, step: &[u8]) -> Option<u32> {
        if let Some(&child) = self.nodes[parent as usize].children.get(step) {
            return Some(child);
        }
        self.too_many |= self.bytes + STEP + step.len() > MOST_BYTES;
        if self.too_many {
            return None;
        }
        self.bytes += STEP + step.len();
        let child = self.nodes.len() as u32;
        self.nodes.push(Node::default());
        self.nodes[parent as usize].children.insert(step.into(), child);
        Some(child)
    }

    /// Adds the paths of a value. What is null is not there.
    fn collect_paths(&mut self, node: u32, document: &Document, value: Value) {
        match value {
            Value::Null => {}
            Value::Array(span) if span.len > 0 => {
                for (place, &element) in document.elements(span).iter().enumerate().filter(|(_, element)| **element != Value::Null) {
                    let Some(child) = self.child(node, place.to_string().as_bytes()) else { return };
                    self.collect_paths(child, document, element);
                }
            }
            Value::Object(span) if span.len > 0 => {
                for member in document.members(span).iter().filter(|member| member.value != Value::Null) {
                    let Some(child) = self.child(node, document.bytes(member.key)) else { return };
                    self.collect_paths(child, document, member.value);
                }
            }
            _ => self.nodes[node as usize].leaf = true,
        }
    }

    /// Adds the paths of others.
    ///
    /// # Errors
    /// `TooManyPaths`, `Memory`.
    pub fn merge(&mut self, others: &Paths) -> Result<(), Error> {
        self.merge_node(0, others, 0);
        self.check()
    }

    fn merge_node(&mut self, node: u32, others: &Paths, other: u32) {
        let theirs = &others.nodes[other as usize];
        self.nodes[node as usize].leaf |= theirs.leaf;
        for (step, &other) in &theirs.children {
            let Some(child) = self.child(node, step) else { return };
            self.merge_node(child, others, other);
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.too_many { Err(Error::TooManyPaths(MOST_BYTES >> 20)) } else { Ok(()) }
    }

    /// Numbers the columns in the order of their paths and names them.
    fn number(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        let mut names = Names::default();
        self.number_node(0, &mut names);
        self.too_many |= names.bytes > MOST_BYTES;
        self.check().map(|()| names.all)
    }

    fn number_node(&mut self, node: u32, names: &mut Names) {
        let this = &mut self.nodes[node as usize];
        if this.leaf {
            this.column = names.push();
        }
        let mut children: Vec<(Box<[u8]>, u32)> = this.children.iter().map(|(step, &child)| (step.clone(), child)).collect();
        children.sort_unstable_by(|(a, _), (b, _)| compare(a, b));
        let length = names.path.len();
        for (step, child) in children {
            if node != 0 {
                names.path.push(b'.');
            }
            for &byte in &step {
                // A dot inside a key is no step.
                if matches!(byte, b'.' | b'\\') {
                    names.path.push(b'\\');
                }
                names.path.push(byte);
            }
            self.number_node(child, names);
            names.path.truncate(length);
        }
    }

    /// Where a value of a row belongs.
    fn fill_cells(&self, node: u32, document: &Document, value: Value, cells: &mut Vec<(u32, Cell)>) -> Result<(), Fault> {
        let this = &self.nodes[node as usize];
        let mut put = |cell| this.column.map(|column| cells.push((column, cell))).ok_or(Fault::Changed);
        match value {
            Value::Null => Ok(()),
            Value::Bool(true) => put(Cell::Text("true")),
            Value::Bool(false) => put(Cell::Text("false")),
            Value::Number(text) | Value::String(text) => put(Cell::Stored(text)),
            Value::Array(span) if span.len == 0 => put(Cell::Text("[]")),
            Value::Object(span) if span.len == 0 => put(Cell::Text("{}")),
            Value::Array(span) => {
                for (place, &element) in document.elements(span).iter().enumerate().filter(|(_, element)| **element != Value::Null) {
                    let child = this.children.get(place.to_string().as_bytes()).ok_or(Fault::Changed)?;
                    self.fill_cells(*child, document, element, cells)?;
                }
                Ok(())
            }
            Value::Object(span) => {
                for member in document.members(span).iter().filter(|member| member.value != Value::Null) {
                    let child = this.children.get(document.bytes(member.key)).ok_or(Fault::Changed)?;
                    self.fill_cells(*child, document, member.value, cells)?;
                }
                Ok(())
            }
        }
    }

    fn column(&self, name: &str) -> Option<u32> {
        self.nodes[0].children.get(name.as_bytes()).and_then(|&node| self.nodes[node as usize].column)
    }
}

/// The columns' names as they are found.
#[derive(Default)]
struct Names {
    path: Vec<u8>,
    all: Vec<Vec<u8>>,
    bytes: usize,
}

impl Names {
    /// Names the next column by the path. Names that have no room are counted, not kept.
    fn push(&mut self) -> Option<u32> {
        self.bytes += STEP + self.path.len();
        (self.bytes <= MOST_BYTES).then(|| {
            self.all.push(self.path.clone());
            self.all.len() as u32 - 1
        })
    }
}

/// The order of steps: places in arrays by number, then keys by their bytes.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let is_place = |step: &[u8]| !step.is_empty() && step.iter().all(u8::is_ascii_digit);
    match (is_place(a), is_place(b)) {
        (true, true) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

/// Reads what is stored of a row: without id, type and the server's part of meta. With it the row's id and type.
fn read<'a>(writer: &mut Writer, config: &'a RenderConfig, row: &StoredRow<'a>) -> Result<(Value, &'a str, &'a str), Fault> {
    let (root, resource_type) = writer.read(config, row)?;
    if !matches!(root, Value::Object(_)) {
        return Err(Fault::NotAnObject);
    }
    let root = resource_meta::strip(writer.document(), root, &config.created_at_url);
    if writer.document().is_full() {
        return Err(Fault::TooLarge);
    }
    Ok((root, utf8(row.id)?, resource_type))
}

impl BlockTransform<RowBlock> for PathFinder {
    type Made = Paths;
    type Tools = Writer;

    fn transform(&self, block: &RowBlock, writer: &mut Writer) -> Result<Paths, Error> {
        let mut paths = Paths::default();
        for row in block.iter() {
            let (root, ..) = read(writer, &self.0, &row).map_err(|fault| row.error(&self.0.table, fault))?;
            paths.collect_paths(0, writer.document(), root);
            writer.shrink();
            paths.check()?;
        }
        // A resource without members of its own is no value.
        paths.nodes[0].leaf = false;
        paths.check().map(|()| paths)
    }
}

/// Fills the columns with blocks of rows.
#[derive(Debug)]
pub struct Filler {
    config: RenderConfig,
    paths: Paths,
    names: Vec<Vec<u8>>,
    csv: Delimited,
    form: OutputEncoding,
}

impl Filler {
    /// `paths` are those of all rows.
    ///
    /// # Errors
    /// `Memory`.
    pub fn new(config: RenderConfig, mut paths: Paths, form: OutputEncoding) -> Result<Filler, Error> {
        let names = paths.number()?;
        Ok(Filler { config, paths, names, csv: Delimited::csv(b',', ""), form })
    }

    /// The line of the columns' names.
    ///
    /// # Errors
    /// `Memory`, `RowTooLarge`.
    pub fn header(&self) -> Result<OutputBlock, Error> {
        let mut piece = OutputBlock::default();
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

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.names.len()
    }

    fn line(&self, row: &StoredRow, writer: &mut Writer, out: &mut Vec<u8>) -> Result<(), Fault> {
        let (root, id, resource_type) = read(writer, &self.config, row)?;
        let document = &*writer.document();
        let mut cells = Vec::new();
        for (name, text) in [("id", id), ("resourceType", resource_type)] {
            cells.push((self.paths.column(name).ok_or(Fault::Changed)?, Cell::Text(text)));
        }
        if !matches!(root, Value::Object(span) if span.len == 0) {
            self.paths.fill_cells(0, document, root, &mut cells)?;
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

impl BlockTransform<RowBlock> for Filler {
    type Made = OutputBlock;
    type Tools = Writer;

    fn transform(&self, block: &RowBlock, writer: &mut Writer) -> Result<OutputBlock, Error> {
        let mut piece = OutputBlock::default();
        piece.reserve(block.size() + block.len() * self.columns())?;
        for row in block.iter() {
            let wrong = |fault| row.error(&self.config.table, fault);
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
            paths.collect_paths(0, &document, root);
            all.merge(&paths).unwrap();
        }
        let names: Vec<String> = all.number().unwrap().into_iter().map(|name| String::from_utf8(name).unwrap()).collect();
        let places = (0..=10).map(|place| format!("a.{place}"));
        let expected: Vec<String> = places.chain(["b", "b.c", "e", "f", "name.0.given.0"].map(str::to_owned)).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn steps_have_one_order_whatever_they_are() {
        let steps: Vec<Vec<u8>> = (0..40)
            .flat_map(|n| [format!("{n}"), format!("{n}a"), format!("0{n}"), String::new(), format!("a{n}")])
            .map(String::into_bytes)
            .collect();
        for (a, b, c) in
            steps.iter().flat_map(|a| steps.iter().map(move |b| (a, b))).zip(steps.iter().cycle().skip(7)).map(|((a, b), c)| (a, b, c))
        {
            assert_eq!(compare(a, b), compare(b, a).reverse());
            assert!(!(compare(a, b).is_le() && compare(b, c).is_le()) || compare(a, c).is_le());
        }
    }

    #[test]
    fn paths_without_end_are_refused_before_they_take_memory() {
        let deep = format!(
            "{}{}{}",
            format!(r#"{{"{}":"#, "k".repeat(90)).repeat(900),
            (0..60_000).map(|n| format!(r#""{n}":1"#)).collect::<Vec<_>>().join(",").replacen('"', r#"{""#, 1),
            "}".repeat(901)
        );
        for text in [format!("[{}1]", "1,".repeat(600_000)), format!(r#"{{"{}":1}}"#, "k".repeat(40 << 20)), deep] {
            let mut document = Document::new();
            let root = parse::parse(&mut document, &text, 2000).unwrap();
            let mut paths = Paths::default();
            paths.collect_paths(0, &document, root);
            assert!(matches!(paths.check().and_then(|()| paths.number().map(drop)), Err(Error::TooManyPaths(_))));
            assert!(paths.bytes <= MOST_BYTES);
        }
        let mut document = Document::new();
        let root = parse::parse(&mut document, &format!("[{}1]", "null,".repeat(3_000_000)), 10).unwrap();
        let mut paths = Paths::default();
        paths.collect_paths(0, &document, root);
        assert_eq!(paths.number().unwrap(), [b"3000000"]);
    }
}
