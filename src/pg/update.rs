//! Rows that are there already: one UPDATE a batch, for tables where it does what INSERT … ON CONFLICT would (see `eligible`). It spares
//! the look-up before, the lock of every row and the record of that lock.

use super::batch_rows;
use super::table::Table;
use crate::error::Error;
use crate::op::batch::{Batch, Row};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

/// How to write over the rows of one table.
#[derive(Debug)]
pub struct Update {
    statement: String,
    sequence: pg_sys::Oid,
}

impl Update {
    pub fn new(table: &Table, resource_type: &str, sequence: pg_sys::Oid) -> Update {
        Update { statement: statement(table, resource_type), sequence }
    }

    /// Writes over those of the rows whose ids exist. True at the index of each that did.
    pub fn write(&self, batch: &Batch, rows: &[&Row]) -> Result<Vec<bool>, Error> {
        // SAFETY: an oid is passed by value.
        let sequence = unsafe { DatumWithOid::new(self.sequence, pg_sys::REGCLASSOID) };
        batch_rows::mark(batch, rows, &self.statement, &[sequence])
    }
}

/// $1 is the sequence.
fn statement(table: &Table, resource_type: &str) -> String {
    let mut sets = vec![
        "txid = pg_catalog.nextval($1)".to_owned(),
        format!("status = 'updated'::{}", table.status_type),
        "resource = u.resource".to_owned(),
    ];
    if table.has_ts {
        sets.push("ts = pg_catalog.now()".to_owned());
    }
    if table.has_resource_type {
        sets.push(format!("resource_type = {}", pgrx::spi::quote_literal(resource_type)));
    }
    format!(
        "update only {} as t set {} from bulk_rows u where t.id operator(pg_catalog.=) u.id returning u.number",
        table.name,
        sets.join(", ")
    )
}
