//! New rows straight into a table's heap, many at a time, as COPY does it (commands/copyfrom.c), but without
//! its parsing. Only for tables where that equals INSERT, see `fast_path_check`.

use crate::error::Error;
use crate::pg::catalog::fast_path_check::{self, Layout};
use crate::pg::catalog::resource_table::Table;
use crate::pg::sys::padded::Padded;
use crate::pg::sys::unguarded::{nextval_internal, unguarded};
use crate::pg::sys::{compat, error_context, memory_context};
use crate::pg::write::deferred_entries::{DeferredBytes, Entries};
use crate::pipeline::load::batch::{Batch, Row};
use pgrx::pg_sys;
use std::ffi::c_int;

unguarded! {
    fn ExecStoreVirtualTuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;
}

/// Rows, about as many as COPY takes, and bytes of resources, handed to the heap at a time.
const ROWS: usize = 1024;
const BYTES: usize = 2 << 20;
/// Columns of the widest layout.
const COLUMNS: usize = 7;

/// A table that may be written to, and what its columns get that no line says.
#[derive(Debug)]
pub struct HeapTarget {
    pub table: pg_sys::Oid,
    pub layout: Layout,
    /// Value of the enum.
    pub status: pg_sys::Oid,
    /// Where versions come from.
    pub sequence: pg_sys::Oid,
    pub resource_type: String,
    /// Whether the table held nothing before this load.
    pub fresh: bool,
    /// Index entries of the load's tables that wait.
    pub waiting: DeferredBytes,
}

impl HeapTarget {
    /// Looks up what rows of a table are made with.
    ///
    /// # Errors
    /// `Internal` where its `status` knows no `created`.
    pub fn new(
        table: &Table,
        layout: Layout,
        sequence: pg_sys::Oid,
        resource_type: &str,
        waiting: &DeferredBytes,
    ) -> Result<HeapTarget, Error> {
        Ok(HeapTarget {
            table: table.oid,
            layout,
            status: fast_path_check::created_status(table)?,
            sequence,
            resource_type: resource_type.to_owned(),
            fresh: fast_path_check::is_empty(table.oid),
            waiting: waiting.clone(),
        })
    }
}

/// A table that is open for writing. The caller closes it; after an ERROR the transaction's end does.
#[derive(Debug)]
pub struct HeapWriter {
    layout: Layout,
    status: pg_sys::Oid,
    sequence: pg_sys::Oid,
    table: pg_sys::Oid,
    resource_type: pg_sys::Datum,
    relation: pg_sys::Relation,
    estate: *mut pg_sys::EState,
    result_relation: *mut pg_sys::ResultRelInfo,
    bulk: pg_sys::BulkInsertState,
    /// For heap_multi_insert.
    options: c_int,
    has_checks: bool,
    /// Entries of the table's only index that wait; None where there are others.
    entries: Option<Entries>,
    /// A copy of the table's: of the original every slot would be entered with the resource owner, which costs more than the slot.
    descriptor: pg_sys::TupleDesc,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    /// The rows' versions: their own, else the sequence's. Reused.
    versions: Vec<i64>,
    scratch: pg_sys::MemoryContext,
}

impl HeapWriter {
    /// Opens a table whose layout was found good; checks the caller's rights to it.
    pub fn open(target: &HeapTarget) -> HeapWriter {
        let (table, layout) = (target.table, target.layout.clone());
        // SAFETY: a table that exists; the lock is kept to the transaction's end.
        let relation = unsafe { pg_sys::table_open(table, pg_sys::RowExclusiveLock as i32) };
        // SAFETY: a NUL-terminated name.
        unsafe { pg_sys::PreventCommandIfParallelMode(c"bulk.load".as_ptr()) };
        // SAFETY: makes a state in a memory context of its own.
        let estate = unsafe { pg_sys::CreateExecutorState() };
        // What INSERT … ON CONFLICT (id) DO UPDATE takes: an update leaves id and cts alone.
        let id = layout.id as i16 + 1;
        let inserted: Vec<i16> = (1..=layout.count as i16).collect();
        let updated: Vec<i16> =
            inserted.iter().copied().filter(|&number| number != id && Some(number as usize - 1) != layout.cts).collect();
        let access = compat::TableAccess { rte: range_table_entry(table), read: &[id], inserted: &inserted, updated: &updated };
        compat::init_range_table(estate, &access);
        let result_relation = Padded::<pg_sys::ResultRelInfo>::node(pg_sys::NodeTag::T_ResultRelInfo);
        // SAFETY: the range table has this one entry, whose relation is locked.
        unsafe { pg_sys::ExecInitResultRelation(estate, result_relation, 1) };
        compat::check_insert(result_relation);
        // SAFETY: an initialized result relation.
        unsafe { pg_sys::ExecOpenIndices(result_relation, false) };
        // SAFETY: allocates.
        let bulk = unsafe { pg_sys::GetBulkInsertState() };
        // SAFETY: the context of this call, which outlives the writer.
        let parent = unsafe { pg_sys::CurrentMemoryContext };
        let scratch = memory_context::child(parent, c"bulk insert");
        // SAFETY: an open relation.
        let original = unsafe { (*relation).rd_att };
        // SAFETY: the copy lies in the current memory context.
        let descriptor = unsafe { pg_sys::CreateTupleDescCopy(original) };
        HeapWriter {
            descriptor,
            // A table that holds nothing has no holes to fill: its map of free space need not be asked.
            options: if target.fresh { pg_sys::HEAP_INSERT_SKIP_FSM as c_int } else { 0 },
            has_checks: has_checks(relation),
            entries: Entries::of(result_relation, &layout, &target.waiting),
            resource_type: text(&target.resource_type),
            status: target.status,
            sequence: target.sequence,
            layout,
            table,
            relation,
            estate,
            result_relation,
            bulk,
            slots: Vec::new(),
            versions: Vec::new(),
            scratch,
        }
    }

    /// Inserts rows whose ids are not in the table. A duplicate key is an ERROR of PostgreSQL's own.
    ///
    /// # Errors
    /// `Memory`; an ERROR of an index is raised.
    pub fn insert(&mut self, batch: &Batch, rows: &[&Row]) -> Result<(), Error> {
        self.check_unaltered()?;
        error_context::with_context(Some(&batch.extent()), || {
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
        Ok(())
    }

    /// Another table's trigger may have put one on this. (All other changes PostgreSQL refuses while the table is open.)
    fn check_unaltered(&self) -> Result<(), Error> {
        // SAFETY: open as long as the writer.
        let relation = unsafe { &*self.relation };
        // SAFETY: an open relation always has a descriptor.
        let columns = unsafe { (*relation.rd_att).natts };
        if relation.trigdesc.is_null() && relation.rd_rules.is_null() && usize::try_from(columns) == Ok(self.layout.count) {
            return Ok(());
        }
        let table = self.layout.table.clone();
        Err(Error::WrongShape { table, reason: "it was altered while it was loaded".to_owned() })
    }

    fn insert_some(&mut self, batch: &Batch, rows: &[&Row]) {
        while self.slots.len() < rows.len() {
            // SAFETY: the kind of slot that heaps take; it lies in the current memory context.
            self.slots.push(unsafe { pg_sys::MakeSingleTupleTableSlot(self.descriptor, &raw const pg_sys::TTSOpsBufferHeapTuple) });
        }
        let slots = &mut self.slots[..rows.len()];
        self.versions.clear();
        self.versions.extend(rows.iter().map(|row| row.meta.version.unwrap_or_default()));
        if rows.iter().any(|row| row.meta.version.is_none()) {
            next_versions(self.sequence, &mut self.versions);
        }
        // SAFETY: reads a backend variable.
        let now = pg_sys::Datum::from(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() });
        for ((row, &slot), &version) in rows.iter().zip(slots.iter()).zip(&self.versions) {
            let mut values = [pg_sys::Datum::null(); COLUMNS];
            let layout = &self.layout;
            // Whole varlenas in the batch's buffers, which outlive the insert.
            values[layout.id] = pg_sys::Datum::from(batch.id_varlena(row).as_ptr());
            values[layout.resource] = pg_sys::Datum::from(batch.resource(row).as_ptr());
            values[layout.txid] = pg_sys::Datum::from(version);
            values[layout.status] = pg_sys::Datum::from(self.status);
            for (column, value) in [(layout.cts, now), (layout.ts, now), (layout.resource_type, self.resource_type)] {
                if let Some(column) = column {
                    values[column] = value;
                }
            }
            fill(slot, &values[..layout.count], self.table);
        }
        memory_context::within(self.scratch, || {
            for &slot in slots.iter().filter(|_| self.has_checks) {
                // SAFETY: a filled slot of this relation.
                unsafe { pg_sys::ExecConstraints(self.result_relation, slot, self.estate) };
            }
            // SAFETY: marks the transaction as writing.
            let command = unsafe { pg_sys::GetCurrentCommandId(true) };
            let count = slots.len() as c_int;
            // SAFETY: that many filled slots.
            unsafe { pg_sys::heap_multi_insert(self.relation, slots.as_mut_ptr(), count, command, self.options, self.bulk) };
        });
        if let Some(entries) = &mut self.entries {
            entries.push(batch, rows, slots, self.scratch);
        } else {
            // An index is written fastest in its own order.
            let mut order: Vec<(u32, *mut pg_sys::TupleTableSlot)> = rows.iter().map(|row| row.rank).zip(slots.iter().copied()).collect();
            order.sort_unstable_by_key(|&(rank, _)| rank);
            compat::insert_index_entries(self.result_relation, &order, self.estate);
        }
        slots.iter().copied().for_each(clear);
        // SAFETY: nothing in it is used any more.
        unsafe { pg_sys::MemoryContextReset(self.scratch) };
        memory_context::reset_per_tuple(self.estate);
        // SAFETY: what was inserted becomes visible to the statements that follow.
        unsafe { pg_sys::CommandCounterIncrement() };
    }

    /// Makes all index entries: before anybody looks for rows by them.
    pub fn flush(&mut self) {
        if let Some(entries) = &mut self.entries {
            entries.flush(self.scratch);
        }
    }

    /// Closes the table; its lock stays to the transaction's end.
    pub fn close(mut self) {
        self.flush();
        for slot in self.slots {
            // SAFETY: a slot of ours, used no more.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) };
        }
        // SAFETY: made by `open`; the slots are gone.
        unsafe { pg_sys::FreeTupleDesc(self.descriptor) };
        // SAFETY: made by `open`, as all below.
        unsafe { pg_sys::FreeBulkInsertState(self.bulk) };
        // SAFETY: opened with this executor state, and used by nothing after this object.
        unsafe { pg_sys::ExecCloseResultRelations(self.estate) };
        // SAFETY: opened with this executor state, and used by nothing after this object.
        unsafe { pg_sys::ExecCloseRangeTableRelations(self.estate) };
        // SAFETY: made by this object; its relations are closed.
        unsafe { pg_sys::FreeExecutorState(self.estate) };
        // SAFETY: made by this object; nothing in it is used any more.
        unsafe { pg_sys::MemoryContextDelete(self.scratch) };
        // SAFETY: opened by this object; the lock stays to the transaction's end.
        unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as i32) };
    }
}

fn range_table_entry(table: pg_sys::Oid) -> *mut pg_sys::RangeTblEntry {
    let entry = Padded::<pg_sys::RangeTblEntry>::node(pg_sys::NodeTag::T_RangeTblEntry);
    // SAFETY: just allocated in the current memory context.
    let rte = unsafe { &mut *entry };
    rte.rtekind = pg_sys::RTEKind::RTE_RELATION;
    rte.relid = table;
    rte.relkind = pg_sys::RELKIND_RELATION as std::ffi::c_char;
    rte.rellockmode = pg_sys::RowExclusiveLock as c_int;
    entry
}

fn text(value: &str) -> pg_sys::Datum {
    // SAFETY: the bytes are copied into the current memory context.
    pg_sys::Datum::from(unsafe { pg_sys::cstring_to_text_with_len(value.as_ptr().cast(), value.len() as c_int) })
}

/// Whether rows must be looked at before they are stored. That nothing is null need not be looked at: every column gets a value.
fn has_checks(relation: pg_sys::Relation) -> bool {
    // SAFETY: an open relation.
    let descriptor = unsafe { (*relation).rd_att };
    // SAFETY: an open relation always has a descriptor.
    let constraints = unsafe { (*descriptor).constr };
    // SAFETY: what a descriptor points to lives with it.
    !constraints.is_null() && unsafe { (*constraints).num_check } > 0
}

fn next_versions(sequence: pg_sys::Oid, versions: &mut [i64]) {
    let next = || {
        for version in versions {
            // SAFETY: any oid may be asked for; what is no sequence is an ERROR.
            *version = unsafe { nextval_internal(sequence, true) };
        }
    };
    // SAFETY: turns an ERROR of the calls into an unwinding; the closure holds nothing to drop.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(next) }
}

/// Fills a slot, whose columns all have a value.
fn fill(slot: *mut pg_sys::TupleTableSlot, row: &[pg_sys::Datum], table: pg_sys::Oid) {
    // SAFETY: an empty slot of ours.
    let fields = unsafe { &mut *slot };
    // SAFETY: the slot has as many values as the relation has columns.
    let values = unsafe { std::slice::from_raw_parts_mut(fields.tts_values, row.len()) };
    // SAFETY: a slot has as many signs of null as columns, and this is its only reference.
    let nulls = unsafe { std::slice::from_raw_parts_mut(fields.tts_isnull, row.len()) };
    values.copy_from_slice(row);
    nulls.fill(false);
    fields.tts_tableOid = table;
    // SAFETY: an empty slot whose values are set; sets flags and raises nothing.
    unsafe { ExecStoreVirtualTuple(slot) };
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
