//! Rows of a batch as a relation that one statement reads, as a trigger reads its transition tables. Values stay as the threads made
//! them, compressed: in an array they would be inflated.

use crate::error::Error;
use crate::pg::sys::ephemeral_relation::{Column, Ephemeral};
use crate::pg::sys::{guc, sql};
use crate::pipeline::load::batch::{Batch, Row};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use std::ffi::CStr;

const COLUMNS: [Column; 5] = [
    (c"number", pg_sys::INT8OID),
    (c"id", pg_sys::TEXTOID),
    (c"resource", pg_sys::JSONBOID),
    (c"updated", pg_sys::TIMESTAMPTZOID),
    (c"version", pg_sys::INT8OID),
];

/// The planner's settings under which it looks rows up by their key.
const BY_INDEX: [(&CStr, &CStr); 3] = [(c"enable_seqscan", c"off"), (c"enable_hashjoin", c"off"), (c"enable_mergejoin", c"off")];

/// Runs a statement that reads `bulk_rows` (number from 0, id, resource, and what the line says: updated, version) and returns numbers: true at the index of each that came. It is planned
/// to look rows up by their key: a table of a few thousand rows, or one never analyzed, would else be read whole for every batch.
///
/// # Errors
/// As `sql::query`.
pub fn mark(batch: &Batch, rows: &[&Row], statement: &str, arguments: &[DatumWithOid]) -> Result<Vec<bool>, Error> {
    sql::with_client(Some(&batch.extent()), |client| {
        let staged = stage(batch, rows);
        staged.register();
        let mut marked = vec![false; rows.len()];
        for row in guc::within(&BY_INDEX, || client.update(statement, None, arguments))? {
            let number = row.get::<i64>(1)?.and_then(|number| usize::try_from(number).ok());
            if let Some(place) = number.and_then(|number| marked.get_mut(number)) {
                *place = true;
            }
        }
        staged.close();
        Ok(marked)
    })
}

fn stage(batch: &Batch, rows: &[&Row]) -> Ephemeral {
    let mut staged = Ephemeral::new(c"bulk_rows", &COLUMNS);
    for (number, row) in rows.iter().enumerate() {
        // Whole varlenas in the batch's buffers.
        let values = [
            pg_sys::Datum::from(number as i64),
            pg_sys::Datum::from(batch.id_varlena(row).as_ptr()),
            pg_sys::Datum::from(batch.resource(row).as_ptr()),
            pg_sys::Datum::from(row.meta.last_updated.unwrap_or_default()),
            pg_sys::Datum::from(row.meta.version.unwrap_or_default()),
        ];
        staged.put(values, [false, false, false, row.meta.last_updated.is_none(), row.meta.version.is_none()]);
    }
    staged
}
