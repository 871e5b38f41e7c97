//! Ids of a table's current resources.

use crate::error::Error;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::sys::sql;
use pgrx::datum::DatumWithOid;
use std::ffi::c_long;

/// Fetched at a time.
const AT_ONCE: c_long = 10_000;

/// Calls `each` with all of them.
///
/// # Errors
/// Those of `each` and of the query.
pub fn of_all(table: &Table, each: impl FnMut(&str)) -> Result<(), Error> {
    read(&format!("select id::pg_catalog.text from {} where {}", table.name, resource_table::is_current("status")), &[], each)
}

/// Those of these that are there.
///
/// # Errors
/// Those of the query.
pub fn of_these(table: &Table, ids: &[String]) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let query = format!(
        "select id::pg_catalog.text from {} where id operator(pg_catalog.=) any ($1) and {}",
        table.name,
        resource_table::is_current("status")
    );
    read(&query, &[ids.to_vec().into()], |id| found.push(id.to_owned()))?;
    Ok(found)
}

fn read(query: &str, arguments: &[DatumWithOid], mut each: impl FnMut(&str)) -> Result<(), Error> {
    sql::with_cursor(query, arguments, &[], AT_ONCE, |cursor| {
        while let Some(row) = cursor.next_row() {
            row.text(1).as_deref().into_iter().for_each(&mut each);
        }
        Ok(())
    })
}
