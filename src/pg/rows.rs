//! Stored rows of a table, one after another, through an SPI cursor under the caller's snapshot and rights. SPI is connected
//! only while rows are fetched, so that the caller may stop anywhere.

use super::diagnostics;
use super::table::Table;
use crate::error::Error;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{FromDatum, IntoDatum, pg_sys};
use std::collections::VecDeque;
use std::ffi::{CStr, CString};

/// Rows fetched at a time. Large resources come as 18-byte pointers, so that even this many stay below a few MB.
const FETCH: i64 = 256;

/// A row as the cursor gives it.
#[derive(Debug)]
pub struct Stored {
    pub id: String,
    pub version_id: String,
    pub resource_type: Option<String>,
    pub last_updated: Option<String>,
    pub created_at: Option<String>,
    /// The resource's varlena as it lies in the row: inline, compressed or a pointer to where it is.
    resource: Vec<u8>,
}

impl Stored {
    /// Hands the inflated jsonb, behind its header, to `use_it`.
    pub fn with_resource<T>(&self, use_it: impl FnOnce(&[u8]) -> T) -> T {
        let stored = self.resource.as_ptr().cast_mut().cast::<pg_sys::varlena>();
        // SAFETY: a whole varlena, copied from the row; the snapshot that read it keeps what it points to.
        let plain = unsafe { pg_sys::pg_detoast_datum(stored) };
        // SAFETY: a plain varlena with a 4-byte header.
        let bytes = unsafe { pgrx::varlena::varlena_to_byte_slice(plain) };
        let result = use_it(bytes);
        if plain != stored {
            // SAFETY: allocated by the call above; `bytes` is used no more.
            unsafe { pg_sys::pfree(plain.cast()) };
        }
        result
    }
}

/// A cursor over a table's current resources.
#[derive(Debug)]
pub struct Rows {
    portal: CString,
    fetched: VecDeque<Stored>,
    ended: bool,
}

impl Rows {
    /// Opens the cursor. `since` keeps what was created after it.
    pub fn open(table: &Table, since: Option<TimestampWithTimeZone>) -> Result<Rows, Error> {
        let column = |there: bool, name: &'static str| if there { name } else { "null" };
        let time = |there: bool, name: &str| match there {
            // PostgreSQL prints what no calendar holds ('infinity') as null.
            true => format!("pg_catalog.to_char({name} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"),
            false => "null::pg_catalog.text".to_owned(),
        };
        let mut query = format!(
            "select id::pg_catalog.text, txid::pg_catalog.text, {}::pg_catalog.text, {}, {}, resource from {} where status::pg_catalog.text \
             operator(pg_catalog.<>) 'deleted'",
            column(table.has_resource_type, "resource_type"),
            time(table.has_ts, "ts"),
            time(table.has_cts, "cts"),
            table.name
        );
        let mut values = Vec::new();
        if let Some(since) = since {
            if !table.has_cts {
                return Err(Error::NoCreationTime(table.plain_name.clone()));
            }
            query.push_str(" and cts operator(pg_catalog.>) $1");
            values.extend(since.into_datum());
        }
        let query = CString::new(query).map_err(|error| Error::Internal(error.to_string()))?;
        let portal = diagnostics::keep(|| connected(|| open_cursor(&query, &mut values)));
        Ok(Rows { portal, fetched: VecDeque::new(), ended: false })
    }

    /// Name of the cursor's portal.
    pub fn portal(&self) -> &CStr {
        &self.portal
    }

    /// The next row; None at the end.
    pub fn next_row(&mut self) -> Option<Stored> {
        if self.fetched.is_empty() && !self.ended {
            self.fetch();
        }
        self.fetched.pop_front()
    }

    fn fetch(&mut self) {
        self.fetched = diagnostics::keep(|| connected(|| fetch(&self.portal)));
        if self.fetched.len() < FETCH as usize {
            self.ended = true;
            close(&self.portal);
        }
    }
}

/// Closes a cursor that is still open.
pub fn close(portal: &CStr) {
    // SAFETY: a NUL-terminated name; null when there is no such portal.
    let found = unsafe { pg_sys::SPI_cursor_find(portal.as_ptr()) };
    if !found.is_null() {
        // SAFETY: a portal that exists and is not running.
        unsafe { pg_sys::SPI_cursor_close(found) };
    }
}

/// Runs `work` while connected to SPI. After an ERROR the end of the transaction disconnects.
fn connected<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: paired with SPI_finish below.
    unsafe { pg_sys::SPI_connect() };
    let result = work();
    // SAFETY: connected above.
    unsafe { pg_sys::SPI_finish() };
    result
}

/// Opens a cursor with at most one parameter, a timestamptz, and returns its name.
fn open_cursor(query: &CStr, values: &mut [pg_sys::Datum]) -> CString {
    let mut kinds = [pg_sys::TIMESTAMPTZOID];
    // SAFETY: one type and value a parameter; read-only, so that the query sees what the calling statement sees.
    let portal = unsafe {
        pg_sys::SPI_cursor_open_with_args(
            std::ptr::null(),
            query.as_ptr(),
            values.len() as i32,
            kinds.as_mut_ptr(),
            values.as_mut_ptr(),
            std::ptr::null(),
            true,
            0,
        )
    };
    // SAFETY: a portal just opened.
    let name = unsafe { (*portal).name };
    // SAFETY: a NUL-terminated string that the portal owns.
    unsafe { CStr::from_ptr(name) }.to_owned()
}

fn fetch(portal: &CStr) -> VecDeque<Stored> {
    // SAFETY: a NUL-terminated name.
    let found = unsafe { pg_sys::SPI_cursor_find(portal.as_ptr()) };
    if found.is_null() {
        super::report::raise(&Error::Internal("the dump's cursor is gone".to_owned()));
    }
    // SAFETY: an open portal.
    unsafe { pg_sys::SPI_cursor_fetch(found, true, FETCH) };
    // SAFETY: set by the fetch.
    let rows = unsafe { pg_sys::SPI_tuptable };
    // SAFETY: as above.
    let count = unsafe { pg_sys::SPI_processed };
    let stored = (0..count as usize).map(|index| stored(rows, index)).collect();
    // SAFETY: the values were copied.
    unsafe { pg_sys::SPI_freetuptable(rows) };
    stored
}

fn stored(rows: *mut pg_sys::SPITupleTable, index: usize) -> Stored {
    // SAFETY: a table that SPI filled.
    let table = unsafe { &*rows };
    // SAFETY: an index below the number of rows.
    let tuple = unsafe { table.vals.add(index) };
    // SAFETY: a pointer into the array of rows.
    let tuple = unsafe { *tuple };
    let datum = |column: i32| {
        let mut null = false;
        // SAFETY: a row of this descriptor.
        let value = unsafe { pg_sys::SPI_getbinval(tuple, table.tupdesc, column, &mut null) };
        (value, null)
    };
    let text = |column: i32| {
        let (value, null) = datum(column);
        // SAFETY: a column of type text.
        unsafe { String::from_datum(value, null) }
    };
    let (resource, _) = datum(6);
    Stored {
        id: text(1).unwrap_or_default(),
        version_id: text(2).unwrap_or_default(),
        resource_type: text(3),
        last_updated: text(4),
        created_at: text(5),
        resource: copy_varlena(resource.cast_mut_ptr()),
    }
}

/// The bytes of a varlena of any kind, as they are.
fn copy_varlena(value: *mut pg_sys::varlena) -> Vec<u8> {
    // SAFETY: a value of a column that is not null.
    let size = unsafe { pgrx::varsize_any(value) };
    // SAFETY: the value has this many bytes.
    unsafe { std::slice::from_raw_parts(value.cast::<u8>(), size) }.to_vec()
}
