//! The fast way of writing new rows: straight into the heap, many at a time, as COPY does it (commands/copyfrom.c), but without
//! its parsing. Only for tables where that is exactly what INSERT would do, see `eligible`.

use super::compat;
use super::diagnostics;
use super::eligible::{Layout, class};
use super::memory;
use crate::jsonb::toast::{Column, Method, Rule};
use crate::op::batch::{Batch, Row};
use pgrx::{PgRelation, pg_sys};
use std::ffi::{CStr, c_int};

unsafe extern "C-unwind" {
    // Of PostgreSQL's sequence.c; pgrx does not bind it.
    fn nextval_internal(sequence: pg_sys::Oid, check_permissions: bool) -> i64;
}

/// Rows handed to the heap at a time, as COPY does.
const ROWS: usize = 1000;
/// Bytes of resources handed to the heap at a time.
const BYTES: usize = 1 << 20;

/// A table that is open for writing. Whoever makes it closes it, unless an ERROR does.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    status: pg_sys::Oid,
    sequence: pg_sys::Oid,
    table: pg_sys::Oid,
    resource_type: pg_sys::Datum,
    relation: pg_sys::Relation,
    estate: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    bulk: pg_sys::BulkInsertState,
    has_constraints: bool,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    scratch: pg_sys::MemoryContext,
}

impl Writer {
    /// Opens a table whose layout was found good; checks the caller's rights to it.
    pub fn open(table: pg_sys::Oid, layout: Layout, status: pg_sys::Oid, sequence: pg_sys::Oid, resource_type: &str) -> Writer {
        // SAFETY: a table that exists; the lock is kept to the transaction's end.
        let relation = unsafe { pg_sys::table_open(table, pg_sys::RowExclusiveLock as i32) };
        read_only_check(relation);
        // SAFETY: makes a state in a memory context of its own.
        let estate = unsafe { pg_sys::CreateExecutorState() };
        let columns: Vec<i16> = (1..=layout.count as i16).collect();
        let rte = range_table_entry(table);
        compat::init_range_table(estate, &compat::Access { rte, columns: &columns });
        // SAFETY: makes a zeroed node.
        let target = unsafe { pgrx::PgBox::<pg_sys::ResultRelInfo>::alloc_node(pg_sys::NodeTag::T_ResultRelInfo) }.into_pg();
        // SAFETY: the range table has this one entry, whose relation is locked.
        unsafe { pg_sys::ExecInitResultRelation(estate, target, 1) };
        compat::check_insert(target);
        // SAFETY: an initialized result relation.
        unsafe { pg_sys::ExecOpenIndices(target, false) };
        // SAFETY: allocates.
        let bulk = unsafe { pg_sys::GetBulkInsertState() };
        // SAFETY: an open relation.
        let descriptor = unsafe { (*relation).rd_att };
        // SAFETY: an open relation always has a descriptor.
        let has_constraints = unsafe { !(*descriptor).constr.is_null() };
        // SAFETY: the context of this call, which outlives the writer.
        let parent = unsafe { pg_sys::CurrentMemoryContext };
        // SAFETY: makes a child of it.
        let scratch = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                c"bulk insert".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        Writer {
            resource_type: text(resource_type),
            has_constraints,
            layout,
            status,
            sequence,
            table,
            relation,
            estate,
            target,
            bulk,
            slots: Vec::new(),
            scratch,
        }
    }

    /// How the table's resources are compressed; None when they are not.
    pub fn compression(&self, resource_type: &str) -> Option<Rule> {
        // SAFETY: the relation is open as long as the writer.
        let relation = unsafe { PgRelation::from_pg(self.relation) };
        let descriptor = relation.tuple_desc();
        let attribute = descriptor.get(self.layout.resource)?;
        if !matches!(attribute.attstorage as u8, pg_sys::TYPSTORAGE_EXTENDED | pg_sys::TYPSTORAGE_MAIN) {
            return None;
        }
        let lz4 = match attribute.attcompression as u8 {
            0 => default_is_lz4(),
            method => method == b'l',
        };
        let fixed = |length| Column::Fixed { length, align: length };
        let columns = (0..self.layout.count).map(|index| match index {
            _ if index == self.layout.id => Column::Id,
            _ if index == self.layout.resource => Column::Resource,
            _ if index == self.layout.status => fixed(4),
            _ if Some(index) == self.layout.resource_type => Column::Text(resource_type.len()),
            _ => fixed(8),
        });
        Some(Rule { columns: columns.collect(), target: self.toast_target(), method: if lz4 { Method::Lz4 } else { Method::Pglz } })
    }

    /// The table's `toast_tuple_target`, in bytes.
    fn toast_target(&self) -> usize {
        const DEFAULT: usize = 2032;
        // SAFETY: an open relation.
        let options = unsafe { (*self.relation).rd_options }.cast::<pg_sys::StdRdOptions>();
        if options.is_null() {
            return DEFAULT;
        }
        // SAFETY: the options of a heap are of this kind.
        let target = unsafe { (*options).toast_tuple_target };
        usize::try_from(target).unwrap_or(DEFAULT)
    }

    /// Inserts rows whose ids are not in the table. A duplicate key is an ERROR of PostgreSQL's own.
    pub fn insert(&mut self, batch: &Batch, rows: &[&Row]) {
        diagnostics::keep(Some(&batch.extent()), || {
            let mut rest = rows;
            while !rest.is_empty() {
                let mut bytes = 0;
                let count = rest
                    .iter()
                    .take(ROWS)
                    .take_while(|row| {
                        let fits = bytes < BYTES;
                        bytes += batch.resource(row).len();
                        fits
                    })
                    .count();
                self.insert_some(batch, &rest[..count]);
                rest = &rest[count..];
                pgrx::check_for_interrupts!();
            }
        });
    }

    fn insert_some(&mut self, batch: &Batch, rows: &[&Row]) {
        while self.slots.len() < rows.len() {
            // SAFETY: an open relation; the slot lies in the current memory context.
            self.slots.push(unsafe { pg_sys::table_slot_create(self.relation, std::ptr::null_mut()) });
        }
        memory::within(self.scratch, || {
            for (row, &slot) in rows.iter().zip(&self.slots) {
                self.fill(slot, batch, row);
                if self.has_constraints {
                    // SAFETY: a filled slot of this relation.
                    unsafe { pg_sys::ExecConstraints(self.target, slot, self.estate) };
                }
            }
            // SAFETY: marks the transaction as writing.
            let command = unsafe { pg_sys::GetCurrentCommandId(true) };
            // SAFETY: that many filled slots.
            unsafe { pg_sys::heap_multi_insert(self.relation, self.slots.as_mut_ptr(), rows.len() as c_int, command, 0, self.bulk) };
        });
        for &slot in &self.slots[..rows.len()] {
            compat::insert_index_entries(self.target, slot, self.estate);
            clear(slot);
        }
        // SAFETY: nothing in it is used any more.
        unsafe { pg_sys::MemoryContextReset(self.scratch) };
        memory::reset_per_tuple(self.estate);
        // SAFETY: what was inserted becomes visible to the statements that follow.
        unsafe { pg_sys::CommandCounterIncrement() };
    }

    fn fill(&self, slot: *mut pg_sys::TupleTableSlot, batch: &Batch, row: &Row) {
        // SAFETY: a slot of ours.
        let fields = unsafe { &*slot };
        // SAFETY: the slot has as many values as the relation has columns.
        let values = unsafe { std::slice::from_raw_parts_mut(fields.tts_values, self.layout.count) };
        // SAFETY: as above.
        let nulls = unsafe { std::slice::from_raw_parts_mut(fields.tts_isnull, self.layout.count) };
        nulls.fill(false);
        // SAFETY: reads a backend variable.
        let now = pg_sys::Datum::from(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() });
        values[self.layout.id] = text(batch.id(row));
        values[self.layout.txid] = pg_sys::Datum::from(next_version(self.sequence));
        values[self.layout.status] = pg_sys::Datum::from(self.status);
        // A whole varlena in the batch's buffer, which outlives the insert.
        values[self.layout.resource] = pg_sys::Datum::from(batch.resource(row).as_ptr());
        for (column, value) in [(self.layout.cts, now), (self.layout.ts, now), (self.layout.resource_type, self.resource_type)] {
            if let Some(column) = column {
                values[column] = value;
            }
        }
        // SAFETY: an empty slot whose values are set.
        unsafe { pg_sys::ExecStoreVirtualTuple(slot) };
        // SAFETY: a slot of ours.
        unsafe { (*slot).tts_tableOid = self.table };
    }

    /// Closes the table; its lock stays to the transaction's end.
    pub fn close(self) {
        for slot in self.slots {
            // SAFETY: a slot of ours, used no more.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) };
        }
        // SAFETY: made by `open`, as all below.
        unsafe { pg_sys::FreeBulkInsertState(self.bulk) };
        // SAFETY: as above.
        unsafe { pg_sys::ExecCloseResultRelations(self.estate) };
        // SAFETY: as above.
        unsafe { pg_sys::ExecCloseRangeTableRelations(self.estate) };
        // SAFETY: as above.
        unsafe { pg_sys::FreeExecutorState(self.estate) };
        // SAFETY: as above.
        unsafe { pg_sys::MemoryContextDelete(self.scratch) };
        // SAFETY: as above.
        unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as i32) };
    }
}

fn read_only_check(relation: pg_sys::Relation) {
    let class = class(relation);
    // Temporary tables may be written in a read-only transaction.
    if class.relpersistence as u8 != pg_sys::RELPERSISTENCE_TEMP {
        // SAFETY: a NUL-terminated name.
        unsafe { pg_sys::PreventCommandIfReadOnly(c"bulk.load".as_ptr()) };
    }
    // SAFETY: as above.
    unsafe { pg_sys::PreventCommandIfParallelMode(c"bulk.load".as_ptr()) };
}

fn range_table_entry(table: pg_sys::Oid) -> *mut pg_sys::RangeTblEntry {
    // SAFETY: makes a zeroed node.
    let mut rte = unsafe { pgrx::PgBox::<pg_sys::RangeTblEntry>::alloc_node(pg_sys::NodeTag::T_RangeTblEntry) };
    rte.rtekind = pg_sys::RTEKind::RTE_RELATION;
    rte.relid = table;
    rte.relkind = pg_sys::RELKIND_RELATION as std::ffi::c_char;
    rte.rellockmode = pg_sys::RowExclusiveLock as c_int;
    rte.into_pg()
}

fn text(value: &str) -> pg_sys::Datum {
    // SAFETY: the bytes are copied into the current memory context.
    pg_sys::Datum::from(unsafe { pg_sys::cstring_to_text_with_len(value.as_ptr().cast(), value.len() as c_int) })
}

fn default_is_lz4() -> bool {
    // SAFETY: a setting that exists in every version supported.
    let value = unsafe { pg_sys::GetConfigOption(c"default_toast_compression".as_ptr(), true, false) };
    // SAFETY: null or a NUL-terminated string.
    !value.is_null() && unsafe { CStr::from_ptr(value) } == c"lz4"
}

fn next_version(sequence: pg_sys::Oid) -> i64 {
    let next = || {
        // SAFETY: any oid may be asked for; what is no sequence is an ERROR.
        unsafe { nextval_internal(sequence, true) }
    };
    // SAFETY: turns an ERROR of the call into an unwinding; the closure holds nothing to drop.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(next) }
}

fn clear(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: a slot of ours.
    let operations = unsafe { (*slot).tts_ops };
    // SAFETY: every slot has its kind's operations.
    if let Some(clear) = unsafe { (*operations).clear } {
        // SAFETY: the slot's own operation, which raises nothing.
        unsafe { clear(slot) };
    }
}
