//! Batches on their way through a file, for loads that must have seen all lines before the first is stored.

use crate::error::Error;
use crate::fhir::resource_meta::Meta;
use crate::pipeline::load::batch::KeptLines;
use crate::pipeline::load::batch::{Batch, Occurrence, Row};
use std::sync::Arc;

/// A file that is written once and then read, from its beginning.
pub trait Spool {
    fn write(&mut self, bytes: &[u8]);

    fn rewind(&mut self);

    /// Fills the buffer; false at the end.
    fn read(&mut self, buffer: &mut [u8]) -> bool;
}

/// Appends a batch. Its rejects and references are not kept.
pub fn put(batch: &Batch, spool: &mut dyn Spool) {
    let mut head = Vec::new();
    let mut number = |number: u64| head.extend_from_slice(&number.to_le_bytes());
    number(batch.types.len() as u64);
    number(batch.rows.len() as u64);
    number(batch.size);
    number(batch.lines.len() as u64);
    batch.lines.iter().for_each(|lines| number(lines.offset));
    for row in &batch.rows {
        for part in fields(row) {
            number(part);
        }
    }
    spool.write(&head);
    let names = batch.types.iter().map(|name| name.as_bytes());
    let lines = batch.lines.iter().map(|lines| lines.bytes.as_slice());
    for bytes in std::iter::once(batch.source.as_bytes()).chain(names).chain([&batch.ids[..], &batch.resources]).chain(lines) {
        spool.write(&(bytes.len() as u64).to_le_bytes());
        spool.write(bytes);
    }
}

/// The next batch; None at the end.
///
/// # Errors
/// `Memory`, and `Internal` for a file that is cut off.
pub fn take(spool: &mut dyn Spool) -> Result<Option<Batch>, Error> {
    let Some(types) = number(spool) else { return Ok(None) };
    let cut = || Error::Internal("a temporary file is cut".to_owned());
    let mut next = || number(spool).ok_or_else(cut);
    let (rows, size, kept) = (next()?, next()?, next()?);
    let offsets = (0..kept).map(|_| next()).collect::<Result<Vec<u64>, Error>>()?;
    let rows = (0..rows).map(|_| row(&mut next)).collect::<Result<Vec<Row>, Error>>()?;
    let mut bytes = || -> Result<Vec<u8>, Error> {
        let length = usize::try_from(number(spool).ok_or_else(cut)?).map_err(|_| Error::Memory)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| Error::Memory)?;
        bytes.resize(length, 0);
        if spool.read(&mut bytes) { Ok(bytes) } else { Err(cut()) }
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| cut());
    let source = text(bytes()?)?;
    let types = (0..types).map(|_| text(bytes()?)).collect::<Result<Vec<String>, Error>>()?;
    let (ids, resources) = (bytes()?, bytes()?);
    let kept = |offset| bytes().map(|bytes| KeptLines { offset, bytes: Arc::new(bytes) });
    let lines = offsets.into_iter().map(kept).collect::<Result<Vec<KeptLines>, Error>>()?;
    Ok(Some(Batch { types, rows, size, ids, resources, lines, ..Batch::new(&source) }))
}

fn number(spool: &mut dyn Spool) -> Option<u64> {
    let mut bytes = [0; 8];
    spool.read(&mut bytes).then(|| u64::from_le_bytes(bytes))
}

/// A row as numbers; a time or version that is missing is one that none is.
const FIELDS: usize = 13;
const MISSING: i64 = i64::MIN;

fn fields(row: &Row) -> [u64; FIELDS] {
    let known = |value: Option<i64>| value.unwrap_or(MISSING) as u64;
    [
        row.resource_type as u64,
        row.id.0 as u64,
        row.id.1 as u64,
        row.resource.0 as u64,
        row.resource.1 as u64,
        row.line,
        row.offset,
        known(row.meta.last_updated),
        known(row.meta.version),
        known(row.meta.created_at),
        row.hash,
        u64::from(row.rank),
        match row.occurrence {
            Occurrence::Only => 0,
            Occurrence::Last => 1,
            Occurrence::Replaced => 2,
        },
    ]
}

fn row(next: &mut impl FnMut() -> Result<u64, Error>) -> Result<Row, Error> {
    let mut read = [0; FIELDS];
    for field in &mut read {
        *field = next()?;
    }
    let [resource_type, id_start, id_end, start, end, line, offset, updated, version, created, hash, rank, occurrence] = read;
    let known = |value: u64| Some(value as i64).filter(|value| *value != MISSING);
    Ok(Row {
        resource_type: resource_type as usize,
        id: (id_start as usize, id_end as usize),
        resource: (start as usize, end as usize),
        line,
        offset,
        meta: Meta { last_updated: known(updated), version: known(version), created_at: known(created) },
        hash,
        rank: rank as u32,
        occurrence: match occurrence {
            0 => Occurrence::Only,
            1 => Occurrence::Last,
            _ => Occurrence::Replaced,
        },
    })
}
