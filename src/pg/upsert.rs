//! The general way of writing rows: one `insert … select … on conflict` a batch and table, through SPI. It works on whatever
//! table there is: triggers, partitions, foreign keys, row security.

use super::table::{self, Table};
use super::{create, diagnostics, report};
use crate::error::{Error, Fault};
use crate::fhir::definitions::Definitions;
use crate::op::Sink;
use crate::op::batch::{Batch, Row};
use pgrx::datum::DatumWithOid;
use pgrx::{Spi, pg_sys};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Writes resources over what is there: an existing id gets a new version, status `updated`, and keeps its time of creation.
/// Earlier versions are not kept.
pub struct Upsert {
    definitions: &'static Definitions,
    create_tables: bool,
    targets: HashMap<String, Target>,
    /// Lines stored, by type.
    pub stored: BTreeMap<String, u64>,
}

/// One type's table and how to write to it.
struct Target {
    statement: String,
    sequence: pg_sys::Oid,
}

impl Upsert {
    pub fn new(definitions: &'static Definitions, create_tables: bool) -> Upsert {
        Upsert { definitions, create_tables, targets: HashMap::new(), stored: BTreeMap::new() }
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
        let target = Target { statement: statement(&found, resource_type), sequence: create::ensure_sequence(found.schema) };
        self.targets.insert(resource_type.to_owned(), target);
        Ok(())
    }

    fn write(&self, batch: &Batch, resource_type: &str, rows: &[&Row]) -> Result<(), Error> {
        let Some(target) = self.targets.get(resource_type) else { return Err(Error::UnknownType(resource_type.to_owned())) };
        let rows = last_of_each(batch, rows);
        let written = diagnostics::keep(|| {
            Spi::connect_mut(|client| {
                let arguments = [
                    // SAFETY: datums of these types, in SPI's memory, which lives to the end of the closure.
                    unsafe { DatumWithOid::new(ids(batch, &rows), pg_sys::TEXTARRAYOID) },
                    // SAFETY: as above.
                    unsafe { DatumWithOid::new(resources(batch, &rows), pg_sys::JSONBARRAYOID) },
                    // SAFETY: as above.
                    unsafe { DatumWithOid::new(repeats(&rows), pg_sys::BOOLARRAYOID) },
                    // SAFETY: an oid is passed by value.
                    unsafe { DatumWithOid::new(target.sequence, pg_sys::REGCLASSOID) },
                ];
                client.update(&target.statement, None, &arguments).map(|_| ())
            })
        });
        written.map_err(|error| Error::Internal(error.to_string()))
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
            if !rows.is_empty() {
                self.write(batch, resource_type, rows)?;
                *self.stored.entry(resource_type.clone()).or_default() += rows.len() as u64;
            }
        }
        Ok(())
    }
}

/// A statement cannot touch a row twice: of equal ids the last row is written, as one that was there before.
fn last_of_each<'a>(batch: &Batch, rows: &[&'a Row]) -> Vec<(&'a Row, bool)> {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(rows.len());
    for row in rows {
        *seen.entry(batch.id(row)).or_default() += 1;
    }
    let mut written = HashSet::with_capacity(rows.len());
    let mut kept: Vec<(&Row, bool)> = Vec::with_capacity(seen.len());
    for row in rows.iter().rev() {
        let id = batch.id(row);
        if written.insert(id) {
            kept.push((row, seen[id] > 1));
        }
    }
    kept.reverse();
    kept
}

/// $1 ids, $2 resources, $3 whether the id stood in an earlier line of the batch, $4 the sequence.
fn statement(table: &Table, resource_type: &str) -> String {
    let status = &table.status_type;
    let created = match table::history(table) {
        Some((_, history)) => format!(
            "when (select h.status::pg_catalog.text from {history} h where h.id operator(pg_catalog.=) u.id \
             order by h.txid desc limit 1) operator(pg_catalog.=) 'deleted' then 'recreated'::{status}"
        ),
        None => String::new(),
    };
    let mut columns = vec!["id", "txid", "status", "resource"];
    let mut values = vec![
        "u.id".to_owned(),
        "pg_catalog.nextval($4)".to_owned(),
        format!("case when u.repeated then 'updated'::{status} {created} else 'created'::{status} end"),
        "u.resource".to_owned(),
    ];
    for (there, name) in [(table.has_cts, "cts"), (table.has_ts, "ts")] {
        if there {
            columns.push(name);
            values.push("pg_catalog.now()".to_owned());
        }
    }
    if table.has_resource_type {
        columns.push("resource_type");
        values.push(pgrx::spi::quote_literal(resource_type));
    }
    let kept = columns.iter().filter(|name| !matches!(**name, "id" | "cts" | "status"));
    let updates: Vec<String> = kept.map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "insert into {} ({}) select {} from (select pg_catalog.unnest($1) as id, pg_catalog.unnest($2) as resource, \
         pg_catalog.unnest($3) as repeated) u on conflict (id) do update set status = 'updated'::{status}, {}",
        table.name,
        columns.join(", "),
        values.join(", "),
        updates.join(", ")
    )
}

fn ids(batch: &Batch, rows: &[(&Row, bool)]) -> pg_sys::Datum {
    let text = |id: &str| {
        // SAFETY: the bytes are copied; their length is that of a line at most.
        pg_sys::Datum::from(unsafe { pg_sys::cstring_to_text_with_len(id.as_ptr().cast(), id.len() as i32) })
    };
    array(rows.iter().map(|(row, _)| text(batch.id(row))).collect(), pg_sys::TEXTOID, -1, false, pg_sys::TYPALIGN_INT)
}

fn resources(batch: &Batch, rows: &[(&Row, bool)]) -> pg_sys::Datum {
    // A resource is a whole varlena in the batch's buffer, which outlives the statement and is aligned by its maker.
    let datums = rows.iter().map(|(row, _)| pg_sys::Datum::from(batch.resource(row).as_ptr())).collect();
    array(datums, pg_sys::JSONBOID, -1, false, pg_sys::TYPALIGN_INT)
}

fn repeats(rows: &[(&Row, bool)]) -> pg_sys::Datum {
    array(rows.iter().map(|(_, repeated)| pg_sys::Datum::from(*repeated)).collect(), pg_sys::BOOLOID, 1, true, pg_sys::TYPALIGN_CHAR)
}

fn array(mut elements: Vec<pg_sys::Datum>, kind: pg_sys::Oid, length: i16, by_value: bool, alignment: u8) -> pg_sys::Datum {
    // SAFETY: the elements are datums of the type that is described; they are copied.
    let made = unsafe {
        pg_sys::construct_array(elements.as_mut_ptr(), elements.len() as i32, kind, length.into(), by_value, alignment as std::ffi::c_char)
    };
    report::ok(if made.is_null() { Err(Error::Memory) } else { Ok(pg_sys::Datum::from(made)) })
}
