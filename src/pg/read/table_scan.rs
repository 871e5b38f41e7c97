//! Stored rows of a table, one after another, by a query inside the one that calls us.

use crate::error::Error;
use crate::pg::catalog::resource_table::{self, Table};
use crate::pg::read::nested_query::{self, Nested, Statement};
use crate::pg::sys::error_context;
use crate::pipeline::dump::stored_rows::{RowBlock, StoredRow};
use crate::pipeline::parallel_map::{BlockSize, BlockSource, Fetched};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{FromDatum, pg_sys};

/// Columns of the query.
pub const COLUMNS: usize = 6;

/// A table's current resources.
#[derive(Debug)]
pub struct Rows {
    query: Nested,
    table: String,
}

/// The statement of a dump. `since` keeps what was created after it.
fn current(table: &Table, since: Option<TimestampWithTimeZone>) -> Result<String, Error> {
    match since {
        Some(_) if !table.has_cts => Err(Error::NoCreationTime(table.plain_name.clone())),
        Some(_) => Ok(query(table, "cts operator(pg_catalog.>) $1")),
        None => Ok(query(table, "true")),
    }
}

/// Whether a dump can begin: what the caller may not read, and what the table does not have, is an error.
///
/// # Errors
/// As `nested_query::check`.
pub fn check(table: &Table, since: Option<TimestampWithTimeZone>) -> Result<(), Error> {
    nested_query::check(Statement::Ours(&current(table, since)?, since), |_| Ok(()))
}

impl Rows {
    /// Starts the query. `since` keeps what was created after it.
    ///
    /// # Errors
    /// As `nested_query::open`.
    pub fn open(table: &Table, since: Option<TimestampWithTimeZone>, fcinfo: pg_sys::FunctionCallInfo) -> Result<Rows, Error> {
        let query = Nested::open(Statement::Ours(&current(table, since)?, since), table.oid, fcinfo)?;
        Ok(Rows { query, table: table.plain_name.clone() })
    }

    fn push(&self, slot: *mut pg_sys::TupleTableSlot, block: &mut RowBlock) -> Result<(), Error> {
        // SAFETY: a slot with a row.
        let row = unsafe { &*slot };
        // SAFETY: that many columns were read.
        let values = unsafe { std::slice::from_raw_parts(row.tts_values, COLUMNS) };
        // SAFETY: a slot that was deformed has as many signs of null as columns.
        let nulls = unsafe { std::slice::from_raw_parts(row.tts_isnull, COLUMNS) };
        push(&self.table, values, nulls, block)
    }
}

/// Adds a row of the query, by its columns.
///
/// # Errors
/// `Row` for what cannot be written; `Memory`.
pub fn push(table: &str, values: &[pg_sys::Datum], nulls: &[bool], block: &mut RowBlock) -> Result<(), Error> {
    let value = |column: usize| (!nulls[column]).then_some(values[column]);
    let need = |column: usize, name: &'static str| value(column).ok_or_else(|| Error::NullColumn { table: table.to_owned(), column: name });
    // SAFETY: a column of type text; the slice is used before the next row is fetched.
    let text = |datum: pg_sys::Datum| unsafe { <&[u8]>::from_datum(datum, false) }.unwrap_or_default();
    let resource = Inline::of(need(5, "resource")?);
    let pushed = block.push(StoredRow {
        id: text(need(0, "id")?),
        version: need(1, "txid")?.value() as i64,
        resource_type: value(2).map(text),
        last_updated: value(3).map(|datum| datum.value() as i64),
        created_at: value(4).map(|datum| datum.value() as i64),
        resource: resource.bytes(),
    });
    resource.free();
    pushed
}

impl BlockSource for Rows {
    type Block = RowBlock;

    fn next(&mut self, size: BlockSize) -> Result<Fetched<RowBlock>, Error> {
        error_context::with_context(None, || {
            let mut block =
                if size == BlockSize::FIRST { RowBlock::default() } else { RowBlock::with_capacity(size.bytes + size.bytes / 8)? };
            let mut more = true;
            self.query.begin_block();
            while more && block.size() < size.bytes && block.len() < size.rows {
                match self.query.next()? {
                    Some(slot) => self.push(slot, &mut block)?,
                    None => more = false,
                }
            }
            self.query.end_block()?;
            let bytes = block.size();
            self.query.show(block.len() as u64, bytes as u64);
            if !more {
                self.query.end();
            }
            Ok(Fetched { rows: block.len(), block, bytes, more })
        })
    }
}

/// The statement, all its names qualified: a type's current resources, those among them that a condition keeps.
pub fn query(table: &Table, filter: &str) -> String {
    let column = |there: bool, name: &str, kind: &str| {
        if there { format!("{name}::pg_catalog.{kind}") } else { format!("null::pg_catalog.{kind}") }
    };
    format!(
        "select id::pg_catalog.text, txid::pg_catalog.int8, {}, {}, {}, resource from {} \
         where {} and {filter}",
        column(table.has_resource_type, "resource_type", "text"),
        column(table.has_ts, "ts", "timestamptz"),
        column(table.has_cts, "cts", "timestamptz"),
        table.name,
        resource_table::is_current("status"),
    )
}

/// The same of resources that are gone: their last versions, as columns of that statement.
pub fn deleted(table: &Table, history: Option<&Table>, filter: &str) -> String {
    let gone = |of: &Table| {
        let column = |there: bool, name: &str, kind: &str| {
            if there { format!("{name}::pg_catalog.{kind} as {name}") } else { format!("null::pg_catalog.{kind} as {name}") }
        };
        format!(
            "select id::pg_catalog.text as id, txid::pg_catalog.int8 as txid, {}, {}, {}, coalesce(resource, '{{}}'::pg_catalog.jsonb) as resource \
             from {} where {} and {filter}",
            column(of.has_resource_type, "resource_type", "text"),
            column(of.has_ts, "ts", "timestamptz"),
            column(of.has_cts, "cts", "timestamptz"),
            of.name,
            resource_table::is_deleted("status"),
        )
    };
    let all = [Some(table), history].into_iter().flatten().map(gone).collect::<Vec<_>>().join(" union all ");
    format!(
        "select id, txid, resource_type, ts, cts, resource from \
         (select distinct on (id) * from ({all}) a order by id, txid using operator(pg_catalog.>)) g where not exists (select from {} t \
         where t.id operator(pg_catalog.=) g.id and {})",
        table.name,
        resource_table::is_current("t.status"),
    )
}

/// A resource's varlena, brought in line but not inflated.
struct Inline {
    value: *mut pg_sys::varlena,
    ours: bool,
}

impl Inline {
    fn of(datum: pg_sys::Datum) -> Inline {
        let value = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: a value of a jsonb column that is not null.
        let external = unsafe { pgrx::varatt_is_1b_e(value) };
        match external {
            // SAFETY: a pointer out of the row; the snapshot that read it keeps what it points to.
            true => Inline { value: unsafe { pg_sys::detoast_external_attr(value) }, ours: true },
            false => Inline { value, ours: false },
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: a whole varlena.
        let size = unsafe { pgrx::varsize_any(self.value) };
        // SAFETY: the value has this many bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.value.cast::<u8>(), size) }
    }

    fn free(self) {
        if self.ours {
            // SAFETY: allocated by `of`.
            unsafe { pg_sys::pfree(self.value.cast()) };
        }
    }
}
