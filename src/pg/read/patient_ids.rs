//! Ids of a table's current resources.

use crate::error::Error;
use crate::pg::catalog::resource_table::Table;
use crate::pg::sys::error_context;
use pgrx::datum::DatumWithOid;
use pgrx::{Spi, spi};
use std::ffi::c_long;

/// Fetched at a time.
const AT_ONCE: c_long = 10_000;

const CURRENT: &str = "(status is null or status::pg_catalog.text operator(pg_catalog.<>) 'deleted')";

/// Calls `each` with all of them.
pub fn of_all(table: &Table, each: impl FnMut(&str)) -> Result<(), Error> {
    read(&format!("select id::pg_catalog.text from {} where {CURRENT}", table.name), &[], each)
}

/// Those of these that are there.
pub fn of_these(table: &Table, ids: &[String]) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let query = format!("select id::pg_catalog.text from {} where id operator(pg_catalog.=) any ($1) and {CURRENT}", table.name);
    read(&query, &[ids.to_vec().into()], |id| found.push(id.to_owned()))?;
    Ok(found)
}

fn read(query: &str, arguments: &[DatumWithOid], mut each: impl FnMut(&str)) -> Result<(), Error> {
    let done = error_context::with_context(None, || {
        Spi::connect(|client| {
            let mut cursor = client.try_open_cursor(query, arguments)?;
            loop {
                let rows = cursor.fetch(AT_ONCE)?;
                if rows.is_empty() {
                    return Ok::<(), spi::Error>(());
                }
                for row in rows {
                    row.get::<&str>(1)?.into_iter().for_each(&mut each);
                }
            }
        })
    });
    done.map_err(|error| Error::Internal(error.to_string()))
}
