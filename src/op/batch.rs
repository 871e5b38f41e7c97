//! Rows made from a block of lines: what the encode threads hand to the main thread.

use super::seen;
use crate::error::{Error, Fault, Place};
use crate::fhir::change::Changes;
use crate::fhir::definitions::Definitions;
use crate::fhir::ndjson::{Block, Line};
use crate::fhir::{Format, envelope};
use crate::jsonb::toast::{Compressor, Rule};
use crate::jsonb::{Document, encode, parse, varlena};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Text that a reused document may keep from one line to the next.
const KEEP: usize = 1 << 20;

/// How resources of each type are compressed, as far as their tables are known.
#[derive(Debug, Clone, Default)]
pub struct Rules(Arc<RwLock<HashMap<String, Rule>>>);

impl Rules {
    pub fn set(&self, resource_type: &str, rule: Rule) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(resource_type.to_owned(), rule);
    }

    fn get(&self, resource_type: &str) -> Option<Rule> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(resource_type).cloned()
    }
}

/// Memory that encoding reuses from line to line.
#[derive(Debug, Default)]
pub struct Workspace {
    document: Document,
    compressor: Compressor,
}

/// How lines become rows.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Name of the source, for errors.
    pub source: String,
    pub definitions: &'static Definitions,
    /// The type of every line; None when each says its own.
    pub resource_type: Option<String>,
    pub from: Format,
    /// What the tables hold.
    pub stored: Format,
    pub created_at_url: String,
    /// Before anything else is done with a line.
    pub changes: Changes,
    pub compression: Rules,
    /// In bytes.
    pub max_line: usize,
    /// In containers inside one another.
    pub max_depth: usize,
}

/// One row: indices into its batch.
#[derive(Debug, Clone)]
pub struct Row {
    /// Index into `Batch::types`.
    pub resource_type: usize,
    id: (usize, usize),
    resource: (usize, usize),
    pub line: u64,
    /// `seen::hash` of the id.
    pub hash: u64,
    /// Place among the batch's rows in the order of their types and ids: an index is written fastest in its own order.
    pub rank: u32,
    pub occurrence: Occurrence,
}

/// How often an id stands in a batch, among the lines of its type. A statement cannot touch a row twice, so only the last is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurrence {
    Only,
    /// The last of several: an update of what an earlier line would have made.
    Last,
    /// A later line replaces it.
    Replaced,
}

/// Rows in the order of their lines.
#[derive(Debug)]
pub struct Batch {
    pub source: String,
    /// Resource types that occur.
    pub types: Vec<String>,
    pub rows: Vec<Row>,
    /// Bytes of the lines that the rows came from.
    pub size: u64,
    ids: Vec<u8>,
    resources: Vec<u8>,
    /// By index into `types`.
    compression: Vec<Option<Rule>>,
}

impl Batch {
    pub fn id(&self, row: &Row) -> &str {
        // It came from a line that is UTF-8.
        std::str::from_utf8(self.id_bytes(row)).unwrap_or_default()
    }

    fn id_bytes(&self, row: &Row) -> &[u8] {
        &self.ids[row.id.0 + 4..row.id.1]
    }

    /// The id as a whole varlena of type text, which starts at a multiple of 4 from the start of the buffer.
    pub fn id_varlena(&self, row: &Row) -> &[u8] {
        &self.ids[row.id.0..row.id.1]
    }

    /// A whole jsonb varlena, perhaps compressed. It starts at a multiple of 8 from the start of the buffer.
    pub fn resource(&self, row: &Row) -> &[u8] {
        &self.resources[row.resource.0..row.resource.1]
    }

    /// A batch of some of the rows alone, without the others' memory.
    pub fn pick(&self, rows: &[&Row]) -> Result<Batch, Error> {
        let mut picked = Batch {
            source: self.source.clone(),
            types: self.types.clone(),
            rows: Vec::with_capacity(rows.len()),
            size: 0,
            ids: Vec::new(),
            resources: Vec::new(),
            compression: Vec::new(),
        };
        for row in rows {
            let (id, resource) = (self.id_varlena(row), self.resource(row));
            let copied = (append(&mut picked.ids, id)?, append(&mut picked.resources, resource)?);
            picked.rows.push(Row { id: copied.0, resource: copied.1, ..(*row).clone() });
        }
        Ok(picked)
    }

    /// Bytes of the rows' values.
    pub fn memory(&self) -> usize {
        self.ids.len() + self.resources.len()
    }

    /// The lines that the batch came from, for the context of errors.
    pub fn extent(&self) -> String {
        let line = |row: Option<&Row>| row.map_or(0, |row| row.line);
        format!("bulk.load of \"{}\", lines {} to {}", self.source, line(self.rows.first()), line(self.rows.last()))
    }

    /// Where a row came from.
    pub fn place(&self, row: &Row) -> Place {
        Place { source: self.source.clone(), line: row.line, byte: 1 }
    }

    /// Ranks the rows and finds the ids that stand more than once.
    fn rank(&mut self) {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let key = |index: usize| (self.rows[index].resource_type, self.id_bytes(&self.rows[index]));
        // Stable: equal ids keep the order of their lines.
        order.sort_by(|&a, &b| key(a).cmp(&key(b)));
        let same: Vec<bool> = order.windows(2).map(|pair| key(pair[0]) == key(pair[1])).collect();
        for (rank, &index) in order.iter().enumerate() {
            let row = &mut self.rows[index];
            row.rank = rank as u32;
            row.occurrence = match (rank > 0 && same[rank - 1], same.get(rank) == Some(&true)) {
                (_, true) => Occurrence::Replaced,
                (true, false) => Occurrence::Last,
                (false, false) => Occurrence::Only,
            };
        }
    }

    fn resource_type(&mut self, name: &str, compression: &Rules) -> usize {
        match self.types.iter().position(|known| known == name) {
            Some(index) => index,
            None => {
                self.types.push(name.to_owned());
                self.compression.push(compression.get(name));
                self.types.len() - 1
            }
        }
    }
}

/// Adds a value at the next place that suits any varlena.
fn append(values: &mut Vec<u8>, value: &[u8]) -> Result<(usize, usize), Error> {
    values.try_reserve(value.len() + 8).map_err(|_| Error::Memory)?;
    values.resize(values.len().next_multiple_of(8), 0);
    let start = values.len();
    values.extend_from_slice(value);
    Ok((start, values.len()))
}

/// Turns a block's lines into rows.
pub fn encode_block(recipe: &Recipe, block: &Block, workspace: &mut Workspace) -> Result<Batch, Error> {
    let mut batch = Batch {
        source: recipe.source.clone(),
        types: Vec::new(),
        rows: Vec::new(),
        size: block.bytes.len() as u64,
        ids: Vec::new(),
        resources: Vec::new(),
        compression: Vec::new(),
    };
    if batch.resources.try_reserve(block.bytes.len() + block.bytes.len() / 8).is_err() {
        return Err(Error::Memory);
    }
    for line in block.lines() {
        let made = encode_line(recipe, line, workspace, &mut batch);
        workspace.document.shrink(KEEP);
        made.map_err(|(fault, byte)| Error::Line {
            place: Place { source: recipe.source.clone(), line: line.number, byte: byte as u64 + 1 },
            fault,
        })?;
    }
    batch.rank();
    Ok(batch)
}

fn encode_line(recipe: &Recipe, line: Line, workspace: &mut Workspace, batch: &mut Batch) -> Result<(), (Fault, usize)> {
    let Workspace { document, compressor } = workspace;
    if line.bytes.len() > recipe.max_line {
        return Err((Fault::LineTooLong { limit: recipe.max_line }, recipe.max_line));
    }
    let text = std::str::from_utf8(line.bytes).map_err(|error| (Fault::Encoding, error.valid_up_to()))?;
    let root = parse::parse(document, text, recipe.max_depth).map_err(|error| (error.fault, error.byte))?;
    let root = recipe.changes.apply(document, root);
    let whole = |fault| (fault, 0);
    let identity = envelope::identify(document, root).map_err(whole)?;
    let resource_type = match (&recipe.resource_type, identity.resource_type) {
        (Some(expected), Some(found)) if document.str(found) != expected => {
            let found = document.str(found).chars().take(100).collect();
            return Err(whole(Fault::WrongType { expected: expected.clone(), found }));
        }
        (Some(expected), _) => batch.resource_type(expected, &recipe.compression),
        (None, Some(found)) => batch.resource_type(document.str(found), &recipe.compression),
        (None, None) => return Err(whole(Fault::NoType)),
    };
    let text = document.bytes(identity.id);
    let hash = seen::hash(text);
    batch.ids.try_reserve(text.len() + 8).map_err(|_| whole(Fault::TooLarge))?;
    batch.ids.resize(batch.ids.len().next_multiple_of(4), 0);
    let id = (batch.ids.len(), batch.ids.len() + 4 + text.len());
    batch.ids.extend_from_slice(&varlena::header_of(text.len() as u32 + 4));
    batch.ids.extend_from_slice(text);
    let name = &batch.types[resource_type];
    let stored = envelope::to_stored(recipe.definitions, document, root, name, recipe.from, recipe.stored, &recipe.created_at_url);
    batch.resources.resize(batch.resources.len().next_multiple_of(8), 0);
    let start = batch.resources.len();
    encode::encode(document, stored, &mut batch.resources).map_err(whole)?;
    if let Some(rule) = &batch.compression[resource_type] {
        rule.apply(compressor, id.1 - id.0 - 4, &mut batch.resources, start);
    }
    batch.rows.push(Row {
        resource_type,
        id,
        resource: (start, batch.resources.len()),
        line: line.number,
        hash,
        rank: 0,
        occurrence: Occurrence::Only,
    });
    Ok(())
}
