//! Stored rows for a worker: by a cursor of its own, in its own transaction.

use crate::error::Error;
use crate::pg::catalog::resource_table::Table;
use crate::pg::read::table_scan::{self, COLUMNS};
use crate::pg::sys::error_context;
use crate::pg::sys::sql::{self, Cursor};
use crate::pipeline::dump::stored_rows::RowBlock;
use crate::pipeline::parallel_map::{BlockSize, BlockSource, Fetched};
use pgrx::datum::DatumWithOid;
use pgrx::{PgRelation, pg_sys};
use std::ffi::c_long;

/// Rows that are fetched at a time: of a table, whose large values stay where they are, and of what may make its values as it goes.
const AT_ONCE: (c_long, c_long) = (200, 4);

/// Which rows of a table: those for which all conditions hold.
#[derive(Default)]
pub struct Filter {
    conditions: Vec<String>,
    arguments: Vec<DatumWithOid<'static>>,
    /// Whether large values stay where they are until a row is read.
    by_pages: bool,
}

/// How a time is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    At,
    After,
}

impl Filter {
    /// The parameter that an argument has.
    fn parameter(&mut self, argument: DatumWithOid<'static>) -> String {
        self.arguments.push(argument);
        format!("${}", self.arguments.len())
    }

    /// From this page up to, not including, that one.
    pub fn pages(&mut self, first: u32, end: u32) {
        self.by_pages = true;
        self.conditions.push(format!("ctid operator(pg_catalog.>=) '({first},0)'::pg_catalog.tid"));
        if end < u32::MAX {
            self.conditions.push(format!("ctid operator(pg_catalog.<) '({end},0)'::pg_catalog.tid"));
        }
    }

    /// Of such a `ts`, in microseconds since 2000-01-01 UTC.
    pub fn written(&mut self, when: When, microseconds: i64) {
        let sign = match when {
            When::Before => "<",
            When::At => "=",
            When::After => ">",
        };
        // SAFETY: a timestamptz is an int8 of microseconds, passed by value.
        let time = self.parameter(unsafe { DatumWithOid::new(microseconds, pg_sys::TIMESTAMPTZOID) });
        self.conditions.push(format!("ts operator(pg_catalog.{sign}) {time}"));
    }

    /// Of one of these ids, or with a resource that contains one of these JSON objects.
    pub fn one_of(&mut self, ids: Vec<String>, patterns: Vec<String>) {
        let mut either = Vec::new();
        if !ids.is_empty() {
            let ids = self.parameter(ids.into());
            either.push(format!("id operator(pg_catalog.=) any ({ids})"));
        }
        if !patterns.is_empty() {
            let patterns = self.parameter(patterns.into());
            either.push(format!("resource operator(pg_catalog.@>) any ({patterns}::pg_catalog.jsonb[])"));
        }
        self.conditions.push(if either.is_empty() { "false".to_owned() } else { format!("({})", either.join(" or ")) });
    }

    fn text(&self) -> String {
        if self.conditions.is_empty() { "true".to_owned() } else { self.conditions.join(" and ") }
    }
}

/// Pages that hold a table's values beside its rows.
pub fn pages_beside(table: &Table) -> u32 {
    // SAFETY: the oid comes from a look-up; a table dropped since is an ERROR.
    let relation = unsafe { PgRelation::with_lock(table.oid, pg_sys::AccessShareLock as i32) };
    // SAFETY: an open relation has its row of the catalog.
    let toast = unsafe { (*relation.rd_rel).reltoastrelid };
    if toast == pg_sys::InvalidOid {
        return 0;
    }
    // SAFETY: it lives as long as its table, which is locked.
    let toast = unsafe { PgRelation::with_lock(toast, pg_sys::AccessShareLock as i32) };
    // SAFETY: a table with storage.
    unsafe { pg_sys::RelationGetNumberOfBlocksInFork(toast.as_ptr(), pg_sys::ForkNumber::MAIN_FORKNUM) }
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

/// Runs `work` on the current resources of a table that a filter keeps.
///
/// # Errors
/// Those of `work` and of the query.
pub fn with_rows<T>(table: &Table, filter: Filter, work: impl FnOnce(Scan) -> Result<T, Error>) -> Result<T, Error> {
    with(&table.name, &table_scan::query(table, &filter.text()), filter, work)
}

/// The same on the last versions of resources that are gone, from a table and that of its earlier versions.
///
/// # Errors
/// As `with_rows`.
pub fn with_deleted<T>(
    table: &Table,
    history: Option<&Table>,
    filter: Filter,
    work: impl FnOnce(Scan) -> Result<T, Error>,
) -> Result<T, Error> {
    with(&table.name, &table_scan::deleted(table, history, &filter.text()), filter, work)
}

fn with<T>(table: &str, query: &str, filter: Filter, work: impl FnOnce(Scan) -> Result<T, Error>) -> Result<T, Error> {
    let at_once = if filter.by_pages { AT_ONCE.0 } else { AT_ONCE.1 };
    sql::with_cursor(query, &filter.arguments, &[], at_once, |cursor| work(Scan { cursor, table: table.to_owned() }))
}

/// Rows, one after another.
#[derive(Debug)]
pub struct Scan<'a> {
    cursor: &'a mut Cursor,
    table: String,
}

impl Scan<'_> {
    /// Adds the next row to a block; false behind the last.
    fn push(&mut self, block: &mut RowBlock) -> Result<bool, Error> {
        let Some(row) = self.cursor.next_row() else { return Ok(false) };
        let (mut values, mut nulls) = ([pg_sys::Datum::from(0); COLUMNS], [false; COLUMNS]);
        row.deform(&mut values, &mut nulls);
        table_scan::push(&self.table, &values, &nulls, block)?;
        Ok(true)
    }
}

impl BlockSource for Scan<'_> {
    type Block = RowBlock;

    fn next(&mut self, size: BlockSize) -> Result<Fetched<RowBlock>, Error> {
        error_context::with_context(None, || {
            let mut block = RowBlock::default();
            let mut more = true;
            while more && block.size() < size.bytes && block.len() < size.rows {
                more = self.push(&mut block)?;
            }
            let bytes = block.size();
            Ok(Fetched { rows: block.len(), block, bytes, more })
        })
    }
}
