//! Rows of a batch as a relation that one statement reads, as a trigger reads its transition tables. Values stay as the threads made
//! them, compressed: in an array they would be inflated.

use super::{diagnostics, setting};
use crate::error::Error;
use crate::op::batch::{Batch, Row};
use pgrx::datum::DatumWithOid;
use pgrx::{PgBox, Spi, pg_sys};
use std::ffi::{CStr, c_int};

/// The relation's name in the statement, and its columns.
const NAME: &CStr = c"bulk_rows";
const COLUMNS: [(&CStr, pg_sys::Oid); 4] =
    [(c"number", pg_sys::INT8OID), (c"id", pg_sys::TEXTOID), (c"resource", pg_sys::JSONBOID), (c"updated", pg_sys::TIMESTAMPTZOID)];

/// The planner's settings under which it looks rows up by their key.
const BY_INDEX: [(&CStr, &CStr); 3] = [(c"enable_seqscan", c"off"), (c"enable_hashjoin", c"off"), (c"enable_mergejoin", c"off")];

/// Runs a statement that reads `bulk_rows` (number from 0, id, resource, updated: what the line says) and returns numbers: true at the index of each that came. It is planned
/// to look rows up by their key: a table of a few thousand rows, or one never analyzed, would else be read whole for every batch.
pub fn mark(batch: &Batch, rows: &[&Row], statement: &str, arguments: &[DatumWithOid]) -> Result<Vec<bool>, Error> {
    let marked = diagnostics::keep(Some(&batch.extent()), || {
        Spi::connect_mut(|client| {
            let store = stage(batch, rows);
            let mut marked = vec![false; rows.len()];
            for row in setting::within(&BY_INDEX, || client.update(statement, None, arguments))? {
                let number = row.get::<i64>(1)?.and_then(|number| usize::try_from(number).ok());
                if let Some(place) = number.and_then(|number| marked.get_mut(number)) {
                    *place = true;
                }
            }
            // SAFETY: made by `stage`; the statement is over.
            unsafe { pg_sys::tuplestore_end(store) };
            Ok::<_, pgrx::spi::Error>(marked)
        })
    });
    marked.map_err(|error| Error::Internal(error.to_string()))
}

/// Makes the relation known to the current SPI connection, at whose end it is forgotten.
fn stage(batch: &Batch, rows: &[&Row]) -> *mut pg_sys::Tuplestorestate {
    // SAFETY: makes a descriptor in SPI's memory, as all here.
    let descriptor = unsafe { pg_sys::CreateTemplateTupleDesc(COLUMNS.len() as c_int) };
    for (number, (name, kind)) in (1..).zip(COLUMNS) {
        // SAFETY: a column of the descriptor; the name is copied.
        unsafe { pg_sys::TupleDescInitEntry(descriptor, number, name.as_ptr(), kind, -1, 0) };
    }
    // SAFETY: reads a setting; beyond it the store goes to a temporary file, which the transaction's end removes.
    let memory = unsafe { pg_sys::work_mem };
    // SAFETY: makes a store.
    let store = unsafe { pg_sys::tuplestore_begin_heap(false, false, memory) };
    for (number, row) in rows.iter().enumerate() {
        // Whole varlenas in the batch's buffers; the store copies them.
        let mut values = [
            pg_sys::Datum::from(number as i64),
            pg_sys::Datum::from(batch.id_varlena(row).as_ptr()),
            pg_sys::Datum::from(batch.resource(row).as_ptr()),
            pg_sys::Datum::from(row.meta.last_updated.unwrap_or_default()),
        ];
        let mut nulls = [false, false, false, row.meta.last_updated.is_none()];
        // SAFETY: as many values as the descriptor has columns, of their types.
        unsafe { pg_sys::tuplestore_putvalues(store, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr()) };
    }
    // SAFETY: zeroes say an empty description.
    let mut relation = unsafe { PgBox::<pg_sys::EphemeralNamedRelationData>::alloc0() };
    relation.md.name = NAME.as_ptr().cast_mut();
    relation.md.tupdesc = descriptor;
    relation.md.enrtype = pg_sys::EphemeralNameRelationType::ENR_NAMED_TUPLESTORE;
    relation.md.enrtuples = rows.len() as f64;
    relation.reldata = store.cast();
    // SAFETY: all that it points to lives as long as the connection.
    unsafe { pg_sys::SPI_register_relation(relation.into_pg()) };
    store
}
