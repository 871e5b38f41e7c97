//! Loads whose references must lead somewhere: to a resource that is there, or to one of the same load. So no line is stored before all are
//! seen: they wait in a temporary file.

use crate::error::{Error, Fault, Reason};
use crate::fhir::definitions::Definitions;
use crate::pg::sys::ephemeral_relation::{Column, Ephemeral};
use crate::pg::sys::sql;
use crate::pg::sys::temp_file::TemporaryFile;
use crate::pg::write::dangling_references::{ReferredTypes, none_stored, text};
use crate::pipeline::load::batch::{Batch, Row};
use crate::pipeline::load::batch_spill::{self, Spool};
use crate::pipeline::load::counters::{BatchOutcome, LoadCounters};
use crate::pipeline::load::sink::BatchSink;
use pgrx::pg_sys;
use std::collections::HashMap;
use std::rc::Rc;

/// Lines by their numbers in the load, from 0, and what they are.
const RESOURCES: [Column; 3] = [(c"number", pg_sys::INT8OID), (c"type", pg_sys::TEXTOID), (c"id", pg_sys::TEXTOID)];
/// Lines and what they refer to.
const REFERENCES: [Column; 4] =
    [(c"number", pg_sys::INT8OID), (c"type", pg_sys::TEXTOID), (c"id", pg_sys::TEXTOID), (c"path", pg_sys::TEXTOID)];

/// A sink before another.
pub struct CheckedSink {
    inner: Box<dyn BatchSink>,
    definitions: &'static Definitions,
    waiting: TemporaryFile,
    resources: Ephemeral,
    references: Ephemeral,
    types: ReferredTypes,
    /// Lines so far.
    count: u64,
    /// Lines with such references that need to be known: past them the load fails.
    enough: usize,
}

impl CheckedSink {
    /// A sink that keeps batches until all references are looked up, then hands them to `inner`; `enough` lines with references that lead nowhere end it.
    pub fn new(inner: Box<dyn BatchSink>, definitions: &'static Definitions, enough: usize) -> CheckedSink {
        CheckedSink {
            inner,
            definitions,
            waiting: TemporaryFile::new(),
            resources: Ephemeral::new(c"bulk_resources", &RESOURCES),
            references: Ephemeral::new(c"bulk_references", &REFERENCES),
            types: ReferredTypes::default(),
            count: 0,
            enough,
        }
    }

    /// Lines with references that lead nowhere, with the path of one. A line that is rejected is none to refer to.
    fn dangling(&self) -> Result<HashMap<u64, String>, Error> {
        let mut rejected: HashMap<u64, String> = HashMap::new();
        loop {
            let before = rejected.len();
            for resource_type in self.types.names() {
                for (number, path) in self.dangling_to(resource_type, &rejected)? {
                    rejected.entry(number).or_insert(path);
                }
            }
            if rejected.len() == before || rejected.len() >= self.enough {
                return Ok(rejected);
            }
        }
    }

    fn dangling_to(&self, resource_type: &str, rejected: &HashMap<u64, String>) -> Result<Vec<(u64, String)>, Error> {
        let stored = none_stored(self.definitions, resource_type);
        let statement = format!(
            "select r.number, pg_catalog.min(r.path collate \"C\") from bulk_references r where r.type operator(pg_catalog.=) $1 {stored} \
             and not exists (select from bulk_resources l where l.type operator(pg_catalog.=) $1 and l.id operator(pg_catalog.=) r.id \
             and l.number operator(pg_catalog.<>) all ($2)) and r.number operator(pg_catalog.<>) all ($2) \
             group by r.number order by r.number limit $3"
        );
        let known: Vec<i64> = rejected.keys().map(|number| *number as i64).collect();
        sql::with_client(None, |client| {
            self.resources.register();
            self.references.register();
            let mut found = Vec::new();
            for row in client.update(&statement, None, &[resource_type.into(), known.into(), (self.enough as i64).into()])? {
                found.extend(row.get::<i64>(1)?.map(|number| number as u64).zip(row.get::<String>(2)?));
            }
            Ok(found)
        })
    }
}

impl BatchSink for CheckedSink {
    fn store(&mut self, batch: Rc<Batch>, counters: &mut LoadCounters) -> Result<(), Error> {
        let (mut kind, mut id, mut path) = (Vec::new(), Vec::new(), Vec::new());
        for (number, row) in (self.count..).zip(&batch.rows) {
            // The store copies what it is given.
            let name = text(&batch.types[row.resource_type], &mut kind);
            self.resources.put([pg_sys::Datum::from(number as i64), name, pg_sys::Datum::from(batch.id_varlena(row).as_ptr())], [false; 3]);
        }
        for (row, reference) in &batch.references {
            let number = pg_sys::Datum::from((self.count + *row as u64) as i64);
            let named = self.types.known(self.definitions, &reference.resource_type);
            let values = [number, text(named, &mut kind), text(&reference.id, &mut id), text(&reference.path, &mut path)];
            self.references.put(values, [false; 4]);
        }
        self.count += batch.rows.len() as u64;
        if !batch.rows.is_empty() {
            batch_spill::put(&batch, &mut self.waiting);
        }
        self.inner.write_down(counters)
    }

    fn finish(mut self: Box<Self>, counters: &mut LoadCounters) -> Result<(), Error> {
        let dangling = self.dangling()?;
        self.waiting.rewind();
        let mut number = 0;
        while let Some(batch) = batch_spill::take(&mut self.waiting)? {
            let mut rejects = Vec::new();
            let mut rows: Vec<&Row> = Vec::new();
            for row in &batch.rows {
                match dangling.get(&number) {
                    Some(path) => rejects.push(batch.reject(row, Reason::Fault(Fault::Dangling { path: path.clone() }))),
                    None => rows.push(row),
                }
                number += 1;
            }
            let part = if rejects.is_empty() { None } else { Some(batch.part(&rows)?) };
            counters.enter(BatchOutcome { rejects, ..BatchOutcome::default() })?;
            self.inner.store(Rc::new(part.unwrap_or(batch)), counters)?;
        }
        self.waiting.close();
        self.resources.close();
        self.references.close();
        self.inner.finish(counters)
    }
}
