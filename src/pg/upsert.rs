//! Where rows of a load go: new ones the fast way where a table allows it, all others the general way.

use super::eligible;
use super::fast::Writer;
use super::general::{self, General, Version};
use super::table::{self, Table};
use super::{create, diagnostics, setting};
use crate::error::{Error, Fault};
use crate::fhir::definitions::Definitions;
use crate::op::Sink;
use crate::op::batch::{Batch, Row, Rules};
use crate::op::seen::Seen;
use pgrx::datum::DatumWithOid;
use pgrx::{Spi, pg_sys};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Writes resources over what is there: an existing id gets a new version, status `updated`, and keeps its time of creation.
/// Earlier versions are not kept.
#[derive(Debug)]
pub struct Upsert {
    definitions: &'static Definitions,
    create_tables: bool,
    /// Told to the encode threads for tables that rows go straight into.
    compression: Rules,
    targets: HashMap<String, Target>,
    /// Lines stored, by type.
    pub stored: BTreeMap<String, u64>,
}

/// One type's table and how to write to it.
#[derive(Debug)]
struct Target {
    general: General,
    fast: Option<Fast>,
}

/// The fast way into a table, for rows that are surely new.
#[derive(Debug)]
struct Fast {
    writer: Writer,
    /// What this load stored, while the table held nothing before it; then only these ids can exist.
    seen: Option<Seen>,
    /// Of $1 the ids that exist or have a history.
    probe: String,
}

impl Upsert {
    pub fn new(definitions: &'static Definitions, create_tables: bool, compression: Rules) -> Upsert {
        Upsert { definitions, create_tables, compression, targets: HashMap::new(), stored: BTreeMap::new() }
    }

    /// Finds or creates a type's table. The name must be as FHIR, or whoever made the type, spells it.
    pub fn prepare(&mut self, resource_type: &str) -> Result<(), Error> {
        if self.targets.contains_key(resource_type) {
            return Ok(());
        }
        let unknown = || Error::UnknownType(resource_type.chars().take(100).collect());
        if table::type_name(self.definitions, resource_type).map_err(|_| unknown())? != resource_type {
            return Err(unknown());
        }
        let found = match table::lookup(resource_type)? {
            Some(found) => found,
            None if self.create_tables && self.definitions.resource(resource_type).is_some() => create::ensure(resource_type)?,
            None => return Err(unknown()),
        };
        let sequence = create::ensure_sequence(found.schema);
        let general = General::new(&found, resource_type, sequence);
        let fast = Fast::open(&found, resource_type, sequence)?;
        if let Some(rule) = fast.as_ref().and_then(|fast| fast.writer.compression(resource_type)) {
            self.compression.set(resource_type, rule);
        }
        self.targets.insert(resource_type.to_owned(), Target { general, fast });
        Ok(())
    }

    /// Closes what is open. After an ERROR the transaction's end does it.
    pub fn close(self) -> BTreeMap<String, u64> {
        for target in self.targets.into_values() {
            if let Some(fast) = target.fast {
                fast.writer.close();
            }
        }
        self.stored
    }
}

impl Sink for Upsert {
    fn store(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut by_type: Vec<Vec<&Row>> = vec![Vec::new(); batch.types.len()];
        for row in &batch.rows {
            let rows = &mut by_type[row.resource_type];
            if rows.is_empty() {
                self.prepare(&batch.types[row.resource_type]).map_err(|error| match error {
                    Error::UnknownType(name) => Error::Line { place: batch.place(row), fault: Fault::UnknownType(name) },
                    error => error,
                })?;
            }
            rows.push(row);
        }
        for (resource_type, rows) in batch.types.iter().zip(&by_type) {
            if let (false, Some(target)) = (rows.is_empty(), self.targets.get_mut(resource_type)) {
                target.write(batch, rows)?;
                *self.stored.entry(resource_type.clone()).or_default() += rows.len() as u64;
            }
        }
        Ok(())
    }
}

impl Target {
    fn write(&mut self, batch: &Batch, rows: &[&Row]) -> Result<(), Error> {
        let mut rows = last_of_each(batch, rows);
        if let Some(fast) = &mut self.fast {
            let new = fast.take_new(batch, &mut rows)?;
            if !new.is_empty() {
                fast.writer.insert(batch, &new);
            }
        }
        if rows.is_empty() { Ok(()) } else { self.general.write(batch, &rows) }
    }
}

impl Fast {
    fn open(table: &Table, resource_type: &str, sequence: pg_sys::Oid) -> Result<Option<Fast>, Error> {
        let layout = match eligible::layout(table.oid) {
            _ if !setting::fast_path() => return Ok(None),
            Ok(layout) => layout,
            Err(reason) => {
                pgrx::debug1!("rows of \"{}\" go the general way: {reason}", table.plain_name);
                return Ok(None);
            }
        };
        let history = table::history(table);
        let fresh = eligible::is_empty(table.oid) && history.as_ref().is_none_or(|(oid, _)| eligible::is_empty(*oid));
        let among = |name: &str| format!("select t.id from {name} t where t.id operator(pg_catalog.=) any($1)");
        let probe = match &history {
            Some((_, history)) => format!("{} union all {}", among(&table.name), among(history)),
            None => among(&table.name),
        };
        let writer = Writer::open(table.oid, layout, eligible::created_status(&table.status_type)?, sequence, resource_type);
        Ok(Some(Fast { writer, seen: fresh.then(Seen::default), probe }))
    }

    /// Takes the rows that are surely new out of `rows`.
    fn take_new<'a>(&mut self, batch: &Batch, rows: &mut Vec<Version<'a>>) -> Result<Vec<&'a Row>, Error> {
        let doubtful: Vec<Version> = match &mut self.seen {
            Some(seen) => rows.iter().copied().filter(|(row, _)| seen.insert(batch.id(row))).collect(),
            None => rows.clone(),
        };
        let mut known = if doubtful.is_empty() { HashSet::new() } else { self.existing(batch, &doubtful)? };
        // An id that stood in an earlier line is an update, whether or not that line was its first.
        known.extend(rows.iter().filter(|(_, repeated)| *repeated).map(|(row, _)| batch.id(row).to_owned()));
        let mut new = Vec::with_capacity(rows.len());
        rows.retain(|(row, _)| {
            let exists = known.contains(batch.id(row));
            if !exists {
                new.push(*row);
            }
            exists
        });
        Ok(new)
    }

    /// Which of the rows' ids exist.
    fn existing(&self, batch: &Batch, rows: &[Version]) -> Result<HashSet<String>, Error> {
        let found = diagnostics::keep(Some(&batch.extent()), || {
            Spi::connect_mut(|client| {
                // SAFETY: a datum of this type, in SPI's memory, which lives to the end of the closure.
                let ids = unsafe { DatumWithOid::new(general::ids(batch, rows), pg_sys::TEXTARRAYOID) };
                // As a writing client, so that the query sees what this load has written.
                let table = client.update(&self.probe, None, &[ids])?;
                table.map(|row| Ok(row.get::<String>(1)?.unwrap_or_default())).collect::<Result<_, pgrx::spi::Error>>()
            })
        });
        found.map_err(|error| Error::Internal(error.to_string()))
    }
}

/// A statement cannot touch a row twice: of equal ids the last row is written, as one that was there before.
fn last_of_each<'a>(batch: &Batch, rows: &[&'a Row]) -> Vec<Version<'a>> {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(rows.len());
    for row in rows {
        *seen.entry(batch.id(row)).or_default() += 1;
    }
    let mut written = HashSet::with_capacity(rows.len());
    let mut kept: Vec<Version> = Vec::with_capacity(seen.len());
    for row in rows.iter().rev() {
        let id = batch.id(row);
        if written.insert(id) {
            kept.push((row, seen[id] > 1));
        }
    }
    kept.reverse();
    kept
}
