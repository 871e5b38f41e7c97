//! Rows made from a block of lines: what the encode threads hand to the main thread. `encode` makes them.

use crate::error::{Error, Reason, Reject, SourcePlace};
use crate::fhir::resource_meta::Meta;
use crate::fhir::validate::Reference;
use crate::jsonb::toast::Rule;
use crate::pipeline::load::checkpoint::Checkpoint;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of a rejected line that are kept.
const RAW: usize = 16 * 1024;
/// Bytes of what a rejected line says its id and type are.
pub const NAME: usize = 100;

/// Types that are compared one by one: a source may make up as many as it has lines.
const FEW_TYPES: usize = 16;
/// Bytes of a row beside its values.
const ROW: usize = 128;

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
    /// The indices by name, once there are many.
    pub numbers: HashMap<String, usize>,
}

impl Batch {
    /// The id of a row.
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

    /// A batch without rows, of a source of this name.
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
            numbers: HashMap::new(),
        }
    }

    /// A batch of some of the rows alone, without the others' memory.
    ///
    /// # Errors
    /// `Memory`.
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
    ///
    /// # Errors
    /// `Memory`.
    pub fn part(&self, rows: &[&Row]) -> Result<Batch, Error> {
        let mut part = self.pick(rows)?;
        part.size = self.size;
        part.rank_in_lock_order();
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
        merged.rank_in_lock_order();
        Ok(merged)
    }

    /// Bytes of the rows' values.
    pub fn written(&self) -> usize {
        self.ids.len() + self.resources.len()
    }

    /// Bytes of the rows, and of the lines.
    pub fn memory(&self) -> usize {
        self.ids.len()
            + self.resources.len()
            + ROW * (self.rows.len() + self.types.len())
            + self.lines.iter().map(|lines| lines.bytes.len()).sum::<usize>()
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
    pub fn rank_in_lock_order(&mut self) {
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
    pub fn type_of(&mut self, name: &str, compression: impl FnOnce() -> Option<Rule>) -> usize {
        let few = self.types.len() <= FEW_TYPES;
        let known = if few { self.types.iter().position(|known| known == name) } else { self.numbers.get(name).copied() };
        if let Some(index) = known {
            return index;
        }
        self.types.push(name.to_owned());
        self.compression.push(compression());
        if self.types.len() > FEW_TYPES {
            let first = self.numbers.len();
            self.numbers.extend(self.types[first..].iter().cloned().zip(first..));
        }
        self.types.len() - 1
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

/// A line's beginning as text that PostgreSQL holds.
pub fn raw(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut end = line.len().min(RAW);
    // Not within a character.
    while end < line.len() && end > 0 && line[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    String::from_utf8_lossy(&line[..end]).replace('\0', "\u{FFFD}")
}
