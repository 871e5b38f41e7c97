//! Rows made from a block of lines: what the encode threads hand to the main thread.

use crate::error::{Error, Fault, Reason, Reject, SourcePlace};
use crate::fhir::definitions::Definitions;
use crate::fhir::format::Format;
use crate::fhir::overlay::Changes;
use crate::fhir::resource_meta::{self, Meta};
use crate::fhir::structure::Structure;
use crate::fhir::validate::{self, Checks, Finding, Reference};
use crate::jsonb::document::{Document, Value};
use crate::jsonb::toast::{Compressor, Rule};
use crate::jsonb::{encode, parse, varlena};
use crate::pipeline::load::checkpoint::Checkpoint;
use crate::pipeline::load::id_bloom;
use crate::text::ndjson::{Block, Line};
use std::collections::HashMap;
use std::rc::Rc;
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
    /// The line's resource, once it is read.
    root: Option<Value>,
}

/// Bytes of a rejected line that are kept.
const RAW: usize = 16 * 1024;
/// Bytes of what a rejected line says its id and type are.
const NAME: usize = 100;

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

/// One row: indices into its batch.
#[derive(Debug, Clone)]
pub struct Row {
    /// Index into `Batch::types`.
    pub resource_type: usize,
    pub id: (usize, usize),
    pub resource: (usize, usize),
    pub line: u64,
    /// Bytes of the source before the line.
    pub offset: u64,
    pub meta: Meta,
    /// `id_bloom::hash` of the id.
    pub hash: u64,
    /// SourcePlace among the batch's rows in the order of their types and ids: an index is written fastest in its own order.
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

/// The lines of a block.
#[derive(Debug, Clone)]
pub struct KeptLines {
    /// Bytes of the source before them.
    pub offset: u64,
    pub bytes: Arc<Vec<u8>>,
}

/// Rows in the order of their lines.
#[derive(Debug)]
pub struct Batch {
    pub source: String,
    /// Resource types that occur.
    pub types: Vec<String>,
    pub rows: Vec<Row>,
    /// Lines that are no rows.
    pub rejects: Vec<Reject>,
    /// References that must lead somewhere, by the indices of their rows.
    pub references: Vec<(usize, Reference)>,
    /// Bytes of the lines that the rows came from.
    pub size: u64,
    /// Characters of all lines that were looked at.
    pub characters: u64,
    /// Where its lines end, if loading can go on there.
    pub end: Option<Checkpoint>,
    /// The lines themselves, where they are kept, in the order of the source.
    pub lines: Vec<KeptLines>,
    pub ids: Vec<u8>,
    pub resources: Vec<u8>,
    /// By index into `types`.
    pub compression: Vec<Option<Rule>>,
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

    pub fn new(source: &str) -> Batch {
        Batch {
            source: source.to_owned(),
            types: Vec::new(),
            rows: Vec::new(),
            rejects: Vec::new(),
            references: Vec::new(),
            size: 0,
            characters: 0,
            end: None,
            lines: Vec::new(),
            ids: Vec::new(),
            resources: Vec::new(),
            compression: Vec::new(),
        }
    }

    /// A batch of some of the rows alone, without the others' memory.
    pub fn pick(&self, rows: &[&Row]) -> Result<Batch, Error> {
        let mut picked = Batch {
            types: self.types.clone(),
            rows: Vec::with_capacity(rows.len()),
            lines: self.lines.clone(),
            ..Batch::new(&self.source)
        };
        for row in rows {
            let (id, resource) = (self.id_varlena(row), self.resource(row));
            let copied = (append(&mut picked.ids, id)?, append(&mut picked.resources, resource)?);
            picked.rows.push(Row { id: copied.0, resource: copied.1, ..(*row).clone() });
        }
        Ok(picked)
    }

    /// The same as if the others' lines were not there.
    pub fn part(&self, rows: &[&Row]) -> Result<Batch, Error> {
        let mut part = self.pick(rows)?;
        part.size = self.size;
        part.rank();
        Ok(part)
    }

    /// The rows of batches that follow one another, as those of one, without the lines that were rejected.
    ///
    /// # Errors
    /// `Memory` where there is none for a copy of the rows.
    pub fn merge(batches: &[Rc<Batch>]) -> Result<Batch, Error> {
        let mut merged = Batch::new(batches.first().map_or("", |batch| &batch.source));
        let (ids, resources) = batches.iter().fold((0, 0), |sum, batch| (sum.0 + batch.ids.len() + 8, sum.1 + batch.resources.len() + 8));
        merged.ids.try_reserve_exact(ids).map_err(|_| Error::Memory)?;
        merged.resources.try_reserve_exact(resources).map_err(|_| Error::Memory)?;
        for batch in batches {
            let rule = |index: usize| batch.compression.get(index).cloned().flatten();
            let types: Vec<usize> = batch.types.iter().enumerate().map(|(index, name)| merged.type_of(name, || rule(index))).collect();
            let (id_start, _) = append(&mut merged.ids, &batch.ids)?;
            let (resource_start, _) = append(&mut merged.resources, &batch.resources)?;
            let number = merged.rows.len();
            merged.rows.extend(batch.rows.iter().map(|row| Row {
                resource_type: types[row.resource_type],
                id: (row.id.0 + id_start, row.id.1 + id_start),
                resource: (row.resource.0 + resource_start, row.resource.1 + resource_start),
                ..row.clone()
            }));
            merged.references.extend(batch.references.iter().map(|(row, reference)| (row + number, reference.clone())));
            merged.lines.extend(batch.lines.iter().cloned());
            merged.size += batch.size;
            merged.characters += batch.characters;
            merged.end = batch.end.clone();
        }
        merged.rank();
        Ok(merged)
    }

    /// Bytes of the rows' values.
    pub fn written(&self) -> usize {
        self.ids.len() + self.resources.len()
    }

    /// Bytes of the rows' values, and of the lines.
    pub fn memory(&self) -> usize {
        self.ids.len() + self.resources.len() + self.lines.iter().map(|lines| lines.bytes.len()).sum::<usize>()
    }

    /// A row that is not stored after all.
    pub fn reject(&self, row: &Row, reason: Reason) -> Reject {
        let kept = self.lines.partition_point(|lines| lines.offset <= row.offset).checked_sub(1).and_then(|last| self.lines.get(last));
        let start = kept.map_or(0, |lines| usize::try_from(row.offset - lines.offset).unwrap_or(usize::MAX));
        let rest = kept.and_then(|lines| lines.bytes.get(start..)).unwrap_or_default();
        let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
        Reject {
            place: SourcePlace { source: self.source.clone(), line: row.line, byte: 1 },
            offset: row.offset,
            resource_type: Some(self.types[row.resource_type].clone()),
            id: Some(self.id(row).chars().take(NAME).collect()),
            reason,
            raw: raw(line),
        }
    }

    /// The lines that the batch came from, for the context of errors.
    pub fn extent(&self) -> String {
        let line = |row: Option<&Row>| row.map_or(0, |row| row.line);
        format!("bulk.load of \"{}\", lines {} to {}", self.source, line(self.rows.first()), line(self.rows.last()))
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

    /// The index of a type, which is added with its rule where it is missing.
    fn type_of(&mut self, name: &str, compression: impl FnOnce() -> Option<Rule>) -> usize {
        match self.types.iter().position(|known| known == name) {
            Some(index) => index,
            None => {
                self.types.push(name.to_owned());
                self.compression.push(compression());
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

/// Turns a block's lines into rows, and those that cannot be into rejects.
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
    batch.rank();
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

/// A line's beginning as text that PostgreSQL holds.
fn raw(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut end = line.len().min(RAW);
    // Not within a character.
    while end < line.len() && end > 0 && line[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    String::from_utf8_lossy(&line[..end]).replace('\0', "\u{FFFD}")
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
