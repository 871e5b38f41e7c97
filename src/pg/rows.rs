//! Stored rows of a table, one after another, through an SPI cursor under the caller's snapshot and rights. SPI is connected
//! only while rows are fetched, so that the caller may stop anywhere.

use super::diagnostics;
use super::table::Table;
use crate::error::Error;
use crate::op::rows::{RowBlock, StoredRow};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{FromDatum, IntoDatum, pg_sys};
use std::collections::VecDeque;
use std::ffi::{CStr, CString};

/// Rows fetched at a time. Large resources come as 18-byte pointers, so that even this many stay below a few MB.
const FETCH: i64 = 256;

/// A row as the cursor gives it.
#[derive(Debug)]
struct Fetched {
    id: Vec<u8>,
    resource_type: Option<Vec<u8>>,
    version: i64,
    last_updated: Option<i64>,
    created_at: Option<i64>,
    /// The resource's varlena as it lies in the row: inline, compressed or a pointer to where it is.
    resource: Vec<u8>,
}

impl Fetched {
    /// Adds the row to a block, its resource brought in line but not inflated.
    fn push_to(&self, block: &mut RowBlock) {
        let stored = self.resource.as_ptr().cast_mut().cast::<pg_sys::varlena>();
        // SAFETY: a whole varlena, copied from the row.
        let external = unsafe { pgrx::varatt_is_1b_e(stored) };
        let inline = match external {
            // SAFETY: a pointer copied from the row; the snapshot that read it keeps what it points to.
            true => unsafe { pg_sys::detoast_external_attr(stored) },
            false => stored,
        };
        // SAFETY: a whole varlena.
        let size = unsafe { pgrx::varsize_any(inline) };
        // SAFETY: the value has this many bytes.
        let resource = unsafe { std::slice::from_raw_parts(inline.cast::<u8>(), size) };
        block.push(StoredRow {
            id: &self.id,
            resource_type: self.resource_type.as_deref(),
            version: self.version,
            last_updated: self.last_updated,
            created_at: self.created_at,
            resource,
        });
        if external {
            // SAFETY: allocated by the call above; the block has its own copy.
            unsafe { pg_sys::pfree(inline.cast()) };
        }
    }
}

/// A cursor over a table's current resources.
#[derive(Debug)]
pub struct Rows {
    portal: CString,
    fetched: VecDeque<Fetched>,
    ended: bool,
}

impl Rows {
    /// Opens the cursor. `since` keeps what was created after it.
    pub fn open(table: &Table, since: Option<TimestampWithTimeZone>) -> Result<Rows, Error> {
        let column = |there: bool, name: &str, kind: &str| {
            if there { format!("{name}::pg_catalog.{kind}") } else { format!("null::pg_catalog.{kind}") }
        };
        let mut query = format!(
            "select id::pg_catalog.text, txid::pg_catalog.int8, {}, {}, {}, resource from {} where status::pg_catalog.text operator(pg_catalog.<>) 'deleted'",
            column(table.has_resource_type, "resource_type", "text"),
            column(table.has_ts, "ts", "timestamptz"),
            column(table.has_cts, "cts", "timestamptz"),
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

    fn fetch(&mut self) {
        self.fetched = diagnostics::keep(|| connected(|| fetch(&self.portal)));
        if self.fetched.len() < FETCH as usize {
            self.ended = true;
            close(&self.portal);
        }
    }
}

impl crate::op::rows::Rows for Rows {
    fn fill(&mut self, block: &mut RowBlock, bytes: usize, rows: usize) -> bool {
        while block.size() < bytes && block.len() < rows {
            if self.fetched.is_empty() && !self.ended {
                self.fetch();
            }
            match self.fetched.pop_front() {
                Some(row) => row.push_to(block),
                None => break,
            }
        }
        pgrx::check_for_interrupts!();
        !(self.fetched.is_empty() && self.ended)
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

fn fetch(portal: &CStr) -> VecDeque<Fetched> {
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

fn stored(rows: *mut pg_sys::SPITupleTable, index: usize) -> Fetched {
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
        unsafe { <&[u8]>::from_datum(value, null) }.map(<[u8]>::to_vec)
    };
    let number = |column: i32| {
        let (value, null) = datum(column);
        (!null).then(|| value.value() as i64)
    };
    let (resource, _) = datum(6);
    Fetched {
        id: text(1).unwrap_or_default(),
        version: number(2).unwrap_or_default(),
        resource_type: text(3),
        last_updated: number(4),
        created_at: number(5),
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
