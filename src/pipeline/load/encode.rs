//! From a block of lines to a batch of rows: what an encode thread does.

use crate::error::{Error, Fault, Reason, Reject, SourcePlace};
use crate::fhir::definitions::Definitions;
use crate::fhir::format::Format;
use crate::fhir::overlay::Changes;
use crate::fhir::resource_meta::{self, Meta};
use crate::fhir::structure::Structure;
use crate::fhir::validate::{self, Checks, Finding};
use crate::jsonb::document::{Document, Value};
use crate::jsonb::toast::{Compressor, Rule};
use crate::jsonb::{encode, parse, varlena};
use crate::pipeline::load::batch::{Batch, KeptLines, NAME, Occurrence, Row, raw};
use crate::pipeline::load::id_bloom;
use crate::text::ndjson::{Block, Line};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Text that a reused document may keep from one line to the next.
const KEEP: usize = 1 << 20;

/// How resources of each type are compressed, as far as their tables are known.
#[derive(Debug, Clone, Default)]
pub struct Rules(Arc<RwLock<HashMap<String, Rule>>>);

impl Rules {
    /// How resources of a type are compressed from now on.
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
    /// The line's resource, once it is read.
    root: Option<Value>,
}

/// What of the server's part of meta is taken from the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TakeMeta {
    #[default]
    Nothing,
    /// `lastUpdated`, which every line must have.
    LastUpdated,
    /// What is there of `lastUpdated`, `versionId` and the time of creation.
    All {
        /// `lastUpdated` must be.
        dated: bool,
    },
}

/// How lines become rows.
#[derive(Debug, Clone)]
pub struct EncodeConfig {
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
    /// What lines are checked by, if they are.
    pub checks: Option<(&'static Structure, Checks)>,
    pub take_meta: TakeMeta,
    /// Of each row this and its offset is the version; None leaves versions to the sequence.
    pub versions: Option<i64>,
    pub compression: Rules,
    /// Rejected lines of a block that are recorded; the load fails before there are more.
    pub reject_limit: usize,
    /// Whether a batch keeps its lines, for rows that PostgreSQL may reject.
    pub keep_lines: bool,
    /// In bytes.
    pub max_line: usize,
    /// In containers inside one another.
    pub max_depth: usize,
}

/// Turns a block's lines into rows, and those that cannot be into rejects.
///
/// # Errors
/// `Memory`.
pub fn encode_block(config: &EncodeConfig, block: &Block, workspace: &mut Workspace) -> Result<Batch, Error> {
    // All bytes but those that go on with a character.
    let characters = block.bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count() as u64;
    let mut batch = Batch { size: block.bytes.len() as u64, characters, ..Batch::new(&config.source) };
    if batch.resources.try_reserve(block.bytes.len() + block.bytes.len() / 8).is_err() {
        return Err(Error::Memory);
    }
    for line in block.lines() {
        workspace.root = None;
        let made = match block.overlong {
            true => Err((Fault::LineTooLong { limit: config.max_line }, config.max_line)),
            false => encode_line(config, line, workspace, &mut batch),
        };
        if let Err((fault, byte)) = made {
            let (id, resource_type) = (said(workspace, "id"), said(workspace, "resourceType"));
            batch.rejects.push(Reject {
                place: SourcePlace { source: config.source.clone(), line: line.number, byte: byte as u64 + 1 },
                offset: line.offset,
                resource_type: resource_type.or_else(|| config.resource_type.clone()),
                id,
                reason: Reason::Fault(fault),
                raw: raw(line.bytes),
            });
        }
        workspace.document.shrink(KEEP);
        if batch.rejects.len() == config.reject_limit {
            break;
        }
    }
    if config.keep_lines {
        let mut lines = Vec::new();
        lines.try_reserve_exact(block.bytes.len()).map_err(|_| Error::Memory)?;
        lines.extend_from_slice(&block.bytes);
        batch.lines.push(KeptLines { offset: block.offset, bytes: Arc::new(lines) });
    }
    batch.rank_in_lock_order();
    Ok(batch)
}

/// What a line says, if it could be read, under one of its keys.
fn said(workspace: &Workspace, key: &str) -> Option<String> {
    let Some(Value::Object(span)) = workspace.root else { return None };
    match workspace.document.get(span, key) {
        Some(Value::String(text)) => Some(workspace.document.str(text).chars().take(NAME).collect()),
        _ => None,
    }
}

/// The index of a line's type in its batch: of the one that all lines have, or that it says itself.
fn type_of_line(config: &EncodeConfig, found: Option<&str>, batch: &mut Batch) -> Result<usize, Fault> {
    match (config.resource_type.as_deref(), found) {
        (Some(expected), Some(found)) if found != expected => {
            Err(Fault::WrongType { expected: expected.to_owned(), found: found.chars().take(100).collect() })
        }
        (Some(name), _) | (None, Some(name)) => Ok(batch.type_of(name, || config.compression.get(name))),
        (None, None) => Err(Fault::NoType),
    }
}

/// Adds an id as a varlena of type text: where it begins, and ends.
fn append_id(ids: &mut Vec<u8>, text: &[u8]) -> Result<(usize, usize), Fault> {
    ids.try_reserve(text.len() + 8).map_err(|_| Fault::TooLarge)?;
    ids.resize(ids.len().next_multiple_of(4), 0);
    let start = ids.len();
    ids.extend_from_slice(&varlena::header_of(text.len() as u32 + 4));
    ids.extend_from_slice(text);
    Ok((start, ids.len()))
}

fn encode_line(config: &EncodeConfig, line: Line, workspace: &mut Workspace, batch: &mut Batch) -> Result<(), (Fault, usize)> {
    let Workspace { document, compressor, root: known } = workspace;
    if line.bytes.len() > config.max_line {
        return Err((Fault::LineTooLong { limit: config.max_line }, config.max_line));
    }
    let text = std::str::from_utf8(line.bytes).map_err(|error| (Fault::Encoding, error.valid_up_to()))?;
    let root = parse::parse(document, text, config.max_depth).map_err(|error| (error.fault, error.byte))?;
    let root = config.changes.apply(document, root);
    *known = Some(root);
    let whole = |fault| (fault, 0);
    let mut references = Vec::new();
    let identity = resource_meta::identify(document, root).map_err(whole)?;
    let found = identity.resource_type.map(|found| document.str(found));
    let resource_type = type_of_line(config, found, batch).map_err(whole)?;
    if let Some((structure, checks)) = config.checks {
        let name = &batch.types[resource_type];
        let found = validate::check(structure, document, root, name, config.from, checks, 1);
        if let Some(Finding { path, problem }) = found.findings.into_iter().next() {
            return Err(whole(Fault::Invalid { path, problem }));
        }
        references = found.references;
    }
    let meta = match config.take_meta {
        TakeMeta::Nothing => Meta { version: config.versions.map(|first| first + line.offset as i64), ..Meta::default() },
        TakeMeta::LastUpdated => resource_meta::last_updated(document, root).map_err(whole)?,
        TakeMeta::All { dated } => resource_meta::meta(document, root, &config.created_at_url, dated).map_err(whole)?,
    };
    let text = document.bytes(identity.id);
    let (hash, id) = (id_bloom::hash(text), append_id(&mut batch.ids, text).map_err(whole)?);
    let name = &batch.types[resource_type];
    let stored = resource_meta::to_stored(config.definitions, document, root, name, config.from, config.stored, &config.created_at_url);
    batch.resources.resize(batch.resources.len().next_multiple_of(8), 0);
    let start = batch.resources.len();
    encode::encode(document, stored, &mut batch.resources).map_err(whole)?;
    if let Some(rule) = &batch.compression[resource_type] {
        rule.apply(compressor, id.1 - id.0 - 4, &mut batch.resources, start);
    }
    let index = batch.rows.len();
    batch.references.extend(references.into_iter().map(|reference| (index, reference)));
    batch.rows.push(Row {
        resource_type,
        id,
        resource: (start, batch.resources.len()),
        line: line.number,
        offset: line.offset,
        meta,
        hash,
        rank: 0,
        occurrence: Occurrence::Only,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::definitions;
    use std::rc::Rc;

    fn encode(text: &str, first_line: u64, offset: u64) -> Rc<Batch> {
        let config = EncodeConfig {
            source: "s".to_owned(),
            definitions: definitions::r4(),
            resource_type: None,
            from: Format::Fhir,
            stored: Format::Aidbox,
            created_at_url: String::new(),
            changes: Changes::new(None, false, 100).unwrap(),
            checks: None,
            take_meta: TakeMeta::Nothing,
            versions: None,
            compression: Rules::default(),
            reject_limit: 10,
            keep_lines: true,
            max_line: 1000,
            max_depth: 100,
        };
        let bytes = text.as_bytes().to_vec();
        let line_count = text.matches('\n').count();
        let block = Block { bytes, first_line, line_count, offset, overlong: false };
        Rc::new(encode_block(&config, &block, &mut Workspace::default()).unwrap())
    }

    /// What a row is: its line, type, id, resource, occurrence, and the line itself.
    type Described<'a> = (u64, &'a str, &'a str, Vec<u8>, Occurrence, String);

    fn rows(batch: &Batch) -> Vec<Described<'_>> {
        let row = |row: &Row| {
            let raw = batch.reject(row, Reason::Fault(Fault::NoId)).raw;
            (row.line, batch.types[row.resource_type].as_str(), batch.id(row), batch.resource(row).to_vec(), row.occurrence, raw)
        };
        batch.rows.iter().map(row).collect()
    }

    #[test]
    fn batches_that_are_merged_are_as_one_of_all_lines() {
        let line = |kind: &str, id: &str, more: &str| format!("{{\"resourceType\":\"{kind}\",\"id\":\"{id}\",\"language\":\"{more}\"}}\n");
        let first =
            [line("Patient", "b", "x"), "nothing\n".to_owned(), line("Group", "a", &"y".repeat(100)), line("Patient", "a", "z")].concat();
        let second = [line("Observation", "b", "u"), line("Patient", "b", "v"), line("Patient", "c", "w")].concat();
        let whole = encode(&format!("{first}{second}"), 1, 0);
        let parts = [encode(&first, 1, 0), encode(&second, 5, first.len() as u64)];
        let merged = Batch::merge(&parts).unwrap();
        assert_eq!(rows(&merged), rows(&whole));
        assert_eq!(merged.rows.iter().map(|row| row.rank).collect::<Vec<_>>(), whole.rows.iter().map(|row| row.rank).collect::<Vec<_>>());
        assert_eq!((merged.size, merged.characters, &merged.types), (whole.size, whole.characters, &whole.types));
        assert_eq!(rows(&whole)[0].4, Occurrence::Replaced);
        assert!(rows(&merged).iter().all(|row| row.5.contains(&format!("\"id\":\"{}\"", row.2))));
        assert!(merged.rows.iter().all(|row| row.id.0 % 4 == 0 && row.resource.0 % 8 == 0));
    }
}
