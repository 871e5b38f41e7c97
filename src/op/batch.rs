//! Rows made from a block of lines: what the encode threads hand to the main thread.

use crate::error::{Error, Fault, Place};
use crate::fhir::definitions::Definitions;
use crate::fhir::ndjson::{Block, Line};
use crate::fhir::{Format, envelope};
use crate::jsonb::toast::{Compressor, Rule};
use crate::jsonb::{Document, encode, parse};
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
}

/// Rows in the order of their lines.
#[derive(Debug)]
pub struct Batch {
    pub source: String,
    /// Resource types that occur.
    pub types: Vec<String>,
    pub rows: Vec<Row>,
    ids: String,
    resources: Vec<u8>,
    /// By index into `types`.
    compression: Vec<Option<Rule>>,
}

impl Batch {
    pub fn id(&self, row: &Row) -> &str {
        &self.ids[row.id.0..row.id.1]
    }

    /// A whole jsonb varlena, perhaps compressed. It starts at a multiple of 8 from the start of the buffer.
    pub fn resource(&self, row: &Row) -> &[u8] {
        &self.resources[row.resource.0..row.resource.1]
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

/// Turns a block's lines into rows.
pub fn encode_block(recipe: &Recipe, block: &Block, workspace: &mut Workspace) -> Result<Batch, Error> {
    let mut batch = Batch {
        source: recipe.source.clone(),
        types: Vec::new(),
        rows: Vec::new(),
        ids: String::new(),
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
    Ok(batch)
}

fn encode_line(recipe: &Recipe, line: Line, workspace: &mut Workspace, batch: &mut Batch) -> Result<(), (Fault, usize)> {
    let Workspace { document, compressor } = workspace;
    if line.bytes.len() > recipe.max_line {
        return Err((Fault::LineTooLong { limit: recipe.max_line }, recipe.max_line));
    }
    let text = std::str::from_utf8(line.bytes).map_err(|error| (Fault::Encoding, error.valid_up_to()))?;
    let root = parse::parse(document, text, recipe.max_depth).map_err(|error| (error.fault, error.byte))?;
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
    let id = batch.ids.len();
    batch.ids.push_str(document.str(identity.id));
    let name = &batch.types[resource_type];
    let stored = envelope::to_stored(recipe.definitions, document, root, name, recipe.from, recipe.stored, &recipe.created_at_url);
    batch.resources.resize(batch.resources.len().next_multiple_of(8), 0);
    let start = batch.resources.len();
    encode::encode(document, stored, &mut batch.resources).map_err(whole)?;
    if let Some(rule) = &batch.compression[resource_type] {
        rule.apply(compressor, batch.ids.len() - id, &mut batch.resources, start);
    }
    batch.rows.push(Row { resource_type, id: (id, batch.ids.len()), resource: (start, batch.resources.len()), line: line.number });
    Ok(())
}
