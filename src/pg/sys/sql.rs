//! Statements: the one way to run one, and the one cursor. What statements say is qualified, since they run under whatever search path is set.

use crate::error::Error;
use crate::pg::sys::ephemeral_relation::Ephemeral;
use crate::pg::sys::{error_context, guc};
use pgrx::datum::{DatumWithOid, FromDatum, IntoDatum};
use pgrx::spi::{SpiClient, SpiHeapTupleData};
use pgrx::{Spi, pg_sys};
use std::ffi::{CString, c_char, c_int, c_long};
use std::ptr;

/// A statement's result, row after row.
pub type Row<'a> = SpiHeapTupleData<'a>;

/// Runs a statement as the current user; what `read` makes of its rows.
///
/// # Errors
/// `Internal` where SPI or a column's type is not as expected. An ERROR of the statement is raised, with its context whole.
pub fn query<T>(
    statement: &str,
    arguments: &[DatumWithOid],
    mut read: impl FnMut(Row) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    with_client(None, |client| client.update(statement, None, arguments)?.map(&mut read).collect())
}

/// The same of a statement that only reads: it sees what is committed by now, and gives the transaction no number.
///
/// # Errors
/// As `query`.
pub fn select_latest<T>(
    statement: &str,
    arguments: &[DatumWithOid],
    mut read: impl FnMut(Row) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    // SAFETY: a transaction is running.
    let snapshot = unsafe { pg_sys::GetLatestSnapshot() };
    // SAFETY: the snapshot is copied; after an ERROR the (sub)transaction's end takes the copy away.
    unsafe { pg_sys::PushActiveSnapshot(snapshot) };
    let found = with_reader(|client| client.select(statement, None, arguments)?.map(&mut read).collect());
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    found
}

/// Runs a statement as the current user: how many rows it had.
///
/// # Errors
/// As `query`.
pub fn run(statement: &str, arguments: &[DatumWithOid]) -> Result<u64, Error> {
    with_client(None, |client| client.update(statement, None, arguments).map(|rows| rows.len() as u64))
}

/// The value of a statement's first row and column; None without a row, or where it is null.
///
/// # Errors
/// As `query`.
pub fn value<T: FromDatum + IntoDatum>(statement: &str, arguments: &[DatumWithOid]) -> Result<Option<T>, Error> {
    query(statement, arguments, |row| row.get::<T>(1)).map(|found| found.into_iter().flatten().next())
}

/// Runs work with SPI connected. `place` becomes part of an ERROR's context: what of which source was being stored.
///
/// # Errors
/// As `query`.
pub fn with_client<T>(place: Option<&str>, work: impl FnOnce(&mut SpiClient<'_>) -> Result<T, pgrx::spi::Error>) -> Result<T, Error> {
    guc::unexplained(|| error_context::with_context(place, || Spi::connect_mut(work))).map_err(|error| Error::Internal(error.to_string()))
}

/// The same for work that only reads, which gives the transaction no number.
///
/// # Errors
/// As `query`.
pub fn with_reader<T>(work: impl FnOnce(&SpiClient<'_>) -> Result<T, pgrx::spi::Error>) -> Result<T, Error> {
    guc::unexplained(|| error_context::with_context(None, || Spi::connect(work))).map_err(|error| Error::Internal(error.to_string()))
}

/// An oid as an argument of type `regclass`.
pub fn regclass(oid: pg_sys::Oid) -> DatumWithOid<'static> {
    // SAFETY: an oid is passed by value, and regclass is one.
    unsafe { DatumWithOid::new(oid, pg_sys::REGCLASSOID) }
}

/// The relation of a name in a schema.
pub fn relation(name: &str, schema: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: a NUL-terminated name; a catalog look-up.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The type of this name in a schema.
pub fn type_named(name: &str, schema: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    let (name, nothing) = (pg_sys::Datum::from(name.as_ptr()), pg_sys::Datum::from(0));
    let (cache, column) = (pg_sys::SysCacheIdentifier::TYPENAMENSP as i32, pg_sys::Anum_pg_type_oid as i16);
    // SAFETY: the cache's keys are a NUL-terminated name and a schema.
    let oid = unsafe { pg_sys::GetSysCacheOid(cache, column, name, pg_sys::Datum::from(schema), nothing, nothing) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The rows of a query that only reads, some at a time: those of the fetch before are freed, whatever becomes of them in Rust.
#[derive(Debug)]
pub struct Cursor {
    portal: pg_sys::Portal,
    /// Rows that were fetched last; null before the first and behind the last.
    fetched: *mut pg_sys::SPITupleTable,
    next: usize,
    at_once: c_long,
}

/// A row that a cursor is at, until it is asked for another.
pub struct CursorRow<'a> {
    tuple: pg_sys::HeapTuple,
    columns: pg_sys::TupleDesc,
    cursor: std::marker::PhantomData<&'a mut Cursor>,
}

/// Runs work with a cursor of a query, `at_once` rows a fetch, and closes it. The query may read `relations` by their names.
///
/// # Errors
/// Those of `work`, and `Internal` for a query with a NUL. An ERROR of the query is raised.
pub fn with_cursor<T>(
    query: &str,
    arguments: &[DatumWithOid],
    relations: &[&Ephemeral],
    at_once: c_long,
    work: impl FnOnce(&mut Cursor) -> Result<T, Error>,
) -> Result<T, Error> {
    let text = CString::new(query).map_err(|error| Error::Internal(error.to_string()))?;
    let mut kinds: Vec<pg_sys::Oid> = arguments.iter().map(DatumWithOid::oid).collect();
    let datums = arguments.iter().map(|argument| argument.datum().map(|datum| datum.sans_lifetime()));
    let (mut values, nulls): (Vec<pg_sys::Datum>, Vec<c_char>) =
        datums.map(|datum| (datum.unwrap_or(pg_sys::Datum::null()), if datum.is_some() { b' ' } else { b'n' } as c_char)).unzip();
    let run = |_: &SpiClient| {
        relations.iter().for_each(|relation| relation.register());
        let portal = error_context::with_context(None, || {
            let (kinds, values) = (kinds.as_mut_ptr(), values.as_mut_ptr());
            // SAFETY: one type, value and sign of null a parameter; an SPI connection is open, which copies them.
            unsafe {
                pg_sys::SPI_cursor_open_with_args(
                    ptr::null(),
                    text.as_ptr(),
                    arguments.len() as c_int,
                    kinds,
                    values,
                    nulls.as_ptr(),
                    true,
                    0,
                )
            }
        });
        let mut cursor = Cursor { portal, fetched: ptr::null_mut(), next: 0, at_once };
        let result = work(&mut cursor);
        cursor.free();
        // SAFETY: the portal opened above; after an ERROR the (sub)transaction's end closes it.
        unsafe { pg_sys::SPI_cursor_close(portal) };
        result
    };
    guc::unexplained(|| Spi::connect(run))
}

impl Cursor {
    /// The next row; None behind the last. An ERROR of the query is raised.
    pub fn next_row(&mut self) -> Option<CursorRow<'_>> {
        if self.next == self.count() {
            self.free();
            error_context::with_context(None, || {
                // SAFETY: a portal that is open until `with_cursor` ends.
                unsafe { pg_sys::SPI_cursor_fetch(self.portal, true, self.at_once) };
            });
            // SAFETY: set by the fetch; SPI's own until it is freed.
            self.fetched = unsafe { pg_sys::SPI_tuptable };
            self.next = 0;
            if self.count() == 0 {
                return None;
            }
        }
        // SAFETY: not null, since it has rows.
        let rows = unsafe { &*self.fetched };
        // SAFETY: `next` is below the number of rows.
        let place = unsafe { rows.vals.add(self.next) };
        // SAFETY: a place of the array of rows, which SPI fills.
        let tuple = unsafe { *place };
        self.next += 1;
        Some(CursorRow { tuple, columns: rows.tupdesc, cursor: std::marker::PhantomData })
    }

    fn count(&self) -> usize {
        // SAFETY: null, or rows that are not freed yet.
        unsafe { self.fetched.as_ref() }.map_or(0, |rows| rows.numvals as usize)
    }

    fn free(&mut self) {
        if !self.fetched.is_null() {
            // SAFETY: the rows of the last fetch. No `CursorRow` is left of them: it borrows the cursor.
            unsafe { pg_sys::SPI_freetuptable(self.fetched) };
            self.fetched = ptr::null_mut();
            self.next = 0;
        }
    }
}

impl CursorRow<'_> {
    /// All its columns, of which there must be as many as `values` and `nulls` have room for.
    pub fn deform(&self, values: &mut [pg_sys::Datum], nulls: &mut [bool]) {
        // SAFETY: the descriptor of a row that is not freed, since this borrows the cursor.
        let count = unsafe { (*self.columns).natts } as usize;
        assert!(values.len() >= count && nulls.len() >= count, "{count} columns");
        // SAFETY: a row with its descriptor, and room for its columns.
        unsafe { pg_sys::heap_deform_tuple(self.tuple, self.columns, values.as_mut_ptr(), nulls.as_mut_ptr()) };
    }

    /// The text of a column, from 1; None where it is null. Its type must be text.
    pub fn text(&self, column: c_int) -> Option<String> {
        let mut is_null = true;
        // SAFETY: a row with its descriptor; a column that is not there is null.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.columns, column, &mut is_null) };
        // SAFETY: a datum of type text, copied before the row is freed.
        unsafe { String::from_datum(datum, is_null) }
    }
}
