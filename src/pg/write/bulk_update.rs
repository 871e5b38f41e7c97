//! Updates existing rows by one UPDATE a batch, for tables where it equals INSERT … ON CONFLICT (see `fast_path_check`). It saves
//! the look-up before, the lock of every row and the record of that lock.

use crate::error::Error;
use crate::pg::catalog::resource_table::Table;
use crate::pg::sys::sql;
use crate::pg::write::batch_relation;
use crate::pg::write::destination::{IdGuarantee, LastLineWins};
use crate::pipeline::load::batch::{Batch, Row};
use pgrx::pg_sys;

/// The number that rows of this transaction have.
pub const CURRENT: &str = "(pg_catalog.pg_current_xact_id()::pg_catalog.xid)";

/// How to write over the rows of one table.
#[derive(Debug)]
pub struct BulkUpdate {
    table: Table,
    statement: String,
    sequence: pg_sys::Oid,
}

impl BulkUpdate {
    /// `last_line_wins`: rows have versions, of which the highest stays. Where ids come once, rows of this transaction are none that are there.
    pub fn new(
        table: &Table,
        resource_type: &str,
        sequence: pg_sys::Oid,
        last_line_wins: Option<LastLineWins>,
        ids: IdGuarantee,
    ) -> BulkUpdate {
        let mut statement = statement(table, resource_type, last_line_wins);
        if ids == IdGuarantee::Once {
            statement.push_str(&format!(" and t.xmin operator(pg_catalog.<>) {CURRENT}"));
        }
        statement.push_str(" returning u.number");
        BulkUpdate { table: table.clone(), statement, sequence }
    }

    /// Writes over those of the rows whose ids exist. True at the index of each that did.
    ///
    /// # Errors
    /// `Memory`; an ERROR of a key or a concurrent update is raised.
    pub fn write(&self, batch: &Batch, rows: &[&Row]) -> Result<Vec<bool>, Error> {
        self.table.require_name()?;
        batch_relation::mark(batch, rows, &self.statement, &[sql::regclass(self.sequence)])
    }
}

/// $1 is the sequence. A condition may follow.
fn statement(table: &Table, resource_type: &str, last_line_wins: Option<LastLineWins>) -> String {
    let later = |column: &str, value: &str| match last_line_wins {
        Some(last_line_wins) => format!("{column} = case when {} then t.{column} else {value} end", last_line_wins.stays("u.version")),
        None => format!("{column} = {value}"),
    };
    let version = if last_line_wins.is_some() { "coalesce(u.version, pg_catalog.nextval($1))" } else { "pg_catalog.nextval($1)" };
    let mut sets = vec![later("txid", version), format!("status = 'updated'::{}", table.status_type), later("resource", "u.resource")];
    if table.has_ts {
        sets.push(later("ts", "pg_catalog.now()"));
    }
    if table.has_resource_type {
        sets.push(format!("resource_type = {}", pgrx::spi::quote_literal(resource_type)));
    }
    format!("update only {} as t set {} from bulk_rows u where t.id operator(pg_catalog.=) u.id", table.name, sets.join(", "))
}
