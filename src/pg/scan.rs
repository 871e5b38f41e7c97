//! Stored rows for a worker: by a cursor of its own, in its own transaction.

use super::diagnostics;
use super::rows::{self, COLUMNS};
use super::table::Table;
use crate::error::Error;
use crate::op::pipe::{Fed, Feed, Size};
use crate::op::rows::RowBlock;
use pgrx::{IntoDatum, PgRelation, Spi, pg_sys};
use std::ffi::{CString, c_long};
use std::ptr;

/// Rows that are fetched at a time: of a table, whose large values stay where they are, and of what may make its values as it goes.
const AT_ONCE: (c_long, c_long) = (200, 4);

/// Which rows of a table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    /// From this page up to, not including, that one; all pages where the table has none that can be told apart.
    pub pages: Option<(u32, u32)>,
    /// Of this `ts`, in microseconds since 2000-01-01 UTC.
    pub written_at: Option<i64>,
}

/// The pages of a table, and which file has them; None where rows are not found by page: partitions, views, foreign tables, inheritance.
pub fn pages(table: &Table) -> Option<(u32, String)> {
    // SAFETY: the oid comes from a look-up; a table dropped since is an ERROR.
    let relation = unsafe { PgRelation::with_lock(table.oid, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open relation has its row of the catalog.
    let class = unsafe { *relation.rd_rel };
    let heap = pg_sys::HEAP_TABLE_AM_OID;
    let plain = class.relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char && class.relam == heap && !class.relhassubclass;
    // SAFETY: a table with storage.
    let pages = plain.then(|| unsafe { pg_sys::RelationGetNumberOfBlocksInFork(relation.as_ptr(), pg_sys::ForkNumber::MAIN_FORKNUM) });
    pages.map(|pages| (pages, format!("{}/{}", table.oid.to_u32(), class.relfilenode.to_u32())))
}

/// Runs `work` on the rows of a range.
pub fn with_rows<T>(table: &Table, range: Range, work: impl FnOnce(Scan) -> Result<T, Error>) -> Result<T, Error> {
    let mut filter = "true".to_owned();
    if let Some((first, end)) = range.pages {
        filter.push_str(&format!(
            " and ctid operator(pg_catalog.>=) '({first},0)'::pg_catalog.tid and ctid operator(pg_catalog.<) '({end},0)'::pg_catalog.tid"
        ));
    }
    if range.written_at.is_some() {
        filter.push_str(" and ts operator(pg_catalog.=) $1");
    }
    let text = CString::new(rows::query(table, &filter)).map_err(|error| Error::Internal(error.to_string()))?;
    Spi::connect(|_| {
        let portal = diagnostics::keep(None, || open(&text, range.written_at));
        let result = work(Scan {
            portal,
            fetched: ptr::null_mut(),
            next: 0,
            at_once: if range.pages.is_some() { AT_ONCE.0 } else { AT_ONCE.1 },
            table: table.name.clone(),
        });
        // SAFETY: the cursor of above.
        unsafe { pg_sys::SPI_cursor_close(portal) };
        result
    })
}

fn open(text: &CString, written_at: Option<i64>) -> pg_sys::Portal {
    let mut kinds = [pg_sys::TIMESTAMPTZOID];
    let mut values = [written_at.into_datum().unwrap_or(pg_sys::Datum::from(0))];
    let count = i32::from(written_at.is_some());
    // SAFETY: one type and value a parameter, none of them null; an SPI connection is open.
    unsafe {
        pg_sys::SPI_cursor_open_with_args(ptr::null(), text.as_ptr(), count, kinds.as_mut_ptr(), values.as_mut_ptr(), ptr::null(), true, 0)
    }
}

/// Rows, one after another.
#[derive(Debug)]
pub struct Scan {
    portal: pg_sys::Portal,
    /// Rows that were fetched last; null before the first.
    fetched: *mut pg_sys::SPITupleTable,
    next: u64,
    at_once: c_long,
    table: String,
}

impl Scan {
    /// Adds the next row to a block; false behind the last.
    fn push(&mut self, block: &mut RowBlock) -> Result<bool, Error> {
        // SAFETY: null, or rows that this cursor gave.
        let mut count = unsafe { self.fetched.as_ref() }.map_or(0, |rows| rows.numvals);
        if self.next == count {
            if !self.fetched.is_null() {
                // SAFETY: as above; used no more.
                unsafe { pg_sys::SPI_freetuptable(self.fetched) };
            }
            // SAFETY: a cursor that is open.
            unsafe { pg_sys::SPI_cursor_fetch(self.portal, true, self.at_once) };
            // SAFETY: set by the fetch.
            self.fetched = unsafe { pg_sys::SPI_tuptable };
            self.next = 0;
            // SAFETY: as above.
            count = unsafe { self.fetched.as_ref() }.map_or(0, |rows| rows.numvals);
            if count == 0 {
                return Ok(false);
            }
        }
        let (mut values, mut nulls) = ([pg_sys::Datum::from(0); COLUMNS], [false; COLUMNS]);
        // SAFETY: rows were fetched.
        let rows = unsafe { &*self.fetched };
        // SAFETY: there are more rows than `next`.
        let row = unsafe { rows.vals.add(self.next as usize) };
        // SAFETY: as above.
        let row = unsafe { *row };
        // SAFETY: a row of that many columns, with its descriptor.
        unsafe { pg_sys::heap_deform_tuple(row, rows.tupdesc, values.as_mut_ptr(), nulls.as_mut_ptr()) };
        self.next += 1;
        rows::push(&self.table, &values, &nulls, block)?;
        Ok(true)
    }
}

impl Feed for Scan {
    type Block = RowBlock;

    fn next(&mut self, size: Size) -> Result<Fed<RowBlock>, Error> {
        diagnostics::keep(None, || {
            let mut block = RowBlock::default();
            let mut more = true;
            while more && block.size() < size.bytes && block.len() < size.rows {
                more = self.push(&mut block)?;
            }
            let bytes = block.size();
            Ok(Fed { rows: block.len(), block, bytes, more })
        })
    }
}
